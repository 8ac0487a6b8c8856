"""Measure look-ups over HTTP beside the consumer, on the same cores and at the same window, in one run.

    python -m tests.benchmarks.bench_http [--images 300] [--rounds 3] [--rows 100000]

The window is filled with vectors of made pictures, mixed, and with noise: one in seventy is a candidate for a second
look at a new picture, where of photographs of different things one in three hundred is. (c) is the service from the
input topic to the committed verdict, (h) look-ups by 32 clients at once, in requests a second; then the time of a
look-up at half of what (h) bears. Clients and servers share the cores.
"""

import argparse
import http.client
import statistics
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import numpy as np
from redis import Redis

from consumer.local.process import Server
from consumer.settings import WindowSettings
from consumer.window.store import WindowStore
from tests.benchmarks.bench_service import BATCH, CORES, SIZE, pictures, servers, service_rate
from tests.benchmarks.filled_window import fill_aged, strangers
from tests.http_fixtures import http_server
from tests.service_fixtures import new_service
from tests.stack_fixtures import serving

CLIENTS = 32
# The server closes connections that nothing came on for five seconds.
KEPT_S = 3.0
SETTINGS = {"SEENIT_SERVE_REQUESTS_PER_S": "100000"}


class Client:
    """Connections of as many threads as use it."""

    def __init__(self, server: Server) -> None:
        self._port = server.ports[0]
        self._local = threading.local()

    def look_up(self, data: bytes) -> float:
        """Look a picture up; return how long that took, in milliseconds."""
        began_s = time.perf_counter()
        if began_s - getattr(self._local, "used_s", 0.0) > KEPT_S:
            self._local.connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        self._local.connection.request("POST", "/v1/lookup", data, {"content-type": "image/jpeg"})
        reply = self._local.connection.getresponse()
        body = reply.read()
        assert reply.status == 200, body
        self._local.used_s = time.perf_counter()
        return (self._local.used_s - began_s) * 1000


def http_rate(client: Client, images: Sequence[bytes]) -> float:
    """(h) Look the pictures up, as fast as can be; return requests a second."""
    with ThreadPoolExecutor(CLIENTS) as pool:
        began_s = time.perf_counter()
        list(pool.map(client.look_up, images))
        return len(images) / (time.perf_counter() - began_s)


def latencies_ms(client: Client, images: Sequence[bytes], rate: float) -> list[float]:
    """Look pictures up at an even rate, whether the ones before are answered or not."""
    with ThreadPoolExecutor(4 * CLIENTS) as pool:
        began_s, answers = time.perf_counter(), []
        for number, data in enumerate(images):
            time.sleep(max(0.0, began_s + number / rate - time.perf_counter()))
            answers.append(pool.submit(client.look_up, data))
        return [answer.result() for answer in answers]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=100_000)
    arguments = parser.parse_args()
    # Each round has pictures that the window does not know yet.
    images = pictures(arguments.images * (arguments.rounds + 1))
    rates: dict[str, list[float]] = {"c": [], "h": []}
    with ExitStack() as stack:
        broker, redis, triton, folder = stack.enter_context(servers())
        window = WindowSettings(max_bytes=16 << 30)
        limits = {"SEENIT_WINDOW_MAX_BYTES": str(window.max_bytes)}
        service = stack.enter_context(new_service(broker, redis, triton, folder, **limits))
        client = stack.enter_context(Redis.from_url(redis))
        prefix = service.environment["SEENIT_REDIS_KEY_PREFIX"]
        began_s = time.perf_counter()
        model, vectors, features = strangers(triton, images[: arguments.images], arguments.rows)
        fill_aged(WindowStore(client, model, window, prefix), "default", vectors, features)
        print(f"filled in {time.perf_counter() - began_s:.0f} s", flush=True)
        consumer = service.consumer()
        server = http_server({**service.environment, **SETTINGS}, folder)
        stack.enter_context(serving(server))
        clients = Client(server)
        first_ms = clients.look_up(images[0])  # reads the window
        print(f"the first look-up took {first_ms / 1000:.1f} s", flush=True)
        service_rate(service, consumer, images[:BATCH])
        for number in range(1, arguments.rounds + 1):
            new = images[number * arguments.images : (number + 1) * arguments.images]
            rates["h"].append(http_rate(clients, new))
            rates["c"].append(service_rate(service, consumer, new).rate)
        half = statistics.median(rates["h"]) / 2
        late_ms = latencies_ms(clients, images[-min(len(images), int(half * 30)) :], half)
    print(f"JPEGs of {SIZE[0]} x {SIZE[1]}, a window of {arguments.rows}, {CORES} cores, encoder {model.version}\n")
    print("| | a second, median | each round |\n|---|---|---|")
    for name, what in (("c", "verdicts of the service"), ("h", "look-ups over HTTP")):
        each = ", ".join(f"{rate:.0f}" for rate in rates[name])
        print(f"| ({name}) {what} | {statistics.median(rates[name]):.0f} | {each} |")
    ratios = sorted(h / c for h, c in zip(rates["h"], rates["c"], strict=True))
    print(f"\nh/c: {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")
    p50, p95, p99 = np.percentile(late_ms, [50, 95, 99])
    print(f"A look-up at {half:.0f} a second: p50 {p50:.0f} ms, p95 {p95:.0f} ms, p99 {p99:.0f} ms")


if __name__ == "__main__":
    main()
