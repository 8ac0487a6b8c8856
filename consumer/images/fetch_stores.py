"""Pictures from object stores: s3, gs and az.

In `s3://bucket/key` (gs, az alike) the key is taken as it stands, not percent-decoded, as the command lines of the
stores do.
"""

import re
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import AzureStore, GCSStore, S3Store

from consumer.errors import Unavailable, Unprocessable
from consumer.images.fetch_rules import ATTEMPTS, FIRST_PAUSE_S, check_length, printable_line, redacted
from consumer.settings import FetchSettings

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig  # exist for type checkers only

STORES: dict[str, type[S3Store] | type[GCSStore] | type[AzureStore]] = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}
READ_BYTES = 1 << 20

# Bucket names go into host names: nothing but what the stores themselves allow.
BUCKET = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,220}[A-Za-z0-9])?", re.ASCII)

# Answers of a store that are about this service's credentials, not about the object asked for.
CREDENTIAL_FAULTS = (
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
    "TokenRefreshRequired",
    "RequestTimeTooSkewed",
    "AuthenticationFailed",
)
CLIENT_ERROR = re.compile(r"Error performing GET (?P<url>\S+) in .* status code: (?P<status>4\d\d)")
OTHER_REGION = "redirect without LOCATION"  # how S3 answers for a bucket of another region


class StoreFetcher:
    """Fetches pictures from object stores; keeps the clients of the 64 buckets used last. Thread-safe."""

    def __init__(self, settings: FetchSettings) -> None:
        self._settings = settings
        self._store = lru_cache(maxsize=64)(self._open_store)

    def fetch(self, scheme: str, url: str) -> bytes:
        """Return the object at `url`, whose scheme is one of STORES. Raises Unprocessable and Unavailable."""
        bucket, _, key = url[len(scheme) + 1 :].removeprefix("//").partition("/")
        if not BUCKET.fullmatch(bucket) or ".." in bucket:
            raise Unprocessable("forbidden-address", f"{bucket[:80]!r} is no name of a bucket.")
        if self._settings.buckets and bucket not in self._settings.buckets:
            raise Unprocessable(
                "forbidden-address",
                f"The bucket {bucket!r} is not allowed; have the operator add it to SEENIT_FETCH_BUCKETS.",
            )
        if not key or key[0] == "/" or key[-1] == "/":  # obstore would ask for another object, without the slash
            raise Unprocessable("not-found", f"{redacted(url)} names no object that can be asked for.")
        try:
            result = obstore.get(self._store(scheme, bucket), key)
            check_length(url, result.meta["size"], self._settings.max_bytes)
            parts, received = [], 0
            for part in result.stream(min_chunk_size=READ_BYTES):
                received += len(part)
                check_length(url, received, self._settings.max_bytes)
                parts.append(bytes(part))
            return b"".join(parts)
        except FileNotFoundError:
            raise Unprocessable("not-found", f"There is no {redacted(url)}.") from None
        except ValueError:  # a key with empty, `.` or `..` segments or control characters
            raise Unprocessable("not-found", f"{redacted(url)} names no object that can be asked for.") from None
        except BaseError as error:
            raise _translated(url, bucket, error) from None

    def _open_store(self, scheme: str, bucket: str) -> S3Store | GCSStore | AzureStore:
        timeout = timedelta(seconds=self._settings.timeout_s)
        # Plain http is for the operator to choose, by the endpoint; an upload has no say in it.
        client: ClientConfig = {"timeout": timeout, "connect_timeout": timeout / 2, "allow_http": True}
        retry: RetryConfig = {
            "max_retries": ATTEMPTS - 1,
            "retry_timeout": timeout,
            "backoff": {"init_backoff": timedelta(seconds=FIRST_PAUSE_S), "max_backoff": timeout / 4, "base": 2},
        }
        options: dict[str, Any] = {}
        if scheme == "s3":
            options = {"region": self._settings.s3_region}
            if self._settings.s3_endpoint:
                options["endpoint"] = self._settings.s3_endpoint
        return STORES[scheme](bucket, client_options=client, retry_config=retry, **options)


def _translated(url: str, bucket: str, error: BaseError) -> Unprocessable | Unavailable:
    """Tell whether this one object is refused, or the store cannot be asked at the moment.

    One upload must not be able to make the store seem unavailable, nor wrong credentials make all uploads seem bad.
    """
    text = str(error).partition("\n\nDebug source")[0]
    credentials = isinstance(error, UnauthenticatedError) or any(fault in text for fault in CREDENTIAL_FAULTS)
    answer = CLIENT_ERROR.search(text)
    refused = answer is not None and bucket in unquote(answer["url"]) and answer["status"] not in ("401", "408", "429")
    if not credentials and (refused or isinstance(error, PermissionDeniedError)):
        status = answer["status"] if answer else "403"
        return Unprocessable("not-found", f"{redacted(url)} may not be read: the store answers {status}.")
    if not credentials and OTHER_REGION in text:
        return Unprocessable("not-found", f"{redacted(url)} may not be read: the bucket lies in another region.")
    # Without the rest of the answer, which may name keys and what was signed.
    code = re.search(r"<Code>(\w{1,60})</Code>", text)
    summary = text.partition(": <")[0] + (f" ({code[1]})" if code else "")
    return Unavailable("object-store", f"{redacted(url)}: {printable_line(summary)}")
