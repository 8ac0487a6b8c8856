"""The links that other tests rely on: each does the harm that it says, and none when it is healed."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.network import Direction, Link
from tests.processes import free_ports, until

SILENCE_S = 0.3
ANSWER_S = 5.0
Connect = Callable[[], socket.socket]


class Echo:
    """A server that answers what it gets in capitals, and keeps it all in `received`; `ended` counts its clients."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", free_ports(1)[0]))
        self.port = self.listener.getsockname()[1]
        self.received = b""
        self.ended = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):  # it was shut down before
            self.listener.shutdown(socket.SHUT_RDWR)  # without it, the thread that accepts would keep it open
        self.listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # it is closed
            while True:
                connection, _ = self.listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            while data := connection.recv(4096):
                self.received += data
                connection.sendall(data.upper())
        self.ended += 1


@pytest.fixture
def echo() -> Iterator[Echo]:
    with contextlib.closing(Echo()) as echo:
        yield echo


@pytest.fixture
def link(echo: Echo) -> Iterator[Link]:
    link = Link(free_ports(1)[0], echo.port)
    link.start()
    yield link
    link.close()


@pytest.fixture
def connect(link: Link) -> Iterator[Callable[[], socket.socket]]:
    """Return a function that opens a connection over which an answer has come."""
    with contextlib.ExitStack() as clients:

        def connect() -> socket.socket:
            client = clients.enter_context(socket.create_connection(("127.0.0.1", link.port), ANSWER_S))
            assert ask(client, b"hello") == b"HELLO"
            return client

        yield connect


def ask(client: socket.socket, question: bytes) -> bytes:
    client.sendall(question)
    return client.recv(4096)


def is_silent(client: socket.socket) -> bool:
    client.settimeout(SILENCE_S)
    try:
        return client.recv(1) is None
    except TimeoutError:
        return True
    finally:
        client.settimeout(ANSWER_S)


def test_a_healthy_link_passes_everything_and_the_end(link: Link) -> None:
    with socket.create_connection(("127.0.0.1", link.port), ANSWER_S) as client:
        sent = bytes(range(97, 123)) * 40_000
        threading.Thread(target=client.sendall, args=(sent,)).start()
        answer = b""
        while len(answer) < len(sent):
            answer += client.recv(1 << 16)
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
    assert answer == sent.upper()
    until(lambda: link.connections == 0, ANSWER_S, "the link keeps the connection")


def test_delay_is_of_each_direction_and_does_not_add_up(link: Link, connect: Connect) -> None:
    client = connect()
    link.delay(0.2)
    began_s = time.monotonic()
    for _ in range(15):
        client.sendall(b"x")
        time.sleep(0.01)
    answer = b""
    while len(answer) < 15:
        answer += client.recv(4096)
    assert 0.4 <= time.monotonic() - began_s < 3.0  # 3.2 if it added up


def test_trickle_makes_the_sender_wait(link: Link, connect: Connect, echo: Echo) -> None:
    client = connect()
    link.trickle(20_000)
    began_s = time.monotonic()
    client.settimeout(SILENCE_S)
    with pytest.raises(TimeoutError):
        client.sendall(bytes(64 << 20))
    until(lambda: len(echo.received) > len(b"hello"), ANSWER_S, "nothing gets through")
    received = len(echo.received)
    assert received < 20_000 * (time.monotonic() - began_s) + 2_000


@pytest.mark.parametrize("harm", [("up", "down"), ("up",), ("down",)])
def test_stall_delivers_after_it_what_was_sent_and_closed_meanwhile(
    link: Link, connect: Connect, echo: Echo, harm: tuple[Direction, ...]
) -> None:
    client = connect()
    link.stall(*harm)
    client.sendall(b"late")
    assert is_silent(client)
    assert echo.received == (b"hellolate" if harm == ("down",) else b"hello")
    client.close()
    assert echo.ended == 0 or "up" not in harm
    link.heal()
    until(lambda: echo.received == b"hellolate" and echo.ended == 1, ANSWER_S, "it is not delivered")
    assert connect()


def test_reset_is_seen_on_both_sides(link: Link, connect: Connect, echo: Echo) -> None:
    client = connect()
    link.reset()
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    until(lambda: echo.ended == 1, ANSWER_S, "the server keeps its side")
    assert connect()


def test_half_open_leaves_the_client_in_silence(link: Link, connect: Connect, echo: Echo) -> None:
    client = connect()
    link.half_open()
    until(lambda: echo.ended == 1, ANSWER_S, "the server keeps its side")
    client.sendall(b"is anybody there?")
    assert is_silent(client)
    assert connect()
    link.heal()
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    assert b"anybody" not in echo.received


def test_hold_delivers_the_old_connection_s_bytes_after_those_of_the_new_one(
    link: Link, connect: Connect, echo: Echo
) -> None:
    client = connect()
    link.hold()
    client.sendall(b"first")
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    again = connect()
    assert ask(again, b"second") == b"SECOND"
    assert b"first" not in echo.received
    link.heal()
    until(lambda: echo.received.endswith(b"secondfirst") and echo.ended == 1, ANSWER_S, "it is not delivered")
    assert ask(again, b"third") == b"THIRD"


def test_a_server_that_is_away_refuses_the_client(link: Link, echo: Echo) -> None:
    echo.listener.shutdown(socket.SHUT_RDWR)
    with pytest.raises(ConnectionResetError), socket.create_connection(("127.0.0.1", link.port), ANSWER_S) as client:
        client.recv(1)
