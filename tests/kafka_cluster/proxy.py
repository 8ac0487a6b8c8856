"""A proxy that knows Kafka's requests: it can keep one back that its client repeats, and deliver it later."""

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Self

from tests.kafka_cluster.cluster import Broker, KafkaCluster

# The end of a transaction has two names here, by what it asks for.
API_KEYS = {
    0: "Produce",
    8: "OffsetCommit",
    22: "InitProducerId",
    24: "AddPartitionsToTxn",
    25: "AddOffsetsToTxn",
    28: "TxnOffsetCommit",
}
END_TXN = 26
FIRST_FLEXIBLE_END_TXN = 3  # in versions from this one, a byte for tagged fields follows what is asked for
WAIT_S = 20.0


@dataclass
class Held:
    """A request that is kept from the broker; `connection` is "closed" to the client, or "silent"."""

    name: str
    connection: Literal["closed", "silent"]
    broker: Broker | None = None
    _frame: bytes = b""
    _caught: threading.Event = field(default_factory=threading.Event)

    def keep(self, frame: bytes, broker: Broker) -> None:
        """Take the request, which was on its way to this broker."""
        self._frame, self.broker = frame, broker
        self._caught.set()

    def wait(self) -> None:
        """Wait until there is such a request."""
        assert self._caught.wait(WAIT_S), f"there was no {self.name}"

    def deliver(self, broker: Broker | None = None) -> bytes:
        """Send the request to its broker, or to this one; return the answer, which its client never sees."""
        self.wait()
        target = broker or self.broker
        assert target is not None
        with socket.create_connection(("127.0.0.1", target.proxied_port), WAIT_S) as connection:
            connection.sendall(struct.pack(">i", len(self._frame)) + self._frame)
            return _read_frame(connection)

    def deliver_end(self, broker: Broker | None = None) -> int:
        """Deliver the end of a transaction; return the error code in the answer."""
        flexible = _version(self._frame) >= FIRST_FLEXIBLE_END_TXN
        (code,) = struct.unpack_from(">h", self.deliver(broker), 9 if flexible else 8)
        return int(code)


class KafkaProxy:
    """Listens where the brokers send clients of their proxied listeners; a context manager."""

    def __init__(self, cluster: KafkaCluster) -> None:
        self.servers = cluster.proxied_servers
        self.seen: list[tuple[str, float]] = []  # requests and when they came, those that were held too
        self._brokers = cluster.brokers
        self._listeners: list[socket.socket] = []
        self._connections: set[socket.socket] = set()
        self._held: list[Held] = []
        self._actions: list[tuple[str, Callable[[], object]]] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        for broker in self._brokers:
            listener = socket.create_server(("127.0.0.1", broker.proxy_port))
            self._listeners.append(listener)
            threading.Thread(target=self._accept, args=(listener, broker), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for listener in self._listeners:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for connection in list(self._connections):
            _shut(connection)

    def hold(self, name: str, connection: Literal["closed", "silent"] = "closed") -> Held:
        """Hold the next request of this name; its connection ends for the client, or answers nothing any more."""
        held = Held(name, connection)
        self._held.append(held)
        return held

    def start_over(self) -> None:
        """Know nothing of what was seen, and of what was still to be held or done."""
        with self._lock:
            self.seen.clear()
            self._held.clear()
            self._actions.clear()

    def forget(self) -> None:
        """Hold nothing of what is still to come."""
        self._held.clear()

    def before(self, name: str, action: Callable[[], object]) -> None:
        """Do something once, right before the next request of this name goes on to its broker."""
        self._actions.append((name, action))

    def _accept(self, listener: socket.socket, broker: Broker) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=self._serve, args=(client, broker), daemon=True).start()

    def _serve(self, client: socket.socket, broker: Broker) -> None:
        self._connections.add(client)
        with (
            client,
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", broker.proxied_port)) as server,
        ):
            threading.Thread(target=_copy, args=(server, client), daemon=True).start()
            while True:
                frame = _read_frame(client)
                if held := self._pass(_name(frame)):
                    held.keep(frame, broker)
                    if held.connection == "silent":
                        _wait_for_end(client)
                    break
                server.sendall(struct.pack(">i", len(frame)) + frame)
            _shut(client)
        self._connections.discard(client)

    def _pass(self, name: str) -> Held | None:
        """Do what is to be done before a request; return what holds it, if anything does."""
        with self._lock:
            self.seen.append((name, time.monotonic()))
            held = next((held for held in self._held if held.name == name), None)
            if held is not None:
                self._held.remove(held)
                return held
            actions = [item for item in self._actions if item[0] == name]
            self._actions = [item for item in self._actions if item[0] != name]
        for _, action in actions:
            action()
        return None


def _name(frame: bytes) -> str:
    (key,) = struct.unpack_from(">h", frame)
    if key != END_TXN:
        return API_KEYS.get(key, str(key))
    return "Commit" if frame[-2 if _version(frame) >= FIRST_FLEXIBLE_END_TXN else -1] else "Abort"


def _version(frame: bytes) -> int:
    return int(struct.unpack_from(">h", frame, 2)[0])


def _read_frame(connection: socket.socket) -> bytes:
    (size,) = struct.unpack(">i", _read(connection, 4))
    return _read(connection, size)


def _read(connection: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = connection.recv(size - len(data))
        if not piece:
            raise ConnectionResetError
        data += piece
    return bytes(data)


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(1 << 16):
            target.sendall(piece)
    _shut(target)


def _wait_for_end(connection: socket.socket) -> None:
    while connection.recv(1 << 16):
        pass


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
