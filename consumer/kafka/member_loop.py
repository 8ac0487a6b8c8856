"""The loop of a group member beside the pipeline: what fails is said once, and tried again."""

import logging
import threading
from collections.abc import Callable
from contextlib import suppress

from confluent_kafka import KafkaException

from consumer.errors import Misconfigured, Unavailable
from consumer.kafka.consumer import UploadsConsumer

log = logging.getLogger(__name__)

PAUSE_S = 1.0


class MemberLoop:
    """Repeats a step. `problem` is why it waits, in words for an operator, or ""."""

    def __init__(self, waiting: str) -> None:
        """`waiting` says in the log what waits while the step fails."""
        self.problem = ""
        self._waiting = waiting

    def run(self, step: Callable[[], object], consumer: UploadsConsumer, stop: threading.Event) -> None:
        """Repeat the step until told to stop. Raises Misconfigured when it does."""
        while not stop.is_set():
            try:
                step()
                self.problem = ""
            except Misconfigured:
                raise
            except Exception as error:  # a fault of this code must not end one process after the other either
                problem = str(error) or repr(error)
                if problem != self.problem:
                    expected = isinstance(error, Unavailable | KafkaException)
                    log.warning("%s: %s", self._waiting, problem, exc_info=not expected)
                self.problem = problem
                stop.wait(PAUSE_S)
                with suppress(Unavailable):  # it stays in its group, or joins it again
                    consumer.idle(0.0)
