"""The protocol as a model: every state of small worlds is visited, and the checker notices what would be wrong."""

import re
from importlib import import_module
from pathlib import Path

import pytest

from tests.model import tlc
from tests.model.instances import DEEP, MUTANTS, ONE_UPLOAD, QUICK, Instance

MODEL = (Path(__file__).parent / "Seenit.tla").read_text()
# Longer than the largest of these takes on a machine that does other work as well: seconds.
TIMEOUT_S = 300
pytestmark = pytest.mark.timeout(TIMEOUT_S + 30)
# Fewer, and a world has become too small to say much.
LEAST_STATES = 2000


@pytest.mark.usefixtures("model_checker")
@pytest.mark.parametrize("world", QUICK)
def test_the_invariants_hold_in_every_state(world: str) -> None:
    outcome = tlc.check(QUICK[world], TIMEOUT_S)
    assert outcome.violated is None, "\n".join(outcome.actions)
    assert outcome.is_complete
    assert outcome.states > LEAST_STATES


@pytest.mark.usefixtures("model_checker")
@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_checker_notices_what_is_missing(mutant: str) -> None:
    world = MUTANTS[mutant]
    [expected] = world.invariants
    # Where copies meet a rebuild there are hundreds of thousands of states.
    jvm = tlc.DEEP_JVM if world.rebuilds and world.topic != ONE_UPLOAD else tlc.QUICK_JVM
    assert tlc.check(world, TIMEOUT_S, jvm).violated == expected


def test_every_switch_of_the_model_has_a_mutant() -> None:
    switches = set(re.findall(r'"([^"]+)" \\(?:not)?in Without', MODEL))
    assert switches == {name for mutant in MUTANTS.values() for name in mutant.without}


def test_every_mutant_is_a_world_that_is_right_with_nothing_missing() -> None:
    """A world with more faults than any that is searched whole could break the invariant by itself."""

    def covers(larger: Instance, smaller: Instance) -> bool:
        faults = ("rebalances", "crashes", "losses", "repeats")
        same = (larger.topic, larger.content, larger.rebuilds) == (smaller.topic, smaller.content, smaller.rebuilds)
        return same and all(getattr(larger, fault) >= getattr(smaller, fault) for fault in faults)

    for name, mutant in MUTANTS.items():
        assert any(covers(world, mutant) for world in DEEP.values()), name


FUNCTIONS = re.findall(r"^\(\* @ ([\w.]+) \*\)\n(\w+)\(p\) ==", MODEL, re.MULTILINE)
# What no function of the service does.
WORLD = {"Rebalance", "Deliver", "Lose", "LockExpires", "Crash", "TimeOut"}


def test_every_action_names_the_function_that_carries_it_out() -> None:
    next_actions = re.search(r"^Next ==.*?\n\n", MODEL, re.MULTILINE | re.DOTALL)
    assert next_actions
    taken = set(re.findall(r"\b([A-Z][A-Za-z]+)(?:\(p\)| \\/|$)", next_actions[0].split("ELSE")[1], re.MULTILINE))
    taken |= {"Compare"}
    assert taken - {action for _, action in FUNCTIONS} == WORLD


@pytest.mark.parametrize(("function", "action"), FUNCTIONS)
def test_the_function_of_an_action_exists(function: str, action: str) -> None:
    module, names = function, list[str]()
    while True:
        try:
            found: object = import_module(module)
            break
        except ModuleNotFoundError:
            module, _, name = module.rpartition(".")
            names.insert(0, name)
    for name in names:
        found = getattr(found, name)
    assert callable(found), action
