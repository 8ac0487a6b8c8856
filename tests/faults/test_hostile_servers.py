"""Servers and names that mean harm; the servers are real ones on loopback.

127.0.0.1 stands for the public Internet (`networks` allows it), every other loopback address for what must not be
reached: a server listens there as well, and must never get a connection.
"""

import contextlib
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from ipaddress import IPv4Network

import pytest

from consumer.errors import Unprocessable
from consumer.images.fetch import Fetcher
from consumer.settings import FetchSettings
from tests.web import Server, answer, serve

PUBLIC, PRIVATE = "127.0.0.1", "127.0.0.2"
SETTINGS = FetchSettings(
    schemes=("http", "https"), networks=(IPv4Network(f"{PUBLIC}/32"),), timeout_s=1.0, max_bytes=100_000
)
SECRET = b"what only the inside may see"
# After its deadline a fetch that goes on for ever would still go on; one that ends may be held up by a busy machine.
SOON_S = 8.0


@pytest.fixture
def fetcher() -> Iterator[Fetcher]:
    with Fetcher(SETTINGS) as fetcher:
        yield fetcher


@pytest.fixture
def inside() -> Iterator[Server]:
    """A server that must not be reached."""
    with serve(lambda _, connection: answer(connection, SECRET), PRIVATE) as server:
        yield server
        assert server.connections == 0


@pytest.fixture
def patient() -> Iterator[Fetcher]:
    """For what is not about the deadline."""
    with Fetcher(SETTINGS.model_copy(update={"timeout_s": 30.0})) as fetcher:
        yield fetcher


def refused(fetcher: Fetcher, url: str) -> Unprocessable:
    with pytest.raises(Unprocessable) as caught:
        fetcher.fetch(url)
    return caught.value


def seconds(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


class TestSlowness:
    """However a server dawdles, the fetch is over soon after its deadline."""

    def drips(self, *parts: bytes, pause_s: float = 0.02) -> Callable[[str, socket.socket], bool]:
        """Return a handler that sends the parts, and the last of them for ever."""

        def handle(_: str, connection: socket.socket) -> bool:
            for part in parts[:-1]:
                connection.sendall(part)
            while True:
                connection.sendall(parts[-1])
                time.sleep(pause_s)

        return handle

    @pytest.mark.parametrize(
        "parts",
        [
            (b"HTTP/1.1 200 OK\r\nX-", b"a"),
            (b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n"),
            (b"HTTP/1.1 100 Continue\r\n\r\n",),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 90000\r\n\r\n", b"x"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"a"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-", b"a"),
            (b"HTTP/1.1 200 OK\r\n\r\n", b"x"),
            (b"",),
        ],
        ids=["header", "headers", "continue", "body", "chunks", "extension", "trailer", "endless", "silence"],
    )
    def test_slow_drip(self, fetcher: Fetcher, parts: tuple[bytes, ...]) -> None:
        with serve(self.drips(*parts)) as server:
            began = time.monotonic()
            assert refused(fetcher, server.url("/a.jpg?token=secret")).reason == "unreachable"
            assert SETTINGS.timeout_s * 0.9 < time.monotonic() - began < SETTINGS.timeout_s + SOON_S
            assert server.connections == 1

    def test_slow_drip_in_every_redirect(self, fetcher: Fetcher) -> None:
        """Each hop is quick enough for a time-out of its own; the whole is not."""

        def handle(path: str, connection: socket.socket) -> bool:
            time.sleep(0.4)
            return answer(connection, status="302 Found", headers=(f"Location: {path}a",))

        with serve(handle) as server:
            assert seconds(lambda: refused(fetcher, server.url())) < SETTINGS.timeout_s + SOON_S
            assert len(server.requests) <= 3

    def test_a_handshake_that_never_ends(self, fetcher: Fetcher) -> None:
        with socket.create_server((PUBLIC, 0)) as listener:
            port = listener.getsockname()[1]
            url = f"https://{PUBLIC}:{port}/"
            assert seconds(lambda: refused(fetcher, url)) < SETTINGS.timeout_s + SOON_S

    def test_a_server_that_accepts_nothing(self, fetcher: Fetcher) -> None:
        """Its queue of connections is full, so that a further one is never answered."""
        with contextlib.ExitStack() as stack:
            listener = stack.enter_context(socket.create_server((PUBLIC, 0), backlog=0))
            address = listener.getsockname()
            for _ in range(3):
                waiting = stack.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(address)
            assert seconds(lambda: refused(fetcher, f"http://{PUBLIC}:{address[1]}/")) < SETTINGS.timeout_s + SOON_S

    def test_a_name_server_that_never_answers(self, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch) -> None:
        asleep = threading.Event()

        def silent(*_: object, **__: object) -> list[object]:
            asleep.wait(5)
            raise socket.gaierror

        monkeypatch.setattr(socket, "getaddrinfo", silent)
        assert seconds(lambda: refused(fetcher, "http://slow.example/")) < SETTINGS.timeout_s + SOON_S
        asleep.set()

    def test_other_fetches_go_on_meanwhile(self, patient: Fetcher) -> None:
        may_end = threading.Event()

        def dawdle(_: str, connection: socket.socket) -> bool:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx")
            may_end.wait()
            return False

        with (
            serve(dawdle) as slow,
            serve(lambda _, connection: answer(connection, b"quick")) as quick,
        ):
            threads = [threading.Thread(target=lambda: refused(patient, slow.url())) for _ in range(8)]
            for thread in threads:
                thread.start()
            for _ in range(20):
                patient.fetch(quick.url())
            assert all(thread.is_alive() for thread in threads)
            may_end.set()
            for thread in threads:
                thread.join()


class TestEndlessness:
    """However much a server sends, little of it is taken."""

    @pytest.mark.parametrize(
        ("head", "part"),
        [
            (b"HTTP/1.1 200 OK\r\n\r\n", bytes(65536)),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + bytes(65536) + b"\r\n"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999\r\n\r\n", bytes(65536)),
        ],
        ids=["until the end", "chunks", "announced"],
    )
    def test_bodies(self, patient: Fetcher, head: bytes, part: bytes) -> None:
        sent = 0

        def handle(_: str, connection: socket.socket) -> bool:
            nonlocal sent
            connection.sendall(head)
            while True:
                connection.sendall(part)
                sent += len(part)

        with serve(handle) as server:
            tracemalloc.start()
            assert refused(patient, server.url()).reason == "too-large"
            assert tracemalloc.get_traced_memory()[1] < 2_000_000
            tracemalloc.stop()
        assert sent < 20_000_000  # what the kernel's buffers hold

    @pytest.mark.parametrize(
        ("head", "part"),
        [
            (b"HTTP/1.1 200 OK\r\n", b"X-Header: " + b"x" * 1000 + b"\r\n"),
            (b"HTTP/1.1 200 OK\r\nX-Header: ", b"x" * 1000),
            (b"", b"x" * 1000),
            (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"x" * 1000),
        ],
        ids=["headers", "header", "status line", "continues", "chunk extension"],
    )
    def test_heads(self, fetcher: Fetcher, head: bytes, part: bytes) -> None:
        def handle(_: str, connection: socket.socket) -> bool:
            connection.sendall(head)
            while True:
                connection.sendall(part)

        with serve(handle) as server:
            began = time.monotonic()
            assert refused(fetcher, server.url()).reason == "unreachable"
            assert time.monotonic() - began < SETTINGS.timeout_s + SOON_S

    def test_redirects_in_a_circle(self, fetcher: Fetcher) -> None:
        def handle(_: str, connection: socket.socket) -> bool:
            return answer(connection, status="302 Found", headers=("Location: /",))

        with serve(handle) as server:
            assert refused(fetcher, server.url()).reason == "unreachable"
            assert len(server.requests) == 6

    def test_a_bomb_of_content_encoding_is_not_unpacked(self, fetcher: Fetcher) -> None:
        headers = ("Content-Encoding: gzip",)
        with serve(lambda _, connection: answer(connection, b"\x1f\x8b" + bytes(1000), headers=headers)) as server:
            assert refused(fetcher, server.url()).reason == "wrong-content-type"


class TestForbiddenGround:
    @pytest.mark.parametrize("host", [PRIVATE, f"[::ffff:{PRIVATE}]", "127.2", "0x7f000002", "2130706434"])
    def test_a_private_address_itself(self, fetcher: Fetcher, inside: Server, host: str) -> None:
        assert refused(fetcher, inside.url("/", host)).reason == "forbidden-address"

    @pytest.mark.parametrize(
        "host",
        [
            PRIVATE,
            f"user@{PRIVATE}",
            f"{PUBLIC}@{PRIVATE}",
            f"[::ffff:{PRIVATE}]",
            "[::ffff:7f00:2]",
            "[64:ff9b::7f00:2]",
            "[2002:7f00:2::]",
            "[::127.0.0.2]",
            "127.2",
            "0x7f.2",
            "2130706434",
            "0177.0.0.2",
            "169.254.169.254",
            "[fe80::1%25lo]",
            "0.0.0.0",  # noqa: S104
            "localhost",  # its ::1; on 127.0.0.1 nobody listens on that port
        ],
    )
    @pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
    def test_a_redirect_to_a_private_address(self, fetcher: Fetcher, inside: Server, host: str, status: str) -> None:
        def handle(_: str, connection: socket.socket) -> bool:
            return answer(
                connection, status=status, headers=(f"Location: http://{host}:{inside.port}/latest/meta-data",)
            )

        with serve(handle) as server:
            assert refused(fetcher, server.url()).reason in ("forbidden-address", "unreachable")

    @pytest.mark.parametrize(
        "to",
        [
            "file:///etc/passwd",
            "ftp://example.org/a",
            "s3://bucket/key",
            "gopher://a/",
            "data:,a",
            "http:///a",
            "//",
            "\x00",
        ],
    )
    def test_a_redirect_to_another_scheme(self, fetcher: Fetcher, to: str) -> None:
        def handle(_: str, connection: socket.socket) -> bool:
            connection.sendall(f"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: {to}\r\n\r\n".encode())
            return True

        with serve(handle) as server:
            assert refused(fetcher, server.url()).reason in ("forbidden-address", "unreachable")

    def test_a_redirect_from_https_to_http_where_only_https_is_allowed(self) -> None:
        """Each hop is checked as the first URL is."""
        with (
            serve(lambda _, connection: answer(connection, SECRET)) as server,
            Fetcher(FetchSettings(networks=SETTINGS.networks)) as fetcher,
        ):
            assert refused(fetcher, server.url()).reason == "forbidden-address"
            assert server.connections == 0

    def test_a_redirect_to_a_host_that_is_not_listed(self) -> None:
        settings = SETTINGS.model_copy(update={"hosts": ("localhost",)})
        with serve(lambda _, connection: answer(connection, SECRET)) as other:

            def handle(_: str, connection: socket.socket) -> bool:
                return answer(connection, status="302 Found", headers=(f"Location: {other.url()}",))

            with serve(handle) as server, Fetcher(settings) as fetcher:
                assert refused(fetcher, server.url("/", "localhost")).reason == "forbidden-address"
                assert len(server.requests) == 1
            assert other.connections == 0


class TestRebinding:
    """A name server that gives another answer each time. The servers are real; only name resolution is made up."""

    @pytest.fixture
    def names(self, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
        def install(*answers: list[str]) -> list[str]:
            """Resolve rebound.example to one answer after the other; return the list of lookups, which grows."""
            lookups: list[str] = []
            remaining = iter(answers)
            real = socket.getaddrinfo

            def lookup(host: str, port: int, *args: object, **kwargs: object) -> list[tuple[object, ...]]:
                if host != "rebound.example":
                    return real(host, port, *args, **kwargs)  # type: ignore[arg-type,return-value]
                lookups.append(host)
                return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in next(remaining)]

            monkeypatch.setattr(socket, "getaddrinfo", lookup)
            return lookups

        return install

    def test_public_when_checked_private_when_used(
        self, fetcher: Fetcher, inside: Server, names: Callable[..., list[str]]
    ) -> None:
        """The name is resolved once, and the connection goes to the address that was checked."""
        lookups = names([PUBLIC], *[[PRIVATE]] * 10)
        with same_port(inside) as outside:
            assert fetcher.fetch(f"http://rebound.example:{inside.port}/") == b"outside"
            assert lookups == ["rebound.example"]
            assert outside.header("Host") == f"rebound.example:{inside.port}"

    def test_private_the_next_time(self, fetcher: Fetcher, inside: Server, names: Callable[..., list[str]]) -> None:
        names([PUBLIC], [PRIVATE])
        url = f"http://rebound.example:{inside.port}/"
        with same_port(inside):
            assert fetcher.fetch(url) == b"outside"
        assert refused(fetcher, url).reason == "forbidden-address"  # its connection is closed: resolved anew

    def test_both_at_once(self, fetcher: Fetcher, inside: Server, names: Callable[..., list[str]]) -> None:
        names([PRIVATE, PUBLIC], [PRIVATE, PUBLIC], [PRIVATE, PUBLIC], [PRIVATE, PUBLIC])
        url = f"http://rebound.example:{inside.port}/"
        with same_port(inside):
            assert fetcher.fetch(url) == b"outside"
        assert refused(fetcher, url).reason == "unreachable"  # only the public one is tried

    def test_a_redirect_to_itself(self, fetcher: Fetcher, inside: Server, names: Callable[..., list[str]]) -> None:
        names([PUBLIC], [PRIVATE], [PRIVATE])
        url = f"http://rebound.example:{inside.port}/"

        def handle(_: str, connection: socket.socket) -> bool:
            return answer(connection, status="302 Found", headers=(f"Location: {url}",), keep=False)

        with same_port(inside, handle) as outside:
            assert refused(fetcher, url).reason == "forbidden-address"
            assert len(outside.requests) == 1


@contextlib.contextmanager
def same_port(inside: Server, handle: Callable[[str, socket.socket], bool] | None = None) -> Iterator[Server]:
    """Run a server on the public address, on the port of the one inside: only the address tells them apart."""
    with serve(handle or (lambda _, connection: answer(connection, b"outside")), PUBLIC, port=inside.port) as server:
        yield server


class TestHostileNames:
    @pytest.mark.parametrize(
        "host",
        ["a" * 64 + ".example", "a." * 200 + "example", "xn--", "..", "a..b", "ex%61mple", "-", "\u202e.example", "ß"],
    )
    def test_they_end_as_a_reason(self, fetcher: Fetcher, host: str) -> None:
        assert refused(fetcher, f"http://{host}/").reason in ("forbidden-address", "unreachable")

    def test_line_breaks_do_not_become_headers(self, fetcher: Fetcher) -> None:
        with serve(lambda _, connection: answer(connection, b"x")) as server:
            for path in ("/a\r\nX-Evil: 1", "/a%0d%0aX-Evil: 1", "/a HTTP/1.1\r\nX-Evil: 1\r\n\r\n", "/?a\nX-Evil: 1"):
                with contextlib.suppress(Unprocessable):
                    fetcher.fetch(server.url(path))
            assert not any("\nX-Evil" in request for request in server.requests)
