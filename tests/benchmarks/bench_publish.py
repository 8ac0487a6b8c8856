"""What exactly-once costs: the publisher on real Apache Kafka, beside two that take new producers never and always.

    python -m tests.benchmarks.bench_publish [--publishers 1,10,100] [--rate 100] [--seconds 2] [--rounds 12]

The publishers are threads with names of their own, as processes have; each publishes batches of 16 verdicts. A single
one publishes without a pause, several at a rate for all of them together. `never` is wrong where the network holds back
a request (see tests/kafka/test_late_requests.py); it shows what certainty costs.
"""

import argparse
import logging
import math
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from confluent_kafka import Producer

from consumer.errors import Unavailable
from consumer.kafka import publisher as publisher_module
from consumer.kafka.consumer import UploadsConsumer
from consumer.kafka.publisher import Publisher
from tests.kafka.group import Member, Topics, new_topics, wait_for
from tests.kafka_cluster import KafkaCluster

BATCH = 16
VERDICT_BYTES = 700
# A commit that took at least this long makes the publisher take a new producer.
POLICIES = {"as it is": publisher_module.SENT_ONCE_S, "never": math.inf, "always": 0.0}


class CountingPublisher(Publisher):
    """A publisher that counts the producers it makes."""

    producers = 0

    def _ready_producer(self) -> Producer:
        self.producers += self._producer is None
        return super()._ready_producer()


@dataclass
class Round:
    """What one policy did in one round."""

    seconds: float
    producers: int = 0
    took_s: list[float] = field(default_factory=list)
    failures: int = 0

    @property
    def rate(self) -> float:
        return len(self.took_s) / self.seconds

    def percentile_ms(self, percent: float) -> float:
        """How long a batch took at this percentile."""
        return 1000 * sorted(self.took_s)[min(len(self.took_s) - 1, int(len(self.took_s) * percent / 100))]


def run(topics: Topics, publishers: Sequence[CountingPublisher], policy: str, rate: float, seconds: float) -> Round:
    """Let all publishers publish, `rate` batches a second together; 0 stands for as many as they can."""
    publisher_module.SENT_ONCE_S = POLICIES[policy]
    verdicts = [topics.verdict(b"x" * VERDICT_BYTES)] * BATCH
    result = Round(seconds)
    ready = threading.Barrier(len(publishers))

    def publish(number: int, publisher: CountingPublisher) -> None:
        publisher.publish(verdicts, topics.offsets(1))
        publisher.producers = 0
        ready.wait()
        began_s = due_s = time.monotonic()
        due_s += number / rate if rate else 0
        while due_s < began_s + seconds:
            time.sleep(max(0.0, due_s - time.monotonic()))
            start_s = time.monotonic()
            try:
                publisher.publish(verdicts, topics.offsets(1))
                result.took_s.append(time.monotonic() - start_s)
            except Unavailable:
                result.failures += 1
            due_s = due_s + len(publishers) / rate if rate else time.monotonic()

    threads = [threading.Thread(target=publish, args=item) for item in enumerate(publishers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    result.producers = sum(publisher.producers for publisher in publishers)
    return result


def show(count: int, rate: float, rounds: Sequence[dict[str, Round]]) -> None:
    """Print a table, and the ratios of the publisher as it is to the one that keeps its producer."""
    load = f"{rate:.0f} batches a second" if rate else "without a pause"
    print(f"\n{count} publishers, {load}, {len(rounds)} rounds\n")
    print("| new producers | batches/s | p50, ms | p99, ms | producers made, by batch | failures |")
    print("|---|---|---|---|---|---|")
    medians: dict[str, dict[str, float]] = defaultdict(dict)
    for policy in POLICIES:
        results = [each[policy] for each in rounds]
        medians["rate"][policy] = statistics.median(result.rate for result in results)
        medians["p50"][policy] = statistics.median(result.percentile_ms(50) for result in results)
        medians["p99"][policy] = statistics.median(result.percentile_ms(99) for result in results)
        made = sum(result.producers for result in results) / sum(len(result.took_s) for result in results)
        values = " | ".join(f"{medians[name][policy]:.1f}" for name in ("rate", "p50", "p99"))
        print(f"| {policy} | {values} | {made:.4f} | {sum(result.failures for result in results)} |")
    for name, of in (
        ("rate", lambda result: result.rate),
        ("p50", lambda result: result.percentile_ms(50)),
        ("p99", lambda result: result.percentile_ms(99)),
    ):
        ratios = sorted(of(each["as it is"]) / of(each["never"]) for each in rounds)
        print(f"{name}, as it is over never: {statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--publishers", default="1,10,100")
    parser.add_argument("--rate", type=float, default=100.0)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=12)
    arguments = parser.parse_args()
    logging.getLogger("kafka.client").setLevel(logging.CRITICAL)
    with KafkaCluster() as cluster:
        topics = new_topics(cluster)
        member = Member(UploadsConsumer(topics.settings, lambda: None))
        wait_for(lambda: member.partitions)
        for count in map(int, arguments.publishers.split(",")):
            rate = 0.0 if count == 1 else arguments.rate
            publishers = [
                CountingPublisher(topics.settings.model_copy(update={"instance_id": f"{n}"}), member.consumer)
                for n in range(count)
            ]
            rounds = []
            for n in range(arguments.rounds):
                order = list(POLICIES) if n % 2 else list(POLICIES)[::-1]
                rounds.append({p: run(topics, publishers, p, rate, arguments.seconds) for p in order})
            show(count, rate, rounds)
            for publisher in publishers:
                publisher.close()
        member.stop()


if __name__ == "__main__":
    main()
