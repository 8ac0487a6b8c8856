"""Run the whole service at full load for a long time: do memory, file descriptors and threads stay flat?

    python -m tests.benchmarks.soak [--minutes 30] [--rows 500000 [--rows-per-s 80]] [--results out/soak]

One consumer process, exactly-once on Apache Kafka, with Redis and the shipped encoder on Triton. The input topic is
always ahead of it, with new pictures, near and exact copies (these by address), deletions, and uploads that cannot be
processed. The last two thirds of the run are judged. The window is a sixth of the run, so that long before them it is
full and expires as fast as it grows; with `--rows` it is full of so many strangers at the start, and as long as it
takes to replace them. The exit status is 1 if something grew; `soak.csv` and `soak.png` are written.
"""

import argparse
import csv
import io
import json
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, fields
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import urlopen

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis

from consumer.local.binaries import find_binaries
from consumer.local.process import Server
from consumer.local.servers import TritonServer, valkey
from consumer.settings import WindowSettings
from consumer.window.store import WindowStore
from tests.benchmarks.bench_service import pictures
from tests.benchmarks.filled_window import fill_aged, strangers
from tests.kafka_cluster import KafkaCluster
from tests.service_fixtures import Service, new_service
from tests.stack_fixtures import serving

SAMPLE_EVERY_S = 5.0
AHEAD = 1000  # messages on the topic that the consumer has not answered yet
SIZE = (320, 240)  # half of the benchmark's, since making the pictures takes time on the same cores
BASES = 300
RECENT = 3000  # pictures that copies are made of and deletions name
# So that Kafka stores little more than is needed.
TOPICS = {"log.segment.bytes": str(16 << 20), "log.retention.bytes": str(64 << 20)}
TOPICS["log.retention.check.interval.ms"] = "10000"
# How far the trend may rise over the part that is judged. A leak of 200 bytes an upload makes 24 MiB of the 120,000
# uploads that two cores answer in 20 minutes. Single samples lie nearly as far apart, since allocators give back what
# is free only now and then, but not the trend of many. Connections come and go, and with them descriptors and a thread.
MAX_GROWTH = {"rss_mib": 24.0, "file_descriptors": 4.0, "threads": 2.0}


@dataclass(frozen=True)
class Sample:
    """The consumer at one moment; memory in MiB."""

    elapsed_s: float
    rss_mib: float
    file_descriptors: int
    threads: int
    redis_mib: float
    window_embeddings: int
    uploads_per_s: float


LABELS = {
    "rss_mib": "memory (RSS), MiB",
    "file_descriptors": "file descriptors",
    "threads": "threads",
    "redis_mib": "Redis, MiB",
    "window_embeddings": "pictures in the window",
    "uploads_per_s": "uploads/s",
}


class Pictures(ThreadingHTTPServer):
    """Serves recent pictures by their numbers."""

    daemon_threads = True

    def __init__(self, recent: deque[tuple[int, bytes]]) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                number = int(self.path[1:])
                first = recent[0][0]
                data = recent[number - first][1] if number >= first else b""
                self.send_response(200 if data else 404)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                with suppress(OSError):
                    self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                """Log nothing."""

        super().__init__(("127.0.0.1", 0), Handler)


class Load(threading.Thread):
    """Sends messages so that the topic stays ahead of the `done` ones, until `stop` is set."""

    def __init__(self, service: Service) -> None:
        super().__init__(name="load", daemon=True)
        self.sent = self.done = 0
        self.stop = threading.Event()
        self.recent: deque[tuple[int, bytes]] = deque(maxlen=RECENT)
        self.server = Pictures(self.recent)
        self._service = service
        self._random = np.random.default_rng(1)
        self._bases = [np.asarray(Image.open(io.BytesIO(data))) for data in pictures(BASES)]
        for _ in range(RECENT):
            self.recent.append((len(self.recent), self._new()))
        self._number = RECENT

    def run(self) -> None:
        """Serve the pictures and send messages."""
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        while not self.stop.is_set():
            if self.sent - self.done >= AHEAD:
                time.sleep(0.02)
                continue
            self._send()
            self.sent += 1
        self.server.shutdown()

    def _send(self) -> None:
        name, dice = f"picture {self._number}", self._random.random()
        other, data = self.recent[self._random.integers(RECENT)]
        if dice < 0.70:
            self._upload(name, self._new())
        elif dice < 0.80:
            self._upload(name, _near_copy(data))
        elif dice < 0.90:
            # By address, where it is gone if it has become too old by the time it is fetched.
            self._event(
                "image.uploaded", f"copy {self.sent}", url=f"http://127.0.0.1:{self.server.server_port}/{other}"
            )
        elif dice < 0.95:
            self._event("image.deleted", f"picture {other}")
        elif dice < 0.97:
            self._service.picture(f"half {self.sent}", data[: len(data) // 2])
        elif dice < 0.98:
            self._service.send(b"{", b"no JSON")
        else:
            self._event("image.uploaded", f"forbidden {self.sent}", url="http://169.254.169.254/latest")

    def _upload(self, name: str, data: bytes) -> None:
        self._service.picture(name, data)
        self.recent.append((self._number, data))
        self._number += 1

    def _event(self, kind: str, image_id: str, **data: str) -> None:
        event = {"specversion": "1.0", "id": str(self.sent), "source": "/soak", "type": kind}
        value = json.dumps({**event, "data": {"image_id": image_id, **data}}).encode()
        self._service.send(value, image_id.encode(), {"content-type": b"application/cloudevents+json"})

    def _new(self) -> bytes:
        """Make a new JPEG of parts of two pictures laid upon each other, which takes a millisecond."""
        return _jpeg((self._part() >> 1) + (self._part() >> 1), int(self._random.integers(75, 95)))

    def _part(self) -> np.ndarray:
        base = self._bases[self._random.integers(BASES)]
        left = self._random.integers(base.shape[1] - SIZE[0])
        top = self._random.integers(base.shape[0] - SIZE[1])
        part = base[top : top + SIZE[1], left : left + SIZE[0]]
        return part[:: self._random.choice((1, -1)), :: self._random.choice((1, -1))]


def _jpeg(pixels: np.ndarray, quality: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=quality)
    return out.getvalue()


def _near_copy(data: bytes) -> bytes:
    with Image.open(io.BytesIO(data)) as image:
        return _jpeg(np.asarray(image.point(lambda value: value * 0.9 + 8)), 70)


class Observer:
    """Samples the consumer, and counts the answered messages for the load."""

    def __init__(self, consumer: Server, redis: Redis, load: Load) -> None:
        self._consumer, self._redis, self._load = consumer, redis, load
        self.verdicts: dict[str, int] = {}
        self.samples: list[Sample] = []

    def watch(self, for_s: float) -> None:
        """Sample for so long, or until the consumer ends."""
        began_s = last_s = time.monotonic()
        before = self._load.done
        while (now_s := time.monotonic()) < began_s + for_s and self._consumer.alive:
            window = self._read_metrics()
            if now_s >= last_s + SAMPLE_EVERY_S:
                rate = (self._load.done - before) / (now_s - last_s)
                self.samples.append(self._sample(now_s - began_s, window, rate))
                before, last_s = self._load.done, now_s
            time.sleep(0.5)

    def _read_metrics(self) -> int:
        """Update the counts of verdicts and of answered messages; return how many pictures the window has."""
        window = deleted = 0
        with urlopen(f"http://127.0.0.1:{self._consumer.ports[0]}/metrics") as reply:
            for family in text_string_to_metric_families(reply.read().decode()):
                for sample in family.samples:
                    if sample.name == "seenit_verdicts_total":
                        self.verdicts[f"{sample.labels['verdict']} {sample.labels['kind']}"] = int(sample.value)
                    elif sample.name == "seenit_deleted_total":
                        deleted = int(sample.value)
                    elif sample.name == "seenit_window_embeddings":
                        window = int(sample.value)
        self._load.done = sum(self.verdicts.values()) + deleted
        return window

    def _sample(self, elapsed_s: float, window: int, rate: float) -> Sample:
        process = Path(f"/proc/{self._consumer.pid}")
        status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        return Sample(
            round(elapsed_s, 1),
            round(int(status["VmRSS"].split()[0]) / 1024, 2),
            len(list((process / "fd").iterdir())),
            int(status["Threads"]),
            round(self._redis.info("memory")["used_memory"] / 2**20, 2),
            window,
            round(rate, 1),
        )


def judge(samples: Sequence[Sample]) -> bool:
    """Print how each value developed over the last two thirds; tell if uploads flowed and nothing grew too much."""
    judged = samples[len(samples) // 3 :]
    at_s = np.array([sample.elapsed_s for sample in judged])
    span_s = at_s[-1] - at_s[0]
    flat = min(sample.uploads_per_s for sample in judged) > 0
    print(f"| last {span_s / 60:.1f} min | median | least | most | trend, an hour | over this time | at most |")
    print("|---|---|---|---|---|---|---|")
    for name, label in LABELS.items():
        values = np.array([getattr(sample, name) for sample in judged], float)
        slope = float(np.polyfit(at_s, values, 1)[0])
        limit = MAX_GROWTH.get(name)
        flat = flat and (limit is None or slope * span_s <= limit)
        print(
            f"| {label} | {np.median(values):.1f} | {values.min():.1f} | {values.max():.1f} | {slope * 3600:+.1f} "
            f"| {slope * span_s:+.2f} | {'' if limit is None else f'{limit:g}'} |"
        )
    return flat


def plot(samples: Sequence[Sample], file: Path) -> None:
    """Plot each value over time, the part that is judged on white."""
    minutes = [sample.elapsed_s / 60 for sample in samples]
    figure, panels = plt.subplots(len(LABELS), 1, figsize=(9, 11), sharex=True, layout="constrained")
    for axes, (name, label) in zip(panels, LABELS.items(), strict=True):
        values = [getattr(sample, name) for sample in samples]
        axes.plot(minutes, values, linewidth=1.2)
        axes.set_ylim(0, max(values) * 1.15)
        axes.set_title(label, loc="left", fontsize=10)
        axes.axvspan(0, minutes[len(minutes) // 3], color="0.93")
        axes.grid(alpha=0.3)
    panels[-1].set_xlabel("minutes")
    panels[-1].set_xlim(0, minutes[-1])
    figure.savefig(file, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--rows", type=int, default=0, help="rows of the window from the start on")
    parser.add_argument("--rows-per-s", type=float, default=80, help="how fast these expire: as new ones come")
    parser.add_argument("--results", type=Path, default=Path("out/soak"))
    arguments = parser.parse_args()
    mpl.use("agg")
    arguments.results.mkdir(parents=True, exist_ok=True)
    binaries = find_binaries()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        kafka = stack.enter_context(KafkaCluster(properties=TOPICS))
        redis = f"redis://127.0.0.1:{stack.enter_context(serving(valkey(binaries, folder))).ports[0]}/0"
        triton = f"127.0.0.1:{stack.enter_context(serving(TritonServer(binaries, folder))).ports[0]}"
        window = WindowSettings(
            retention_s=arguments.rows / arguments.rows_per_s or arguments.minutes * 10, max_bytes=16 << 30
        )
        settings = {
            "SEENIT_KAFKA_DELIVERY": "exactly-once",
            "SEENIT_WINDOW_RETENTION_S": str(window.retention_s),
            "SEENIT_WINDOW_MAX_BYTES": str(window.max_bytes),
            "SEENIT_FETCH_SCHEMES": '["http"]',
            "SEENIT_FETCH_NETWORKS": '["127.0.0.0/8"]',
        }
        service = stack.enter_context(new_service(kafka.bootstrap_servers, redis, triton, folder, **settings))
        load = Load(service)
        client = stack.enter_context(Redis.from_url(redis))
        if arguments.rows:
            model, vectors, features = strangers(triton, pictures(BASES), arguments.rows)
            store = WindowStore(client, model, window, service.environment["SEENIT_REDIS_KEY_PREFIX"])
            fill_aged(store, "default", vectors, features)
            print(f"the window has {arguments.rows} rows", flush=True)
        consumer = service.consumer()
        load.start()
        observer = Observer(consumer, client, load)
        observer.watch(arguments.minutes * 60)
        load.stop.set()
        load.join()
        service.await_verdicts(0)
        if not consumer.alive:
            sys.exit(f"the consumer ended: {consumer.tail()}")
    samples = observer.samples
    with (arguments.results / "soak.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Sample)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(map(asdict, samples))
    plot(samples, arguments.results / "soak.png")
    print(", ".join(f"{count} {verdict.strip()}" for verdict, count in observer.verdicts.items()), "\n")
    flat = judge(samples)
    print("\nFlat." if flat else "\nNot flat: more than the trend allowed in the last column, or a standstill.")
    sys.exit(0 if flat else 1)


if __name__ == "__main__":
    main()
