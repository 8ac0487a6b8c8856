"""Measure the service at a large window beside one whose window begins empty, on the same cores in one run.

    python -m tests.benchmarks.bench_large_window [--rows 1000000] [--images 400] [--rounds 3]

Both get the same pictures, in turn, new ones each round; who is first changes with the round. The large window is full
of vectors of made pictures, mixed, and with noise (`filled_window`).
"""

import argparse
import statistics
import time
from contextlib import ExitStack

from redis import Redis

from consumer.settings import WindowSettings
from consumer.window.store import WindowStore
from tests.benchmarks.bench_service import BATCH, CORES, SIZE, Load, pictures, servers, service_rate
from tests.benchmarks.filled_window import fill_aged, strangers
from tests.service_fixtures import new_service

EMPTY, LARGE = "begins empty", "is large"
STEPS = ("decode", "match", "whole process")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    images = pictures(BATCH + arguments.images * arguments.rounds)
    loads: dict[str, list[Load]] = {EMPTY: [], LARGE: []}
    with ExitStack() as stack:
        broker, redis, triton, folder = stack.enter_context(servers())
        window = WindowSettings(max_bytes=16 << 30)
        limits = {"SEENIT_WINDOW_MAX_BYTES": str(window.max_bytes)}
        services = {name: stack.enter_context(new_service(broker, redis, triton, folder, **limits)) for name in loads}
        client = stack.enter_context(Redis.from_url(redis))
        model, vectors, features = strangers(triton, images[:BATCH], arguments.rows)
        prefix = services[LARGE].environment["SEENIT_REDIS_KEY_PREFIX"]
        fill_aged(WindowStore(client, model, window, prefix), "default", vectors, features)
        consumers = {name: service.consumer() for name, service in services.items()}
        for name, service in services.items():
            began_s = time.perf_counter()
            service_rate(service, consumers[name], images[:BATCH])  # reads the window
            print(f"the first batch, where the window {name}: {time.perf_counter() - began_s:.1f} s", flush=True)
        for number in range(arguments.rounds):
            start = BATCH + number * arguments.images
            for name in (EMPTY, LARGE) if number % 2 == 0 else (LARGE, EMPTY):
                load = service_rate(services[name], consumers[name], images[start : start + arguments.images])
                loads[name].append(load)
    print(f"\nJPEGs of {SIZE[0]} x {SIZE[1]}, a window of {arguments.rows}, {CORES} cores, encoder {model.version}\n")
    print(
        f"| the window | uploads/s, median | each round | {', '.join(STEPS)}: us an upload, median |\n|---|---|---|---|"
    )
    for name, of_rounds in loads.items():
        each = ", ".join(f"{load.rate:.0f}" for load in of_rounds)
        took = ", ".join(f"{statistics.median(load.cpu_us[step] for load in of_rounds):.0f}" for step in STEPS)
        print(f"| {name} | {statistics.median(load.rate for load in of_rounds):.0f} | {each} | {took} |")
    ratios = sorted(large.rate / empty.rate for large, empty in zip(loads[LARGE], loads[EMPTY], strict=True))
    print(f"\nlarge over empty: {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")


if __name__ == "__main__":
    main()
