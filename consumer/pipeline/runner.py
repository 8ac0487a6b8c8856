"""Batches on their way from the input topic to the committed verdict.

    poll ─> look up ─> encode ─> match ─> publish

Each stage has a thread of its own and hands its batches, in order, to the next. While one batch is in Triton the next
is fetched and decoded and the one before is matched and published. The number of batches in flight is bounded. A stage
that finds its dependency away repeats itself until it succeeds; the stages before it fill up, and polling goes on
without taking records, so that the group stays whole.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from consumer.errors import Dependency, Unavailable
from consumer.kafka.consumer import UploadsConsumer
from consumer.pipeline.batch import Batch
from consumer.pipeline.ingest import Ingest
from consumer.pipeline.poison import PoisonGuard
from consumer.pipeline.progress import InFlight, Progress
from consumer.pipeline.retry import LONGEST_PAUSE_S, Backoff
from consumer.pipeline.timing import timed
from consumer.settings import PipelineSettings
from consumer.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

# How long polling rests when nothing comes in; also how often it looks whether it should stop.
POLL_WAIT_S = 0.5
# A full pipeline shorter than this is everyday back-pressure; past it, partitions are paused.
PAUSE_AFTER_S = 1.0

Batches = queue.SimpleQueue[Batch | None]


@dataclass(frozen=True, slots=True)
class Stage:
    """What is done with each batch, under a name for threads, metrics and traces.

    `run` may be called again with the same batch after it raised Unavailable, and then goes on where it was. `on_idle`
    is called now and then while no batch comes, and may raise Unavailable as well.
    """

    name: Literal["look_up", "encode", "match", "publish"]
    run: Callable[[Batch], None]
    on_idle: Callable[[], None] | None = None


class Pipeline:
    """The stages' threads and the batches between them. `run` works until `stop` or `fail`, or a stage fails."""

    def __init__(
        self,
        settings: PipelineSettings,
        max_batch_size: int,
        consumer: UploadsConsumer,
        ingest: Ingest,
        stages: Sequence[Stage],
        poison_guard: PoisonGuard,
        progress: Progress,
        in_flight: InFlight,
        metrics: Metrics,
    ) -> None:
        """`max_batch_size` is the model's own limit; that of the settings holds too."""
        self._settings = settings
        self._batch_size = min(settings.batch_size, max_batch_size)
        self._consumer = consumer
        self._ingest = ingest
        self._stages = stages
        self._poison_guard = poison_guard
        self._in_flight = in_flight
        self._metrics = metrics
        self._stop = threading.Event()
        self.progress = progress

    def stop(self) -> None:
        """End `run` gracefully. May be called from any thread and from a signal handler."""
        self._stop.set()

    def fail(self, error: BaseException) -> None:
        """End `run` at once; it raises the error, or the first of several. What is in flight stays uncommitted."""
        self._in_flight.fail(error)
        self._stop.set()

    def run(self) -> None:
        """Poll until stopped, then finish what is in flight within the settings' bound. Raises what a stage raised."""
        queues: list[Batches] = [queue.SimpleQueue() for _ in self._stages]
        threads = [
            threading.Thread(target=self._work, args=(stage, *pair), name=stage.name, daemon=True)
            for stage, pair in zip(self._stages, zip(queues, [*queues[1:], None], strict=True), strict=True)
        ]
        for thread in threads:
            thread.start()
        try:
            while not self._stop.is_set():
                try:
                    self._poll(queues[0])
                except Unavailable as error:
                    self.progress.away(error)
                    self._stop.wait(LONGEST_PAUSE_S)
        except BaseException as error:
            self.fail(error)
        finally:
            deadline_s = time.monotonic() + self._settings.shutdown_timeout_s
            if self._in_flight.failure is None:
                self._in_flight.drain(self._settings.shutdown_timeout_s)
            self._in_flight.abandoned.set()
            queues[0].put(None)
            for thread in threads:
                thread.join(max(0.0, deadline_s - time.monotonic()))
        if self._in_flight.failure is not None:
            raise self._in_flight.failure

    def _poll(self, out: Batches) -> None:
        """Poll once, and hand a batch to the first stage if there is room for it."""
        self.progress.turned_at_s = time.monotonic()
        if not self._in_flight.wait_for_room(PAUSE_AFTER_S):
            self._consumer.idle(POLL_WAIT_S)
            return
        polled = self._consumer.poll(self._batch_size, POLL_WAIT_S, self._settings.batch_wait_ms / 1000)
        if not polled:
            return
        leased, suspect = self._poison_guard.first(polled)
        self._consumer.put_back(polled[len(leased) :])
        if suspect and not self._in_flight.wait_until_empty(PAUSE_AFTER_S):
            self._consumer.put_back(leased)
            self._consumer.idle(POLL_WAIT_S)
            return
        batch = self._ingest.begin(leased, suspect)
        closed_by = "size" if len(leased) == self._batch_size else "time"
        self._metrics.batch_uploads.labels(closed_by).observe(len(batch.items))
        self._in_flight.begin()
        out.put(batch)

    def _work(self, stage: Stage, batches: Batches, out: Batches | None) -> None:
        """Run a stage's thread: one batch after the other, until the end mark or until batches are abandoned."""
        try:
            while (batch := self._next(stage, batches)) is not None:
                with timed(self._metrics, stage.name, batch.trace):
                    done = self._persist(stage, batch)
                if out is not None and done:
                    out.put(batch)
                else:
                    self._in_flight.end()
        except BaseException as error:
            if self._in_flight.abandoned.is_set():  # what it works on is closed by now
                log.debug("step %s ends: %r", stage.name, error)
            else:
                log.exception("step %s failed", stage.name)
                self.fail(error)
        if out is not None:
            out.put(None)

    def _next(self, stage: Stage, batches: Batches) -> Batch | None:
        """Wait for the stage's next batch; None is the end mark."""
        while True:
            try:
                return batches.get(timeout=POLL_WAIT_S)
            except queue.Empty:
                if stage.on_idle is not None:
                    self._idle(stage.on_idle)

    def _idle(self, on_idle: Callable[[], None]) -> None:
        try:
            on_idle()
        except Unavailable as error:
            self.progress.away(error)
        else:
            self.progress.back("redis")  # which is all that idle work asks

    def _persist(self, stage: Stage, batch: Batch) -> bool:
        """Run a stage, again and again while a dependency is away. False when abandoned in mid-flight."""
        backoff = Backoff()
        waited_for: set[Dependency] = set()
        abandoned = self._in_flight.abandoned
        while not abandoned.is_set():
            try:
                stage.run(batch)
            except Unavailable as error:
                self.progress.away(error)
                waited_for.add(error.dependency)
                self._metrics.retries.labels(error.dependency).inc()
                backoff.wait(abandoned)
            else:
                for dependency in waited_for:
                    self.progress.back(dependency)
                return True
        return False
