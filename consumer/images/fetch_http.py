"""Pictures from web servers: https and http, within one deadline for all attempts, redirects and bytes."""

import re
import time

import httpcore
import httpx

from consumer.errors import Unprocessable
from consumer.images.egress_guard import GuardedNetworkBackend, seconds_left
from consumer.images.fetch_rules import ATTEMPTS, FIRST_PAUSE_S, check_length, printable_line, redacted
from consumer.settings import FetchSettings

MAX_REDIRECTS = 5
SCHEMES = ("https", "http")


class HttpFetcher:
    """Fetches pictures from web servers over shared connections. Thread-safe."""

    def __init__(self, settings: FetchSettings) -> None:
        self._settings = settings
        self._backend = GuardedNetworkBackend(settings.networks, settings.concurrency)
        self._pool = httpcore.ConnectionPool(
            ssl_context=httpx.create_ssl_context(),
            max_connections=None,
            max_keepalive_connections=settings.concurrency,
            keepalive_expiry=30.0,
            network_backend=self._backend,
        )

    def fetch(self, url: str) -> bytes:
        """Return the body at `url` within `timeout_s`. Raises Unprocessable."""
        deadline = time.monotonic() + self._settings.timeout_s
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._follow(_parse(url), deadline)
            except (httpcore.NetworkError, httpcore.ProtocolError, _ServerError) as error:
                if attempt == ATTEMPTS:
                    raise Unprocessable(
                        "unreachable", f"{redacted(url)} cannot be fetched: {printable_line(error)}."
                    ) from None
                pause_s = FIRST_PAUSE_S * 2 ** (attempt - 1)
                time.sleep(max(0.0, min(pause_s, deadline - time.monotonic())))
            except httpcore.TimeoutException:
                raise Unprocessable(
                    "unreachable", f"{redacted(url)} was not fetched within {self._settings.timeout_s:g} s."
                ) from None
        raise AssertionError("unreachable: the last attempt returns or raises")

    def close(self) -> None:
        """Drop the connections."""
        self._pool.close()
        self._backend.close()

    def _follow(self, url: httpx.URL, deadline: float) -> bytes:
        """Return the body behind at most `MAX_REDIRECTS` redirects, each checked as the first URL was."""
        for _ in range(MAX_REDIRECTS + 1):
            self._check_url(url)
            with self._pool.stream(
                "GET",
                httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
                headers={
                    "Host": url.netloc,
                    "Accept": "image/*, */*;q=0.1",
                    "Accept-Encoding": "identity",
                    "User-Agent": "seenit",
                },
                # A duration for the pool, moments for the rest: see GuardedNetworkBackend.
                extensions={
                    "timeout": {"pool": seconds_left(deadline), **dict.fromkeys(("connect", "read", "write"), deadline)}
                },
            ) as response:
                headers = {name.lower(): value for name, value in response.headers}
                location = headers.get(b"location")
                if response.status in (301, 302, 303, 307, 308) and location is not None:
                    url = _parse(location.decode("latin-1"), base=url)
                    continue
                self._check_answer(url, response.status, headers)
                return self._body(url, response)
        raise Unprocessable(
            "unreachable", f"{redacted(str(url))} is one redirect too many; send the address it ends at."
        )

    def _check_url(self, url: httpx.URL) -> None:
        if url.scheme not in SCHEMES or url.scheme not in self._settings.schemes:
            raise Unprocessable("forbidden-address", f"{redacted(str(url))} leads to a scheme that is not allowed.")
        host = url.raw_host.decode("ascii")  # `url.host` decodes IDNA, and fails on what only looks like it
        if not host:
            raise Unprocessable("forbidden-address", f"{redacted(str(url))} names no host.")
        if self._settings.hosts and not any(_host_matches(host, allowed) for allowed in self._settings.hosts):
            raise Unprocessable(
                "forbidden-address",
                f"The host {host[:80]!r} is not allowed; send the picture itself, or have the operator add it to "
                "SEENIT_FETCH_HOSTS.",
            )

    def _check_answer(self, url: httpx.URL, status: int, headers: dict[bytes, bytes]) -> None:
        """Check status and headers before the body is read."""
        if status == 429 or status >= 500:
            raise _ServerError(f"the server answers {status}")
        if status == 206 and not _is_whole(headers.get(b"content-range", b"")):
            raise Unprocessable(
                "broken-image", f"{redacted(str(url))} gives a part of the picture (206), unasked; serve all of it."
            )
        if status not in (200, 203, 206):  # 203: a proxy has changed something on the way
            raise Unprocessable(
                "not-found", f"{redacted(str(url))} has no picture to give: the server answers {status}."
            )
        encoding = headers.get(b"content-encoding", b"identity").strip().lower()
        if encoding not in (b"identity", b""):
            raise Unprocessable(
                "wrong-content-type",
                f"{redacted(str(url))} comes with Content-Encoding {encoding[:20].decode('latin-1')!r}, "
                "which nobody asked for; serve the picture as it is.",
            )
        length = headers.get(b"content-length", b"")
        if length.isdigit():
            check_length(str(url), int(length[:20]), self._settings.max_bytes)

    def _body(self, url: httpx.URL, response: httpcore.Response) -> bytes:
        """Read the body and count its bytes: a server need not announce how many there are."""
        parts, received = [], 0
        for part in response.iter_stream():
            received += len(part)
            check_length(str(url), received, self._settings.max_bytes)
            parts.append(part)
        return b"".join(parts)


class _ServerError(Exception):
    """An answer that may be another the next time."""


def _parse(url: str, base: httpx.URL | None = None) -> httpx.URL:
    try:
        return base.join(url) if base else httpx.URL(url)
    except (httpx.InvalidURL, ValueError) as error:
        raise Unprocessable(
            "forbidden-address", f"{redacted(url)} is no valid address: {printable_line(error)}."
        ) from None


def _is_whole(content_range: bytes) -> bool:
    """Tell whether the range that a server sends is all there is: `bytes 0-99/100`."""
    numbers = re.fullmatch(rb"bytes 0-(\d{1,19})/(\d{1,19})", content_range.strip())
    return numbers is not None and int(numbers[1]) + 1 == int(numbers[2])


def _host_matches(host: str, allowed: str) -> bool:
    host, allowed = host.lower().rstrip("."), allowed.lower()
    return host.endswith(allowed[1:]) if allowed.startswith("*.") else host == allowed
