"""Harm to single steps of a transaction, and of the group, at a moment that the harm itself waits for."""

import contextlib
import random
import time
from collections.abc import Callable

from tests.kafka_cluster.requests import Held, Requests, Rule

PATIENCE_S = 8.0  # for the request to come
TRANSACTION = ("Produce", "AddPartitionsToTxn", "AddOffsetsToTxn", "TxnOffsetCommit", "EndTxn")
AT_START = ("InitProducerId", "FindCoordinator")  # hardly ever asked by a process that runs
NAMES = {
    **{name: (name,) for name in (*TRANSACTION, *AT_START)},
    "EndTxn": ("Commit", "Abort"),
    "Heartbeat": ("Heartbeat", "ConsumerGroupHeartbeat"),
}


def lose_answer(requests: Requests, name: str, dice: random.Random) -> bool:
    """Let brokers do what they are asked, and the client not hear of it."""
    silent = dice.random() < 0.3
    return _repeat(requests, lambda: requests.lose_answer(*NAMES[name], silent=silent), dice)


def cut_off(requests: Requests, name: str, dice: random.Random) -> bool:
    """Reset the connection in the middle of a request."""
    return _repeat(requests, lambda: requests.cut_off(*NAMES[name]), dice)


def delay(requests: Requests, name: str, dice: random.Random) -> bool:
    """Keep a request, and its connection with it, from its broker for a while."""
    delay_s = dice.uniform(0.2, 8)
    return _repeat(requests, lambda: requests.delay(*NAMES[name], delay_s=delay_s), dice)


def deliver_late(requests: Requests, name: str, dice: random.Random) -> bool:
    """Deliver a request after its client has repeated it: at any time, or right before a step of a transaction."""
    held = requests.hold(*NAMES[name], silent=dice.random() < 0.3)
    if not _is_met(requests, held):
        return False
    step = dice.choice((None, *TRANSACTION))
    if step is None:
        time.sleep(dice.uniform(0, 8))
        _deliver(held)
    else:
        rule = requests.before(*NAMES[step], action=lambda: _deliver(held))
        if not _is_met(requests, rule):
            _deliver(held)
    return True


FAULTS: dict[str, Callable[[Requests, str, random.Random], bool]] = {
    "loses its answer": lose_answer,
    "is cut off": cut_off,
    "is delayed": delay,
    "arrives after it was repeated": deliver_late,
}


def _repeat(requests: Requests, harm: Callable[[], Rule], dice: random.Random) -> bool:
    """Do harm to a request, now and then also to those that repeat it; tell whether there was one."""
    met = _is_met(requests, harm())
    for _ in range(dice.choice((0, 0, 2)) if met else 0):
        _is_met(requests, harm())
    return met


def _is_met(requests: Requests, rule: Rule) -> bool:
    """Wait for the rule's request; withdraw the rule, and return False, if none comes."""
    met = rule.is_met(PATIENCE_S)
    requests.withdraw(rule)
    return met


def _deliver(held: Held) -> None:
    with contextlib.suppress(OSError):  # its broker may be away
        held.deliver()
