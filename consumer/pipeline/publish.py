"""The last stage: publish verdicts and dead letters, and commit the offsets that they answer."""

import logging
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from confluent_kafka import TopicPartition

from consumer.encoder.contract import ModelInfo
from consumer.events import Record
from consumer.kafka.consumer import UploadsConsumer
from consumer.kafka.dead_letters import dead_letter
from consumer.kafka.messages import OutgoingMessage, event_message, record_header, verdict_message
from consumer.kafka.publisher import Publisher
from consumer.moderation.hits import NO_HITS
from consumer.pipeline.batch import Batch, Item
from consumer.settings import KafkaSettings
from consumer.telemetry.metrics import Metrics
from consumer.verdicts import Match, Model, Verdict
from consumer.window.changelog import tombstone_message, upsert_message
from consumer.window.originals import Originals, Place
from consumer.window.records import Position, StoredRecord

log = logging.getLogger(__name__)


class Publish:
    """Answers each upload of a batch with a verdict, for the partitions that are still held."""

    def __init__(
        self,
        settings: KafkaSettings,
        model: ModelInfo,
        consumer: UploadsConsumer,
        publisher: Publisher,
        metrics: Metrics,
        originals: Originals,
    ) -> None:
        self._settings = settings
        self._model = model
        self._consumer = consumer
        self._publisher = publisher
        self._metrics = metrics
        self._originals = originals
        self._named_model = Model(name=model.name, version=model.version)

    def run(self, batch: Batch) -> None:
        """Publish verdicts, dead letters and changes of the window, and commit; only for partitions still held.

        Raises Unavailable also while the window that was matched with is lost: see `consumer.window.redo_log`.
        """
        with batch.writes.lock, self._consumer.commit_lock:
            items = [item for item in batch.items if self._consumer.holds(item.lease)]
            if not items:
                self._publisher.prepare()  # others wait for the end of what may have been begun for this batch
                batch.writes.commit()
                return
            next_offsets = {item.record.partition: item.record.offset + 1 for item in items}
            topic = self._settings.input_topic
            offsets = [TopicPartition(topic, partition, offset) for partition, offset in next_offsets.items()]
            batch.writes.check()
            originals = self._unpublished(items)
            messages = list(self.messages(items, batch.received_at, originals))
            self._publisher.publish(messages, offsets, batch.writes.check)
            batch.writes.commit()
            if self._settings.embeddings_topic:
                self._originals.note([*originals, *_stored(items)])
        self._count(items)
        batch.trace.published(items)

    def _unpublished(self, items: list[Item]) -> dict[Place, StoredRecord]:
        """The originals that verdicts on these items name, and that the changelog may lack."""
        if not self._settings.embeddings_topic:
            return {}
        named = dict.fromkeys(
            (item.event.tenant, Position(*item.decision.match.position))
            for item in items
            if item.decision is not None and item.decision.match is not None
        )
        own = _stored(items)
        return self._originals.unpublished(place for place in named if place not in own)

    def messages(
        self, items: list[Item], received_at: datetime, originals: Mapping[Place, StoredRecord]
    ) -> Iterator[OutgoingMessage]:
        """The messages that answer these items, in order, behind those about `originals` that they name."""
        for (tenant, _), original in originals.items():
            yield upsert_message(self._settings.embeddings_topic, self._model, tenant, original)
        dead_lettered: Record | None = None
        for item in items:
            if self._settings.embeddings_topic:
                yield from self._changes(item)
            if item.outcome is not None:
                yield from item.outcome.messages
            if item.is_deletion or item.is_ignored:
                continue
            message = verdict_message(self._verdict(item, received_at), item.event)
            key = message.key.encode() if isinstance(message.key, str) else message.key
            headers = (*message.headers.items(), record_header(item.record), *item.trace.headers())
            yield OutgoingMessage(self._settings.output_topic, key, message.value, headers)
            if item.outcome is not None and self._settings.rematches_topic:
                for told in item.outcome.joined.floods:
                    subject = told.flood.campaign
                    yield event_message(
                        self._settings.rematches_topic, "image.flood", told.id, subject, told.time, told.flood
                    )
            # One letter a message, however many of its uploads failed.
            if item.failure is not None and item.record is not dead_lettered:
                dead_lettered = item.record
                yield dead_letter(item.record, item.failure, item.event.image_id, self._settings.dead_letter_topic)

    def _changes(self, item: Item) -> Iterator[OutgoingMessage]:
        """What the item changed in the window, for whoever has to recover it."""
        topic, event, outcome = self._settings.embeddings_topic, item.event, item.outcome
        if outcome is None:
            return
        if outcome.stored_record is not None:
            yield upsert_message(topic, self._model, event.tenant, outcome.stored_record)
        elif outcome.deleted_at is not None:
            yield tombstone_message(topic, self._model, event.tenant, event.image_id, outcome.deleted_at, item.source)

    def _verdict(self, item: Item, received_at: datetime) -> Verdict:
        decision = item.decision
        matches = _matches(item)
        banks = NO_HITS if item.outcome is None else item.outcome.banks
        return Verdict(
            image_id=item.event.image_id,
            tenant=item.event.tenant,
            verdict="unprocessable" if decision is None else decision.verdict,
            kind=None if decision is None else decision.kind,
            match=matches[0] if matches else None,
            others=tuple(matches[1:]),
            banks=banks.hits,
            silenced_by=banks.silenced_by,
            campaign=None if item.outcome is None else item.outcome.joined.campaign,
            threshold_l2=self._model.match_radius_l2,
            model=self._named_model,
            reason=None if item.failure is None else str(item.failure),
            received_at=received_at,
            decided_at=datetime.now(UTC) if item.outcome is None else item.outcome.decided_at,
        )

    def _count(self, items: list[Item]) -> None:
        now_ms = time.time() * 1000
        for item in items:
            if item.is_ignored:
                continue
            if item.is_deletion:
                self._metrics.deleted.inc()
                continue
            self._metrics.end_to_end_seconds.observe(max(0.0, now_ms - item.record.timestamp_ms) / 1000)
            if item.failure is not None:
                self._metrics.unprocessable.labels(item.failure.reason).inc()
                self._metrics.verdicts.labels("unprocessable", "").inc()
                log.info("unprocessable: %r: %s", item.event.image_id, item.failure, extra=_log_fields(item))
            elif item.decision is not None:
                self._metrics.verdicts.labels(item.decision.verdict, item.decision.kind or "").inc()
                self._count_banks(item)
                for told in item.outcome.joined.floods if item.outcome is not None else ():
                    self._metrics.floods.labels(told.flood.state).inc()
                if item.decision.kind == "near" and item.decision.match is not None:
                    self._metrics.match_l2.observe(item.decision.match.l2)
                log.debug("%s: %r", item.decision.verdict, item.event.image_id, extra=_log_fields(item))

    def _count_banks(self, item: Item) -> None:
        banks = NO_HITS if item.outcome is None else item.outcome.banks
        for hit in banks.hits:
            self._metrics.count_bank_hit(hit.kind, hit.bank)
        self._metrics.silenced.inc(bool(banks.silenced_by))


def _stored(items: list[Item]) -> set[Place]:
    """Where the records of these items stand, of those that have one."""
    return {
        (item.event.tenant, item.outcome.stored_record.position)
        for item in items
        if item.outcome is not None and item.outcome.stored_record is not None
    }


def _matches(item: Item) -> list[Match]:
    """The match that the decision names, if any, then the others."""
    outcome = item.outcome
    if outcome is None or outcome.decision is None or outcome.decision.match is None:
        return []
    return [
        Match(
            image_id=candidate.image_id,
            l2=candidate.l2,
            uploaded_at=candidate.uploaded_at,
            evidence=outcome.evidence.get(Position(*candidate.position)),
        )
        for candidate in (outcome.decision.match, *outcome.decision.others)
    ]


def _log_fields(item: Item) -> dict[str, object]:
    """What tells a log line's upload from all others."""
    event, record = item.event, item.record
    fields = {
        "image_id": event.image_id,
        "tenant": event.tenant,
        "partition": record.partition,
        "offset": record.offset,
    }
    if item.failure is not None:
        return {**fields, "reason": item.failure.reason}
    match = None if item.decision is None else item.decision.match
    return {**fields, "match": None if match is None else match.image_id, "l2": None if match is None else match.l2}
