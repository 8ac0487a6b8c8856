"""The latest verdicts, as they stand on their topic: what is known of an image that was uploaded."""

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from consumer.errors import Unavailable
from consumer.kafka.clients import PublishedVerdict, VerdictsReader
from consumer.kafka.messages import RecordAddress
from consumer.moderation.pictures import KnownPictures
from consumer.settings import KafkaSettings
from consumer.verdicts import Campaign, Verdict
from consumer.window.window import RedisWindow

log = logging.getLogger(__name__)

# Verdicts that a process keeps, some 1.5 KB each.
MAX_VERDICTS = 50_000
MAX_CAMPAIGNS = 10_000
RETRY_S = 2.0


class _Kept(NamedTuple):
    """The verdict as its message has it, and its id; the upload's message."""

    value: bytes
    id: str
    source: RecordAddress | None


def is_gone(window: RedisWindow, verdict: Verdict) -> bool:
    """Whether a verdict's picture was deleted, or may have been, longer ago than the window remembers deletions.

    Raises Unavailable while Redis cannot tell that.
    """
    if datetime.now(UTC) - verdict.decided_at > timedelta(milliseconds=window.store.retention_ms):
        return True
    return KnownPictures(window).find(verdict.tenant, verdict.image_id).is_deleted


class VerdictLog:
    """Follows the output topic, and keeps the last verdicts by tenant and image. Thread-safe."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._campaigns: OrderedDict[tuple[str, str], Campaign] = OrderedDict()
        self._verdicts: OrderedDict[tuple[str, str], _Kept] = OrderedDict()
        self._listeners: list[Callable[[Verdict], None]] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="verdicts", daemon=True)
        self.problem = "not read yet"

    def start(self) -> None:
        """Begin to read, and go on until `close`."""
        self._thread.start()

    def find(self, tenant: str, image_id: str) -> Verdict | None:
        """Find the last verdict on an image, if it is among those kept. Raises Unavailable before any was read."""
        with self._lock:
            kept = self._verdicts.get((tenant, image_id))
        if kept is None and self.problem:
            raise Unavailable("kafka", self.problem)
        return None if kept is None else Verdict.model_validate_json(kept.value)

    def campaign(self, tenant: str, image_id: str) -> Campaign | None:
        """The campaign that an image is in, as the last verdict on one of its uploads had it."""
        with self._lock:
            kept = self._verdicts.get((tenant, image_id))
            verdict = None if kept is None else Verdict.model_validate_json(kept.value)
            named = None if verdict is None else verdict.campaign
            return self._campaigns.get((tenant, image_id if named is None else named.id), named)

    def upload_of(self, tenant: str, image_id: str) -> tuple[str, RecordAddress | None] | None:
        """The id of the last verdict on an image and the message of the upload, if the verdict is among those kept."""
        with self._lock:
            kept = self._verdicts.get((tenant, image_id))
        return None if kept is None else (kept.id, kept.source)

    def listen(self, listener: Callable[[Verdict], None]) -> None:
        """Tell a listener of each verdict, of those that are kept already first."""
        with self._lock:
            for kept in self._verdicts.values():
                listener(Verdict.model_validate_json(kept.value))
            self._listeners.append(listener)

    def close(self) -> None:
        """Stop reading."""
        self._stop.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._stop.is_set():
            try:
                self._read()
            except Unavailable as error:
                if self.problem != str(error):
                    log.warning("the verdicts cannot be read: %s", error)
                self.problem = str(error)
            except Exception:
                log.exception("the verdicts cannot be read")
            self._stop.wait(RETRY_S)

    def _read(self) -> None:
        reader = VerdictsReader(self._settings, last=MAX_VERDICTS)
        try:
            while not self._stop.is_set():
                for published in reader.poll(0.5):
                    self._keep(published)
                self.problem = ""
        finally:
            reader.close()

    def _keep(self, published: PublishedVerdict) -> None:
        verdict = published.verdict
        key = verdict.tenant, verdict.image_id
        with self._lock:
            self._verdicts[key] = _Kept(published.value, published.id, published.source)
            self._verdicts.move_to_end(key)
            if len(self._verdicts) > MAX_VERDICTS:
                self._verdicts.popitem(last=False)
            if verdict.campaign is not None:
                self._campaigns[verdict.tenant, verdict.campaign.id] = verdict.campaign
                self._campaigns.move_to_end((verdict.tenant, verdict.campaign.id))
                if len(self._campaigns) > MAX_CAMPAIGNS:
                    self._campaigns.popitem(last=False)
            for listener in self._listeners:
                listener(verdict)
