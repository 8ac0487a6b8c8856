"""Questions that come while others are worked on are answered together."""

import threading
from collections.abc import Sequence

import pytest

from consumer.errors import Unavailable
from consumer.http.batching import Batcher

TIMEOUT_S = 10


class Worker:
    """Doubles numbers, when it may; remembers its batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.begun, self.may = threading.Event(), threading.Event()
        self.away = False

    def work(self, questions: Sequence[int]) -> list[int]:
        self.batches.append(list(questions))
        self.begun.set()
        assert self.may.wait(TIMEOUT_S)
        if self.away:
            raise Unavailable("triton", "it is away")
        if 13 in questions:
            raise ValueError("not this one")
        return [2 * each for each in questions]


def test_what_waits_is_answered_together_and_in_order() -> None:
    worker = Worker()
    batcher = Batcher("test", worker.work, 4)
    first = batcher.ask(1)
    assert worker.begun.wait(TIMEOUT_S)
    others = [batcher.ask(number) for number in range(2, 8)]
    worker.may.set()
    assert [each.result(TIMEOUT_S) for each in (first, *others)] == [2, 4, 6, 8, 10, 12, 14]
    assert worker.batches == [[1], [2, 3, 4, 5], [6, 7]]
    batcher.close()


def test_a_question_that_fails_fails_alone_and_the_next_are_answered() -> None:
    worker = Worker()
    batcher = Batcher("test", worker.work, 4)
    first = batcher.ask(1)
    assert worker.begun.wait(TIMEOUT_S)
    good, bad = batcher.ask(12), batcher.ask(13)
    worker.may.set()
    assert [each.result(TIMEOUT_S) for each in (first, good)] == [2, 24]
    with pytest.raises(ValueError, match="not this one"):
        bad.result(TIMEOUT_S)
    assert batcher.ask(14).result(TIMEOUT_S) == 28
    batcher.close()
    assert worker.batches == [[1], [12, 13], [12], [13], [14]]


def test_what_is_away_is_not_asked_again_for_each_question() -> None:
    worker = Worker()
    batcher = Batcher("test", worker.work, 4)
    first = batcher.ask(1)
    assert worker.begun.wait(TIMEOUT_S)
    worker.away = True
    answers = [batcher.ask(number) for number in (2, 3)]
    worker.may.set()
    for each in (first, *answers):
        with pytest.raises(Unavailable):
            each.result(TIMEOUT_S)
    batcher.close()
    assert worker.batches == [[1], [2, 3]]


def test_nobody_works_for_whoever_has_gone() -> None:
    worker = Worker()
    batcher = Batcher("test", worker.work, 4)
    batcher.ask(1)
    assert worker.begun.wait(TIMEOUT_S)
    gone, stays = batcher.ask(2), batcher.ask(3)
    assert gone.cancel()
    worker.may.set()
    assert stays.result(TIMEOUT_S) == 6
    batcher.close()
    assert worker.batches == [[1], [3]]


def test_what_waits_is_answered_before_it_closes() -> None:
    worker = Worker()
    batcher = Batcher("test", worker.work, 1, threads=2)
    answers = [batcher.ask(number) for number in range(10)]
    worker.may.set()
    batcher.close()
    assert [each.result(0) for each in answers] == [2 * number for number in range(10)]
