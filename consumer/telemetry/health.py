"""`/livez`, `/readyz` and `/metrics` on one small port."""

import json
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from prometheus_client import REGISTRY
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import CollectorRegistry

from consumer.errors import Misconfigured

# Name of a dependency -> what is wrong with it; empty when all is well.
Problems = Mapping[str, str]


class _Answer(NamedTuple):
    status: int
    content_type: str
    body: bytes


class _Handler(BaseHTTPRequestHandler):
    """Answers the GET requests of one connection with what `answer` gives for their path."""

    # A client that sends nothing does not keep its thread.
    timeout = 10

    def __init__(self, answer: Callable[[str], _Answer], *connection: Any) -> None:
        self._answer = answer
        super().__init__(*connection)  # handles the connection to its end

    def do_GET(self) -> None:
        status, content_type, body = self._answer(self.path.split("?")[0])
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        # A prober that did not wait for the answer is no news.
        with suppress(ConnectionError):
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class's name)
        """Log nothing: probes come every few seconds, and are not worth a line each."""


class HealthServer:
    """Answers probes from threads of its own, so that a busy or waiting pipeline still answers.

    `live` and `ready` return what is wrong, by name; nothing wrong is status 200, anything else 503. `notes` is what
    whoever reads `/readyz` should know besides. Raises Misconfigured for a port that is taken.
    """

    def __init__(
        self,
        host: str,
        port: int,
        live: Callable[[], Problems],
        ready: Callable[[], Problems],
        registry: CollectorRegistry = REGISTRY,
        notes: Callable[[], Problems] = dict,
    ) -> None:
        self._live = live
        self._ready = ready
        self._notes = notes
        self._registry = registry
        try:
            self._server = ThreadingHTTPServer((host, port), partial(_Handler, self._answer))
        except OSError as error:
            raise Misconfigured(
                f"cannot listen on {host}:{port} ({error.strerror}): SEENIT_HTTP_PORT=0 takes any free port"
            ) from None
        self.url = f"http://{host}:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, name="health", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, path: str) -> _Answer:
        if path == "/metrics":
            return _Answer(200, CONTENT_TYPE_LATEST, generate_latest(self._registry))
        if path == "/livez":
            return _probe_answer(dict(self._live()))
        if path == "/readyz":
            return _probe_answer(dict(self._ready()), self._notes)
        return _Answer(404, "text/plain", b"there are /livez, /readyz and /metrics\n")


def _probe_answer(problems: dict[str, str], notes: Callable[[], Problems] = dict) -> _Answer:
    content: dict[str, object] = {"ok": not problems, "problems": problems}
    if noted := dict(notes()):
        content["notes"] = noted
    return _Answer(503 if problems else 200, "application/json", json.dumps(content).encode())
