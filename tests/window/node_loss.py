"""Nodes of a cluster are killed, and come back empty, while uploads are compared: a run for each seed.

The windows' logs are on one node, which stays: what is lost are slices, which have to be filled again. Run twenty:
python -m tests.window.node_loss --seeds 20
"""

import argparse
import random
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

from pydantic import SecretStr
from redis.crc import key_slot

from consumer.decide import decide
from consumer.errors import Unavailable
from consumer.local.binaries import find_binaries
from consumer.local.process import Server, stop_all, wait_until_ready
from consumer.settings import RedisSettings, WindowSettings
from consumer.window import slice_filler, slices
from consumer.window.connection import connect
from consumer.window.records import NewRecord, Position
from consumer.window.window import RedisWindow
from tests.redis_servers import client_of, redis_like
from tests.stack_fixtures import serving
from tests.window.examples import MODEL, PREFIX, upload

NODES, SLOTS = 3, 16_384
WORKERS, TENANTS, PICTURES, COPIES = 3, 6, 10, 3
# Longer than a run takes, and in slices so short that there are many of them.
RETENTION_S, SLICES = 600.0, 300
READY_S = 30.0
KILLS = 3


class Node:
    """One server of a cluster, with its share of the slots."""

    def __init__(self, server: Server, first_slot: int, last_slot: int) -> None:
        self.server = server
        self.slots = range(first_slot, last_slot + 1)

    def kill(self) -> None:
        stop_all([self.server], timeout_s=0)

    def has_slices(self) -> bool:
        with client_of(self.server) as client:
            return bool(client.keys("*:vectors:*"))

    def restart(self) -> None:
        """Start it again on its ports, without what it held, and wait until it takes part."""
        self.server.start(self.server.ports)
        wait_until_ready([self.server])
        wait_for_cluster([self])


@contextmanager
def cluster(folder: Path, count: int = NODES) -> Iterator[list[Node]]:
    """A cluster of `count` Redis 8."""
    with ExitStack() as stack:
        nodes = []
        for number in range(count):
            (folder / str(number)).mkdir()
            server = redis_like("redis-vectors", find_binaries(), folder / str(number), cluster=True)
            first, end = number * SLOTS // count, (number + 1) * SLOTS // count
            nodes.append(Node(stack.enter_context(serving(server)), first, end - 1))
        for number, node in enumerate(nodes):
            with client_of(node.server) as client:
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", node.slots[0], node.slots[-1])
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
                for other in nodes[:number]:
                    client.execute_command("CLUSTER", "MEET", "127.0.0.1", *other.server.ports)
        wait_for_cluster(nodes)
        yield nodes


def wait_for_cluster(nodes: Sequence[Node]) -> None:
    deadline_s = time.monotonic() + READY_S
    for node in nodes:
        with client_of(node.server) as client:
            while client.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
                assert time.monotonic() < deadline_s, "the cluster does not come up"
                time.sleep(0.05)


def empty(nodes: Sequence[Node]) -> None:
    for node in nodes:
        with client_of(node.server) as client:
            client.flushall()


@contextmanager
def short_slices() -> Iterator[None]:
    """Move every row into slices at once, and make these short."""
    with (
        patch.object(slice_filler, "TAIL_ROWS", 0),
        patch.object(slice_filler, "SURPLUS_ROWS", 0),
        patch.object(slices, "SLICES", SLICES),
    ):
        yield


class Worker(threading.Thread):
    """A process that decides on uploads, and tries again while the cluster cannot be asked."""

    def __init__(self, nodes: Sequence[Node], uploads: Sequence[NewRecord]) -> None:
        super().__init__(daemon=True)
        self.answers: dict[tuple[str, str], tuple[Position, str | None]] = {}
        self.waits: list[str] = []
        self.failure: BaseException | None = None
        self._nodes = nodes
        self._uploads = uploads

    def run(self) -> None:
        try:
            window = open_window(self._nodes)
            for start in range(0, len(self._uploads), 4):
                for tenant, image_id, answer in self._decide(window, self._uploads[start : start + 4]):
                    self.answers[tenant, image_id] = answer
        except BaseException as error:
            self.failure = error

    def _decide(
        self, window: RedisWindow, batch: Sequence[NewRecord]
    ) -> list[tuple[str, str, tuple[Position, str | None]]]:
        deadline_s = time.monotonic() + READY_S
        while True:
            try:
                results = window.append(batch)
                break
            except Unavailable as error:
                self.waits.append(error.detail)
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(0.05)
        answers = []
        for new, result in zip(batch, results, strict=True):
            match = decide(result, MODEL.threshold_l2, 5).match
            assert result.position is not None
            answers.append((new.tenant, new.image_id, (result.position, match and match.image_id)))
        return answers


def open_window(nodes: Sequence[Node], timeout_s: float = 2.0) -> RedisWindow:
    """Open a window as a process of its own would; no command takes longer than `timeout_s`."""
    address = SecretStr(f"redis://127.0.0.1:{nodes[0].server.ports[0]}")
    redis = connect(RedisSettings(url=address, cluster=True, timeout_s=timeout_s))
    settings = WindowSettings(retention_s=RETENTION_S, backend="redis-vectors")
    return RedisWindow(redis, MODEL, settings, PREFIX)


def tenants_on(node: Node, seed: int) -> list[str]:
    """Tenants whose logs are on a node."""
    names = (f"s{seed}-t{number}" for number in range(100))
    return [name for name in names if key_slot(f"{{{name}}}".encode()) in node.slots][:TENANTS]


def run_seed(seed: int, nodes: Sequence[Node]) -> int:
    """Run one seed, in which KILLS nodes are killed; returns how often a process had to try again."""
    draw = random.Random(seed)
    tenants = tenants_on(nodes[0], seed)
    uploads = [
        upload(f"{picture}/{copy}", picture, copy, tenant)
        for tenant in tenants
        for picture in range(PICTURES)
        for copy in range(COPIES)
    ]
    draw.shuffle(uploads)
    # Some are handled twice, by two processes.
    shares = [uploads[number::WORKERS] + draw.sample(uploads, 20) for number in range(WORKERS)]
    workers = [Worker(nodes, share) for share in shares]
    for worker in workers:
        worker.start()
    for kill in range(1, KILLS + 1):
        # However fast the machine is: there is something to lose by then, and more to come that is compared with it.
        enough = len(uploads) * kill / (KILLS + 1)
        while any(worker.is_alive() for worker in workers) and sum(len(each.answers) for each in workers) < enough:
            time.sleep(0.01)
        victim = draw.choice([node for node in nodes[1:] if node.has_slices()] or nodes[1:])
        victim.kill()
        time.sleep(draw.uniform(0.0, 0.5))
        victim.restart()
    for worker in workers:
        worker.join()
        if worker.failure is not None:
            raise worker.failure
    check(workers)
    again = Worker(nodes, uploads)
    again.start()
    again.join()
    assert again.failure is None, again.failure
    check([*workers, again])
    return sum(len(worker.waits) for worker in workers)


def check(workers: Sequence[Worker]) -> None:
    """Of the copies of each picture the first is unique, the others are copies of it, and repeats are told the same."""
    answers: dict[tuple[str, str], tuple[Position, str | None]] = {}
    for worker in workers:
        for upload_key, answer in worker.answers.items():
            assert answers.setdefault(upload_key, answer) == answer, f"{upload_key}: {answers[upload_key]}, {answer}"
    for tenant in {tenant for tenant, _ in answers}:
        for picture in range(PICTURES):
            copies = [(tenant, f"{picture}/{copy}") for copy in range(COPIES)]
            first = min(copies, key=lambda each: answers[each][0])
            matches = {each: answers[each][1] for each in copies}
            assert matches == {each: None if each == first else first[1] for each in copies}, (tenant, picture)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    with tempfile.TemporaryDirectory() as folder, cluster(Path(folder)) as nodes, short_slices():
        for seed in range(1, parser.parse_args().seeds + 1):
            empty(nodes)
            print(f"seed {seed}: {KILLS} nodes killed, {run_seed(seed, nodes)} tries more", flush=True)


if __name__ == "__main__":
    main()
