"""`/livez`, `/readyz` and `/metrics` on one small port."""

import json
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import REGISTRY
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import CollectorRegistry

from consumer.errors import Misconfigured

# Name of a dependency -> what is wrong with it; empty when all is well.
Problems = Mapping[str, str]


class HealthServer:
    """Answers probes from threads of its own, so that a busy or waiting pipeline still answers.

    `live` and `ready` return what is wrong, by name; nothing wrong is status 200, anything else 503. `notes` is what
    whoever reads `/readyz` should know besides.
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
        probes = {"/livez": live, "/readyz": ready}

        class Handler(BaseHTTPRequestHandler):
            # A client that sends nothing does not keep its thread.
            timeout = 10

            def do_GET(self) -> None:
                path = self.path.split("?")[0]
                if path == "/metrics":
                    self._answer(200, CONTENT_TYPE_LATEST, generate_latest(registry))
                elif path in probes:
                    problems = dict(probes[path]())
                    answer: dict[str, object] = {"ok": not problems, "problems": problems}
                    if path == "/readyz" and (noted := dict(notes())):
                        answer["notes"] = noted
                    body = json.dumps(answer).encode()
                    self._answer(503 if problems else 200, "application/json", body)
                else:
                    self._answer(404, "text/plain", b"there are /livez, /readyz and /metrics\n")

            def _answer(self, status: int, content_type: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                # A prober that did not wait for the answer is no news.
                with suppress(ConnectionError):
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class's name)
                """Probes come every few seconds: not worth a line each."""

        try:
            self._server = ThreadingHTTPServer((host, port), Handler)
        except OSError as error:
            raise Misconfigured(
                f"cannot listen on {host}:{port} ({error.strerror}): SEENIT_HTTP_PORT=0 takes any free port"
            ) from None
        self._server.daemon_threads = True
        self.url = f"http://{host}:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, name="health", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
