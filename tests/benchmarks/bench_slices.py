"""Windows in slices on Redis 8 beside replicas: uploads a second, what is found, bytes a row, a node that is lost.

    python -m tests.benchmarks.bench_slices [--rows 30000] [--nodes 3]

A day's window is laid into a cluster as a recovery does it. Then a first process moves it into slices, and batches of
copies are appended to it by both back ends in turn. Meanwhile another process appends to a small tenant. In the end a
node with slices comes back empty.
"""

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from multiprocessing.connection import Connection
from pathlib import Path

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import numpy as np  # noqa: E402
from pydantic import SecretStr  # noqa: E402
from redis.crc import key_slot  # noqa: E402

from consumer.encoder.contract import ModelInfo  # noqa: E402
from consumer.errors import Unavailable  # noqa: E402
from consumer.settings import RedisSettings, WindowSettings  # noqa: E402
from consumer.window.connection import connect  # noqa: E402
from consumer.window.records import Lookup, NewRecord, pack_record  # noqa: E402
from consumer.window.window import RedisWindow  # noqa: E402
from tests.benchmarks.bench_window import BATCH, Float32, copies, made_up  # noqa: E402
from tests.redis_servers import client_of  # noqa: E402
from tests.window.examples import UPLOADED_AT  # noqa: E402
from tests.window.node_loss import Node, cluster  # noqa: E402

DIM, RADIUS_L2 = 256, 1.2
MODEL = ModelInfo("encoder", "1", 160, DIM, 0.6, BATCH, None)
CHUNK = 200
BATCHES = 20


def open_window(port: int, backend: str) -> RedisWindow:
    address = SecretStr(f"redis://127.0.0.1:{port}")
    redis = connect(RedisSettings(url=address, cluster=True, timeout_s=60.0))
    settings = WindowSettings.model_validate({"backend": backend, "max_bytes": 1 << 40})
    return RedisWindow(redis, MODEL, settings, "seenit", radius_l2=RADIUS_L2)


def new_record(tenant: str, image_id: str, vector: Float32) -> NewRecord:
    return NewRecord(tenant, image_id, sha256(image_id.encode()).digest(), vector, UPLOADED_AT)


def lay(window: RedisWindow, tenant: str, vectors: Float32) -> None:
    """Lay rows into a window, spread over the last day."""
    store, epoch = window.store, "laid"
    oldest_ms = store.oldest_ms() + store.grace_ms + 60_000
    step_ms = (store.retention_ms - 120_000) / len(vectors)
    for first in range(0, len(vectors), CHUNK):
        chunk = range(first, min(first + CHUNK, len(vectors)))
        staged = [
            part
            for n in chunk
            for part in (str(n), pack_record(f"{n}", sha256(b"%d" % n).digest(), UPLOADED_AT, vectors[n]), b"")
        ]
        store.run("stage", [(tenant, ["1" if first else "", *staged])], epoch)
    for first in range(0, len(vectors), CHUNK):
        chunk = range(first, min(first + CHUNK, len(vectors)))
        entries = [part for n in chunk for part in (int(oldest_ms + n * step_ms), str(n), b"", "")]
        last = "1" if first + CHUNK >= len(vectors) else ""
        store.run("restore", [(tenant, ["1", first, len(vectors), last, *entries])], epoch)


def memory(nodes: Sequence[Node]) -> int:
    used = 0
    for node in nodes:
        with client_of(node.server) as client:
            used += client.info("memory")["used_memory"]
    return used


def append_to_small(port: int, backend: str, end: Connection) -> None:
    """Append to a small tenant until told to end; tells how long each append took, in milliseconds."""
    window = open_window(port, backend)
    vectors = made_up(np.random.default_rng(5), 1_000, DIM)
    window.append([new_record(f"small-{backend}", f"{time.time_ns()}", vectors[0])])
    end.send("ready")
    taken_ms: list[float] = []
    while not end.poll(0.01):
        start = time.perf_counter()
        window.append([new_record(f"small-{backend}", f"{time.time_ns()}", vectors[len(taken_ms) % 1_000])])
        taken_ms.append(1e3 * (time.perf_counter() - start))
    end.send(taken_ms)


@contextmanager
def neighbour(port: int, backend: str) -> Iterator[list[float]]:
    """Let another process append to a small tenant all the while; in the end the list has its times."""
    own, other = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=append_to_small, args=(port, backend, other))
    process.start()
    own.recv()
    taken_ms: list[float] = []
    try:
        yield taken_ms
    finally:
        own.send(None)
        taken_ms += own.recv()
        process.join()


def tell_times(what: str, taken_ms: Sequence[float]) -> None:
    median, high = np.percentile(taken_ms, [50, 99])
    print(f"  {what}: median {median:.1f} ms, 99th percentile {high:.1f} ms, {len(taken_ms)} times")


def bench(nodes: Sequence[Node], rows: int) -> None:
    rng, port = np.random.default_rng(1), nodes[0].server.ports[0]
    vectors = made_up(rng, rows, DIM)
    sliced, replica = open_window(port, "redis-vectors"), open_window(port, "replica")
    lay(sliced, "big", vectors)
    before = memory(nodes)
    start = time.perf_counter()
    sliced.append([new_record("big", "first", vectors[0])])
    took_s = time.perf_counter() - start
    print(f"{rows:,} rows moved into slices: {rows / took_s:,.0f} a second")
    print(
        f"  in Redis {(memory(nodes) - before) / rows:,.0f} bytes a row more; in the process {sliced.stats().rows} rows"
    )
    replica.append([new_record("big", "second", vectors[1])])
    print(f"  in a process with a replica {replica.stats().bytes / rows:,.0f} bytes a row")
    with neighbour(port, "redis-vectors") as idle_ms:
        time.sleep(3)
    tell_times("a small tenant meanwhile nothing else", idle_ms)
    for backend, window in (("redis-vectors", sliced), ("replica", replica)):
        taken_ms: list[float] = []
        with neighbour(port, backend) as meanwhile_ms:
            for number in range(BATCHES):
                queries = copies(rng, vectors[rng.integers(0, rows, BATCH)], RADIUS_L2)
                batch = [new_record("big", f"{backend}-{number}-{n}", query) for n, query in enumerate(queries)]
                start = time.perf_counter()
                window.append(batch)
                taken_ms.append(1e3 * (time.perf_counter() - start))
        print(f"{backend}: {1e3 * BATCH / np.median(taken_ms):,.0f} uploads a second")
        tell_times(f"batches of {BATCH}", taken_ms)
        tell_times("a small tenant meanwhile", meanwhile_ms)
    queries = copies(rng, vectors[rng.integers(0, rows, BATCHES * BATCH)], RADIUS_L2)
    lookups = [Lookup("big", b"", (query,)) for query in queries]
    told, exact = (
        [{match.image_id for match in each.near} for each in one.look_up(lookups)] for one in (sliced, replica)
    )
    share = sum(len(one & other) for one, other in zip(told, exact, strict=True)) / sum(map(len, exact))
    print(f"slices find {share:.4f} of {sum(map(len, exact)):,} rows that an exact search finds")
    lose_node(nodes, sliced, vectors)


def lose_node(nodes: Sequence[Node], window: RedisWindow, vectors: Float32) -> None:
    """Kill a node that has slices and not the log, and tell for how long nothing is decided once it is back, empty."""
    victim = next(node for node in nodes if key_slot(b"big") not in node.slots and node.has_slices())
    with client_of(victim.server) as client:
        lost = sum(client.execute_command("VCARD", key) for key in client.keys("*{big/*:vectors:*"))
    victim.kill()
    victim.restart()
    start = time.perf_counter()
    tries = 0
    while True:
        tries += 1
        try:
            [result] = window.append([new_record("big", "after the loss", vectors[2])])
            break
        except Unavailable:
            time.sleep(0.1)
    took_s = time.perf_counter() - start
    assert any(match.image_id == "2" for match in result.near)
    print(f"a node lost {lost:,} rows in slices: {took_s:.1f} s without decisions, {tries} tries")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=30_000)
    parser.add_argument("--nodes", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, cluster(Path(folder), arguments.nodes) as nodes:
        bench(nodes, arguments.rows)


if __name__ == "__main__":
    main()
