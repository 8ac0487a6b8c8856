"""How the pipeline gets on: what it waits for, and how many batches are under way."""

import logging
import threading
import time

from consumer.errors import Dependency, Unavailable
from consumer.settings import PipelineSettings
from consumer.telemetry.metrics import Metrics

log = logging.getLogger(__name__)


class Progress:
    """What the outside may ask while the pipeline runs. Thread-safe.

    `turned_at_s` is when the polling loop turned last, by `time.monotonic`; `waiting_for` names the dependencies that
    are away, with what is wrong.
    """

    def __init__(self, metrics: Metrics) -> None:
        self.turned_at_s = time.monotonic()
        self.waiting_for: dict[str, str] = {}
        self._metrics = metrics

    def away(self, error: Unavailable) -> None:
        """Note that a dependency cannot be asked."""
        if self.waiting_for.get(error.dependency) != error.detail:
            log.warning("%s", error)
        self.waiting_for[error.dependency] = error.detail
        self._metrics.dependency_up.labels(error.dependency).set(0)

    def back(self, dependency: Dependency) -> None:
        """Note that a dependency answers."""
        if self.waiting_for.pop(dependency, None) is not None:
            log.info("%s is back", dependency)
        self._metrics.dependency_up.labels(dependency).set(1)

    def rebalanced(self, change: str) -> None:
        """Note that partitions came or went: `change` is assigned, revoked or lost."""
        self._metrics.rebalances.labels(change).inc()
        if change == "assigned":
            self.back("kafka")


class InFlight:
    """Counts the batches between poll and commit, and knows whether they are given up. Thread-safe."""

    def __init__(self, settings: PipelineSettings, metrics: Metrics) -> None:
        self._limit = settings.batches_in_flight
        self._revoke_timeout_s = settings.revoke_timeout_s
        self._metrics = metrics
        self._count = 0
        self._changed = threading.Condition()
        self.failure: BaseException | None = None
        self.abandoned = threading.Event()
        metrics.batches_in_flight_limit.set(self._limit)

    def begin(self) -> None:
        """Count one more batch."""
        with self._changed:
            self._count += 1
            self._metrics.batches_in_flight.set(self._count)

    def end(self) -> None:
        """Count one batch less."""
        with self._changed:
            self._count -= 1
            self._metrics.batches_in_flight.set(self._count)
            self._changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """Give up what is in flight; the first of several errors is kept."""
        self.failure = self.failure or error
        self.abandoned.set()

    def wait_for_room(self, timeout_s: float) -> bool:
        """Whether there is room for one more batch within that time."""
        with self._changed:
            return self._changed.wait_for(lambda: self._count < self._limit, timeout_s)

    def wait_until_empty(self, timeout_s: float) -> bool:
        """Whether nothing is in flight any more, or ever will be, within that time."""
        with self._changed:
            return self._changed.wait_for(lambda: self._count == 0 or self.failure is not None, timeout_s)

    def drain(self, timeout_s: float) -> None:
        """Wait until nothing is in flight, for so long at most."""
        if not self.wait_until_empty(timeout_s):
            log.warning("dropping %d batches in flight after %s s; they stay uncommitted", self._count, timeout_s)

    def drain_revoked(self) -> None:
        """Finish what is in flight before partitions are given up, within the settings' bound."""
        if not self.abandoned.is_set():
            self.drain(self._revoke_timeout_s)
