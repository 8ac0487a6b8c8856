"""Moderation as the service uses it: put together, started, asked how it is, and closed."""

import threading
from collections.abc import Callable, Sequence
from typing import Self

from consumer.encoder.contract import ModelInfo
from consumer.errors import SeenitError
from consumer.kafka.config import CLOSE_TIMEOUT_S
from consumer.moderation.campaigns import Campaigns, newest_campaigns
from consumer.moderation.decisions import Decisions
from consumer.moderation.feedback import FeedbackWorker
from consumer.moderation.rejections import Rejections
from consumer.settings import Settings
from consumer.verification.rerank import Verifier
from consumer.window.contract import TenantStats
from consumer.window.window import RedisWindow

# For metrics: campaigns shown, those with the highest rates, and tenants among whose they are, the largest.
MAX_CAMPAIGNS, MAX_TENANTS = 10, 20


class Moderation:
    """The campaigns of the window, and what people decided about its matches."""

    def __init__(
        self,
        settings: Settings,
        window: RedisWindow,
        model: ModelInfo,
        count_feedback: Callable[[str], None],
    ) -> None:
        verifier = Verifier(window, model, settings.match.strictness)
        self.campaigns = Campaigns(window, verifier, settings.campaigns)
        self._window = window
        self._decisions = Decisions(settings.kafka)
        self.rejections = Rejections(self._decisions, window)
        self._worker = (
            FeedbackWorker(settings.kafka, window, model, count_feedback) if settings.kafka.feedback_topic else None
        )
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Begin to read what was decided; `catch_up` waits until all of it is known."""
        self._decisions.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop all of it."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(CLOSE_TIMEOUT_S)  # it may wait for brokers that do not answer
        self._decisions.close()

    def catch_up(self) -> None:
        """Wait until all decisions are known that were made before. Raises Unavailable."""
        self._decisions.catch_up()

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

    @property
    def problems(self) -> dict[str, str]:
        """Why feedback waits, if it does."""
        return {} if self._worker is None or not self._worker.problem else {"feedback": self._worker.problem}

    def top_campaigns(self, windows: Sequence[TenantStats]) -> list[tuple[str, str, int]]:
        """Tenant, id and uploads an hour of the campaigns with the highest rates, in the largest of these windows."""
        largest = sorted(windows, key=lambda each: -each.rows)[:MAX_TENANTS]
        top = newest_campaigns(self._window, [each.tenant for each in largest])[:MAX_CAMPAIGNS]
        return [(each.tenant, each.campaign.id, each.campaign.uploads_per_hour) for each in top]
