"""`seenit serve`: the application on a port, with what it works with, until it is told to stop."""

import logging
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack

import uvicorn
from fastapi import FastAPI

from consumer.encoder.contract import ModelInfo
from consumer.encoder.triton import TritonEncoder
from consumer.errors import Misconfigured, Unavailable
from consumer.http.access import Access
from consumer.http.app import make_app
from consumer.http.changes import Changes
from consumer.http.encoding import PictureEncoder
from consumer.http.matching import PictureMatcher
from consumer.http.observing import Observer
from consumer.http.parts import Backends, Parts
from consumer.http.protocol import GuardedProtocol
from consumer.http.shown import ShownPictures
from consumer.http.thumbnails import ThumbnailStore, ThumbnailWriter
from consumer.http.verdicts import VerdictLog
from consumer.images.fetch import Fetcher
from consumer.kafka.sender import Sender
from consumer.kafka.topic_reader import TopicReader
from consumer.moderation.decisions import Decisions
from consumer.moderation.matching import Banks
from consumer.moderation.rejections import Rejections
from consumer.moderation.store import BankStore
from consumer.settings import Settings
from consumer.telemetry.health import HealthServer
from consumer.telemetry.metrics import HttpMetrics
from consumer.telemetry.start import start_tracing
from consumer.window.connection import REDIS_FAILURES, AnyRedis, connect
from consumer.window.window import RedisWindow

log = logging.getLogger(__name__)

# How often dependencies are tried that have not answered yet.
CONNECT_EVERY_S = 1.0
# And how often all of them are, for the metrics.
OBSERVE_EVERY_S = 5.0
# Connections at once; each takes a few KiB while it sends nothing.
MAX_CONNECTIONS = 2000
STOP_TIMEOUT_S = 10
# How long a stop waits for a thread that is asking something; for a picture, say.
THREAD_STOP_S = 2.0


class _Server(uvicorn.Server):
    """Ends what would otherwise go on for minutes, before it waits for the requests under way."""

    def __init__(self, config: uvicorn.Config, end_streams: Callable[[], None]) -> None:
        super().__init__(config)
        self._end_streams = end_streams

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._end_streams()
        await super().shutdown(sockets)


class HttpService:
    """One `seenit serve` process. It answers at once: 503 while what it has to ask is away."""

    def __init__(self, settings: Settings) -> None:
        """Raises Misconfigured for a service that anybody could reach without a key."""
        self._settings = settings
        self._access = Access(settings.serve)
        self._metrics = HttpMetrics()
        self._stop = threading.Event()
        self._redis: AnyRedis | None = None
        self._failure: Exception | None = None

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT. Raises Misconfigured when an operator has to act; else what ended a thread."""
        settings = self._settings
        with ExitStack() as stack:
            health = HealthServer(settings.http.host, settings.http.port, dict, self._ready)
            stack.callback(health.close)
            self._parts = self._compose(stack)
            app = make_app(self._parts)
            stack.callback(app.state.desk.close)
            self._server = _Server(self._config(app), app.state.desk.end_streams)
            works = [self._connect, self._observe, *([self._write_thumbnails] if self._parts.thumbnails else [])]
            for work in works:
                thread = threading.Thread(target=self._run_or_end, args=(work,), name=work.__name__, daemon=True)
                stack.callback(thread.join, THREAD_STOP_S)
                thread.start()
            stack.callback(self._stop.set)
            self._server.run()
        if self._failure is not None:
            raise self._failure

    def _compose(self, stack: ExitStack) -> Parts:
        settings = self._settings
        fetcher = stack.enter_context(Fetcher(settings.fetch))
        self._triton = stack.enter_context(TritonEncoder(settings.triton))
        encoder = PictureEncoder(settings.decode, self._triton)
        stack.callback(encoder.close)
        sender = Sender(settings.kafka)
        stack.callback(sender.close)
        self._decisions = Decisions(settings.kafka)
        self._decisions.start()
        stack.callback(self._decisions.close)
        verdicts = VerdictLog(settings.kafka)
        verdicts.start()
        stack.callback(verdicts.close)
        tracing = start_tracing(settings)
        stack.callback(tracing.close)
        observer, changes = Observer(self._metrics, tracing), Changes(settings.kafka, sender)
        shown = ShownPictures(settings)
        stack.callback(shown.close)
        thumbnails = ThumbnailStore(settings) if settings.serve.thumbnails else None
        backing = fetcher, encoder, shown, thumbnails, changes, verdicts, observer
        parts = Parts(settings, self._access, *backing, self._ready)
        stack.callback(parts.close)
        stack.callback(self._close)
        return parts

    def _config(self, app: FastAPI) -> uvicorn.Config:
        serve = self._settings.serve
        return uvicorn.Config(
            app,
            host=serve.host,
            port=serve.port,
            http=GuardedProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_graceful_shutdown=STOP_TIMEOUT_S,
        )

    def _run_or_end(self, work: Callable[[], None]) -> None:
        """Do the work of a thread. The process ends with what it raises: without that work it is of no use."""
        try:
            work()
        except Exception as error:
            self._failure = error
            self._server.should_exit = True

    def _connect(self) -> None:
        """Ask the encoder and Redis until they have answered; then look-ups are answered. Raises Misconfigured."""
        while not self._stop.is_set():
            try:
                model = self._triton.info
                self._redis = self._redis or connect(self._settings.redis)
                self._redis.ping()
                window = RedisWindow(self._redis, model, self._settings.window, self._settings.redis.key_prefix)
                banks = self._open_banks(window, model)
                self._decisions.catch_up()
                matcher = PictureMatcher(window, model, banks, Rejections(self._decisions, window))
                self._parts.backends = Backends(model, window, matcher, banks)
                return
            except Unavailable as error:
                self._wait_for(error)
            except REDIS_FAILURES as error:
                self._wait_for(Unavailable("redis", str(error) or type(error).__name__))

    def _write_thumbnails(self) -> None:
        """Fill the store of thumbnails. Raises Misconfigured."""
        assert self._parts.thumbnails is not None  # noqa: S101 (narrows the type)
        ThumbnailWriter(self._settings, self._parts.thumbnails, self._parts.shown).run(self._stop)

    def _open_banks(self, window: RedisWindow, model: ModelInfo) -> Banks | None:
        """Open the banks, if there are any; nothing is looked up before they are read to where their topic ends now."""
        kafka = self._settings.kafka
        if not kafka.banks_topic:
            return None
        banks = Banks(BankStore(window.store), model)
        with TopicReader(kafka, kafka.banks_topic, {}) as reader:
            banks.require(reader.end_offsets())
        return banks

    def _wait_for(self, problem: Unavailable) -> None:
        if str(problem) != str(self._parts.waiting_for):
            log.warning("%s", problem)
        self._parts.waiting_for = problem
        self._stop.wait(CONNECT_EVERY_S)

    def _ready(self) -> dict[str, str]:
        problems: dict[str, str] = {}
        if self._parts.backends is None:
            return {self._parts.waiting_for.dependency: str(self._parts.waiting_for)}
        try:
            self._triton.check()
        except Unavailable as error:
            problems["triton"] = str(error)
        except Misconfigured as error:
            problems["configuration"] = str(error)
        try:
            assert self._redis is not None  # noqa: S101 (narrows the type)
            self._redis.ping()
        except REDIS_FAILURES as error:
            problems["redis"] = str(error) or type(error).__name__
        return problems | self._parts.backends.window.problems

    def _observe(self) -> None:
        """Try the dependencies now and then, for the metrics."""
        while not self._stop.wait(OBSERVE_EVERY_S):
            problems = self._ready()
            self._metrics.ready.set(not problems)
            for dependency in ("redis", "triton"):
                self._metrics.dependency_up.labels(dependency).set(dependency not in problems)
            self._metrics.dependency_up.labels("kafka").set(not self._parts.verdicts.problem)

    def _close(self) -> None:
        self._stop.set()
        if self._parts.backends is not None:
            self._parts.backends.matcher.close()
        if self._redis is not None:
            self._redis.close()
