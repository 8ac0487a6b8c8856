"""How long a process takes to read a large window, and what others notice of it meanwhile.

    python -m tests.benchmarks.bench_warm_start [--rows 1000000] [--rounds 3]

A window is filled with made-up vectors. In turn, its pages are read and left at that, and a process begins: it reads
the window to look up one picture. Another process asks Redis for a value again and again meanwhile. Redis, that process
and the one that reads share the cores; processor time is told beside the time taken.
"""

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")

import numpy as np
from redis import Redis

from consumer.local.binaries import find_binaries
from consumer.local.servers import valkey
from consumer.settings import WindowSettings
from consumer.window.records import Lookup
from consumer.window.replica import Page, page_after
from consumer.window.store import WindowStore
from consumer.window.window import RedisWindow
from tests.benchmarks.bench_window import made_up
from tests.benchmarks.filled_window import fill_aged
from tests.stack_fixtures import serving
from triton_models.training.parameters import CONFIGS, MODEL_FOLDER, model_of

MODEL = model_of(MODEL_FOLDER / CONFIGS[0])
SETTINGS = WindowSettings(max_bytes=16 << 30)
TENANT, PREFIX = "t", "seenit"
ASK_EVERY_S = 0.002


def ask(port: int, end: Connection) -> None:
    """Ask Redis for a value until told to stop; send how long that took each time, in milliseconds."""
    redis, taken_ms = Redis(port=port), []
    while not end.poll():
        began_s = time.perf_counter()
        redis.get("nothing")
        taken_ms.append(1e3 * (time.perf_counter() - began_s))
        time.sleep(ASK_EVERY_S)
    end.send(taken_ms)


def redis_cpu_s(redis: Redis) -> float:
    used = redis.info("cpu")
    return float(used["used_cpu_user"] + used["used_cpu_sys"])


def measure(redis: Redis, port: int, work: Callable[[], object]) -> tuple[float, float, float, list[float]]:
    """Time the work: seconds, processor time of this process and of Redis, and what another had to wait for Redis."""
    ours, theirs = multiprocessing.Pipe()
    other = multiprocessing.get_context("spawn").Process(target=ask, args=(port, theirs))
    other.start()
    time.sleep(1)  # until it asks
    began = time.perf_counter(), time.process_time(), redis_cpu_s(redis)
    work()
    taken = time.perf_counter() - began[0], time.process_time() - began[1], redis_cpu_s(redis) - began[2]
    ours.send("stop")
    waited_ms = ours.recv()
    other.join()
    return *taken, waited_ms[-int(taken[0] / ASK_EVERY_S) :]


def read_pages(store: WindowStore) -> None:
    """Read all pages, one after the other, and leave it at that."""
    cursor, more = b"-", 1
    while more:
        page = Page(*store.run("read", [(TENANT, ["", *page_after(cursor)])])[0])
        cursor, more = page.cursor, page.more


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    taken_s: dict[str, list[float]] = {"pages alone": [], "warm start": []}
    with tempfile.TemporaryDirectory() as folder, serving(valkey(find_binaries(), Path(folder))) as server:
        redis = Redis(port=server.ports[0])
        store = WindowStore(redis, MODEL, SETTINGS, PREFIX)
        fill_aged(store, TENANT, made_up(np.random.default_rng(0), arguments.rows, MODEL.dim), [b""])
        for _ in range(arguments.rounds):
            window = RedisWindow(redis, MODEL, SETTINGS, PREFIX)
            works: dict[str, Callable[[], object]] = {
                "pages alone": lambda: read_pages(store),
                "warm start": lambda window=window: window.look_up([Lookup(TENANT, b"-", ())]),
            }
            for name, work in works.items():
                wall_s, own_s, redis_s, waited_ms = measure(redis, server.ports[0], work)
                taken_s[name].append(wall_s)
                print(
                    f"{name}: {wall_s:.1f} s, {arguments.rows / wall_s:,.0f} rows/s; processor time {own_s:.1f} s, "
                    f"of Redis {redis_s:.1f} s; another waits for Redis, ms: p50 {np.median(waited_ms):.1f}, "
                    f"p99 {np.percentile(waited_ms, 99):.1f}; load {os.getloadavg()[0]:.1f}",
                    flush=True,
                )
            stats = window.stats()
            assert stats.rows >= arguments.rows * 0.99, stats
            print(f"{stats.bytes / stats.rows:.0f} bytes a row")
    ratios = [one / other for one, other in zip(taken_s["warm start"], taken_s["pages alone"], strict=True)]
    for name, taken in taken_s.items():
        print(f"{name}: {statistics.median(taken):.1f} s, median")
    print(f"warm start over pages alone: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
