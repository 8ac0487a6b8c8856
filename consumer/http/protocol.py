"""The HTTP protocol of uvicorn, with bounds on what a connection may take before a request is known."""

import asyncio
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from consumer.http.problems import problem

# A client has this long to send all headers of a request, on a new connection and on one that is used again.
HEADERS_TIMEOUT_S = 10.0
# Address and headers of a request.
MAX_HEADERS_BYTES = 64 << 10
MAX_HEADERS = 100


class GuardedProtocol(HttpToolsProtocol):
    """Closes connections that are slow to send the headers of a request, or send too many."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._deadline: asyncio.TimerHandle | None = None
        self._header_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as the base class's
        super().connection_made(transport)
        self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._header_bytes = 0
        self._expect_headers()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._stop_waiting()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no request, or has too many headers, as everything else is answered."""
        reply = problem(HTTPStatus.BAD_REQUEST, "bad-request", msg, {"connection": "close"})
        headers = b"".join(name + b": " + value + b"\r\n" for name, value in reply.raw_headers)
        self.transport.write(STATUS_LINE[HTTPStatus.BAD_REQUEST] + headers + b"\r\n" + bytes(reply.body))
        self.transport.close()

    def _count(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > MAX_HEADERS_BYTES or len(self.headers) >= MAX_HEADERS:
            raise ValueError("too many headers")  # the parser gives up, and the client gets 400

    def _expect_headers(self) -> None:
        self._stop_waiting()
        self._deadline = self.loop.call_later(HEADERS_TIMEOUT_S, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
