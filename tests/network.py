"""A network that fails on demand: a `Link` stands between clients and a server, and does harm to what passes.

Toxiproxy, the usual tool for this, is to be had as a Go module only, and cannot keep what a client sent and deliver it
after the client has connected again.
"""

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from functools import cache
from typing import Any, Literal, TypeVar

T = TypeVar("T")

PIECE_BYTES = 1 << 16
PIECES = 16  # on the way in one direction of a connection; with more, the sender has to wait
CALL_TIMEOUT_S = 10.0

Direction = Literal["up", "down"]  # to the server, to the client
BOTH: tuple[Direction, ...] = ("up", "down")


class Link:
    """A TCP proxy on a loopback port, in front of a server's port; it passes everything on until told otherwise.

    Each way to do harm holds until `heal`. Methods may be called from any thread. `connect` makes the connections where
    they have to know the server's protocol.
    """

    def __init__(self, port: int, server_port: int, connect: "Callable[[Link, Side, Side], Connection] | None" = None):
        self.port = port
        self.server_port = server_port
        self.delay_s = self.jitter_s = 0.0
        self.bytes_per_s = float("inf")
        self._connect = connect or Connection
        self._listener: asyncio.Server | None = None
        self._connections: set[Connection] = set()
        self._passable = {direction: asyncio.Event() for direction in BOTH}

    def start(self) -> None:
        """Accept connections."""
        _run(self._start())

    def close(self) -> None:
        """Reset all connections, and accept no more."""
        _run(self._close())

    # Harm and repair.

    def delay(self, delay_s: float, jitter_s: float = 0.0) -> None:
        """Deliver all bytes later, by `delay_s` and up to `jitter_s` more; in their order, as TCP does."""
        self.delay_s, self.jitter_s = delay_s, jitter_s

    def trickle(self, bytes_per_s: float) -> None:
        """Read slowly, and so write slowly: whoever sends more has to wait."""
        self.bytes_per_s = bytes_per_s

    def stall(self, *directions: Direction) -> None:
        """Let nothing through, not even the end of a connection; `heal` delivers it all.

        So it is when packets are dropped: TCP repeats them, also those of a connection that was closed meanwhile.
        """
        _run(self._stall(directions))

    def reset(self) -> None:
        """Reset every connection, on both sides."""
        _run(self._each(Connection.reset))

    def half_open(self) -> None:
        """Reset every connection on the server's side; the client hears nothing of it, nor anything else."""
        _run(self._each(Connection.forget))

    def hold(self) -> None:
        """Hold what clients send next on present connections, and reset these, on the client's side alone.

        Connections made later are not hurt: there a client repeats what it takes for lost. `heal` delivers what was
        held.
        """
        _run(self._each(Connection.hold))

    def heal(self) -> None:
        """Do no more harm, and deliver what was kept."""
        _run(self._heal())

    @property
    def connections(self) -> int:
        """How many connections clients have, or had when something was held of them."""
        return len(self._connections)

    # On the thread of the loop.

    async def _start(self) -> None:
        await self._heal()
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=PIECE_BYTES)

    async def _close(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        await self._heal()
        await self._each(Connection.reset)

    async def _heal(self) -> None:
        self.delay_s = self.jitter_s = 0.0
        self.bytes_per_s = float("inf")
        for event in self._passable.values():
            event.set()
        await self._each(Connection.heal)

    async def _stall(self, directions: tuple[Direction, ...]) -> None:
        for direction in directions:
            self._passable[direction].clear()

    async def _each(self, harm: Callable[["Connection"], None]) -> None:
        for connection in list(self._connections):
            harm(connection)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = Side(reader, writer)
        try:
            server = Side(*await asyncio.open_connection("127.0.0.1", self.server_port, limit=PIECE_BYTES))
        except OSError:
            client.reset()
            return
        connection = self._connect(self, client, server)
        self._connections.add(connection)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)

    async def passes(self, direction: Direction) -> None:
        """Wait until bytes may pass in this direction."""
        await self._passable[direction].wait()


class Side:
    """The client's or the server's end of a connection. Writing to one that is gone does nothing."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self._writer = writer

    async def write(self, piece: bytes) -> None:
        if not self._writer.is_closing():
            with contextlib.suppress(OSError):
                self._writer.write(piece)
                await self._writer.drain()

    def end(self) -> None:
        """Send no more; bytes may come still."""
        with contextlib.suppress(OSError):
            self._writer.write_eof()

    def close(self) -> None:
        self._writer.close()

    def reset(self) -> None:
        """Close with a reset instead of an end."""
        linger = struct.pack("ii", 1, 0)
        with contextlib.suppress(OSError):
            self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._writer.transport.abort()


class Connection:
    """A client's connection, and the one to the server that stands behind it."""

    def __init__(self, link: Link, client: Side, server: Side) -> None:
        self.link = link
        self._client = client
        self.server = server
        self._forgotten = False
        self._held_until: asyncio.Event | None = None

    async def run(self) -> None:
        """Pass everything on until both sides have ended."""
        try:
            # A reader and a writer for each direction, so that a delay of the line does not make it narrow.
            up, down = asyncio.Queue[tuple[float, bytes]](PIECES), asyncio.Queue[tuple[float, bytes]](PIECES)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._take(self._client, up))
                tasks.create_task(self._take(self.server, down))
                tasks.create_task(self._deliver("up", up, self.server))
                tasks.create_task(self._deliver("down", down, self._client))
        finally:
            self._client.close()
            self.server.close()

    async def _take(self, source: Side, pieces: asyncio.Queue[tuple[float, bytes]]) -> None:
        """Put what comes into the queue, each piece with the time when it is due, and b"" at the end."""
        now_s = asyncio.get_running_loop().time
        with contextlib.suppress(OSError):
            while piece := await self.read(source.reader):
                await pieces.put((now_s() + self.link.delay_s + random.uniform(0, self.link.jitter_s), piece))
        await pieces.put((now_s(), b""))

    async def _deliver(self, direction: Direction, pieces: asyncio.Queue[tuple[float, bytes]], target: Side) -> None:
        now_s = asyncio.get_running_loop().time
        while True:
            due_s, piece = await pieces.get()
            await asyncio.sleep(due_s - now_s())
            if direction == "up" and self._held_until is not None:
                self._client.reset()
                await self._held_until.wait()
            await self.link.passes(direction)
            if not piece:
                break
            if not self._forgotten:
                await self.write(target, await self.meet(direction, piece))
        if not self._forgotten:
            target.end()

    async def read(self, reader: asyncio.StreamReader) -> bytes:
        """Read the next piece; b"" at the end."""
        return await reader.read(PIECE_BYTES)

    async def meet(self, direction: Direction, piece: bytes) -> bytes:
        """Do to a piece what is to be done to this one alone; return what of it goes on."""
        return piece

    async def write(self, target: Side, piece: bytes) -> None:
        """Write a piece at the link's speed, in steps of a twentieth of a second."""
        while piece:
            step = max(1, int(min(len(piece), self.link.bytes_per_s / 20)))
            await target.write(piece[:step])
            await asyncio.sleep(step / self.link.bytes_per_s)
            piece = piece[step:]

    def reset(self) -> None:
        self._client.reset()
        self.server.reset()

    def forget(self) -> None:
        """Reset the server's side; keep the client's, and pass nothing on."""
        self._forgotten = True
        self.server.reset()

    def hold(self) -> None:
        """Hold what the client sends next, and reset its side then."""
        self._held_until = self._held_until or asyncio.Event()

    def heal(self) -> None:
        """Deliver what was held; reset a client whose server has forgotten it."""
        if self._held_until is not None:
            self._held_until.set()
            self._held_until = None
        if self._forgotten:
            self._client.reset()


@cache
def _loop() -> asyncio.AbstractEventLoop:
    """Start the loop that all links share, on a thread of its own."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="network", daemon=True).start()
    return loop


def _run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the loop, and return its result."""
    return asyncio.run_coroutine_threadsafe(coroutine, _loop()).result(CALL_TIMEOUT_S)


# What a network does, by the name that histories and figures give it.
FAULTS: dict[str, Callable[[Link], None]] = {
    "is slow and uneven": lambda link: link.delay(0.1, jitter_s=0.4),
    "reads slowly": lambda link: link.trickle(30_000),
    "drops all packets": lambda link: link.stall("up", "down"),
    "drops packets to the server": lambda link: link.stall("up"),
    "drops packets to the client": lambda link: link.stall("down"),
    "resets connections": Link.reset,
    "leaves connections half-open": Link.half_open,
    "delivers after the reconnect": Link.hold,
}
