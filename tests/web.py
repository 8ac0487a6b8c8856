"""A web server on loopback whose answers are written by hand, byte by byte where a test needs that."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class Server:
    """A running server: its address, the requests it received, and how many connections they came through."""

    host: str
    port: int
    scheme: str = "http"
    requests: list[str] = field(default_factory=list)
    connections: int = 0

    def url(self, path: str = "/", host: str | None = None) -> str:
        return f"{self.scheme}://{host or self.host}:{self.port}{path}"

    def header(self, name: str) -> str:
        """Return a header of the latest request."""
        lines = self.requests[-1].split("\r\n")[1:]
        return dict(line.split(": ", 1) for line in lines if line)[name]


# Takes a request's path and its connection, writes an answer, and returns True to keep the connection.
Handler = Callable[[str, socket.socket], bool | None]


def answer(
    connection: socket.socket,
    body: bytes = b"",
    status: str = "200 OK",
    headers: tuple[str, ...] = (),
    keep: bool = True,
) -> bool:
    """Write a complete answer; return `keep`, as handlers do."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, *([] if keep else ["Connection: close"])]
    connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
    return keep


@contextmanager
def serve(
    handle: Handler, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None, port: int = 0
) -> Iterator[Server]:
    """Run a server that answers each request by `handle`, each connection in a thread of its own."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family)
    server = Server(host, listener.getsockname()[1], "https" if tls else "http")
    open_connections: list[socket.socket] = []

    def talk(connection: socket.socket) -> None:
        with suppress(OSError):
            if tls:
                connection = tls.wrap_socket(connection, server_side=True)
            open_connections.append(connection)
            received = b""
            while True:
                while b"\r\n\r\n" not in received:
                    more = connection.recv(65536)
                    if not more:
                        return
                    received += more
                request, _, received = received.partition(b"\r\n\r\n")
                server.requests.append(request.decode())
                if not handle(request.decode().split(" ")[1], connection):
                    return

    def talk_and_close(connection: socket.socket) -> None:
        try:
            talk(connection)
        finally:
            connection.close()

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                server.connections += 1
                open_connections.append(connection)
                threading.Thread(target=talk_and_close, args=(connection,), daemon=True).start()

    accepting = threading.Thread(target=accept, daemon=True)
    accepting.start()
    try:
        yield server
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for connection in open_connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        accepting.join()
