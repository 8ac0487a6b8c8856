"""Moderation as the service uses it: put together, started, asked how it is, and closed."""

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Self

from consumer.encoder.triton import TritonEncoder
from consumer.errors import SeenitError
from consumer.kafka.config import CLOSE_TIMEOUT_S
from consumer.moderation.bank_threads import open_banks, require_banks
from consumer.moderation.campaigns import Campaigns, newest_campaigns
from consumer.moderation.decisions import Decisions
from consumer.moderation.feedback import FeedbackWorker
from consumer.moderation.flood_ends import FloodEnds
from consumer.moderation.matching import Banks
from consumer.moderation.rejections import Rejections
from consumer.settings import Settings
from consumer.telemetry.metrics import Metrics
from consumer.verification.rerank import Verifier
from consumer.window.contract import TenantStats
from consumer.window.window import RedisWindow

# For metrics: campaigns shown, those with the highest rates, and tenants among whose they are, the largest.
MAX_CAMPAIGNS, MAX_TENANTS = 10, 20


class Moderation:
    """The banks of known pictures, the campaigns of the window, and what people decided about its matches."""

    def __init__(self, settings: Settings, window: RedisWindow, encoder: TritonEncoder, metrics: Metrics) -> None:
        kafka, model = settings.kafka, encoder.info
        verifier = Verifier(window, model, settings.match.strictness)
        self.campaigns = Campaigns(window, verifier, settings.campaigns)
        self._settings = settings
        self._window = window
        self._encoder = encoder
        self._metrics = metrics
        self._decisions = Decisions(kafka)
        self.rejections = Rejections(self._decisions, window)
        self.banks: Banks | None = None
        self._worker: FeedbackWorker | None = None
        if kafka.feedback_topic:
            self._worker = FeedbackWorker(kafka, window, model, metrics.count_feedback, self._is_for_all)
        self._banks_required = False
        self._flood_ends: FloodEnds | None = None
        if kafka.rematches_topic:
            count = metrics.floods.labels("ended").inc
            self._flood_ends = FloodEnds(kafka, settings.campaigns, window, model, count)
        self._stop = threading.Event()
        self._stack = ExitStack()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Begin to read banks and decisions, which `catch_up` waits for, and to look at floods."""
        self._decisions.start()
        if self._settings.kafka.banks_topic:
            self.banks = open_banks(self._stack, self._settings, self._encoder, self._window, self._metrics, self._stop)
        if self._flood_ends is not None:
            thread = threading.Thread(target=self._flood_ends.run, args=(self._stop,), name="floods", daemon=True)
            self._stack.callback(thread.join, CLOSE_TIMEOUT_S)  # it may wait for brokers that do not answer
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop all of it."""
        self._stop.set()
        self._stack.close()
        if self._thread is not None:
            self._thread.join(CLOSE_TIMEOUT_S)  # it may wait for brokers that do not answer
        self._decisions.close()

    def catch_up(self) -> None:
        """Wait until banks and decisions are known as they were before. Raises Unavailable: ask again."""
        self._decisions.catch_up()
        if self.banks is not None:
            if not self._banks_required:
                require_banks(self._settings.kafka, self.banks)
                self._banks_required = True
            self.banks.sync()

    def take_in_feedback(self, on_failure: Callable[[BaseException], None]) -> None:
        """Begin to take in feedback; what ends that for good goes to `on_failure`."""
        worker = self._worker
        if worker is None:
            return

        def run() -> None:
            try:
                worker.run(self._stop)
            except SeenitError as error:
                on_failure(error)

        self._thread = threading.Thread(target=run, name="feedback", daemon=True)
        self._thread.start()

    def _is_for_all(self, tenant: str, bank: str) -> bool:
        return self.banks is not None and self.banks.is_for_all(tenant, bank)

    @property
    def problems(self) -> dict[str, str]:
        """Why feedback waits, if it does."""
        return {} if self._worker is None or not self._worker.problem else {"feedback": self._worker.problem}

    def bank_sizes(self) -> list[tuple[str, int]]:
        """The name of each bank, and how many entries it has, as far as this process knows."""
        return [] if self.banks is None else self.banks.sizes()

    def top_campaigns(self, windows: Sequence[TenantStats]) -> list[tuple[str, str, int]]:
        """Tenant, id and uploads an hour of the campaigns with the highest rates, in the largest of these windows."""
        largest = sorted(windows, key=lambda each: -each.rows)[:MAX_TENANTS]
        top = newest_campaigns(self._window, [each.tenant for each in largest])[:MAX_CAMPAIGNS]
        return [(each.tenant, each.campaign.id, each.campaign.uploads_per_hour) for each in top]
