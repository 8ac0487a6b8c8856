"""Harm to Kafka's requests by their names, on links that know its frames: held back, unanswered, cut off, slow."""

import asyncio
import contextlib
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import TypeVar

from tests.kafka_cluster.cluster import KafkaCluster
from tests.network import Connection, Direction, Link, Side

# The end of a transaction has two names here, by what it asks for.
API_KEYS = {
    0: "Produce",
    8: "OffsetCommit",
    10: "FindCoordinator",
    12: "Heartbeat",
    22: "InitProducerId",
    24: "AddPartitionsToTxn",
    25: "AddOffsetsToTxn",
    28: "TxnOffsetCommit",
    68: "ConsumerGroupHeartbeat",
}
END_TXN = 26
FIRST_FLEXIBLE_END_TXN = 3  # in versions from this one, a byte for tagged fields follows what is asked for
REMEMBERED = 10_000  # requests
WAIT_S = 20.0

R = TypeVar("R", bound="Rule")
Deed = Callable[["KafkaConnection", bytes], Awaitable[bytes]]


class Rule:
    """What is done to the next request of one of these names; `deed` returns what of it goes on to the broker."""

    def __init__(self, names: tuple[str, ...], deed: Deed) -> None:
        self.names = names
        self._deed = deed
        self._met = threading.Event()

    async def apply(self, connection: "KafkaConnection", frame: bytes) -> bytes:
        """Do it."""
        self._met.set()
        return await self._deed(connection, frame)

    def is_met(self, within_s: float = WAIT_S) -> bool:
        """Wait until there is such a request; tell whether there was one in time."""
        return self._met.wait(within_s)


class Held(Rule):
    """A request that is kept from the broker at `server_port`; its connection ends, or answers nothing any more."""

    def __init__(self, names: tuple[str, ...], *, silent: bool) -> None:
        async def fail(connection: KafkaConnection, _: bytes) -> bytes:
            connection.fail(silent=silent)
            return b""

        super().__init__(names, fail)
        self.server_port = 0
        self._frame = b""

    async def apply(self, connection: "KafkaConnection", frame: bytes) -> bytes:
        self._frame, self.server_port = frame, connection.link.server_port
        return await super().apply(connection, frame)

    def wait(self) -> None:
        """Wait until there is such a request."""
        assert self.is_met(), f"there was no {' or '.join(self.names)}"

    def deliver(self, server_port: int | None = None) -> bytes:
        """Send the request to its broker, or to this one; return the answer, which its client never sees."""
        self.wait()
        with socket.create_connection(("127.0.0.1", server_port or self.server_port), WAIT_S) as connection:
            connection.sendall(self._frame)
            with connection.makefile("rb") as answers:
                size = answers.read(4)
                if len(size) < 4:
                    raise ConnectionResetError
                return answers.read(*struct.unpack(">i", size))

    def deliver_end(self, server_port: int | None = None) -> int:
        """Deliver the end of a transaction; return the error code in the answer."""
        flexible = _version(self._frame) >= FIRST_FLEXIBLE_END_TXN
        (code,) = struct.unpack_from(">h", self.deliver(server_port), 9 if flexible else 8)
        return int(code)


class Requests:
    """The requests on the links to a cluster. Methods may be called from any thread; each rule is for one request."""

    def __init__(self) -> None:
        self.seen: deque[tuple[str, float]] = deque(maxlen=REMEMBERED)  # and when they came, those that were held too
        self._rules: list[Rule] = []
        self._lock = threading.Lock()

    def links(self, cluster: KafkaCluster) -> list[Link]:
        """Make the links that the brokers send clients of their proxied listeners to."""
        connect = partial(KafkaConnection, self)
        return [Link(broker.proxy_port, broker.proxied_port, connect) for broker in cluster.brokers]

    def start_over(self) -> None:
        """Know nothing of what was seen, and do nothing of what was still to be done."""
        self.seen.clear()
        self.forget()

    def forget(self) -> None:
        """Do nothing to what is still to come."""
        with self._lock:
            self._rules.clear()

    def hold(self, *names: str, silent: bool = False) -> Held:
        """Hold the next request; its connection ends for the client, or is silent."""
        return self._add(Held(names, silent=silent))

    def before(self, *names: str, action: Callable[[], object]) -> Rule:
        """Do something right before the next request goes on to its broker."""

        async def act(_: KafkaConnection, frame: bytes) -> bytes:
            await asyncio.to_thread(action)
            return frame

        return self._add(Rule(names, act))

    def delay(self, *names: str, delay_s: float) -> Rule:
        """Let the next request, and what comes behind it on its connection, go on later."""

        async def wait(_: KafkaConnection, frame: bytes) -> bytes:
            await asyncio.sleep(delay_s)
            return frame

        return self._add(Rule(names, wait))

    def cut_off(self, *names: str) -> Rule:
        """Reset the connection in the middle of the next request."""

        async def cut(connection: KafkaConnection, frame: bytes) -> bytes:
            await connection.write(connection.server, frame[: len(frame) // 2])
            connection.fail()
            return b""

        return self._add(Rule(names, cut))

    def lose_answer(self, *names: str, silent: bool = False) -> Rule:
        """Lose the answer to the next request; the connection ends for the client then, or is silent from there on."""

        async def lose(connection: KafkaConnection, frame: bytes) -> bytes:
            connection.lose_answer(frame, silent=silent)
            return frame

        return self._add(Rule(names, lose))

    def withdraw(self, rule: Rule) -> None:
        """Do nothing more by this rule."""
        with self._lock:
            if rule in self._rules:
                self._rules.remove(rule)

    def _add(self, rule: R) -> R:
        with self._lock:
            self._rules.append(rule)
        return rule

    def take_rule(self, name: str) -> Rule | None:
        """Note a request, and take the first rule that is for it out of the list, if there is one."""
        self.seen.append((name, time.monotonic()))
        with self._lock:
            rule = next((rule for rule in self._rules if name in rule.names), None)
            if rule is not None:
                self._rules.remove(rule)
            return rule


class KafkaConnection(Connection):
    """A client's connection to a broker; a piece on it is a request or an answer, with its size before it."""

    def __init__(self, requests: Requests, link: Link, client: Side, server: Side) -> None:
        super().__init__(link, client, server)
        self._requests = requests
        self._unanswered: dict[bytes, bool] = {}  # by correlation id, whether the connection is silent then

    async def read(self, reader: asyncio.StreamReader) -> bytes:
        size = b""
        try:
            size = await reader.readexactly(4)
            return size + await reader.readexactly(*struct.unpack(">i", size))
        except asyncio.IncompleteReadError as ended:
            return size + ended.partial

    async def meet(self, direction: Direction, piece: bytes) -> bytes:
        if direction == "up":
            rule = self._requests.take_rule(_name(piece))
            return piece if rule is None else await rule.apply(self, piece)
        silent = self._unanswered.pop(piece[4:8], None)
        if silent is None:
            return piece
        self.fail(silent=silent)
        return b""

    def lose_answer(self, frame: bytes, *, silent: bool) -> None:
        """Pass nothing on to the client from the answer to this request on."""
        self._unanswered[frame[8:12]] = silent

    def fail(self, *, silent: bool = False) -> None:
        """End for both sides, or stay open for the client and pass nothing on."""
        if silent:
            self.forget()
        else:
            self.reset()


@contextlib.contextmanager
def requests_of(cluster: KafkaCluster) -> Iterator[Requests]:
    """Stand between a cluster and the clients of its proxied listeners."""
    requests = Requests()
    links = requests.links(cluster)
    for link in links:
        link.start()
    try:
        yield requests
    finally:
        for link in links:
            link.close()


def _name(frame: bytes) -> str:
    if len(frame) < 8:  # the client ended in the middle of it
        return ""
    (key,) = struct.unpack_from(">h", frame, 4)
    if key != END_TXN:
        return API_KEYS.get(key, str(key))
    return "Commit" if frame[-2 if _version(frame) >= FIRST_FLEXIBLE_END_TXN else -1] else "Abort"


def _version(frame: bytes) -> int:
    return int(struct.unpack_from(">h", frame, 6)[0])
