"""A few seeds of the torture test, and proof that its checker notices wrong verdicts."""

import ast
import itertools
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer

from tests.processes import until
from tests.torture import checker as checker_module
from tests.torture import nemesis, pictures
from tests.torture import workload as workload_module
from tests.torture.checker import Checker, StoredMessage, Topics, Verdict
from tests.torture.fleet import Fleet
from tests.torture.seed import PARTITIONS, drain, environment, leftovers, run_seed
from tests.torture.workload import Uploader, Workload, plan
from tests.torture.world import World

UPLOADS = 500


@pytest.fixture(scope="module")
def world(kafka_jars: None) -> Iterator[World]:
    with World(exact_rows=200) as world:  # less than a seed uploads: windows are searched by both indexes
        yield world


@pytest.mark.timeout(420)
@pytest.mark.parametrize("seed", [2, 7, 10, 13])
def test_every_guarantee_survives_a_seed_of_faults(world: World, seed: int, tmp_path: Path) -> None:
    result = run_seed(world, seed, uploads=700, rate=50, logs=tmp_path)
    histories = "\n".join(f"{what}\n{history}" for what, history in result.violations[:5])
    assert not result.violations, f"seed {seed}, {len(result.violations)} violations, logs in {tmp_path}\n{histories}"
    assert result.harm, "nothing was done to it"
    assert result.counts["families of copies"] > 20
    assert result.counts["unprocessable"] > 5


@pytest.mark.timeout(300)
def test_kill_in_mid_flow_gives_each_upload_one_verdict_and_the_checker_sees_what_is_wrong(world: World) -> None:
    topics = Topics("kill-in", "kill-out", "kill-letters")
    for topic in filter(None, topics):
        world.kafka.create_topic(topic, PARTITIONS)
    workload = plan(1000, UPLOADS, PARTITIONS, world.store)
    uploads = sum(message.to == "uploads" for message in workload.messages)
    fleet = Fleet(world, 1, lambda number: environment(topics, 1000, number, static=False))
    checker = Checker(world.kafka.bootstrap_servers, topics, topics.uploads, workload, [])
    uploader = Uploader(workload, world.kafka.bootstrap_servers, topics.destinations(), per_second=1000)
    uploader.start()
    uploader.join()
    try:
        fleet.start()
        until(lambda: checker.lag() < uploads, 60, "nothing is decided", 0.01)
        fleet.kill(0)
        assert checker.lag() > 0, "the kill came too late to be in mid-flow"
        fleet.restart(0)
        drain(checker)
        fleet.close()
    finally:
        fleet.kill_all()
    with world.redis_client() as window:
        report = checker.check(window, "s1000")
        assert report.violations == []
        assert [*fleet.trouble, *leftovers(world)] == []
        for complaint in itertools.chain(_tear(world, topics, checker), _tamper(world, topics, checker, workload)):
            report = Checker(world.kafka.bootstrap_servers, topics, topics.uploads, workload, []).check(window, "s1000")
            assert any(complaint in what for _, what in report.violations), f"not noticed: {complaint}"


def _tear(world: World, topics: Topics, checker: Checker) -> Iterator[str]:
    """Write a verdict as if it had been in the batch of others, and abort it; yield what the checker has to say."""
    in_batch = Counter((v.batch, checker.partition(v.image_id)) for v in checker.verdicts() if v.committed)
    (batch, partition), _ = in_batch.most_common(1)[0]
    others = {v.image_id for v in checker.verdicts() if v.batch == batch}
    lost = next(
        v for v in checker.verdicts() if checker.partition(v.image_id) == partition and v.image_id not in others
    )
    producer = Producer({"bootstrap.servers": world.kafka.bootstrap_servers, "transactional.id": "tear"})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(topics.verdicts, json.dumps({**lost.data, "received_at": batch}), headers={"ce_id": lost.id})
    producer.flush(30)
    producer.abort_transaction(30)
    yield "cannot be seen"


def _tamper(world: World, topics: Topics, checker: Checker, workload: Workload) -> Iterator[str]:
    """Put false verdicts on the topic, one after the other; yield after each what the checker has to complain about."""
    producer = Producer({"bootstrap.servers": world.kafka.bootstrap_servers})
    # Of an upload that was sent once, and that nobody judges: of others several verdicts are right.
    counts = Counter(v.image_id for v in checker.verdicts())
    certain = {name for name, planted in workload.planted.items() if counts[name] == 1 and not planted.judged}
    duplicate = next(v for v in checker.verdicts() if v.data["kind"] == "near" and v.image_id in certain)
    picture = workload.planted[duplicate.image_id].picture
    stranger = next(planted.image_id for planted in workload.planted.values() if planted.picture not in {picture, -1})
    lies: list[tuple[str, dict[str, object]]] = [
        ("and has 2 verdicts", dict(duplicate.data)),
        ("was never uploaded", {**duplicate.data, "image_id": "nobody"}),
        ("matches itself", {**duplicate.data, "match": {**duplicate.data["match"], "image_id": duplicate.image_id}}),
        (
            "matches ghost, which was never",
            {**duplicate.data, "match": {**duplicate.data["match"], "image_id": "ghost"}},
        ),
        ("which is no copy", {**duplicate.data, "match": {**duplicate.data["match"], "image_id": stranger}}),
        ("beyond", {**duplicate.data, "match": {**duplicate.data["match"], "l2": 1.0}}),
        ("decided in different ways", {**duplicate.data, "verdict": "unique", "kind": None, "match": None}),
        ("was judged unprocessable", {**duplicate.data, "verdict": "unprocessable", "kind": None, "match": None}),
    ]
    for complaint, lie in lies:
        producer.produce(topics.verdicts, json.dumps(lie), headers={"ce_id": duplicate.id})
        producer.flush(30)
        yield complaint
    producer.produce(topics.uploads, b"{}", b"late")
    producer.flush(30)
    yield "and the committed offset is"


@pytest.mark.parametrize(("wiped_s", "excused"), [(99, False), (101, True), (104, True), (106, False)])
def test_a_clock_that_jumps_excuses_nothing_and_accuses_nobody(wiped_s: float, excused: bool) -> None:
    """An upload is sent at 100 s, its first verdict aborted at 103 s, the next one written at 105 s."""
    wipe = nemesis.Harm("redis is flushed", wiped_s, wiped_s + 0.5)
    checker = Checker("", Topics("", "", ""), "", Workload([], {}, [], {"a": 100.0}), [wipe])
    data = {"image_id": "a", "verdict": "unique", "kind": None, "match": None, "others": []}
    verdicts = [
        Verdict(StoredMessage(0, 0, at_s * 1000, b"a", b"", {}), "a", {**data, "decided_at": decided_at}, at_s == 105)
        for at_s, decided_at in ((103, "2026-01-02T00:00:00+00:00"), (105, "1970-01-01T00:00:00+00:00"))
    ]
    assert checker._wiped_between(verdicts[0], verdicts) is excused


@pytest.mark.parametrize("module", [checker_module, workload_module, nemesis, pictures])
def test_the_checker_shares_no_code_with_the_service(module: object) -> None:
    tree = ast.parse(Path(str(module.__file__)).read_text())  # type: ignore[attr-defined]
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not {name for name in names if name.split(".")[0] == "consumer"}
