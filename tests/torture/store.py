"""An object store that has as much of S3's interface as reading takes, and can be broken or away."""

import threading
from datetime import UTC, datetime
from email.utils import format_datetime
from hashlib import md5
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

from tests.processes import free_ports

BUCKET = "pictures"


class ObjectStore:
    """A bucket in memory, on a port that stays the same; a context manager.

    If `error` is set, it answers with that status instead of the picture.
    """

    def __init__(self) -> None:
        [self.port] = free_ports(1)
        self.error: int | None = None
        self._objects: dict[str, bytes] = {}
        self._server: ThreadingHTTPServer | None = None

    def put(self, name: str, data: bytes) -> str:
        """Store an object; return its address."""
        self._objects[f"/{BUCKET}/{name}"] = data
        return f"s3://{BUCKET}/{name}"

    def clear(self) -> None:
        """Remove every object."""
        self._objects.clear()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Answer requests, without error."""
        self.error = None
        if self._server is None:
            self._server = ThreadingHTTPServer(("127.0.0.1", self.port), self._handler())
            self._server.daemon_threads = True
            threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Refuse connections."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        store, objects = self, self._objects

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(body=True)

            def do_HEAD(self) -> None:
                self._answer(body=False)

            def _answer(self, *, body: bool) -> None:
                data = objects.get(self.path.partition("?")[0])
                if store.error is not None or data is None:
                    self.send_error(store.error or 404)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.send_header("ETag", f'"{md5(data, usedforsecurity=False).hexdigest()}"')
                self.send_header("Last-Modified", format_datetime(datetime.now(UTC), usegmt=True))
                self.end_headers()
                if body:
                    self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class's name)
                """Log nothing."""

        return Handler
