"""Walks through the model are replayed on the service's own code: what the model says is what the code does."""

from collections.abc import Iterator
from copy import deepcopy

import pytest
from redis import Redis

from consumer.kafka.consumer import UploadsConsumer
from consumer.local.binaries import Binaries
from tests.model import tlc
from tests.model.instances import MUTANTS, QUICK, REPLAYED
from tests.model.replay import Replay, quick
from tests.model.traces import parse, read_walk
from tests.redis_servers import client_of, redis_like
from tests.stack_fixtures import serving

__all__ = ["quick"]

WALKS, LONGEST_WALK, TIMEOUT_S = 50, 90, 150
pytestmark = pytest.mark.timeout(2 * TIMEOUT_S)


@pytest.fixture(scope="module")
def redis(binaries: Binaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    with (
        serving(redis_like("valkey", binaries, tmp_path_factory.mktemp("replay"))) as server,
        client_of(server) as client,
    ):
        yield client


def follow(redis: Redis, world: str, text: str) -> set[str]:
    """Replay a walk, and return the actions that were done on it."""
    walk = read_walk(text)
    replay = Replay(QUICK[world], redis)
    try:
        replay.follow(walk)
    finally:
        replay.close()
    return {state.action[0] for state in walk}


@pytest.mark.usefixtures("model_checker", "quick")
@pytest.mark.parametrize("world", REPLAYED)
def test_the_code_does_what_the_model_says(world: str, redis: Redis) -> None:
    done: set[str] = set()
    for text in tlc.simulate(QUICK[world], WALKS, LONGEST_WALK, seed=1, timeout_s=TIMEOUT_S):
        done |= follow(redis, world, text)
    assert {"LookUp", "AppendUpload", "CheckLease", "Produce", "SendOffsets", "Commit"} <= done


@pytest.mark.usefixtures("model_checker", "quick")
def test_code_that_commits_without_a_lease_is_noticed(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(UploadsConsumer, "holds", lambda *_: True)
    walks = tlc.simulate(QUICK["partitions that move"], WALKS, LONGEST_WALK, seed=1, timeout_s=TIMEOUT_S)

    def follow_all() -> None:
        for text in walks:
            follow(redis, "partitions that move", text)

    with pytest.raises(AssertionError, match="the model does"):
        follow_all()


@pytest.mark.usefixtures("model_checker", "quick")
@pytest.mark.parametrize("mutant", [name for name, each in MUTANTS.items() if each.repeats])
def test_a_late_request_changes_nothing(mutant: str, redis: Redis) -> None:
    """The checker's own example of what a late request may do, on code that has to be proof against it."""
    replay = Replay(MUTANTS[mutant], redis)
    broker = replay.broker
    for action in tlc.check(MUTANTS[mutant], TIMEOUT_S).actions:
        before = deepcopy((broker.visible, broker.committed, broker.transactions))
        replay.do(*parse(f"<<{action}>>"))
        if action.startswith("Deliver"):
            break
    replay.close()
    assert not broker.held
    assert (broker.visible, broker.committed, broker.transactions) == before


def test_values_are_read_as_tlc_writes_them() -> None:
    text = '[a |-> <<1, "x">>, b |-> {TRUE}, c |-> (p :> <<>> @@ q :> [d |-> "none"])]'
    assert parse(text) == {"a": [1, "x"], "b": [True], "c": {"p": [], "q": {"d": "none"}}}
