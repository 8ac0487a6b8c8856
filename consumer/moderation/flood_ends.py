"""Tells when floods are over: one process at a time, whether or not more is uploaded.

`lua/ends.lua` of the window finds a flood that is over and names it, always with the same time, until it hears that it
was told. Whoever tells it first becomes the only producer of its name, which ends the transactions of those before, and
then reads whether one of them told it. So each end is on the topic once, whoever was killed or frozen in between.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from consumer.encoder.contract import ModelInfo
from consumer.errors import Unavailable
from consumer.kafka.config import BROKER_TIMEOUT_S, client_options
from consumer.kafka.messages import event_message, produce, read_headers
from consumer.moderation.campaigns import ToldFlood, bound_of, call, told_flood
from consumer.moderation.store import Lease
from consumer.settings import CampaignsSettings, KafkaSettings
from consumer.window.changelog import ChangelogReader
from consumer.window.window import RedisWindow

log = logging.getLogger(__name__)

# How often floods are looked at. No longer than a window outlives its retention: it may vanish with its last upload.
LOOK_EVERY_S = 20.0
# The lease has to be held meanwhile.
HOLD_EVERY_S = 5.0
# The clocks of Redis, which says when a flood ended, and of the brokers may differ by so much.
CLOCKS_DIFFER_MS = 24 * 3600 * 1000
MESSAGES_AT_ONCE = 500


class FloodEnds:
    """Follows the floods of all tenants, until `run` is told to stop."""

    def __init__(
        self,
        kafka: KafkaSettings,
        settings: CampaignsSettings,
        window: RedisWindow,
        model: ModelInfo,
        count: Callable[[], None],
    ) -> None:
        """`count` is called for each end that is told."""
        self._kafka = kafka
        self._settings = settings
        self._window = window
        self._name = f"{kafka.group_id}-floods-{model.name}-{model.version}"
        self._count = count
        self._lease = Lease(window.store, window.store.key("", "flood-lease"))

    def run(self, stop: threading.Event) -> None:
        """Tell ends while this process has the lease; wait for what is away."""
        reported, looked_s = "", -LOOK_EVERY_S
        while not stop.wait(HOLD_EVERY_S):
            try:
                if self._lease.hold() and time.monotonic() - looked_s >= LOOK_EVERY_S:
                    self.tell()
                    looked_s = time.monotonic()
                reported = ""
            except Unavailable as error:
                if reported != str(error):
                    log.warning("ends of floods are not told yet: %s", error)
                reported = str(error)
            except Exception:
                log.exception("ends of floods are not told")

    def tell(self) -> None:
        """Tell the ends of all floods that are over. Raises Unavailable."""
        for tenant in self._window.store.tenants():
            bound = bound_of(self._settings, tenant)
            [over] = call(self._window, "ends", [(tenant, ["", str(bound)])])
            if over:
                ends = [told_flood(tenant, name, "ended", rate, bound, ms) for _, name, rate, ms in over]
                self._publish(ends)
                call(self._window, "ends", [(tenant, ["", str(bound), *(number for number, *_ in over)])])

    def _publish(self, ends: Sequence[ToldFlood]) -> None:
        """Publish what is not on the topic yet."""
        transactional = self._kafka.delivery == "exactly-once"
        options = {
            "enable.idempotence": True,
            "message.timeout.ms": int(BROKER_TIMEOUT_S * 1000),
            **({"transactional.id": self._name} if transactional else {}),
        }
        producer, failures = Producer({**client_options(self._kafka), **options}), list[KafkaError]()

        def delivered(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                failures.append(error)

        try:
            if transactional:
                producer.init_transactions(BROKER_TIMEOUT_S)
                told = self._read_ids(min(each.time.timestamp() for each in ends) * 1000 - CLOCKS_DIFFER_MS)
                ends = [each for each in ends if each.id not in told]
                producer.begin_transaction()
            for each in ends:
                topic, subject = self._kafka.rematches_topic, each.flood.campaign
                message = event_message(topic, "image.flood", each.id, subject, each.time, each.flood)
                produce(producer, topic, message.value, message.key, message.headers, delivered)
            if producer.flush(BROKER_TIMEOUT_S) or failures:
                raise Unavailable("kafka", failures[0].str() if failures else "the brokers do not answer")
            if transactional:
                producer.commit_transaction(BROKER_TIMEOUT_S)
        except KafkaException as error:
            raise Unavailable("kafka", error.args[0].str()) from None
        for _ in ends:
            self._count()

    def _read_ids(self, from_ms: float) -> set[str]:
        """The ids of the events on the topic since a time."""
        settings = self._kafka.model_copy(update={"embeddings_topic": self._kafka.rematches_topic})
        reader = ChangelogReader(settings, max(0, round(from_ms)), MESSAGES_AT_ONCE)
        try:
            headers = [dict(read_headers(each) or ()) for messages in reader.read() for each in messages]
        finally:
            reader.close()
        return {(each.get("ce_id") or b"").decode("utf-8", "replace") for each in headers}
