"""Measure the whole service, its bounds, and the plain consumer it replaces, on the same cores in one run.

    python -m tests.benchmarks.bench_service [--images 2000] [--rounds 3]

(a) the bare encoder: ONNX Runtime in this process, batches of 32 decoded pictures
(b) decoding alone, on as many threads as cores
(c) the service, from the input topic to the committed verdict
(d) a plain consumer: the same parts, one message at a time

Each gives images a second. The service also gives its processor time by step, and the time from event to verdict at
half of full load.
"""

import argparse
import io
import os
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import onnxruntime
from confluent_kafka import Consumer, Producer, TopicPartition
from PIL import Image, ImageDraw
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis

from consumer.decide import decide
from consumer.encoder.contract import ModelInfo
from consumer.encoder.triton import TritonEncoder
from consumer.events import Record
from consumer.images.decode import decode
from consumer.kafka.messages import verdict_message
from consumer.local.binaries import find_binaries
from consumer.local.pictures import photographs
from consumer.local.process import Server
from consumer.local.servers import TritonServer, tansu, valkey
from consumer.parse import parse
from consumer.settings import DecodeSettings, TritonSettings, WindowSettings
from consumer.verdicts import Model, Verdict
from consumer.window.records import NewRecord
from consumer.window.window import RedisWindow
from tests.service_fixtures import Service, new_service
from tests.stack_fixtures import served_graph, serving

SIZE = (640, 480)
BATCH = 32
CORES = os.cpu_count() or 1


def pictures(count: int) -> list[bytes]:
    """Make JPEGs of 640 x 480 of dead leaves (Lee, Mumford and Huang, 2001), each leaf cut from one of few photographs.

    Among 700 of these pictures none counts as a duplicate of an earlier one. Where each is only one or two of the few
    photographs, cropped and recoloured, a quarter are duplicates, since most such pictures are copies of each other.
    """
    random = np.random.default_rng(0)
    sources = []
    for _, data in photographs():
        with Image.open(io.BytesIO(data)) as image:
            sources.append(image.convert("RGB"))

    def part(width: int, height: int) -> Image.Image:
        source = sources[random.integers(len(sources))]
        wide = float(random.uniform(0.1, 0.6)) * min(source.width, source.height * width / height)
        high = wide * height / width
        left, top = random.uniform(0, source.width - wide), random.uniform(0, source.height - high)
        bands = source.resize(
            (width, height), Image.Resampling.BICUBIC, box=(left, top, left + wide, top + high)
        ).split()
        return Image.merge("RGB", [bands[band] for band in random.permutation(3)])

    made = []
    for _ in range(count):
        picture = part(*SIZE)
        for _ in range(int(random.integers(10, 40))):
            width, height = random.integers(40, 320, 2).tolist()
            leaf = Image.new("L", (width, height))
            ImageDraw.Draw(leaf).ellipse((0, 0, width - 1, height - 1), fill=255)
            left, top = random.integers((-width // 2, -height // 2), SIZE).tolist()
            picture.paste(part(width, height), (left, top), leaf)
        out = io.BytesIO()
        picture.save(out, "JPEG", quality=int(random.integers(75, 95)))
        made.append(out.getvalue())
    return made


def bare_encoder(session: onnxruntime.InferenceSession, pixels: np.ndarray) -> float:
    """(a) Encode the pictures; return images a second."""
    started_s = time.perf_counter()
    for start in range(0, len(pixels), BATCH):
        session.run(None, {"images": pixels[start : start + BATCH]})
    return len(pixels) / (time.perf_counter() - started_s)


def decoding(images: list[bytes], size: int, pool: ThreadPoolExecutor) -> float:
    """(b) Decode the pictures; return images a second."""
    started_s = time.perf_counter()
    for _ in pool.map(lambda data: decode(data, size, DecodeSettings()), images):
        pass
    return len(images) / (time.perf_counter() - started_s)


@dataclass
class Load:
    """The result of one run of the service: uploads a second, and processor time an upload by step, in us."""

    rate: float
    cpu_us: dict[str, float]


def service_rate(service: Service, consumer: Server, images: list[bytes]) -> Load:
    """(c) Measure the service from the first event on its topic to the last verdict."""
    before, known = cpu(consumer), len(service.verdicts)
    run = uuid.uuid4().hex[:6]
    started_s = time.perf_counter()
    for number, data in enumerate(images):
        service.picture(f"{run}-{number}", data)
    service.await_verdicts(known + len(images))
    rate = len(images) / (time.perf_counter() - started_s)
    after = cpu(consumer)
    return Load(rate, {step: (after[step] - before.get(step, 0)) * 1e6 / len(images) for step in after})


def cpu(consumer: Server) -> dict[str, float]:
    """Return the processor seconds of the consumer so far, by step and of the whole process."""
    seconds = {}
    with urlopen(f"http://127.0.0.1:{consumer.ports[0]}/metrics") as reply:
        for family in text_string_to_metric_families(reply.read().decode()):
            for sample in family.samples:
                if sample.name == "seenit_step_cpu_seconds_total":
                    seconds[sample.labels["step"]] = sample.value
    fields = Path(f"/proc/{consumer.pid}/stat").read_text().rpartition(")")[2].split()
    seconds["whole process"] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return seconds


def plain_rate(service: Service, triton: str, redis: str, images: list[bytes]) -> float:
    """(d) Run a loop that does one thing after the other; return images a second."""
    kafka, prefix = service.kafka, uuid.uuid4().hex
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    group = {"group.id": prefix, "enable.auto.commit": False, "auto.offset.reset": "earliest"}
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap_servers, **group})
    topic, answers = f"plain-in-{prefix}", f"plain-out-{prefix}"
    for data in images:
        producer.produce(topic, data, uuid.uuid4().hex, headers={"content-type": "image/jpeg"}, partition=0)
    producer.flush()
    consumer.assign([TopicPartition(topic, 0, 0)])
    settings = WindowSettings()
    with TritonEncoder(TritonSettings(url=triton)) as encoder, Redis.from_url(redis) as client:
        info = encoder.info
        window = RedisWindow(client, info, settings, prefix)
        model = Model(name=info.name, version=info.version)
        started_s = time.perf_counter()
        for _ in images:
            message = consumer.poll(10)
            assert message is not None
            assert message.error() is None
            value, headers = message.value(), tuple(message.headers() or ())
            record = Record(topic, 0, message.offset() or 0, message.key(), value, headers, message.timestamp()[1])
            [event] = parse(record)
            now = datetime.now(UTC)
            picture = decode(value or b"", info.size, DecodeSettings())
            vector = encoder.submit(picture.pixels[np.newaxis]).result().embeddings[0]
            [result] = window.append([NewRecord("default", event.image_id, sha256(value or b"").digest(), vector, now)])
            decision = decide(result, info.threshold_l2, settings.others)
            verdict = Verdict(
                image_id=event.image_id,
                tenant=event.tenant,
                verdict=decision.verdict,
                kind=decision.kind,
                threshold_l2=info.threshold_l2,
                model=model,
                received_at=now,
                decided_at=datetime.now(UTC),
            )
            out = verdict_message(verdict, event)
            producer.produce(answers, out.value, out.key, headers=dict(out.headers))
            producer.flush()
            consumer.commit(message, asynchronous=False)
        rate = len(images) / (time.perf_counter() - started_s)
    consumer.close()
    return rate


def latencies_ms(service: Service, images: list[bytes], rate: float) -> list[float]:
    """Send events at an even rate; return for each the time until its verdict stands on the topic."""
    known, run = len(service.published), uuid.uuid4().hex[:6]
    sent_s: dict[str, float] = {}
    started_s = time.perf_counter()
    for number, data in enumerate(images):
        due_s = started_s + number / rate
        time.sleep(max(0.0, due_s - time.perf_counter()))
        sent_s[f"{run}-{number}"] = time.time()
        service.picture(f"{run}-{number}", data)
    service.await_verdicts(len(service.verdicts) + len(images))
    return [each.timestamp_ms - sent_s[each.verdict.image_id] * 1000 for each in service.published[known:]]


@contextmanager
def servers() -> Iterator[tuple[str, str, str, Path]]:
    """Run the embedded servers; give the addresses of broker, Redis and Triton, and a folder."""
    binaries = find_binaries()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        broker = stack.enter_context(serving(tansu(binaries, folder)))
        redis = stack.enter_context(serving(valkey(binaries, folder)))
        triton = stack.enter_context(serving(TritonServer(binaries, folder)))
        addresses = [f"127.0.0.1:{server.ports[0]}" for server in (broker, redis, triton)]
        yield addresses[0], f"redis://{addresses[1]}/0", addresses[2], folder


def session() -> onnxruntime.InferenceSession:
    """Load the served encoder into this process, on every core."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = CORES
    return onnxruntime.InferenceSession(served_graph(), options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    images = pictures(arguments.images)
    rates: dict[str, list[float]] = {"a": [], "b": [], "c": [], "d": []}
    loads: list[Load] = []
    with ExitStack() as stack:
        broker, redis, triton, folder = stack.enter_context(servers())
        encoder = stack.enter_context(TritonEncoder(TritonSettings(url=triton)))
        info: ModelInfo = encoder.info
        pool = stack.enter_context(ThreadPoolExecutor(CORES))
        bare = session()
        part = images[: max(BATCH, len(images) // 4)]
        pixels = np.stack([decode(data, info.size, DecodeSettings()).pixels for data in part])
        bare_encoder(bare, pixels)
        for _ in range(arguments.rounds):
            # A service of its own each round: its window begins empty, so that no picture is known by content.
            with new_service(broker, redis, triton, folder) as service:
                consumer = service.consumer()
                service_rate(service, consumer, part[:BATCH])
                rates["a"].append(bare_encoder(bare, pixels))
                rates["b"].append(decoding(part, info.size, pool))
                loads.append(service_rate(service, consumer, images[BATCH:]))
                rates["c"].append(loads[-1].rate)
                rates["d"].append(plain_rate(service, triton, redis, part[: len(part) // 2]))
                consumer.stop()
        half = statistics.median(rates["c"]) / 2
        with new_service(broker, redis, triton, folder) as service:
            consumer = service.consumer()
            service_rate(service, consumer, images[-BATCH:])
            late_ms = latencies_ms(service, images[: int(half * 20)], half)
            consumer.stop()
    print(
        f"{arguments.images} JPEGs of {SIZE[0]} x {SIZE[1]}, {CORES} cores, "
        f"encoder version {info.version} at {info.size} px\n"
    )
    report(rates, loads)
    p50, p95, p99 = np.percentile(late_ms, [50, 95, 99])
    print(f"\nFrom event to verdict at {half:.0f} uploads/s: p50 {p50:.0f} ms, p95 {p95:.0f} ms, p99 {p99:.0f} ms")


def report(rates: dict[str, list[float]], loads: list[Load]) -> None:
    """Print everything as Markdown."""

    def ratio(of_round: Callable[[int], float]) -> str:
        values = sorted(of_round(index) for index in range(len(rates["c"])))
        return f"{statistics.median(values):.2f} ({values[0]:.2f} to {values[-1]:.2f})"

    print("| | images/s, median | each round |\n|---|---|---|")
    for name, what in (("a", "bare encoder"), ("b", "decoding alone"), ("c", "the service"), ("d", "plain consumer")):
        each = ", ".join(f"{rate:.0f}" for rate in rates[name])
        print(f"| ({name}) {what} | {statistics.median(rates[name]):.0f} | {each} |")
    shared = [1 / (1 / a + 1 / b) for a, b in zip(rates["a"], rates["b"], strict=True)]
    print("\n| ratio | median (range) |\n|---|---|")
    print(f"| c/a | {ratio(lambda i: rates['c'][i] / rates['a'][i])} |")
    print(f"| 1/(1/a + 1/b), what the cores allow, over a | {ratio(lambda i: shared[i] / rates['a'][i])} |")
    print(f"| c over what the cores allow | {ratio(lambda i: rates['c'][i] / shared[i])} |")
    print(f"| c/d | {ratio(lambda i: rates['c'][i] / rates['d'][i])} |")
    print("\n| step | processor time an upload, us, median |\n|---|---|")
    for step in loads[0].cpu_us:
        print(f"| {step} | {statistics.median(load.cpu_us[step] for load in loads):.0f} |")


if __name__ == "__main__":
    main()
