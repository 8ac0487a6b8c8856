"""Pictures from object stores: s3, gs and az.

In `s3://bucket/key` (gs, az alike) the key is taken as it stands, not percent-decoded, as the command lines of the
stores do. A version (Google's generation) is named beside it.
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
from consumer.images.fetch_rules import (
    ATTEMPTS,
    CREDENTIAL_FAULTS,
    FIRST_PAUSE_S,
    PASSING_STATUSES,
    check_length,
    printable_line,
    redacted,
    store_error,
)
from consumer.images.fetch_s3_names import S3NameFetcher
from consumer.settings import FetchSettings

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig  # exist for type checkers only

STORES: dict[str, type[S3Store] | type[GCSStore] | type[AzureStore]] = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}
READ_BYTES = 1 << 20

# Bucket names go into host names: nothing but what the stores themselves allow.
BUCKET = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,220}[A-Za-z0-9])?", re.ASCII)

# Names that obstore does not take, or would change: with empty, `.` or `..` segments, or control characters.
ODD_NAME = re.compile(r"(?:^|/)\.{0,2}(?:/|$)|[\x00-\x1f\x7f]")
CLIENT_ERROR = re.compile(r"Error performing GET (?P<url>\S+) in .* status code: (?P<status>4\d\d)")
OTHER_REGION = "redirect without LOCATION"  # how S3 answers for a bucket of another region


class StoreFetcher:
    """Fetches pictures from object stores; keeps the clients of the 64 buckets used last. Thread-safe."""

    def __init__(self, settings: FetchSettings) -> None:
        self._settings = settings
        self._store = lru_cache(maxsize=64)(self._open_store)
        self._s3_names = S3NameFetcher(settings)

    def fetch(self, scheme: str, url: str, version: str | None = None) -> bytes:
        """Return the object at `url`, in one version if that is named; the scheme is one of STORES.

        Raises Unprocessable and Unavailable.
        """
        bucket, _, key = url[len(scheme) + 1 :].removeprefix("//").partition("/")
        if not BUCKET.fullmatch(bucket) or ".." in bucket:
            raise Unprocessable("forbidden-address", f"{bucket[:80]!r} is no name of a bucket.")
        if self._settings.buckets and bucket not in self._settings.buckets:
            raise Unprocessable(
                "forbidden-address",
                f"The bucket {bucket!r} is not allowed; have the operator add it to SEENIT_FETCH_BUCKETS.",
            )
        if not key:
            raise Unprocessable("not-found", f"{redacted(url)} names no object.")
        if ODD_NAME.search(key):
            # Who tidies `..` up on the way would take it for a way out of the bucket, maybe into one not allowed.
            if scheme == "s3" and ".." not in key.split("/"):
                return self._s3_names.fetch(url, bucket, key, version)
            raise _odd_name(url)
        try:
            result = obstore.get(self._store(scheme, bucket), key, options={"version": version} if version else {})
            check_length(url, result.meta["size"], self._settings.max_bytes)
            parts, received = [], 0
            for part in result.stream(min_chunk_size=READ_BYTES):
                received += len(part)
                check_length(url, received, self._settings.max_bytes)
                parts.append(bytes(part))
            return b"".join(parts)
        except FileNotFoundError:
            raise Unprocessable("not-found", f"There is no {redacted(url)}.") from None
        except ValueError:  # a half of a surrogate pair, say
            raise _odd_name(url) from None
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


def _odd_name(url: str) -> Unprocessable:
    return Unprocessable(
        "not-supported",
        f"{redacted(url)} has empty, '.' or '..' segments or characters that cannot be asked for; rename the object.",
    )


def _translated(url: str, bucket: str, error: BaseError) -> Unprocessable | Unavailable:
    """Tell whether this one object is refused, or the store cannot be asked at the moment.

    One upload must not be able to make the store seem unavailable, nor wrong credentials make all uploads seem bad.
    """
    text = str(error).partition("\n\nDebug source")[0]
    credentials = isinstance(error, UnauthenticatedError) or any(fault in text for fault in CREDENTIAL_FAULTS)
    answer = CLIENT_ERROR.search(text)
    refused = answer is not None and bucket in unquote(answer["url"]) and answer["status"] not in PASSING_STATUSES
    if not credentials and (refused or isinstance(error, PermissionDeniedError)):
        return store_error(url, answer["status"] if answer else "403", "")
    if not credentials and OTHER_REGION in text:
        return Unprocessable("not-found", f"{redacted(url)} may not be read: the bucket lies in another region.")
    # Without the rest of the answer, which may name keys and what was signed.
    code = re.search(r"<Code>(\w{1,60})</Code>", text)
    summary = text.partition(": <")[0] + (f" ({code[1]})" if code else "")
    return Unavailable("object-store", f"{redacted(url)}: {printable_line(summary)}")
