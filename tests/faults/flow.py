"""A consumer under a steady stream of uploads, for tests that hurt what it depends on."""

import json
import os
import urllib.error
import urllib.request
from pathlib import Path

from tests.processes import Child, free_ports, until
from tests.torture.checker import Checker, Topics
from tests.torture.seed import PARTITIONS, TOPIC_CONFIG, environment
from tests.torture.workload import Uploader, plan
from tests.torture.world import World

RATE = 25
# Longer than the only broker is ever away: Apache Kafka 4.4.0, killed with a transaction open and started after its
# time-out, gives the transaction up and forgets to mark that; the producer's next commit publishes it.
TRANSACTION_TIMEOUT_MS = "180000"


def patience(seconds: float) -> float:
    """Stretch a time for an idle machine to what the present load of this one makes of it."""
    return seconds * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


class Flow:
    """A consumer with topics of its own, under a steady stream of uploads."""

    def __init__(self, world: World, number: int, uploads: int, *, static: bool) -> None:
        """A `static` member, killed and started again, aborts the transaction that it left open."""
        self.world = world
        topics = Topics(f"away-{number}", f"away-{number}-out", f"away-{number}-letters")
        for topic in filter(None, topics):
            world.kafka.create_topic(topic, PARTITIONS, TOPIC_CONFIG)
        self.workload = plan(number, uploads, PARTITIONS, world.store)
        [self.port] = free_ports(1)
        self.settings = environment(topics, number, 0, static=static) | {
            "SEENIT_HTTP_PORT": str(self.port),
            "SEENIT_KAFKA_TRANSACTION_TIMEOUT_MS": TRANSACTION_TIMEOUT_MS,
        }
        self.consumer: Child = world.consumer(0, self.settings)
        self.checker = Checker(world.kafka.bootstrap_servers, topics, topics.uploads, self.workload, [])
        self.uploader = Uploader(self.workload, world.kafka.bootstrap_servers, topics.destinations(), RATE)

    def probe(self, path: str) -> tuple[int, dict[str, str]]:
        """Ask the service's HTTP server; return the status, 0 if there is no answer, and the problems it names."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"http://127.0.0.1:{self.port}{path}", timeout=8) as reply:
                return reply.status, json.load(reply)["problems"]
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)["problems"]
        except (urllib.error.URLError, OSError):
            return 0, {}

    def memory_mb(self) -> float:
        """Return the resident memory of the consumer, in MiB."""
        status = Path(f"/proc/{self.consumer.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    def until_ready(self) -> None:
        until(lambda: self.probe("/readyz")[0] == 200, patience(20), "the service is not ready")

    def start(self) -> None:
        """Start the consumer and the uploads, and wait until verdicts follow them."""
        self.consumer.start()
        self.until_ready()
        self.uploader.start()
        until(lambda: self.checker.decided() > RATE and self.checker.lag() < 2 * RATE, patience(15), "it does not flow")

    def goes_on(self, what: str, within_s: float = 10.0) -> None:
        """Wait until a second's uploads, sent from now on, are decided, or all; else `what` is the complaint."""
        sent = min(self.uploader.sent + RATE, len(self.workload.messages))
        assert self.checker.decided() < sent, "no uploads are left that could show whether it goes on"
        try:
            until(lambda: self.checker.decided() >= sent, patience(within_s), what)
        except TimeoutError as error:
            raise AssertionError(f"{error}; the consumer says: {self.consumer.output[-3000:]}") from None

    def finish(self) -> None:
        """Assert that every upload is decided, once, and that the consumer stops when it is asked to."""
        self.uploader.join()
        until(lambda: self.checker.lag() == 0, patience(30), "uploads wait for their verdicts")
        self.until_ready()
        assert self.consumer.stop() == 0
        with self.world.redis_client() as window:
            report = self.checker.check(window, self.settings["SEENIT_REDIS_KEY_PREFIX"])
        assert report.violations == [], report.violations[:20]
