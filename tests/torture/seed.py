"""Run one seed, from the plan of its workload to the report of the checker."""

import random
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.torture.checker import FLOOD_BOUND, Checker, Topics
from tests.torture.fleet import Fleet
from tests.torture.nemesis import Nemesis
from tests.torture.workload import Uploader, plan
from tests.torture.world import World

PARTITIONS = 6
TOPIC_CONFIG = {"message.timestamp.type": "LogAppendTime"}  # as `seenit topics` wants those that the service writes
SESSION_S = 6
DRAIN_TIMEOUT_S = 180.0  # until all is decided, once every fault is over; the longest of 200 seeds took 38 s
KNOWN_AFTER_S = 2.0  # what was decided about a match, to every process
WITHOUT_BANKS = 0.25  # of the seeds
STANDSTILL_S = 90.0  # without any verdict, once every fault is over: twice what brokers wait for a member that hangs


@dataclass(frozen=True)
class Result:
    """The result of a seed. A violation is a sentence, and the history of the image concerned if there is one."""

    seed: int
    consumers: int
    took_s: float
    drained_s: float
    counts: Counter[str]
    harm: list[str]
    violations: list[tuple[str, str]]

    def as_dict(self) -> dict[str, object]:
        """Return the result as a value that JSON can hold."""
        return {**vars(self), "counts": dict(self.counts)}


def run_seed(world: World, seed: int, uploads: int, rate: float, logs: Path | None = None) -> Result:
    """Send `uploads` at `rate` a second among faults; when these are over and all is decided, check. Clean up then.

    The logs of a seed with violations are copied to a folder of its own in `logs`.
    """
    started = time.monotonic()
    dice = random.Random(f"seed {seed}")
    topics = Topics(*(f"{kind}-{seed}" for kind in Topics._fields))
    if random.Random(f"banks {seed}").random() < WITHOUT_BANKS:
        topics = topics._replace(banks="")
    embeddings = f"embeddings-{seed}"
    for topic in filter(None, (*topics, embeddings)):
        partitions = 1 if topic in (topics.feedback, topics.decisions, topics.banks) else PARTITIONS
        world.kafka.create_topic(topic, partitions, TOPIC_CONFIG)
    workload = plan(seed, uploads, PARTITIONS, world.store)
    size, static, protocol = (
        dice.choice((2, 3, 4)),
        dice.random() < 0.3,
        dice.choice(("classic", "classic", "consumer")),
    )
    recovered = dice.random() < 0.5  # what Redis loses comes back: no lost data excuses anything then
    common = recovery_settings(embeddings) if recovered else {}

    def settings_of(number: int) -> dict[str, str]:
        return environment(topics, seed, number, static=static, protocol=protocol) | common

    fleet = Fleet(world, size, settings_of)
    violations: list[tuple[str, str]] = []
    nemesis = Nemesis(seed, world, fleet, topics, SESSION_S, recovered=recovered)
    checker = Checker(world.kafka.bootstrap_servers, topics, topics.uploads, workload, nemesis.history)
    drained_s = 0.0
    try:
        fleet.start()
        uploader = Uploader(workload, world.kafka.bootstrap_servers, topics.destinations(), rate)
        uploader.start()
        nemesis.start()
        uploader.join()
        nemesis.stop()
        nemesis.join()
        world.heal()
        fleet.thaw()
        healed = time.monotonic()
        if nemesis.error is not None:
            raise nemesis.error
        if uploader.refused:
            raise RuntimeError(f"the brokers refused {len(uploader.refused)} uploads: the harness is at fault")
        try:
            drain(checker)
            # Now that every process knows what was decided, it has to count.
            time.sleep(KNOWN_AFTER_S)
            again = Uploader(workload.once_more(), world.kafka.bootstrap_servers, topics.destinations(), rate)
            again.start()
            again.join()
            drain(checker)
        except TimeoutError as error:
            violations.append((f"{error}: {checker.lag()} of them", ""))
            fleet.dump()
        drained_s = time.monotonic() - healed
        fleet.close()
        with world.redis_client() as window:
            report = checker.check(window, f"s{seed}")
        violations += [(what, "") for what in [*fleet.trouble, *leftovers(world)]]
        violations += [(f"{name}: {what}", checker.history(name)) for name, what in report.violations]
        if violations and logs is not None:
            fleet.keep_logs(logs / f"seed-{seed}")
    finally:
        fleet.kill_all()
        world.store.clear()
        world.kafka.delete_topics(
            *filter(None, topics), embeddings
        )  # thousands of replicas would slow down later seeds
    with world.redis_client() as window:
        window.flushall()
    harm = Counter(harm.name for harm in nemesis.history)
    report.counts.update({f"harm: {name}": count for name, count in harm.items()})
    report.counts["seeds whose window is rebuilt"] = int(recovered)
    report.counts["seeds without banks"] = int(not topics.banks)
    report.counts["violations"] = len(violations)
    return Result(
        seed,
        len(fleet.slots),
        time.monotonic() - started,
        drained_s,
        report.counts,
        [f"{name} x{count}" for name, count in harm.items()],
        violations,
    )


def drain(checker: Checker) -> None:
    """Wait until each upload has its verdict.

    Raises TimeoutError when none gets one for STANDSTILL_S, or not all of them within DRAIN_TIMEOUT_S.
    """
    began_s = moved_s = time.monotonic()
    min_lag = checker.lag()
    while min_lag > 0:
        time.sleep(0.5)
        lag, now_s = checker.lag(), time.monotonic()
        if lag < min_lag:
            min_lag, moved_s = lag, now_s
        elif now_s - moved_s > STANDSTILL_S or now_s - began_s > DRAIN_TIMEOUT_S:
            raise TimeoutError("uploads wait for their verdicts")


def leftovers(world: World) -> list[str]:
    """List the files and processes that stopped consumers left behind."""
    files = [f"left behind: {path}" for path in world.scratch.rglob("*")]
    return files + [f"still runs: {line}" for line in world.consumers()]


def recovery_settings(topic: str) -> dict[str, str]:
    """Return the settings of a consumer that writes its window to a topic, and recovers it from there."""
    return {"SEENIT_KAFKA_EMBEDDINGS_TOPIC": topic, "SEENIT_WINDOW_ON_LOSS": "rebuild"}


def environment(topics: Topics, seed: int, number: int, *, static: bool, protocol: str = "classic") -> dict[str, str]:
    """Return the settings of a consumer: small batches and short time-outs, so that much happens in little time."""
    return {
        "SEENIT_KAFKA_INPUT_TOPIC": topics.uploads,
        "SEENIT_KAFKA_OUTPUT_TOPIC": topics.verdicts,
        "SEENIT_KAFKA_DEAD_LETTER_TOPIC": topics.dead_letters,
        "SEENIT_KAFKA_GROUP_ID": topics.uploads,
        "SEENIT_KAFKA_GROUP_PROTOCOL": protocol,
        "SEENIT_KAFKA_SESSION_TIMEOUT_MS": str(1000 * SESSION_S),
        "SEENIT_KAFKA_TRANSACTION_TIMEOUT_MS": "15000",
        **(
            {
                "SEENIT_KAFKA_REMATCHES_TOPIC": topics.rematches,
                "SEENIT_KAFKA_FEEDBACK_TOPIC": topics.feedback,
                "SEENIT_KAFKA_DECISIONS_TOPIC": topics.decisions,
                "SEENIT_CAMPAIGNS_FLOOD_UPLOADS_PER_HOUR": str(FLOOD_BOUND),
            }
            if topics.feedback
            else {}
        ),
        **({"SEENIT_KAFKA_BANKS_TOPIC": topics.banks} if topics.banks else {}),
        **({"SEENIT_KAFKA_INSTANCE_ID": f"{seed}-{number}"} if static else {}),
        "SEENIT_REDIS_KEY_PREFIX": f"s{seed}",
        "SEENIT_REDIS_TIMEOUT_S": "2",
        "SEENIT_TRITON_TIMEOUT_S": "3",
        "SEENIT_FETCH_TIMEOUT_S": "3",
        "SEENIT_PIPELINE_BATCH_SIZE": "16",
        "SEENIT_DECODE_THREADS": "1",
        "SEENIT_DECODE_MIN_DETAIL": "0.5",  # else the smooth textures would count as blank
    }
