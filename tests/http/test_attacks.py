"""What strangers send: damaged pictures, addresses within, slow and endless requests, injected headers and paths."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest

from consumer.http.limits import MAX_TEXT_BYTES
from consumer.http.protocol import MAX_HEADERS_BYTES
from deploy.reference import OPENAPI
from tests.addresses import PRIVATE_HOSTS, REFUSED_URLS
from tests.faults.fuzz_images import mutant
from tests.http.conftest import serve
from tests.http.pictures import PHOTO, jpeg
from tests.service_fixtures import Service
from tests.web import answer
from tests.web import serve as serve_pictures

PICTURE = jpeg(PHOTO)
MUTANTS = 150
HEAD = b"POST /v1/lookup HTTP/1.1\r\nhost: localhost\r\ncontent-type: image/jpeg\r\n"


@pytest.fixture(scope="module")
def hurt(uploads: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of a `seenit serve` that is attacked."""
    settings = {"SEENIT_SERVE_REQUESTS_PER_S": "10000", "SEENIT_SERVE_MAX_LOOK_UPS": "2"}
    with serve(uploads.environment, tmp_path_factory.mktemp("hurt"), **settings) as client:
        yield client


def connect(http: httpx.Client) -> socket.socket:
    return socket.create_connection((http.base_url.host, http.base_url.port or 0), timeout=30)


def received(connection: socket.socket) -> bytes:
    """All that is sent until the server closes the connection."""
    answered = b""
    while part := connection.recv(65536):
        answered += part
    return answered


def works(http: httpx.Client) -> bool:
    return http.post("/v1/lookup", content=PICTURE, headers={"content-type": "image/jpeg"}).status_code == 200


def test_damaged_pictures_end_as_matches_or_a_reason(hurt: httpx.Client) -> None:
    reasons = set()
    for number in range(MUTANTS):
        form, data = mutant(19, number)
        reply = hurt.post("/v1/lookup", content=data, headers={"content-type": "image/*"})
        assert reply.status_code in {200, 400, 413}, (number, form, reply.text)
        if reply.status_code != 200:
            reasons.add(reply.json()["reason"])
    assert len(reasons) > 2
    assert works(hurt)


def test_no_address_leads_into_this_network(hurt: httpx.Client) -> None:
    with serve_pictures(lambda _, connection: answer(connection, PICTURE)) as inside:
        own = [inside.url(), f"https://127.0.0.1:{inside.port}/", f"https://localhost:{inside.port}/"]
        for url in (*own, *(f"https://{host}/a?token=secret" for host in PRIVATE_HOSTS), *REFUSED_URLS):
            reply = hurt.post("/v1/lookup", json={"url": url})
            assert reply.status_code == (400 if url else 422), url
            assert "secret" not in reply.text
            if url:
                assert reply.json()["reason"] == "forbidden-address", url
    assert inside.connections == 0


def test_slow_requests_are_given_up(hurt: httpx.Client) -> None:
    began_s = time.monotonic()
    with ExitStack() as stack:
        silent, half, slow, stalled = (stack.enter_context(connect(hurt)) for _ in range(4))
        half.sendall(b"POST /v1/lookup HTTP/1.1\r\nhost: localhost\r\n")
        head = (
            b"POST /v1/lookup HTTP/1.1\r\nhost: localhost\r\ncontent-type: image/jpeg\r\ncontent-length: 100000\r\n\r\n"
        )
        slow.sendall(head)
        stalled.sendall(head + PICTURE[:1000])
        while time.monotonic() - began_s < 8:
            slow.sendall(b"\xff")
            time.sleep(1)
            assert works(hurt)  # there are no more places than slow bodies
        assert received(silent) == b""
        assert received(half) == b""
        for each in (slow, stalled):
            assert received(each).startswith(b"HTTP/1.1 408 ")
    assert time.monotonic() - began_s < 25
    assert works(hurt)


def test_too_many_headers_are_refused(hurt: httpx.Client) -> None:
    for headers in (b"x: " + b"a" * MAX_HEADERS_BYTES, b"\r\n".join(b"x-%d: a" % number for number in range(200))):
        with connect(hurt) as connection:
            connection.sendall(b"GET /v1/images/a HTTP/1.1\r\nhost: localhost\r\n" + headers + b"\r\n\r\n")
            assert received(connection).startswith(b"HTTP/1.1 400 ")
    with connect(hurt) as connection:
        connection.sendall(b"GET /" + b"a" * (MAX_HEADERS_BYTES + 1) + b" HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert received(connection).startswith(b"HTTP/1.1 400 ")
    assert works(hurt)


def test_bodies_beyond_the_bound_are_refused(hurt: httpx.Client) -> None:
    announced = (
        b"POST /v1/lookup HTTP/1.1\r\nhost: localhost\r\ncontent-type: image/png\r\ncontent-length: 99999999999\r\n"
    )
    with connect(hurt) as connection:
        connection.sendall(announced + b"connection: close\r\n\r\n")
        assert b"413" in received(connection).splitlines()[0]
    endless = (b"x" * 65536 for _ in range(MAX_TEXT_BYTES // 65536 + 10))
    reply = hurt.post("/v1/lookup", content=endless, headers={"content-type": "application/json"})
    assert (reply.status_code, reply.json()["reason"]) == (413, "too-large")
    assert works(hurt)


def test_many_idle_connections_hold_up_nobody(hurt: httpx.Client) -> None:
    with ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(connect(hurt)).sendall(b"POST /v1/lookup HTTP/1.1\r\n")
        assert works(hurt)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/images/a%0d%0aset-cookie:%20x=1",
        "/v1/images/%00",
        "/v1/images/..%2f..%2fetc%2fpasswd",
        "/static/..%2f..%2f..%2fetc%2fpasswd",
        "/static/%2e%2e/%2e%2e/app.py",
        "/static//etc/passwd",
        "/v1/images/<script>alert(1)</script>",
    ],
)
def test_paths_lead_nowhere_and_inject_nothing(hurt: httpx.Client, path: str) -> None:
    reply = hurt.get(path)
    assert reply.status_code in {404, 503}
    assert "set-cookie" not in reply.headers
    assert "script>" not in reply.text
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in reply.headers["content-security-policy"]


def test_what_cannot_be_parsed_is_a_bad_request(hurt: httpx.Client) -> None:
    requests = (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\nhello",
        b"POST / HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    )
    for request in requests:
        with connect(hurt) as connection:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            assert received(connection)[:12] in {b"HTTP/1.1 400", b"HTTP/1.1 405", b""}
    assert works(hurt)


def test_random_requests_get_what_the_document_says(hurt: httpx.Client) -> None:
    """Requests made from the OpenAPI document, and beyond it, by schemathesis."""
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    command = [sys.executable, "-m", "schemathesis.cli", "run", str(OPENAPI), f"--url={hurt.base_url}"]
    options = [
        f"--checks={checks}",
        "--phases=examples,coverage,fuzzing",
        "--max-examples=10",
        "--seed=19",
        "--no-color",
    ]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert works(hurt)
