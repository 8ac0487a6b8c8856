"""Uploads that bring down the process, and processes that go down for other reasons, on real servers.

The consumer is started again whenever it ends, as a supervisor would.
"""

import json
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

import numpy as np
import pytest
from redis import Redis

from consumer.pipeline.poison import SUSPECT_AFTER_STARTS
from tests.faults.deadly_decoder import deadly_picture, python_path
from tests.kafka_cluster import KafkaCluster
from tests.pictures import noise
from tests.processes import Child, Reaper, until
from tests.service_fixtures import PARTITIONS, Service, new_service

pytestmark = pytest.mark.timeout(300)

TIMEOUT_S = 120.0
MEMORY_BYTES = 3 << 30
IN_FLIGHT = 16  # of the settings below


class Supervised:
    """A consumer that is started again whenever it ends, `starts` times so far; a context manager."""

    def __init__(self, service: Service, reaper: Reaper) -> None:
        log = service.folder / "supervised.log"
        environment = {**os.environ, **service.environment, "SEENIT_HTTP_PORT": "0"}
        self.child = Child("supervised", [sys.executable, "-m", "consumer", "run"], log, reaper, environment)
        self.starts = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._restart, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        status = self.child.stop()
        assert status in (0, None), self.child.latest_output[-2000:]

    def _restart(self) -> None:
        while not self._stop.wait(0.1):
            if not self.child.alive:
                self.child.start()
                resource.prlimit(self.child.pid, resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
                self.starts += 1


@contextmanager
def supervised(service: Service) -> Iterator[Supervised]:
    with Reaper() as reaper, Supervised(service, reaper) as running:
        yield running


@pytest.fixture
def service(kafka_cluster: KafkaCluster, redis_server: str, triton: str, tmp_path: Path) -> Iterator[Service]:
    """A service whose consumers have the deadly decoder; without consumers yet."""
    settings = {
        "PYTHONPATH": python_path(),
        "SEENIT_KAFKA_DELIVERY": "exactly-once",
        "SEENIT_KAFKA_INSTANCE_ID": "one",  # comes back without waiting for its own session to end
        "SEENIT_KAFKA_TRANSACTION_TIMEOUT_MS": "15000",
        "SEENIT_PIPELINE_BATCH_SIZE": str(IN_FLIGHT // 2),
        "SEENIT_PIPELINE_BATCHES_IN_FLIGHT": "2",
        "SEENIT_FETCH_SCHEMES": '["http"]',
        "SEENIT_FETCH_NETWORKS": '["127.0.0.0/8"]',
    }
    with new_service(kafka_cluster.bootstrap_servers, redis_server, triton, tmp_path, **settings) as new:
        yield new


def sandboxes(service: Service) -> list[int]:
    """Return the ids of the processes in which consumers of this service decode suspect pictures."""
    marker = f"SEENIT_KAFKA_GROUP_ID={service.kafka.group_id}".encode()
    pids = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if b"consumer.images.sandbox" in (process / "cmdline").read_bytes():
                pids += [int(process.name)] if marker in (process / "environ").read_bytes().split(b"\0") else []
    return pids


@pytest.mark.parametrize("deed", ["abrt", "kill", "grow"])
def test_poison_is_set_aside_and_the_rest_goes_on(service: Service, deed: str) -> None:
    random = np.random.default_rng(0)
    poison = deadly_picture(deed)
    names = [f"picture {number}" for number in range(12)]
    for name in names[:6]:
        service.picture(name, noise(random))
    service.send(poison, b"poison", {"content-type": b"image/bmp", "other": b"header"})
    for name in names[6:]:
        service.picture(name, noise(random))
    with supervised(service) as running:
        verdicts = {each.image_id: each for each in service.await_verdicts(len(names) + 1, TIMEOUT_S)}
        assert verdicts.pop("poison").verdict == "unprocessable"
        assert set(verdicts) == set(names)
        assert all(each.verdict != "unprocessable" for each in verdicts.values())
        reason = next(each.verdict.reason for each in service.published if each.verdict.image_id == "poison") or ""
        assert reason.startswith("poison: ")
        assert f"SIG{'KILL' if deed == 'kill' else 'ABRT'}" in reason
        [letter] = service.dead_letters(1)
        assert (letter.key(), letter.value()) == (b"poison", poison)
        headers = dict(letter.headers() or ())
        assert (headers["seenit-reason"], headers["other"]) == (b"poison", b"header")
        # Up to two deaths more: those before the process got as far as this count for an earlier offset.
        starts = running.starts
        assert SUSPECT_AFTER_STARTS <= starts <= SUSPECT_AFTER_STARTS + 2

        # Beyond the uploads that may have been in flight, batches are whole again, and there is no sandbox.
        more = [f"later picture {number}" for number in range(3 * PARTITIONS * IN_FLIGHT)]
        for name in more:
            service.picture(name, noise(random))
        service.await_verdicts(len(names) + 1 + len(more), TIMEOUT_S)
        service.picture("last", noise(random))
        assert service.await_verdict("last").verdict != "unprocessable"
        assert sandboxes(service) == []
        assert running.starts == starts
        assert len(service.verdicts) == len({each.image_id for each in service.verdicts})


class Slow(ThreadingHTTPServer):
    """Answers with a picture as soon as `go` is set, and not before."""

    def __init__(self, picture: bytes) -> None:
        self.go = threading.Event()
        go = self.go

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                go.wait()
                with suppress(OSError):
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(picture)))
                    self.end_headers()
                    self.wfile.write(picture)

            def log_message(self, *_: object) -> None:
                """Log nothing."""

        super().__init__(("127.0.0.1", 0), Handler)
        self.daemon_threads = True


def test_a_consumer_killed_again_and_again_calls_nothing_poison(service: Service) -> None:
    random = np.random.default_rng(1)
    with Slow(noise(random)) as server, Redis.from_url(service.environment["SEENIT_REDIS_URL"]) as redis:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        event = {
            "specversion": "1.0",
            "id": "slow",
            "source": "/test",
            "type": "image.uploaded",
            "data": {"image_id": "slow", "url": f"http://127.0.0.1:{server.server_port}/picture"},
        }
        key = b"same partition"
        service.send(json.dumps(event).encode(), key, {"content-type": b"application/cloudevents+json"})
        service.await_verdicts(0)
        starts_key = f"{service.environment['SEENIT_REDIS_KEY_PREFIX']}:starts:{service.kafka.group_id}"
        with supervised(service) as running:
            for count in range(1, 6):
                starts = [f"0 {count}".encode()]
                until(
                    lambda starts=starts: list(redis.hgetall(starts_key).values()) == starts, TIMEOUT_S, "no beginning"
                )
                if count >= SUSPECT_AFTER_STARTS:
                    until(lambda: len(sandboxes(service)) == 1, TIMEOUT_S, "no sandbox")
                # Only the consumer itself: the sandbox that it started has to end on its own.
                os.kill(running.child.pid, signal.SIGKILL)
                until(lambda: sandboxes(service) == [], TIMEOUT_S, "a sandbox outlives its consumer")
            server.go.set()
            for number in range(20):
                service.picture(f"picture {number}", noise(random))
            began_s = time.monotonic()
            verdicts = service.await_verdicts(21)
            assert all(each.verdict != "unprocessable" for each in verdicts)
            assert time.monotonic() - began_s < TIMEOUT_S
        server.shutdown()
