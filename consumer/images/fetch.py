"""The bytes of a picture by its address: https, http, s3, gs, az and file, within limits of bytes and time.

Addresses come from strangers. What no setting allows is refused before anything is asked; see `addresses` for where
http(s) may connect to. In `s3://bucket/key` (gs, az alike) the key is taken as it stands, not percent-decoded, as the
command lines of the stores do; in `file://` it is decoded, as URLs are.
"""

import os
import re
import stat
import time
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import unquote

import httpcore
import httpx
import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import AzureStore, GCSStore, S3Store

from consumer.errors import Unavailable, Unprocessable
from consumer.images.egress_guard import GuardedNetworkBackend, seconds_left
from consumer.settings import FetchSettings

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig  # exist for type checkers only

MAX_REDIRECTS = 5
ATTEMPTS = 3  # a host that fails so often within the deadline is left alone
FIRST_PAUSE_S = 0.1
READ_BYTES = 1 << 20

HTTP = ("https", "http")
STORES: dict[str, type[S3Store] | type[GCSStore] | type[AzureStore]] = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}

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
REFUSED = re.compile(r"Error performing GET (?P<url>\S+) in .* status code: (?P<status>4\d\d)")
ELSEWHERE = "redirect without LOCATION"  # how S3 answers for a bucket of another region


class Fetcher:
    """Fetches pictures; safe to use from many threads, which share its connections.

    A context manager; `close` drops the connections.
    """

    def __init__(self, settings: FetchSettings) -> None:
        self._settings = settings
        self._folders = tuple(folder.resolve() for folder in settings.folders)
        self._schemes = {*settings.schemes, *(["s3"] if settings.s3_endpoint else [])}
        self._backend = GuardedNetworkBackend(settings.networks, settings.concurrency)
        self._pool = httpcore.ConnectionPool(
            ssl_context=httpx.create_ssl_context(),
            max_connections=None,
            max_keepalive_connections=settings.concurrency,
            keepalive_expiry=30.0,
            network_backend=self._backend,
        )
        self._store = lru_cache(maxsize=64)(self._open_store)

    def fetch(self, url: str) -> bytes:
        """The bytes at `url`. Blocks for `timeout_s` at most (for object stores, up to twice that).

        Raises `Unprocessable` for what is the upload's own fault, `Unavailable("object-store", ...)` when a store
        cannot be asked at the moment.
        """
        scheme = url.partition(":")[0].lower()
        if scheme == "file":
            return self._fetch_file(url)
        if scheme not in self._schemes:
            raise Unprocessable(
                "forbidden-address",
                f"Addresses of the form {scheme[:20]!r} are not fetched; send the picture itself, or have the operator "
                "add the scheme to SEENIT_FETCH_SCHEMES.",
            )
        return self._fetch_object(scheme, url) if scheme in STORES else self._fetch_http(url)

    def close(self) -> None:
        self._pool.close()
        self._backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Web servers

    def _fetch_http(self, url: str) -> bytes:
        deadline = time.monotonic() + self._settings.timeout_s
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._follow(self._parsed(url), deadline)
            except (httpcore.NetworkError, httpcore.ProtocolError, _ServerError) as error:
                if attempt == ATTEMPTS:
                    raise Unprocessable("unreachable", f"{_shown(url)} cannot be fetched: {_line(error)}.") from None
                pause_s = FIRST_PAUSE_S * 2 ** (attempt - 1)
                time.sleep(max(0.0, min(pause_s, deadline - time.monotonic())))
            except httpcore.TimeoutException:
                raise Unprocessable(
                    "unreachable", f"{_shown(url)} was not fetched within {self._settings.timeout_s:g} s."
                ) from None
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _follow(self, url: httpx.URL, deadline: float) -> bytes:
        """The body behind at most `MAX_REDIRECTS` redirects, each checked as the first address was."""
        for _ in range(MAX_REDIRECTS + 1):
            self._check_http(url)
            with self._pool.stream(
                "GET",
                httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
                headers={
                    "Host": url.netloc,
                    "Accept": "image/*, */*;q=0.1",
                    "Accept-Encoding": "identity",
                    "User-Agent": "seenit",
                },
                # A duration for the pool, moments for the rest: see GuardedBackend.
                extensions={
                    "timeout": {"pool": seconds_left(deadline), **dict.fromkeys(("connect", "read", "write"), deadline)}
                },
            ) as response:
                headers = {name.lower(): value for name, value in response.headers}
                location = headers.get(b"location")
                if response.status in (301, 302, 303, 307, 308) and location is not None:
                    url = self._parsed(location.decode("latin-1"), base=url)
                    continue
                self._check_answer(url, response.status, headers)
                return self._body(url, response)
        raise Unprocessable("unreachable", f"{_shown(str(url))} is one redirect too many; send the address it ends at.")

    def _parsed(self, url: str, base: httpx.URL | None = None) -> httpx.URL:
        try:
            return base.join(url) if base else httpx.URL(url)
        except (httpx.InvalidURL, ValueError) as error:
            raise Unprocessable("forbidden-address", f"{_shown(url)} is no valid address: {_line(error)}.") from None

    def _check_http(self, url: httpx.URL) -> None:
        if url.scheme not in HTTP or url.scheme not in self._schemes:
            raise Unprocessable("forbidden-address", f"{_shown(str(url))} leads to a scheme that is not allowed.")
        host = url.raw_host.decode("ascii")  # `url.host` decodes IDNA, and fails on what only looks like it
        if not host:
            raise Unprocessable("forbidden-address", f"{_shown(str(url))} names no host.")
        if self._settings.hosts and not any(_host_matches(host, allowed) for allowed in self._settings.hosts):
            raise Unprocessable(
                "forbidden-address",
                f"The host {host[:80]!r} is not allowed; send the picture itself, or have the operator add it to "
                "SEENIT_FETCH_HOSTS.",
            )

    def _check_answer(self, url: httpx.URL, status: int, headers: dict[bytes, bytes]) -> None:
        if status == 429 or status >= 500:
            raise _ServerError(f"the server answers {status}")
        if status != 200:
            raise Unprocessable("not-found", f"{_shown(str(url))} has no picture to give: the server answers {status}.")
        encoding = headers.get(b"content-encoding", b"identity").strip().lower()
        if encoding not in (b"identity", b""):
            raise Unprocessable(
                "wrong-content-type",
                f"{_shown(str(url))} comes with Content-Encoding {encoding[:20].decode('latin-1')!r}, "
                "which nobody asked for; serve the picture as it is.",
            )
        length = headers.get(b"content-length", b"")
        if length.isdigit():
            self._check_length(str(url), int(length[:20]))

    def _body(self, url: httpx.URL, response: httpcore.Response) -> bytes:
        parts, received = [], 0
        for part in response.iter_stream():
            received += len(part)
            self._check_length(str(url), received)
            parts.append(part)
        return b"".join(parts)

    def _check_length(self, url: str, length: int) -> None:
        if length > self._settings.max_bytes:
            raise Unprocessable(
                "too-large", f"{_shown(url)} has more than {self._settings.max_bytes} bytes; send a smaller file."
            )

    # Object stores

    def _fetch_object(self, scheme: str, url: str) -> bytes:
        bucket, _, key = url[len(scheme) + 1 :].removeprefix("//").partition("/")
        if not BUCKET.fullmatch(bucket) or ".." in bucket:
            raise Unprocessable("forbidden-address", f"{bucket[:80]!r} is no name of a bucket.")
        if self._settings.buckets and bucket not in self._settings.buckets:
            raise Unprocessable(
                "forbidden-address",
                f"The bucket {bucket!r} is not allowed; have the operator add it to SEENIT_FETCH_BUCKETS.",
            )
        if not key or key[0] == "/" or key[-1] == "/":  # obstore would ask for another object, without the slash
            raise Unprocessable("not-found", f"{_shown(url)} names no object that can be asked for.")
        try:
            result = obstore.get(self._store(scheme, bucket), key)
            self._check_length(url, result.meta["size"])
            parts, received = [], 0
            for part in result.stream(min_chunk_size=READ_BYTES):
                received += len(part)
                self._check_length(url, received)
                parts.append(bytes(part))
            return b"".join(parts)
        except FileNotFoundError:
            raise Unprocessable("not-found", f"There is no {_shown(url)}.") from None
        except ValueError:  # a key with empty, `.` or `..` segments or control characters
            raise Unprocessable("not-found", f"{_shown(url)} names no object that can be asked for.") from None
        except BaseError as error:
            raise self._store_error(url, bucket, error) from None

    def _store_error(self, url: str, bucket: str, error: BaseError) -> Unprocessable | Unavailable:
        """Whether this one object is refused, or the store cannot be asked at the moment.

        One upload must not be able to make the store look away, nor wrong credentials make all uploads look bad.
        """
        said = str(error).partition("\n\nDebug source")[0]
        ours = isinstance(error, UnauthenticatedError) or any(fault in said for fault in CREDENTIAL_FAULTS)
        answer = REFUSED.search(said)
        refused = (
            answer is not None and bucket in unquote(answer["url"]) and answer["status"] not in ("401", "408", "429")
        )
        if not ours and (refused or isinstance(error, PermissionDeniedError)):
            status = answer["status"] if answer else "403"
            return Unprocessable("not-found", f"{_shown(url)} may not be read: the store answers {status}.")
        if not ours and ELSEWHERE in said:
            return Unprocessable("not-found", f"{_shown(url)} may not be read: the bucket lies in another region.")
        # Without the rest of the answer, which may name keys and what was signed.
        code = re.search(r"<Code>(\w{1,60})</Code>", said)
        summary = said.partition(": <")[0] + (f" ({code[1]})" if code else "")
        return Unavailable("object-store", f"{_shown(url)}: {_line(summary)}")

    def _open_store(self, scheme: str, bucket: str) -> S3Store | GCSStore | AzureStore:
        bound = timedelta(seconds=self._settings.timeout_s)
        # Plain http is for the operator to choose, by the endpoint; an upload has no say in it.
        client: ClientConfig = {"timeout": bound, "connect_timeout": bound / 2, "allow_http": True}
        retry: RetryConfig = {
            "max_retries": ATTEMPTS - 1,
            "retry_timeout": bound,
            "backoff": {"init_backoff": timedelta(seconds=FIRST_PAUSE_S), "max_backoff": bound / 4, "base": 2},
        }
        options: dict[str, Any] = {}
        if scheme == "s3":
            options = {"region": self._settings.s3_region}
            if self._settings.s3_endpoint:
                options["endpoint"] = self._settings.s3_endpoint
        return STORES[scheme](bucket, client_options=client, retry_config=retry, **options)

    # Files

    def _fetch_file(self, url: str) -> bytes:
        host, _, path = url.partition(":")[2].removeprefix("//").partition("/")
        named = Path("/" + unquote(path, errors="surrogateescape"))
        if host not in ("", "localhost") or "\0" in str(named):
            raise Unprocessable("forbidden-address", f"{_shown(url)} is no address of a file here.")
        try:
            resolved = named.resolve(strict=False)
        except (OSError, RuntimeError):  # a loop of symbolic links
            raise Unprocessable("not-found", f"There is no {_shown(url)}.") from None
        for folder in self._folders:
            if resolved.is_relative_to(folder):
                return self._read(url, folder, resolved.relative_to(folder).parts)
        raise Unprocessable(
            "forbidden-address",
            f"{_shown(url)} lies in no folder that may be read; send the picture itself, or have the operator add its "
            "folder to SEENIT_FETCH_FOLDERS.",
        )

    def _read(self, url: str, folder: Path, parts: tuple[str, ...]) -> bytes:
        """Opens folder by folder without following links, so that a link put there after the check leads nowhere."""
        fd = -1
        try:
            fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            for position, part in enumerate(parts, start=1):
                # O_NONBLOCK, since opening a pipe would wait for its writer.
                flags = os.O_RDONLY | os.O_NONBLOCK if position == len(parts) else os.O_PATH | os.O_DIRECTORY
                outer, fd = fd, os.open(part, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
                os.close(outer)
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise Unprocessable("not-found", f"{_shown(url)} is no regular file.")
            with open(fd, "rb", closefd=False) as file:
                data = file.read(self._settings.max_bytes + 1)
        except OSError as error:
            raise Unprocessable(
                "not-found", f"{_shown(url)} cannot be read: {os.strerror(error.errno or 0)}."
            ) from None
        finally:
            if fd >= 0:
                os.close(fd)
        self._check_length(url, len(data))
        return data


class _ServerError(Exception):
    """An answer that may be another the next time."""


def _host_matches(host: str, allowed: str) -> bool:
    host, allowed = host.lower().rstrip("."), allowed.lower()
    return host.endswith(allowed[1:]) if allowed.startswith("*.") else host == allowed


def _shown(url: str) -> str:
    """The address fit for a log: without user, password, query and fragment, which may hold secrets."""
    scheme, colon, rest = url.partition(":")
    rest = re.split(r"[?#]", rest, maxsplit=1)[0]
    if rest.startswith("//"):
        authority, slash, path = rest[2:].partition("/")
        rest = "//" + authority.rpartition("@")[2] + slash + path
    return _line(scheme + colon + rest)


def _line(text: object) -> str:
    """One printable line, of bounded length, without the queries of addresses in it."""
    said = re.sub(r"\?\S+", "", str(text))[:300]
    return "".join(c if c.isprintable() else "\ufffd" for c in said) or type(text).__name__
