"""Work on what many requests ask for at the same time, in batches: one request alone does not wait for others."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

from consumer.errors import Unavailable

Question = TypeVar("Question")
Answer = TypeVar("Answer")


class Batcher(Generic[Question, Answer]):
    """Answers questions in batches of those that came while its threads were busy. Thread-safe.

    `work` answers a batch, in order. Where it fails, each question of the batch is asked alone, and fails alone; only
    Unavailable is raised to all who asked at once, since it is nobody's question that is at fault.
    """

    def __init__(
        self, name: str, work: Callable[[Sequence[Question]], Sequence[Answer]], max_batch: int, threads: int = 1
    ) -> None:
        self._work = work
        self._max_batch = max_batch
        self._waiting: SimpleQueue[tuple[Question, Future[Answer]] | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run, name=f"{name}-{number}", daemon=True) for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def ask(self, question: Question) -> Future[Answer]:
        """Queue a question; its future can be cancelled until it is worked on."""
        future: Future[Answer] = Future()
        self._waiting.put((question, future))
        return future

    def close(self) -> None:
        """Answer what waits, then end."""
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while batch := self._take():
            wanted = [(question, future) for question, future in batch if future.set_running_or_notify_cancel()]
            if wanted:
                self._answer(wanted)

    def _take(self) -> list[tuple[Question, Future[Answer]]]:
        """Wait for a question, and take those that wait with it; nothing when closed."""
        first = self._waiting.get()
        batch = [] if first is None else [first]
        while batch and len(batch) < self._max_batch:
            try:
                each = self._waiting.get_nowait()
            except Empty:
                break
            if each is None:
                self._waiting.put(None)  # for the next turn
                break
            batch.append(each)
        return batch

    def _answer(self, batch: Sequence[tuple[Question, Future[Answer]]]) -> None:
        try:
            answers = list(zip(batch, self._work([question for question, _ in batch]), strict=True))
        except Exception as error:
            if len(batch) > 1 and not isinstance(error, Unavailable):
                for each in batch:
                    self._answer([each])
                return
            for _, future in batch:
                future.set_exception(error)
        else:
            for (_, future), answer in answers:
                future.set_result(answer)
