"""The service: everything put together from the settings, for as long as it is not told to stop."""

import logging
import signal
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import FrameType

import redis
from redis.cluster import RedisCluster

from consumer.encoder.contract import ModelInfo
from consumer.encoder.triton import TritonEncoder
from consumer.errors import Misconfigured, Unavailable
from consumer.images.fetch import Fetcher
from consumer.kafka.lag import LagReader
from consumer.pipeline.poison import PoisonGuard
from consumer.pipeline.runner import BACKOFF_S, Pipeline
from consumer.settings import Settings
from consumer.telemetry.health import HealthServer
from consumer.telemetry.metrics import Metrics
from consumer.telemetry.tracing import NO_TRACING, Tracing
from consumer.window.connection import REDIS_FAILURES, connect
from consumer.window.recovery import RecoveryProgress, recover_window
from consumer.window.window import RedisWindow

log = logging.getLogger(__name__)

# A loop that has not turned for this long will not turn again: even a paused one turns every second or two. Longer
# than the bound on finishing work when partitions are revoked, during which it rightly stands still.
STALLED_AFTER_S = 60.0
# How often dependencies are tried and the lag is asked for: a little more often than Prometheus asks us.
OBSERVE_EVERY_S = 5.0
# How often it is looked whether the window has been lost, by a process that has nothing else to ask Redis.
LOOK_EVERY_S = 1.0


class Service:
    """One consumer process. `run` returns after `stop`; raises Misconfigured when an operator has to act."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._metrics = Metrics()
        self._tracing = start_tracing(settings)
        self._pipeline: Pipeline | None = None
        self._encoder: TritonEncoder | None = None
        self._redis: redis.Redis | RedisCluster | None = None
        self._window: RedisWindow | None = None
        self._starting: dict[str, str] = {"start": "starting"}
        self._stop = threading.Event()
        self._health = HealthServer(settings.http.host, settings.http.port, self._live, self._ready, notes=self._notes)

    def run(self) -> None:
        """Wait for the dependencies, then work until stopped."""
        log.info("answering on %s", self._health.url)
        try:
            with Fetcher(self._settings.fetch) as fetcher, TritonEncoder(self._settings.triton) as encoder:
                if not (
                    self._await(lambda: encoder.info) and self._await(encoder.check) and self._await(self._connect)
                ):
                    return
                assert self._redis is not None  # noqa: S101 (narrows the type)
                info = encoder.info
                log.info("encoder %s version %s, threshold_l2 %s", info.name, info.version, info.threshold_l2)
                self._metrics.model_info.labels(info.name, info.version).set(1)
                self._metrics.model_threshold_l2.set(info.threshold_l2)
                self._encoder = encoder
                look = info.verification_rule
                window = RedisWindow(
                    self._redis,
                    info,
                    self._settings.window,
                    self._settings.redis.key_prefix,
                    radius_l2=None if look is None else look.candidate_l2,
                )
                self._window = window
                if window.loss_guard.recovers:
                    if not self._await(window.loss_guard.marker):
                        return
                    threading.Thread(target=self._rebuild, args=(window, info), name="rebuild", daemon=True).start()
                suspicion = PoisonGuard(self._redis, self._settings)
                self._pipeline = Pipeline(
                    self._settings, fetcher, encoder, window, self._metrics, suspicion, self._tracing
                )
                self._metrics.windows = window.tenant_stats
                threading.Thread(target=self._observe, args=(window,), name="observe", daemon=True).start()
                if self._stop.is_set():
                    self._pipeline.stop()
                try:
                    self._pipeline.run()
                finally:
                    self._stop.set()
        finally:
            self._health.close()
            self._tracing.close()
            if self._redis is not None:
                self._redis.close()

    def stop(self) -> None:
        """End `run` gracefully; from any thread or a signal handler."""
        self._stop.set()
        if self._pipeline is not None:
            self._pipeline.stop()

    def stop_on_signals(self) -> None:
        """Let SIGTERM and SIGINT call `stop`."""

        def handle(number: int, _: FrameType | None) -> None:
            log.info("%s: stopping", signal.Signals(number).name)
            self.stop()

        signal.signal(signal.SIGTERM, handle)
        signal.signal(signal.SIGINT, handle)

    def _await(self, ask: Callable[[], object]) -> bool:
        """Ask again until the dependency answers; False when stopped meanwhile."""
        backoff_s, longest_s = BACKOFF_S
        while not self._stop.is_set():
            try:
                ask()
                return True
            except Unavailable as error:
                problems: dict[str, str] = {error.dependency: str(error)}
                if self._starting != problems:
                    log.warning("%s", error)
                self._starting = problems
                self._stop.wait(backoff_s)
                backoff_s = min(backoff_s * 2, longest_s)
        return False

    def _observe(self, window: RedisWindow) -> None:
        """Look up what nothing in the flow of uploads would count, until stopped."""
        lag = LagReader(self._settings.kafka)
        while self._pipeline is not None and not self._stop.wait(OBSERVE_EVERY_S):
            try:
                self._metrics.window_resets.set(window.stats().resets)
                problems = self._ready()
                if "configuration" in problems:
                    # Another model is served by now: its vectors must not be taken for the old one's.
                    self._pipeline.fail(Misconfigured(problems["configuration"]))
                self._metrics.ready.set(not problems)
                for dependency in ("kafka", "redis", "triton"):
                    self._metrics.dependency_up.labels(dependency).set(dependency not in problems)
                self._metrics.lags = lag.ask(self._pipeline.consumer.partitions)
            except Unavailable as error:
                log.debug("the lag cannot be asked for: %s", error)
            except Exception:
                if not self._stop.is_set():  # what is asked may be closed by then
                    log.exception("cannot observe")

    def _rebuild(self, window: RedisWindow, model: ModelInfo) -> None:
        """Rebuild the window whenever Redis has lost it, unless another process does; until stopped."""
        guard, said = window.loss_guard, ""
        topic = self._settings.kafka.embeddings_topic

        def tell(progress: RecoveryProgress) -> None:
            guard.problem = (
                f"the window is being rebuilt: {progress.messages} of {progress.total_messages} messages read, "
                f"{progress.rows} rows restored"
            )
            if self._stop.is_set():
                raise Unavailable("redis", "stopped in the midst of a rebuild")

        while not self._stop.wait(LOOK_EVERY_S):
            try:
                if guard.marker() is None:
                    if not said:
                        log.warning("Redis does not have the window: it has to be rebuilt from %r", topic)
                    done = recover_window(self._settings.kafka, model, window.store, guard, tell)
                    log.info("rebuilt the window from %r: %s", topic, done.summary)
                said = ""
            except Unavailable as error:
                guard.problem = f"the window has to be rebuilt: {error}"
                if said != str(error):
                    log.warning("the window is not rebuilt yet: %s", error)
                said = str(error)
            except Exception:
                if not self._stop.is_set():  # what is asked may be closed by then
                    log.exception("cannot rebuild the window")

    def _notes(self) -> dict[str, str]:
        """What an operator should know though the service is ready."""
        lost_at = None if self._window is None else self._window.stats().lost_at
        if lost_at is None or self._window is None or self._window.loss_guard.recovers:
            return {}
        complete_at = lost_at + timedelta(seconds=self._settings.window.retention_s)
        if datetime.now(UTC) > complete_at:
            return {}
        lost, complete = (at.isoformat(timespec="seconds") for at in (lost_at, complete_at))
        return {"window": f"Redis came back without the window at {lost}; copies may be called unique until {complete}"}

    def _live(self) -> dict[str, str]:
        if self._pipeline is None:
            return {}
        silent_s = time.monotonic() - self._pipeline.progress.turned_at_s
        return {"poll": f"the loop has not turned for {silent_s:.0f} s"} if silent_s > STALLED_AFTER_S else {}

    def _ready(self) -> dict[str, str]:
        if self._pipeline is None or self._encoder is None:
            return self._starting
        problems = self._pipeline.progress.waiting_for.copy()
        for check in (self._pipeline.consumer.check, self._encoder.check):
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
        if self._window is not None and self._window.loss_guard.recovers and self._window.loss_guard.problem:
            problems["redis"] = self._window.loss_guard.problem
        return problems

    def _connect(self) -> None:
        """Have a client of Redis, and an answer. Raises Unavailable; Misconfigured for an address that is none."""
        try:
            self._redis = self._redis or connect(self._settings.redis)
            self._redis.ping()
        except REDIS_FAILURES as error:
            raise Unavailable("redis", str(error) or type(error).__name__) from None


def start_tracing(settings: Settings) -> Tracing:
    """Tracing as the settings say. Raises Misconfigured when it cannot be done."""
    if not settings.tracing.enabled:
        return NO_TRACING
    try:
        from consumer.telemetry.otel import OpenTelemetry  # noqa: PLC0415  # an optional dependency
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "opentelemetry":
            raise
        raise Misconfigured(
            "SEENIT_TRACING_ENABLED is set, but OpenTelemetry is not installed: pip install '.[tracing]'"
        ) from None
    return OpenTelemetry(settings.kafka)
