"""The composition root: everything put together from the settings, for as long as it is not told to stop."""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from consumer.encoder.contract import ModelInfo
from consumer.encoder.triton import TritonEncoder
from consumer.errors import Misconfigured, Unavailable
from consumer.images.fetch import Fetcher
from consumer.kafka.consumer import UploadsConsumer
from consumer.kafka.lag import LagReader
from consumer.kafka.publisher import Publisher
from consumer.moderation.moderation import Moderation
from consumer.pipeline.bank_step import BankStep
from consumer.pipeline.encode import Encode
from consumer.pipeline.ingest import Ingest
from consumer.pipeline.match import Match
from consumer.pipeline.poison import PoisonGuard
from consumer.pipeline.progress import InFlight, Progress
from consumer.pipeline.publish import Publish
from consumer.pipeline.retry import Backoff
from consumer.pipeline.runner import Pipeline, Stage
from consumer.settings import KafkaSettings, Settings
from consumer.telemetry.health import HealthServer
from consumer.telemetry.metrics import Metrics
from consumer.telemetry.start import start_tracing
from consumer.verification.rerank import Verifier
from consumer.window.connection import REDIS_FAILURES, AnyRedis, connect
from consumer.window.originals import Originals
from consumer.window.recovery import RecoveryProgress, recover_window
from consumer.window.redo_log import RedoLog
from consumer.window.window import RedisWindow

log = logging.getLogger(__name__)

# A loop that has not turned for this long will not turn again: even a paused one turns every second or two. Longer
# than the bound on finishing work when partitions are revoked, during which it rightly stands still.
STALLED_AFTER_S = 60.0
# How often dependencies are tried and the lag is asked for: a little more often than Prometheus asks us.
OBSERVE_EVERY_S = 5.0
# How often it is checked whether the window has been lost, by a process that has nothing else to ask Redis.
CHECK_WINDOW_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a service at work consists of, as far as others ask about it."""

    encoder: TritonEncoder
    window: RedisWindow
    moderation: Moderation
    consumer: UploadsConsumer
    publisher: Publisher
    pipeline: Pipeline


class Service:
    """One consumer process. `run` returns after `stop`; raises Misconfigured when an operator has to act."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._metrics = Metrics()
        self._tracing = start_tracing(settings)
        self._redis: AnyRedis | None = None
        self._parts: _Parts | None = None
        self._starting: dict[str, str] = {"start": "starting"}
        self._stop = threading.Event()
        self._health = HealthServer(settings.http.host, settings.http.port, self._live, self._ready, notes=self._notes)

    def run(self) -> None:
        """Wait for the dependencies, then work until stopped."""
        log.info("answering on %s", self._health.url)
        with ExitStack() as stack:
            stack.callback(self._close_redis)
            stack.callback(self._tracing.close)
            stack.callback(self._health.close)
            fetcher = stack.enter_context(Fetcher(self._settings.fetch))
            encoder = stack.enter_context(TritonEncoder(self._settings.triton))
            if not (self._await(lambda: encoder.info) and self._await(encoder.check) and self._await(self._connect)):
                return
            window = self._open_window(encoder.info)
            if not self._await(window.check):
                return
            if window.loss_guard.recovers and not self._await(window.loss_guard.marker):
                return
            stack.callback(self._stop.set)
            # Before banks are read: their entries may be of uploads that are to be recovered.
            start_recovery(self._settings.kafka, encoder.info, window, self._stop)
            moderation = stack.enter_context(Moderation(self._settings, window, encoder, self._metrics))
            if not self._await(moderation.catch_up):
                return
            parts = self._compose(stack, fetcher, encoder, window, moderation)
            if not (self._await(parts.consumer.check) and self._await(parts.publisher.prepare)):
                return
            self._parts = parts
            self._start_threads(parts)
            if self._stop.is_set():
                parts.pipeline.stop()
            try:
                parts.pipeline.run()
            finally:
                self._stop.set()

    def stop(self) -> None:
        """End `run` gracefully; from any thread or a signal handler."""
        self._stop.set()
        if self._parts is not None:
            self._parts.pipeline.stop()

    def _open_window(self, model: ModelInfo) -> RedisWindow:
        assert self._redis is not None  # noqa: S101 (narrows the type)
        log.info("encoder %s version %s, threshold_l2 %s", model.name, model.version, model.match_radius_l2)
        self._metrics.model_info.labels(model.name, model.version).set(1)
        self._metrics.model_threshold_l2.set(model.match_radius_l2)
        return RedisWindow(self._redis, model, self._settings.window, self._settings.redis.key_prefix)

    def _compose(
        self, stack: ExitStack, fetcher: Fetcher, encoder: TritonEncoder, window: RedisWindow, moderation: Moderation
    ) -> _Parts:
        """Put the pipeline together; what has to be closed is closed by the stack, the consumer last."""
        assert self._redis is not None  # noqa: S101 (narrows the type)
        settings, metrics, model = self._settings, self._metrics, encoder.info
        progress, in_flight = Progress(metrics), InFlight(settings.pipeline, metrics)
        consumer = UploadsConsumer(settings.kafka, in_flight.drain_revoked, progress.rebalanced)
        stack.callback(consumer.close)
        publisher = Publisher(settings.kafka, consumer)
        stack.callback(publisher.close)
        bank_step = BankStep(moderation.banks, settings.kafka.banks_topic)
        ingest = Ingest(settings, model.size, fetcher, window, metrics, self._tracing, bank_step)
        stack.callback(ingest.close)
        encode = Encode(settings.decode, encoder, metrics, ingest.read_picture)
        verifier, redo_log = Verifier(window, model, settings.match.strictness), RedoLog(window)
        rejections, campaigns = moderation.rejections, moderation.campaigns
        match = Match(
            model, settings.window.others, encode, window, verifier, redo_log, rejections, campaigns, bank_step
        )
        publish = Publish(settings.kafka, model, consumer, publisher, metrics, Originals(window))
        pipeline = Pipeline(
            settings.pipeline,
            model.max_batch_size,
            consumer,
            ingest,
            (
                Stage("look_up", ingest.run),
                Stage("encode", encode.run),
                Stage("match", match.run, match.refresh),
                Stage("publish", publish.run),
            ),
            PoisonGuard(self._redis, settings),
            progress,
            in_flight,
            metrics,
        )
        return _Parts(encoder, window, moderation, consumer, publisher, pipeline)

    def _start_threads(self, parts: _Parts) -> None:
        """Start what works beside the pipeline, until stopped."""
        self._metrics.windows, self._metrics.unread_rows = parts.window.tenant_stats, parts.window.unread_rows
        parts.moderation.take_in_feedback(parts.pipeline.fail)
        threading.Thread(target=self._observe, args=(parts,), name="observe", daemon=True).start()

    def _await(self, ask: Callable[[], object]) -> bool:
        """Ask again until the dependency answers; False when stopped meanwhile."""
        backoff = Backoff()
        while not self._stop.is_set():
            try:
                ask()
                return True
            except Unavailable as error:
                problems: dict[str, str] = {error.dependency: str(error)}
                if self._starting != problems:
                    log.warning("%s", error)
                self._starting = problems
                backoff.wait(self._stop)
        return False

    def _observe(self, parts: _Parts) -> None:
        """Look up what nothing in the flow of uploads would count, until stopped."""
        lag = LagReader(self._settings.kafka)
        while not self._stop.wait(OBSERVE_EVERY_S):
            try:
                self._metrics.window_resets.set(parts.window.stats().resets)
                self._metrics.campaigns = parts.moderation.top_campaigns(parts.window.tenant_stats())
                self._metrics.bank_entries = parts.moderation.bank_sizes()
                problems = self._ready()
                if "configuration" in problems:
                    # Another model is served by now: its vectors must not be taken for the old one's.
                    parts.pipeline.fail(Misconfigured(problems["configuration"]))
                self._metrics.ready.set(not problems)
                for dependency in ("kafka", "redis", "triton"):
                    self._metrics.dependency_up.labels(dependency).set(dependency not in problems)
                self._metrics.lags = lag.ask(parts.consumer.partitions)
            except Unavailable as error:
                log.debug("the lag cannot be asked for: %s", error)
            except Exception:
                if not self._stop.is_set():  # what is asked may be closed by then
                    log.exception("cannot observe")

    def _notes(self) -> dict[str, str]:
        """What an operator should know though the service is ready."""
        if self._parts is None or self._parts.window.loss_guard.recovers:
            return {}
        lost_at = self._parts.window.stats().lost_at
        if lost_at is None:
            return {}
        complete_at = lost_at + timedelta(seconds=self._settings.window.retention_s)
        if datetime.now(UTC) > complete_at:
            return {}
        lost, complete = (moment.isoformat(timespec="seconds") for moment in (lost_at, complete_at))
        return {"window": f"Redis came back without the window at {lost}; copies may be called unique until {complete}"}

    def _live(self) -> dict[str, str]:
        if self._parts is None:
            return {}
        silent_s = time.monotonic() - self._parts.pipeline.progress.turned_at_s
        return {"poll": f"the loop has not turned for {silent_s:.0f} s"} if silent_s > STALLED_AFTER_S else {}

    def _ready(self) -> dict[str, str]:
        if self._parts is None:
            return self._starting
        problems = self._parts.pipeline.progress.waiting_for.copy()
        for check in (self._parts.consumer.check, self._parts.encoder.check):
            try:
                check()
            except Unavailable as error:
                problems[error.dependency] = str(error)
            except Misconfigured as error:
                problems["configuration"] = str(error)
        try:
            self._connect()
        except Unavailable as error:
            problems["redis"] = str(error)
        problems |= self._parts.window.problems | self._parts.moderation.problems
        guard = self._parts.window.loss_guard
        if guard.recovers and guard.problem:
            problems["redis"] = guard.problem
        return problems

    def _connect(self) -> None:
        """Have a client of Redis, and an answer. Raises Unavailable; Misconfigured for an address that is none."""
        try:
            self._redis = self._redis or connect(self._settings.redis)
            self._redis.ping()
        except REDIS_FAILURES as error:
            raise Unavailable("redis", str(error) or type(error).__name__) from None

    def _close_redis(self) -> None:
        if self._redis is not None:
            self._redis.close()


def start_recovery(kafka: KafkaSettings, model: ModelInfo, window: RedisWindow, stop: threading.Event) -> None:
    """Start the thread that recovers the window, if it is to be recovered."""
    if window.loss_guard.recovers:
        arguments = (kafka, model, window, stop)
        threading.Thread(target=recover_when_lost, args=arguments, name="rebuild", daemon=True).start()


def recover_when_lost(kafka: KafkaSettings, model: ModelInfo, window: RedisWindow, stop: threading.Event) -> None:
    """Recover the window whenever Redis has lost it, unless another process does; until stopped."""
    guard, reported, topic = window.loss_guard, "", kafka.embeddings_topic

    def report(progress: RecoveryProgress) -> None:
        guard.problem = (
            f"the window is being rebuilt: {progress.messages} of {progress.total_messages} messages read, "
            f"{progress.rows} rows restored"
        )
        if stop.is_set():
            raise Unavailable("redis", "stopped in the midst of a rebuild")

    while not stop.wait(CHECK_WINDOW_EVERY_S):
        try:
            if guard.marker() is None:
                if not reported:
                    log.warning("Redis does not have the window: it has to be rebuilt from %r", topic)
                result = recover_window(kafka, model, window.store, guard, report)
                log.info("rebuilt the window from %r: %s", topic, result.summary)
            reported = ""
        except Unavailable as error:
            guard.problem = f"the window has to be rebuilt: {error}"
            if reported != str(error):
                log.warning("the window is not rebuilt yet: %s", error)
            reported = str(error)
        except Exception:
            if not stop.is_set():  # what is asked may be closed by then
                log.exception("cannot rebuild the window")
