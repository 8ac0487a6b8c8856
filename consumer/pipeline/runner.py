"""Batches on their way from the input topic to the committed verdict.

    poll ─> look up ─> encode ─> match ─> publish

Each step has a thread of its own and hands its batches, in order, to the next. While one batch is in Triton the next
is fetched and decoded and the one before is matched and published. The number of batches under way is bounded. A step
that finds its dependency away repeats itself until it succeeds; those before it fill up, and polling goes on without
taking records, so that the group stays whole.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from consumer.encoder.triton import TritonEncoder
from consumer.errors import Dependency, Unavailable
from consumer.images.fetch import Fetcher
from consumer.kafka.consumer import UploadsConsumer
from consumer.pipeline.poison import PoisonGuard
from consumer.pipeline.steps import Batch, Steps
from consumer.settings import Settings
from consumer.telemetry.metrics import Metrics
from consumer.telemetry.tracing import NO_TRACING, Tracing
from consumer.window.window import RedisWindow

log = logging.getLogger(__name__)

# How long polling rests when nothing comes in; also how often it looks whether it should stop.
POLL_WAIT_S = 0.5
# A full pipeline shorter than this is everyday back-pressure; past it, partitions are paused.
PAUSE_AFTER_S = 1.0
# Back-off between tries at a dependency that is away: doubling from the first to the last.
BACKOFF_S = (0.1, 2.0)

Step = Callable[[Batch], None]
Batches = queue.SimpleQueue[Batch | None]


@dataclass
class Progress:
    """What the outside may ask while the pipeline runs."""

    turned_at_s: float = field(default_factory=time.monotonic)
    waiting_for: dict[str, str] = field(default_factory=dict)


class Pipeline:
    """The steps' threads and the batches between them. `run` works until `stop` or `fail`, or a step fails for good."""

    def __init__(
        self,
        settings: Settings,
        fetcher: Fetcher,
        encoder: TritonEncoder,
        window: RedisWindow,
        metrics: Metrics,
        suspicion: PoisonGuard,
        tracing: Tracing = NO_TRACING,
    ) -> None:
        self._settings = settings.pipeline
        self._metrics = metrics
        self._suspicion = suspicion
        self.consumer = UploadsConsumer(settings.kafka, self._drain_revoked, self._rebalanced)
        self._steps = Steps(settings, fetcher, encoder, window, metrics, self.consumer, tracing)
        self._most = min(settings.pipeline.batch_size, encoder.info.max_batch_size)
        self._stop = threading.Event()
        self._abandon = threading.Event()
        self._failure: BaseException | None = None
        self._in_flight = 0
        self._room = threading.Condition()
        metrics.batches_in_flight_limit.set(settings.pipeline.batches_in_flight)
        self.progress = Progress()

    def stop(self) -> None:
        """End `run` gracefully. May be called from any thread and from a signal handler."""
        self._stop.set()

    def fail(self, error: BaseException) -> None:
        """End `run` at once; it raises the error, or the first of several. What is in flight stays uncommitted."""
        self._failure = self._failure or error
        self._abandon.set()
        self._stop.set()

    def run(self) -> None:
        """Poll until stopped, then finish what is in flight within the settings' bound. Raises what a step raised."""
        steps: list[tuple[str, Step]] = [
            ("look_up", self._steps.look_up),
            ("encode", self._steps.encode),
            ("match", self._steps.match),
            ("publish", self._steps.publish),
        ]
        queues: list[Batches] = [queue.SimpleQueue() for _ in steps]
        threads = [
            threading.Thread(target=self._work, args=(name, step, *pair), name=name, daemon=True)
            for (name, step), pair in zip(steps, zip(queues, [*queues[1:], None], strict=True), strict=True)
        ]
        for thread in threads:
            thread.start()
        try:
            while not self._stop.is_set():
                try:
                    self._poll(queues[0])
                except Unavailable as error:
                    self._away(error)
                    self._stop.wait(BACKOFF_S[1])
        except BaseException as error:
            self.fail(error)
        finally:
            deadline_s = time.monotonic() + self._settings.shutdown_timeout_s
            if self._failure is None:
                self._drain(self._settings.shutdown_timeout_s)
            self._abandon.set()
            queues[0].put(None)
            for thread in threads:
                thread.join(max(0.0, deadline_s - time.monotonic()))
            self._steps.close()
            self.consumer.close()
        if self._failure is not None:
            raise self._failure

    def _poll(self, out: Batches) -> None:
        self.progress.turned_at_s = time.monotonic()
        with self._room:
            room = self._room.wait_for(lambda: self._in_flight < self._settings.batches_in_flight, PAUSE_AFTER_S)
        if not room:
            self.consumer.idle(POLL_WAIT_S)
            return
        polled = self.consumer.poll(self._most, POLL_WAIT_S, self._settings.batch_wait_ms / 1000)
        if not polled:
            return
        leased, suspect = self._suspicion.first(polled)
        self.consumer.put_back(polled[len(leased) :])
        if suspect and not self._empty(PAUSE_AFTER_S):
            self.consumer.put_back(leased)
            self.consumer.idle(POLL_WAIT_S)
            return
        batch = self._steps.begin(leased, suspect)
        closed_by = "size" if len(leased) == self._most else "time"
        self._metrics.batch_uploads.labels(closed_by).observe(len(batch.items))
        with self._room:
            self._in_flight += 1
            self._metrics.batches_in_flight.set(self._in_flight)
        out.put(batch)

    def _work(
        self,
        name: str,
        step: Step,
        batches: Batches,
        out: Batches | None,
    ) -> None:
        """A step's thread: one batch after the other, until the end mark or the abandonment of what is left."""
        try:
            while (batch := self._next(name, batches)) is not None:
                with self._steps.timed(name, batch.trace):
                    done = self._persist(step, batch)
                if out is not None and done:
                    out.put(batch)
                else:
                    self._finished()
        except BaseException as error:
            if self._abandon.is_set():  # what it works on is closed by now
                log.debug("step %s ends: %r", name, error)
            else:
                log.exception("step %s failed", name)
                self.fail(error)
        if out is not None:
            out.put(None)

    def _next(self, name: str, batches: Batches) -> Batch | None:
        while True:
            try:
                return batches.get(timeout=POLL_WAIT_S)
            except queue.Empty:
                # Deletions and other processes' rows reach an idle window too.
                if name == "match":
                    self._refresh()

    def _refresh(self) -> None:
        try:
            self._steps.refresh()
        except Unavailable as error:
            self._away(error)
        else:
            self._back("redis")

    def _persist(self, step: Step, batch: Batch) -> bool:
        """Run a step, again and again while a dependency is away. False when abandoned in mid-flight."""
        backoff_s, longest_s = BACKOFF_S
        waited_for: set[Dependency] = set()
        while not self._abandon.is_set():
            try:
                step(batch)
            except Unavailable as error:
                self._away(error)
                waited_for.add(error.dependency)
                self._metrics.retries.labels(error.dependency).inc()
                self._abandon.wait(backoff_s)
                backoff_s = min(backoff_s * 2, longest_s)
            else:
                for dependency in waited_for:
                    self._back(dependency)
                return True
        return False

    def _away(self, error: Unavailable) -> None:
        if self.progress.waiting_for.get(error.dependency) != error.detail:
            log.warning("%s", error)
        self.progress.waiting_for[error.dependency] = error.detail
        self._metrics.dependency_up.labels(error.dependency).set(0)

    def _back(self, dependency: Dependency) -> None:
        if self.progress.waiting_for.pop(dependency, None) is not None:
            log.info("%s is back", dependency)
        self._metrics.dependency_up.labels(dependency).set(1)

    def _finished(self) -> None:
        with self._room:
            self._in_flight -= 1
            self._metrics.batches_in_flight.set(self._in_flight)
            self._room.notify_all()

    def _drain(self, timeout_s: float) -> None:
        if not self._empty(timeout_s):
            log.warning("dropping %d batches in flight after %s s; they stay uncommitted", self._in_flight, timeout_s)

    def _empty(self, timeout_s: float) -> bool:
        """Whether nothing is in flight any more, or ever will be, within that time."""
        with self._room:
            return self._room.wait_for(lambda: self._in_flight == 0 or self._failure is not None, timeout_s)

    def _rebalanced(self, change: str) -> None:
        self._metrics.rebalances.labels(change).inc()
        if change == "assigned":
            self._back("kafka")

    def _drain_revoked(self) -> None:
        if not self._abandon.is_set():
            self._drain(self._settings.revoke_timeout_s)
