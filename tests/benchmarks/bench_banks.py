"""Measure what banks cost: uploads a second without banks and with one of many entries, in turn.

    python -m tests.benchmarks.bench_banks [--images 2000] [--entries 100000] [--rounds 3]

The entries are written to Redis as a consumer would write them. Their vectors are random, moved towards a picture of
the stream by as much as makes 0.4% of them candidates of an upload: of 18,000 pictures of many sources so many are
candidates of another. The share is printed. Their local features are those of pictures of the stream.
"""

import argparse
import statistics

import numpy as np
from confluent_kafka.admin import AdminClient
from redis import Redis

from consumer.kafka.topic_reader import find_topic_id
from consumer.moderation.banks import BankKey, EntryKey, encode_key
from consumer.moderation.store import BankRow, BankStore, EntryRow, NewRow
from consumer.settings import WindowSettings
from consumer.window.store import WindowStore
from tests.benchmarks.bench_service import BATCH, Load, pictures, servers, service_rate
from tests.benchmarks.filled_window import encode_pictures
from tests.service_fixtures import Service, new_service

# Pictures that entries are made of, entries written at once, and how far a random vector is moved towards a picture.
SAMPLES, WRITE_ROWS, PULL = 200, 500, 0.2
WITH, WITHOUT = "with entries", "without banks"


def fill(service: Service, redis_url: str, triton: str, images: list[bytes], entries: int) -> None:
    """Write a bank with so many entries for all tenants."""
    random = np.random.default_rng(0)
    model, vectors, features = encode_pictures(triton, images[:SAMPLES])
    with Redis.from_url(redis_url) as redis:
        store = BankStore(WindowStore(redis, model, WindowSettings(), service.environment["SEENIT_REDIS_KEY_PREFIX"]))
        lease = store.lease()
        assert lease.hold()
        admin = AdminClient({"bootstrap.servers": service.kafka.bootstrap_servers})
        epoch, _ = store.begin(lease, find_topic_id(admin, service.kafka.banks_topic))
        bank = BankRow(at=(0, 0), kind="block", enabled=True, strictness="balanced")
        store.write(lease, epoch, [NewRow(encode_key(BankKey(None, "many")), bank)], {})
        near = 0.0
        for start in range(0, entries, WRITE_ROWS):
            rows = []
            for number in range(start, min(entries, start + WRITE_ROWS)):
                vector = random.standard_normal(model.dim).astype(np.float32)
                vector = vector / np.linalg.norm(vector) + PULL * vectors[random.integers(len(vectors))]
                vector /= np.linalg.norm(vector)
                near += np.mean(np.linalg.norm(vectors - vector, axis=1) <= model.match_radius_l2)
                stored = vector.astype("<f2").tobytes()
                row = EntryRow(at=(0, number), digest=f"{number:064x}")
                name = encode_key(EntryKey(None, "many", str(number)))
                rows.append(NewRow(name, row, stored, features[int(random.integers(0, len(features)))]))
            store.write(lease, epoch, rows, {})
            assert lease.hold()
        lease.release()
    print(f"{near / entries:.2%} of the entries are candidates of a picture of the stream")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--entries", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    images = pictures(arguments.images)
    loads: dict[str, list[Load]] = {WITHOUT: [], WITH: []}
    with servers() as (kafka, redis, triton, folder):
        for _ in range(arguments.rounds):
            for name, of_name in loads.items():
                with new_service(kafka, redis, triton, folder, banks=name == WITH) as service:
                    if name == WITH:
                        fill(service, redis, triton, images, arguments.entries)
                    consumer = service.consumer()
                    service_rate(service, consumer, images[:BATCH])
                    of_name.append(service_rate(service, consumer, images[BATCH:]))
                    consumer.stop()
    print(f"{len(images)} JPEGs of 640 x 480, {arguments.entries} entries, {arguments.rounds} rounds\n")
    print("| banks | uploads/s, median | each round | match, us an upload | whole process, us |\n|---|---|---|---|---|")
    for name, each in loads.items():
        each_round = ", ".join(f"{load.rate:.0f}" for load in each)
        match, whole = (statistics.median(load.cpu_us[step] for load in each) for step in ("match", "whole process"))
        rate = statistics.median(load.rate for load in each)
        print(f"| {name} | {rate:.0f} | {each_round} | {match:.0f} | {whole:.0f} |")
    ratios = sorted(a.rate / b.rate for a, b in zip(loads[WITH], loads[WITHOUT], strict=True))
    print(f"\n{WITH}, over {WITHOUT}: {statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})")


if __name__ == "__main__":
    main()
