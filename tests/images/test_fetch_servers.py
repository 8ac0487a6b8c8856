"""Fetching from real servers on loopback: web servers, with and without TLS, S3 (moto), and stand-ins for gs and az."""

import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import boto3
import pytest
import trustme
from moto.server import ThreadedMotoServer

from consumer.errors import Unavailable, Unprocessable
from consumer.images.fetch import Fetcher
from consumer.settings import FetchSettings
from tests.web import Server, answer, serve

LOOPBACK = (IPv4Network("127.0.0.1/32"), IPv6Network("::1/128"))
HTTP = FetchSettings(schemes=("http", "https"), networks=LOOPBACK, timeout_s=20, max_bytes=100_000)
BODY = bytes(range(256)) * 300
ODD_KEYS = ["dir1/dir2///after.jpg", "/lead.jpg", "a/./b.jpg", "tab\tx.jpg", "folder/"]


@pytest.fixture
def fetcher() -> Iterator[Fetcher]:
    with Fetcher(HTTP) as fetcher:
        yield fetcher


def refused(fetcher: Fetcher, url: str) -> Unprocessable:
    with pytest.raises(Unprocessable) as caught:
        fetcher.fetch(url)
    return caught.value


class TestWeb:
    def test_the_bytes_as_they_are(self, fetcher: Fetcher) -> None:
        with serve(lambda _, connection: answer(connection, BODY)) as server:
            assert fetcher.fetch(server.url("/a%20b.jpg?sign=1")) == BODY
            assert server.requests[0].startswith("GET /a%20b.jpg?sign=1 HTTP/1.1\r\n")
            assert server.header("Host") == f"127.0.0.1:{server.port}"
            assert server.header("Accept-Encoding") == "identity"

    def test_user_and_password_in_an_address_are_not_sent(self, fetcher: Fetcher) -> None:
        with serve(lambda _, connection: answer(connection, BODY)) as server:
            fetcher.fetch(f"http://user:secret@127.0.0.1:{server.port}/")
            assert "secret" not in server.requests[0]
            assert "Authorization" not in server.requests[0]

    def test_chunks_and_until_the_end(self, fetcher: Fetcher) -> None:
        def handle(path: str, connection: socket.socket) -> bool:
            if path == "/chunks":
                connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                for i in range(0, len(BODY), 1000):
                    part = BODY[i : i + 1000]
                    connection.sendall(f"{len(part):x}\r\n".encode() + part + b"\r\n")
                connection.sendall(b"0\r\n\r\n")
            else:
                connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + BODY)
            return False

        with serve(handle) as server:
            assert fetcher.fetch(server.url("/chunks")) == BODY
            assert fetcher.fetch(server.url("/end")) == BODY

    def test_connections_are_used_again(self, fetcher: Fetcher) -> None:
        with serve(lambda _, connection: answer(connection, BODY)) as server:
            for _ in range(20):
                fetcher.fetch(server.url())
            assert len(server.requests) == 20
            assert server.connections == 1

    def test_a_connection_closed_meanwhile_is_no_fault(self, fetcher: Fetcher) -> None:
        closing = iter([True, False, True])

        def handle(_: str, connection: socket.socket) -> bool:
            answer(connection, BODY)
            if close := next(closing):
                connection.close()
            return not close

        with serve(handle) as server:
            for _ in range(3):
                assert fetcher.fetch(server.url()) == BODY
                time.sleep(0.05)

    def test_many_threads(self, fetcher: Fetcher) -> None:
        def handle(path: str, connection: socket.socket) -> bool:
            time.sleep(0.05)
            return answer(connection, path.encode() * 500)

        with serve(handle) as server, ThreadPoolExecutor(16) as pool:
            paths = [f"/{i}" for i in range(200)]
            began = time.monotonic()
            assert list(pool.map(lambda p: fetcher.fetch(server.url(p)), paths)) == [p.encode() * 500 for p in paths]
            assert time.monotonic() - began < 200 * 0.05
            assert server.connections <= 20

    def test_ipv6(self, fetcher: Fetcher) -> None:
        with serve(lambda _, connection: answer(connection, BODY), host="::1") as server:
            assert fetcher.fetch(f"http://[::1]:{server.port}/") == BODY
            assert server.header("Host") == f"[::1]:{server.port}"

    def test_a_silent_first_address_leaves_time_for_the_next(
        self, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A name with an IPv6 address that refuses and an IPv4 address that answers."""
        with serve(lambda _, connection: answer(connection, BODY)) as server:
            addresses = [
                (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", server.port, 0, 0)),
                (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", server.port)),
            ]
            real = socket.getaddrinfo
            monkeypatch.setattr(
                socket, "getaddrinfo", lambda host, *a, **k: addresses if host == "two.example" else real(host, *a, **k)
            )
            assert fetcher.fetch(f"http://two.example:{server.port}/") == BODY

    def test_redirects(self, fetcher: Fetcher) -> None:
        def handle(path: str, connection: socket.socket) -> bool:
            kind, _, left = path.strip("/").partition("/")
            if left == "0":
                return answer(connection, BODY)
            to = {
                "relative": f"{int(left) - 1}",
                "absolute": f"http://127.0.0.1:{server.port}/absolute/{int(left) - 1}",
            }
            return answer(connection, b"moved", "302 Found", (f"Location: {to[kind]}",))

        with serve(handle) as server:
            assert fetcher.fetch(server.url("/relative/5")) == BODY
            assert fetcher.fetch(server.url("/absolute/1")) == BODY
            assert refused(fetcher, server.url("/relative/6")).reason == "unreachable"

    @pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified", "401 No", "403 No", "404 No", "410 Gone"])
    def test_no_picture_there(self, fetcher: Fetcher, status: str) -> None:
        with serve(lambda _, connection: answer(connection, status=status)) as server:
            error = refused(fetcher, server.url("/a.jpg?token=secret"))
            assert error.reason == "not-found"
            assert status[:3] in error.detail
            assert "secret" not in error.detail
            assert len(server.requests) == 1

    def test_a_picture_that_a_proxy_has_touched(self, fetcher: Fetcher) -> None:
        with serve(lambda _, connection: answer(connection, BODY, "203 Non-Authoritative Information")) as server:
            assert fetcher.fetch(server.url()) == BODY

    def test_a_part_is_no_picture_unless_it_is_all(self, fetcher: Fetcher) -> None:
        ranges = [f"0-{len(BODY) - 1}/{len(BODY)}", f"0-{len(BODY) - 1}/{len(BODY) + 1}", "0-9/*"]
        headers = iter([(f"Content-Range: bytes {each}",) for each in ranges] + [()])
        with serve(lambda _, connection: answer(connection, BODY, "206 Partial Content", next(headers))) as server:
            assert fetcher.fetch(server.url()) == BODY
            for _ in range(3):
                error = refused(fetcher, server.url())
                assert (error.reason, "206" in error.detail) == ("broken-image", True)

    def test_only_objects_of_stores_have_versions(self, fetcher: Fetcher) -> None:
        with pytest.raises(Unprocessable) as caught:
            fetcher.fetch("http://127.0.0.1/a.jpg", "1")
        assert caught.value.reason == "forbidden-address"

    @pytest.mark.parametrize("status", ["429 Slow Down", "500 Oops", "503 Busy"])
    def test_a_busy_server_is_asked_again_a_few_times(self, fetcher: Fetcher, status: str) -> None:
        statuses = iter([status, status, "200 OK", status, status, status, "200 OK"])
        with serve(lambda _, connection: answer(connection, BODY, next(statuses))) as server:
            assert fetcher.fetch(server.url()) == BODY
            error = refused(fetcher, server.url())
            assert error.reason == "unreachable"
            assert status[:3] in error.detail
            assert len(server.requests) == 6

    def test_a_body_cut_short_is_asked_for_again_a_few_times(self, fetcher: Fetcher) -> None:
        def handle(_: str, connection: socket.socket) -> bool:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"x" * 500)
            return False

        with serve(handle) as server:
            assert refused(fetcher, server.url()).reason == "unreachable"
            assert len(server.requests) == 3

    def test_nobody_there(self, fetcher: Fetcher) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        assert refused(fetcher, f"http://127.0.0.1:{port}/").reason == "unreachable"

    def test_something_else_than_a_web_server(self, fetcher: Fetcher) -> None:
        def handle(_: str, connection: socket.socket) -> bool:
            connection.sendall(b"220 mail.example ESMTP\r\n\r\n")
            return False

        with serve(handle) as server:
            assert refused(fetcher, server.url()).reason == "unreachable"

    def test_a_name_without_address(self) -> None:
        with Fetcher(HTTP.model_copy(update={"timeout_s": 3})) as fetcher:  # who is asked for names may not answer
            assert refused(fetcher, "http://no-such-host.invalid/a.jpg").reason == "unreachable"

    def test_content_encodings_are_refused(self, fetcher: Fetcher) -> None:
        with serve(
            lambda _, connection: answer(connection, b"\x1f\x8b", headers=("Content-Encoding: gzip",))
        ) as server:
            assert refused(fetcher, server.url()).reason == "wrong-content-type"


class TestTls:
    @pytest.fixture
    def authority(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        return authority

    def context(self, authority: trustme.CA, *names: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(*names).configure_cert(context)
        return context

    def test_a_name_is_verified_though_its_address_was_looked_up_before(self, authority: trustme.CA) -> None:
        names: list[str | None] = []
        context = self.context(authority, "localhost")
        context.sni_callback = lambda _, name, __: names.append(name)
        with serve(lambda _, connection: answer(connection, BODY), tls=context) as server, Fetcher(HTTP) as fetcher:
            for _ in range(3):
                assert fetcher.fetch(f"https://localhost:{server.port}/") == BODY
            assert server.header("Host") == f"localhost:{server.port}"
            assert names == ["localhost"]  # one handshake

    def test_another_name_is_refused(self, authority: trustme.CA) -> None:
        context = self.context(authority, "other.example")
        with serve(lambda _, connection: answer(connection, BODY), tls=context) as server, Fetcher(HTTP) as fetcher:
            error = refused(fetcher, f"https://localhost:{server.port}/")
            assert error.reason == "unreachable"
            assert "certificate" in error.detail
            assert not server.requests

    @pytest.mark.usefixtures("authority")
    def test_an_unknown_authority_is_refused(self) -> None:
        context = self.context(trustme.CA(), "localhost")
        with serve(lambda _, connection: answer(connection, BODY), tls=context) as server, Fetcher(HTTP) as fetcher:
            assert "certificate" in refused(fetcher, f"https://localhost:{server.port}/").detail
            assert not server.requests


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    yield f"http://127.0.0.1:{port}"
    server.stop()


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.mark.usefixtures("aws")
class TestS3:
    @pytest.fixture
    def bucket(self, s3: str) -> str:
        client = boto3.client("s3", endpoint_url=s3, region_name="us-east-1")
        client.create_bucket(Bucket="pictures")
        for key in ("a.jpg", "a b/ä€😀.jpg", "50%25?x=1#f+~&", "deep/er/key"):
            client.put_object(Bucket="pictures", Key=key, Body=key.encode())
        for key in ODD_KEYS:
            client.put_object(Bucket="pictures", Key=key, Body=key.encode())
        client.put_object(Bucket="pictures", Key="large", Body=bytes(200_000))
        client.put_object(Bucket="pictures", Key="large//large", Body=bytes(200_000))
        client.close()
        return s3

    @pytest.fixture
    def store(self, bucket: str) -> Iterator[Fetcher]:
        with Fetcher(FetchSettings(s3_endpoint=bucket, max_bytes=100_000, timeout_s=5)) as fetcher:
            yield fetcher

    @pytest.mark.parametrize("key", ["a.jpg", "a b/ä€😀.jpg", "50%25?x=1#f+~&", "deep/er/key"])
    def test_keys_are_taken_as_they_stand(self, store: Fetcher, key: str) -> None:
        assert store.fetch(f"s3://pictures/{key}") == key.encode()

    @pytest.mark.parametrize("key", ODD_KEYS)
    def test_keys_that_no_path_could_have(self, store: Fetcher, key: str) -> None:
        assert store.fetch(f"s3://pictures/{key}") == key.encode()

    @pytest.mark.parametrize("key", ["a.jpg", "/lead.jpg"])
    def test_a_public_bucket_needs_no_credentials(
        self, bucket: str, store: Fetcher, key: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        client = boto3.client("s3", endpoint_url=bucket, region_name="us-east-1")
        client.create_bucket(Bucket="public")
        client.put_object(Bucket="public", Key=key, Body=key.encode(), ACL="public-read")
        client.close()
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("AWS_SKIP_SIGNATURE", "True")
        assert store.fetch(f"s3://public/{key}") == key.encode()

    def test_credentials_that_cannot_be_had_are_waited_for(
        self, store: Fetcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/reader")
        monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
        with pytest.raises(Unavailable, match="No such file"):
            store.fetch("s3://pictures//lead.jpg")
        # The service that gives credentials refuses.
        (tmp_path / "token").write_text("a token")
        with serve(lambda _, connection: answer(connection, b"<no/>", "403 Forbidden", keep=False)) as server:
            monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"http://127.0.0.1:{server.port}")
            with pytest.raises(Unavailable, match="AssumeRoleWithWebIdentity"):
                store.fetch("s3://pictures//lead.jpg")

    @pytest.mark.parametrize("key", ["../pictures/a.jpg", "a/..", "a/../a.jpg"])
    def test_no_way_leads_out_of_the_bucket(self, store: Fetcher, key: str) -> None:
        assert refused(store, f"s3://pictures/{key}").reason == "not-supported"

    @pytest.mark.parametrize("key", ["avatar.jpg", "deep//avatar.jpg"])
    def test_the_version_named_is_the_one_fetched(self, bucket: str, store: Fetcher, key: str) -> None:
        client = boto3.client("s3", endpoint_url=bucket, region_name="us-east-1")
        client.create_bucket(Bucket="versioned")
        client.put_bucket_versioning(Bucket="versioned", VersioningConfiguration={"Status": "Enabled"})
        versions = [client.put_object(Bucket="versioned", Key=key, Body=body)["VersionId"] for body in (b"1", b"2")]
        client.close()
        url = f"s3://versioned/{key}"
        assert [store.fetch(url, version) for version in (*versions, None)] == [b"1", b"2", b"2"]
        with pytest.raises(Unprocessable) as caught:
            store.fetch(url, "no-such-version")
        assert caught.value.reason == "not-found"

    @pytest.mark.parametrize(
        "name", ["pictures/no.jpg", "no-such-bucket/a.jpg", "pictures/deep", "pictures/no//no", "no-such-bucket//a"]
    )
    def test_what_is_not_there(self, store: Fetcher, name: str) -> None:
        assert refused(store, f"s3://{name}").reason == "not-found"

    def test_too_large(self, store: Fetcher) -> None:
        assert refused(store, "s3://pictures/large").reason == "too-large"
        assert refused(store, "s3://pictures/large//large").reason == "too-large"

    def test_a_connection_that_was_not_read_to_its_end_is_closed(self) -> None:
        closed = threading.Event()

        def handle(_: str, connection: socket.socket) -> bool:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n")
            with suppress(ConnectionError):
                assert connection.recv(1) == b""
            closed.set()
            return False

        with serve(handle) as server:
            settings = FetchSettings(s3_endpoint=f"http://127.0.0.1:{server.port}", max_bytes=100_000, timeout_s=5)
            with Fetcher(settings) as fetcher, pytest.raises(Unprocessable) as caught:
                fetcher.fetch("s3://pictures/large//large")
            assert closed.wait(3)
            assert caught.value.reason == "too-large"

    def test_many_threads(self, store: Fetcher) -> None:
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(store.fetch, ["s3://pictures/a.jpg"] * 100)) == {b"a.jpg"}

    def test_a_store_that_is_away_and_comes_back(self, bucket: str) -> None:
        """The upload waits, since it is not its fault."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        settings = FetchSettings(s3_endpoint=f"http://127.0.0.1:{port}", timeout_s=2)
        with Fetcher(settings) as fetcher:
            for key in ("a.jpg", "/lead.jpg"):
                with pytest.raises(Unavailable, match="object-store"):
                    fetcher.fetch(f"s3://pictures/{key}")
            with Relay(port, int(bucket.rpartition(":")[2])):
                assert fetcher.fetch("s3://pictures/a.jpg") == b"a.jpg"
                assert fetcher.fetch("s3://pictures//lead.jpg") == b"/lead.jpg"


class Relay:
    """Forwards the connections of one loopback port to another."""

    def __init__(self, port: int, to: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", port))
        self._to = to
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> "Relay":
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        try:
            while True:
                here, _ = self._listener.accept()
                there = socket.create_connection(("127.0.0.1", self._to))
                for a, b in ((here, there), (there, here)):
                    threading.Thread(target=self._pass, args=(a, b), daemon=True).start()
        except OSError:
            return

    def _pass(self, a: socket.socket, b: socket.socket) -> None:
        with suppress(OSError):  # one side hangs up
            while data := a.recv(65536):
                b.sendall(data)
        b.close()


OBJECT = ('ETag: "1"', "Last-Modified: Wed, 21 Oct 2015 07:28:00 GMT")


@pytest.mark.usefixtures("aws")
class TestStoreFaults:
    """Answers of a store tell whether the fault is the object's or the store's own."""

    @pytest.mark.parametrize(
        ("status", "code"),
        [
            ("403 Forbidden", "AccessDenied"),
            ("403 Forbidden", "InvalidObjectState"),
            ("404 Not Found", "NoSuchKey"),
            ("404 Not Found", "NoSuchBucket"),
            ("400 Bad Request", "KeyTooLongError"),
            ("400 Bad Request", "AuthorizationHeaderMalformed"),  # the bucket lies in another region
            ("301 Moved Permanently", "PermanentRedirect"),  # likewise
            ("405 Method Not Allowed", "MethodNotAllowed"),
            ("409 Conflict", "OperationAborted"),
            ("412 Precondition Failed", "PreconditionFailed"),
        ],
    )
    def test_the_objects_own(self, status: str, code: str) -> None:
        """No upload may make the service wait for a store that is well."""
        for key in ("a.jpg", "a//b.jpg"):
            error = self.ask(status, code, key)
            assert isinstance(error, Unprocessable)
            assert error.reason == "not-found"

    @pytest.mark.parametrize(
        ("status", "code"),
        [
            ("403 Forbidden", "InvalidAccessKeyId"),
            ("403 Forbidden", "SignatureDoesNotMatch"),
            ("403 Forbidden", "RequestTimeTooSkewed"),
            ("400 Bad Request", "ExpiredToken"),
            ("401 Unauthorized", "Unauthorized"),
            ("429 Too Many Requests", "SlowDown"),
            ("500 Internal Server Error", "InternalError"),
            ("503 Service Unavailable", "SlowDown"),
        ],
    )
    def test_the_stores_own(self, status: str, code: str) -> None:
        """No upload may be given up for wrong credentials or a store that is busy."""
        for key in ("a.jpg", "a//b.jpg"):
            error = self.ask(status, code, key)
            assert isinstance(error, Unavailable)
            assert error.dependency == "object-store"
            assert code in error.detail or status[:3] in error.detail
            assert "secret" not in error.detail

    def ask(self, status: str, code: str, key: str) -> Exception:
        body = f"<Error><Code>{code}</Code><StringToSign>secret</StringToSign></Error>".encode()
        with serve(lambda _, connection: answer(connection, body, status)) as server:
            return self.fetch_from(server, key=key)

    def fetch_from(self, server: Server, timeout_s: float = 20, key: str = "a.jpg") -> Exception:
        with (
            Fetcher(FetchSettings(s3_endpoint=server.url(""), timeout_s=timeout_s)) as fetcher,
            pytest.raises((Unprocessable, Unavailable)) as caught,
        ):
            fetcher.fetch(f"s3://pictures/{key}")
        return caught.value

    def test_slow_silent_and_broken_stores(self) -> None:
        def drip(_: str, connection: socket.socket) -> bool:
            connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n{OBJECT[0]}\r\n{OBJECT[1]}\r\n\r\n".encode())
            for _ in range(100):
                connection.sendall(b"x")
                time.sleep(0.1)
            return False

        def silent(_: str, connection: socket.socket) -> bool:
            connection.recv(1)
            return False

        def reset(_: str, connection: socket.socket) -> bool:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False

        for handle in (drip, silent, reset):
            for key in ("a.jpg", "a//b.jpg"):
                with serve(handle) as server:
                    began = time.monotonic()
                    assert isinstance(self.fetch_from(server, timeout_s=0.5, key=key), Unavailable)
                    assert time.monotonic() - began < 8  # in which the slow one does not come to its end

    def test_the_announced_size_is_checked_before_the_body_is_read(self) -> None:
        def huge(_: str, connection: socket.socket) -> bool:
            connection.sendall(
                f"HTTP/1.1 200 OK\r\nContent-Length: {1 << 40}\r\n{OBJECT[0]}\r\n{OBJECT[1]}\r\n\r\n".encode()
            )
            connection.recv(1)
            return False

        for key in ("a.jpg", "a//b.jpg"):
            began = time.monotonic()
            with serve(huge) as server:
                error = self.fetch_from(server, timeout_s=20, key=key)
            assert isinstance(error, Unprocessable)
            assert error.reason == "too-large"
            assert time.monotonic() - began < 5

    def test_no_credentials_to_be_had(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        with serve(lambda _, connection: answer(connection, status="404 Not Found")) as server:
            monkeypatch.setenv("AWS_METADATA_ENDPOINT", server.url(""))
            monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.url(""))
            for key in ("a.jpg", "a//b.jpg"):
                assert isinstance(self.fetch_from(server, key=key), Unavailable)


def gs_account(server: Server) -> str:
    keys = dict.fromkeys(("client_email", "private_key", "private_key_id"), "")
    return json.dumps({"gcs_base_url": server.url(""), "disable_oauth": True, **keys})


class TestOtherStores:
    """The requests that gs and az get, checked on the wire: there is no emulator of either here."""

    def test_gs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with serve(lambda _, connection: answer(connection, BODY, headers=OBJECT)) as server:
            monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT_KEY", gs_account(server))
            with Fetcher(FetchSettings(schemes=("gs",))) as fetcher:
                assert fetcher.fetch("gs://pic-tures/a b.jpg") == BODY
                assert fetcher.fetch("gs://pic-tures/a b.jpg", "1712345") == BODY
                assert refused(fetcher, "gs://pic-tures/a//b.jpg").reason == "not-supported"
            assert server.requests[0].startswith("GET /pic%2Dtures/a%20b%2Ejpg ")
            assert server.requests[1].startswith("GET /pic%2Dtures/a%20b%2Ejpg?generation=1712345 ")

    def test_gs_without_the_object(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with serve(lambda _, connection: answer(connection, status="400 Bad Request")) as server:
            monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT_KEY", gs_account(server))
            with Fetcher(FetchSettings(schemes=("gs",))) as fetcher:
                assert refused(fetcher, "gs://pic-tures/a.jpg").reason == "not-found"

    def test_az(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with serve(lambda _, connection: answer(connection, BODY, headers=OBJECT)) as server:
            monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
            monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", server.url("/account"))
            monkeypatch.setenv("AZURE_SKIP_SIGNATURE", "true")
            with Fetcher(FetchSettings(schemes=("az",))) as fetcher:
                assert fetcher.fetch("az://pictures/a b.jpg") == BODY
            assert server.requests[0].startswith("GET /account/pictures/a%20b.jpg ")
