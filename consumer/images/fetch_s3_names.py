"""Objects of S3 under names that obstore cannot ask for: with empty or `.` segments, or control characters.

S3 takes any name, and clients that join paths carelessly make such. botocore signs the request for the name as it is,
and is loaded when the first one is asked for.
"""

import os
import re
import threading
import time
from contextlib import closing
from typing import Any
from urllib.parse import quote

from consumer.errors import Unavailable
from consumer.images.fetch_rules import check_length, printable_line, redacted, store_error
from consumer.settings import FetchSettings

READ_BYTES = 1 << 20
MAX_ERROR_BYTES = 64 << 10
# With this variable the other client sends requests unsigned, for public buckets; how it may say yes.
UNSIGNED_VARIABLE = "AWS_SKIP_SIGNATURE"
YES = frozenset({"1", "true", "on", "yes", "y"})


class S3NameFetcher:
    """Fetches objects of S3 by any name. Thread-safe."""

    def __init__(self, settings: FetchSettings) -> None:
        self._settings = settings
        self._base = settings.s3_endpoint.rstrip("/") or f"https://s3.{settings.s3_region}.amazonaws.com"
        self._credentials: Any = None
        self._session: Any = None
        self._opening = threading.Lock()

    def fetch(self, url: str, bucket: str, key: str, version: str | None) -> bytes:
        """Return an object, in one version if that is named. Raises Unprocessable and Unavailable."""
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 (see above)
        from urllib3.exceptions import HTTPError  # noqa: PLC0415

        deadline = time.monotonic() + 2 * self._settings.timeout_s
        try:
            answer = self._get(bucket, key, version)
            with closing(answer.raw):  # a connection on which not all was read is of no further use
                return self._read(url, answer, deadline)
        # The last two also come from what asks for credentials: of another service, or in a file that is not there.
        except (BotoCoreError, HTTPError, ValueError, ClientError, OSError) as error:
            raise Unavailable("object-store", f"{redacted(url)}: {printable_line(error)}") from None

    def _read(self, url: str, answer: Any, deadline: float) -> bytes:
        """Read an answer. Raises Unprocessable, Unavailable, HTTPError and ValueError."""
        if answer.status_code != 200:
            code = re.search(rb"<Code>(\w{1,60})</Code>", answer.raw.read1(MAX_ERROR_BYTES))
            raise store_error(url, str(answer.status_code), code[1].decode() if code else "")
        check_length(url, int(answer.headers.get("Content-Length", 0)), self._settings.max_bytes)
        parts, received = [], 0
        while part := answer.raw.read1(READ_BYTES):  # what has arrived: a store that drips is noticed
            received += len(part)
            check_length(url, received, self._settings.max_bytes)
            if time.monotonic() > deadline:
                raise Unavailable("object-store", f"{redacted(url)} was not read in time")
            parts.append(part)
        return b"".join(parts)

    def _get(self, bucket: str, key: str, version: str | None) -> Any:
        """Ask for an object; return the answer, of which only the headers are read. Raises as `_open` does."""
        from botocore.auth import S3SigV4Auth  # noqa: PLC0415 (see above)
        from botocore.awsrequest import AWSRequest  # noqa: PLC0415

        address = f"{self._base}/{bucket}/{quote(key, safe='/~')}"
        if version is not None:
            address += f"?versionId={quote(version, safe='')}"
        request = AWSRequest("GET", address, stream_output=True)
        credentials = self._open()
        if credentials is not None:
            S3SigV4Auth(credentials, "s3", self._settings.s3_region).add_auth(request)
        return self._session.send(request.prepare())

    def _open(self) -> Any:
        """Find the credentials, once; return those of the moment, or None where requests are not signed.

        Raises BotoCoreError, ClientError and OSError.
        """
        from botocore.exceptions import NoCredentialsError  # noqa: PLC0415 (see above)
        from botocore.httpsession import URLLib3Session  # noqa: PLC0415
        from botocore.session import Session  # noqa: PLC0415

        with self._opening:
            if self._session is None:
                self._session = URLLib3Session(
                    timeout=self._settings.timeout_s, max_pool_connections=self._settings.concurrency
                )
            if os.environ.get(UNSIGNED_VARIABLE, "").lower() in YES:
                return None
            self._credentials = self._credentials or Session().get_credentials()
            if self._credentials is None:
                raise NoCredentialsError
            return self._credentials.get_frozen_credentials()
