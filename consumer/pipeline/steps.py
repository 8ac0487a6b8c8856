"""What is done with a batch, step by step: look up, encode, match, publish.

Each step may be called again with the same batch after it raised Unavailable, and then goes on where it was: what is
known already is kept in the batch. The steps know nothing of threads; `pipeline` runs them.
"""

import logging
import os
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha256
from itertools import groupby

import numpy as np
from confluent_kafka import TopicPartition
from numpy.typing import NDArray

from consumer.decide import Decision, decide
from consumer.encoder.contract import Encoded
from consumer.encoder.triton import TritonEncoder
from consumer.errors import Unavailable, Unprocessable
from consumer.events import Event, Evidence, ImageDeleted, ImageUpload, Match, Model, Record, Verdict
from consumer.images.decode import Picture, decode
from consumer.images.fetch import Fetcher
from consumer.images.regions import Region, View, make_views
from consumer.images.sandbox import DecodeSandbox
from consumer.kafka.consumer import UploadsConsumer
from consumer.kafka.dead_letters import dead_letter
from consumer.kafka.leases import Lease, Leased
from consumer.kafka.messages import OutgoingMessage, verdict_message
from consumer.kafka.publisher import Publisher
from consumer.parse import parse
from consumer.settings import Settings
from consumer.telemetry.metrics import Metrics
from consumer.telemetry.tracing import NO_TRACE, NO_TRACING, Trace, Tracing
from consumer.verification.rerank import VerificationOutcome, VerificationRequest, Verifier
from consumer.window import changelog as embeddings
from consumer.window.records import AppendResult, ExactMatch, NewRecord, Position, Source, StoredRecord
from consumer.window.redo_log import BatchWrites, RedoLog, Write
from consumer.window.window import RedisWindow

log = logging.getLogger(__name__)

NOTHING = VerificationOutcome({}, ())  # of exact copies, which nobody looks at twice


@dataclass(slots=True)
class Item:
    """One event on its way; the fields fill up step by step."""

    record: Record
    lease: Lease
    event: Event
    suspect: bool = False  # fetched and decoded in quarantine
    fetching: Future[bytes] | None = None
    data: bytes = b""  # until it is decoded
    digest: bytes = b""
    exact: ExactMatch | None = None
    decoding: Future[Picture] | None = None
    frames: list[Region] = field(default_factory=list)  # of what is encoded of it: all of it, then pictures within it
    rows: range = range(0)  # where these are among the views of its batch
    encoded: Encoded | None = None  # of each
    stored: StoredRecord | None = None  # its row in the window
    deleted_at: Position | None = None  # of a deletion: where in the window
    decision: Decision | None = None
    evidence: dict[Position, Evidence] = field(default_factory=dict)
    failure: Unprocessable | None = None
    decided_at: datetime | None = None
    trace: Trace = NO_TRACE

    @property
    def upload(self) -> ImageUpload:
        assert isinstance(self.event.body, ImageUpload)  # noqa: S101 (narrows the type)
        return self.event.body

    @property
    def uploaded_at(self) -> datetime:
        return self.upload.uploaded_at or self.event.time

    @property
    def source(self) -> Source:
        return Source(self.record.partition, self.record.offset)

    @property
    def content(self) -> tuple[str, str, bytes, datetime]:
        return self.event.tenant, self.event.image_id, self.digest, self.uploaded_at


@dataclass(slots=True)
class Batch:
    """What was polled together and is committed together."""

    items: list[Item]
    received_at: datetime
    # Views in parts that the model takes at once, and what comes of each. One message may hold many uploads.
    views: list[list[View]] = field(default_factory=list)
    inferences: list[Future[Encoded]] = field(default_factory=list)
    trace: Trace = NO_TRACE
    account: BatchWrites = field(default_factory=BatchWrites)  # of what it did to the window

    def uploads(self) -> list[Item]:
        """Items that are uploads and have not failed."""
        return [item for item in self.items if item.failure is None and isinstance(item.event.body, ImageUpload)]


class Steps:
    """The steps with what they work on. `close` gives up what is under way."""

    def __init__(
        self,
        settings: Settings,
        fetcher: Fetcher,
        encoder: TritonEncoder,
        window: RedisWindow,
        metrics: Metrics,
        consumer: UploadsConsumer,
        tracing: Tracing = NO_TRACING,
    ) -> None:
        self._settings = settings
        self._fetcher = fetcher
        self._encoder = encoder
        self._window = window
        self._verifier = Verifier(window, encoder.info)
        self._unsettled = RedoLog(window)
        self._metrics = metrics
        self._consumer = consumer
        self._tracing = tracing
        self._publisher = Publisher(settings.kafka, consumer)
        self._model = Model(name=encoder.info.name, version=encoder.info.version)
        self._quarantine = DecodeSandbox(encoder.info.size, settings)
        self._fetchers = ThreadPoolExecutor(settings.fetch.concurrency, "fetch")
        self._decoders = ThreadPoolExecutor(settings.decode.threads or os.cpu_count() or 1, "decode")

    def close(self) -> None:
        """Take on nothing more, and end the producer."""
        self._fetchers.shutdown(wait=False, cancel_futures=True)
        self._decoders.shutdown(wait=False, cancel_futures=True)
        self._quarantine.close()
        self._publisher.close()

    def begin(self, leased: list[Leased], suspect: bool = False) -> Batch:
        """Parse what was polled, and let its pictures be fetched; those of a suspect record later, in quarantine."""
        with self.timed("poll"):
            items = [Item(record, lease, event, suspect) for record, lease in leased for event in parse(record)]
            trace = self._tracing.begin(items)
            for item in items:
                if isinstance(item.event.body, Unprocessable):
                    item.failure = item.event.body
                elif isinstance(item.event.body, ImageUpload) and not suspect:
                    item.fetching = self._fetchers.submit(self._fetch, item.event.body, item.trace)
        return Batch(items, datetime.now(UTC), trace=trace)

    def look_up(self, batch: Batch) -> None:
        """Exact copies need neither decoding nor inference: they are found by content before either."""
        self._decode_apart([item for item in batch.uploads() if item.suspect])
        self._await_fetched(batch.uploads())
        uploads = batch.uploads()
        known = self._window.find_exact([item.content for item in uploads])
        same: dict[tuple[str, bytes, str | None], Future[Picture]] = {}
        for item, earlier in zip(uploads, known, strict=True):
            item.exact = earlier
            if earlier is not None:
                item.data = b""
                continue
            if item.decoding is not None:
                continue
            # What a picture is announced as can make it unprocessable, so only the same announcement is the same work.
            content = (item.event.tenant, item.digest, item.upload.content_type)
            if content not in same:
                same[content] = self._decoders.submit(self._decode, item.data, item.upload, item.trace)
            item.decoding = same[content]

    def encode(self, batch: Batch) -> None:
        """Send what was decoded to Triton, in parts that the model takes at once."""
        decoded: dict[Future[Picture], Picture] = {}
        for item in batch.uploads():
            if item.decoding is None or item.exact is not None:
                continue
            try:
                decoded[item.decoding] = item.decoding.result()
            except Unprocessable as error:
                item.failure = error
            finally:
                item.data = b""
        seen = dict(zip(decoded, self._views(list(decoded.values())), strict=True))
        views: list[View] = []
        rows: dict[Future[Picture], range] = {}
        for decoding, of_picture in seen.items():
            rows[decoding] = range(len(views), len(views) + len(of_picture))
            views += of_picture
        for item in batch.uploads():
            if item.decoding in seen:
                item.rows, item.frames = rows[item.decoding], [view.region for view in seen[item.decoding]]
                item.decoding = None  # its pixels are in the views now, as long as they are needed
        batch.views = self._requests(views)
        batch.inferences = [self._infer(batch, number) for number in range(len(batch.views))]

    def match(self, batch: Batch) -> None:
        """Append to the window, compare with what stood before, decide; carry out deletions in between."""
        self._await_inferred(batch)
        self._unsettled.replay()
        self._unsettled.record(batch.account)
        undecided = (item for item in batch.items if item.failure is None and item.decided_at is None)
        for deletions, segment in groupby(undecided, lambda item: isinstance(item.event.body, ImageDeleted)):
            items = list(segment)
            if deletions:
                for item in items:
                    forgotten = self._window.delete(item.event.tenant, item.event.image_id, item.source)
                    item.deleted_at = forgotten.position
            else:
                self._place(items)
            for item in items:
                item.decided_at = datetime.now(UTC)
                if item.stored is not None or deletions:
                    batch.account.writes.append(Write(item.event.tenant, item.event.image_id, item.source, item.stored))

    def publish(self, batch: Batch) -> None:
        """Publish verdicts and dead letters, and commit; only for partitions still held."""
        with self._consumer.commit_lock:
            items = [item for item in batch.items if self._consumer.holds(item.lease)]
            if not items:
                batch.account.commit()
                return
            next_offsets: dict[int, int] = {}
            for item in items:
                next_offsets[item.record.partition] = item.record.offset + 1
            topic = self._settings.kafka.input_topic
            offsets = [TopicPartition(topic, partition, offset) for partition, offset in next_offsets.items()]
            self._publisher.publish(list(self._messages(items, batch.received_at)), offsets)
        batch.account.commit()
        self._count(items)
        batch.trace.published(items)

    def refresh(self) -> None:
        """What is to be done in the window while no batch comes."""
        self._unsettled.replay()
        self._window.refresh()

    @contextmanager
    def timed(self, step: str, trace: Trace = NO_TRACE) -> Iterator[None]:
        """Count the time and the processor time of the block as the step's."""
        began_s, cpu_s = time.perf_counter(), time.thread_time()
        try:
            with trace.step(step):
                yield
        finally:
            self._metrics.step_seconds.labels(step).observe(time.perf_counter() - began_s)
            self._metrics.step_cpu_seconds.labels(step).inc(time.thread_time() - cpu_s)

    def _await_fetched(self, items: list[Item]) -> None:
        """Take over the pictures' bytes; fetch again whatever a store that was away did not give."""
        away: Unavailable | None = None
        for item in items:
            if item.fetching is None:
                continue
            try:
                item.data = item.fetching.result()
                item.digest = sha256(item.data).digest()
                item.fetching = None
            except Unprocessable as error:
                item.failure = error
            except Unavailable as error:
                away = error
                item.fetching = self._fetchers.submit(self._fetch, item.upload, item.trace)
        if away is not None:
            raise away

    def _decode_apart(self, suspects: list[Item]) -> None:
        """Have suspect items fetched and decoded in quarantine; what cannot be tried there takes its ordinary way."""
        if not suspects:
            self._quarantine.close()
        for item in suspects:
            if item.digest or item.fetching is not None:
                continue
            try:
                with item.trace.step("quarantine"):
                    found = self._quarantine.decode(item.upload)
            except Unprocessable as error:
                item.failure = error
                continue
            if found is None:
                item.fetching = self._fetchers.submit(self._fetch, item.upload, item.trace)
            else:
                item.digest, item.decoding = found

    def _fetch(self, upload: ImageUpload, trace: Trace) -> bytes:
        if upload.data_base64 is not None:
            return upload.data_base64
        with self.timed("fetch", trace):
            return self._fetcher.fetch(upload.url or "")

    def _decode(self, data: bytes, upload: ImageUpload, trace: Trace) -> Picture:
        with self.timed("decode", trace):
            return decode(data, self._encoder.info.size, self._settings.decode, upload.content_type)

    def _views(self, pictures: list[Picture]) -> list[list[View]]:
        """What is to be encoded of each picture: nothing where there is too little to see."""
        least, within = self._settings.decode.min_detail, self._settings.decode.frames
        shown = [picture.pixels for picture in pictures if picture.detail >= least]
        seen = iter(make_views(shown, least, within=within and self._encoder.info.verification_rule is not None))
        return [next(seen) if picture.detail >= least else [] for picture in pictures]

    def _requests(self, views: list[View]) -> list[list[View]]:
        most = self._encoder.info.max_batch_size
        return [views[start : start + most] for start in range(0, len(views), most)]

    def _infer(self, batch: Batch, number: int) -> Future[Encoded]:
        began_s, most = time.perf_counter(), self._encoder.info.max_batch_size
        inference = self._encoder.submit(_stacked(batch.views[number]))
        batch.trace.follow("infer", inference, range(number * most, (number + 1) * most))
        seconds = self._metrics.step_seconds.labels("infer")
        inference.add_done_callback(lambda _: seconds.observe(time.perf_counter() - began_s))
        return inference

    def _await_inferred(self, batch: Batch) -> None:
        """Give the items what was made of them. What Triton did not give is asked for again, and Unavailable raised."""
        away: Unavailable | None = None
        done: list[Encoded] = []
        for number, inference in enumerate(batch.inferences):
            try:
                done.append(inference.result())
            except Unavailable as error:
                away = error
                batch.inferences[number] = self._infer(batch, number)
        if away is not None:
            raise away
        if done:
            encoded = Encoded.concatenate(done)
            for item in batch.uploads():
                if item.rows:
                    item.encoded = encoded[item.rows.start : item.rows.stop]
            batch.views, batch.inferences = [], []

    def _place(self, items: list[Item]) -> None:
        """Append the uploads to the window and decide on what stood before each."""
        self._confirm([item for item in items if item.exact is not None])
        items = [item for item in items if item.failure is None]
        new = [item for item in items if item.exact is None]
        placed = self._window.append([self._new_row(item) for item in new])
        asked = [
            VerificationRequest(
                item.event.tenant, place, item.frames, None if item.encoded is None else item.encoded.patches
            )
            for item, place in zip(new, placed, strict=True)
        ]
        found = iter(zip(placed, self._verifier.verify(asked), strict=True))
        for item in items:
            exact = item.exact
            place, seen = (
                next(found) if exact is None else (AppendResult(exact=exact, own_record=exact.own_record), NOTHING)
            )
            item.stored, item.evidence = place.own_record, seen.evidence
            verified = {position for position, evidence in item.evidence.items() if evidence.verified}
            near = replace(place, near=seen.near)
            item.decision = decide(near, self._encoder.info.threshold_l2, self._settings.window.others, verified)

    def _confirm(self, items: list[Item]) -> None:
        """Look again for the originals of exact copies: one may have been deleted since, and then its copy is new."""
        if not items:
            return
        found = self._window.find_exact([item.content for item in items])
        for item, earlier in zip(items, found, strict=True):
            if earlier is None:
                try:
                    picture = (
                        self._decode(self._fetch(item.upload, item.trace), item.upload, item.trace)
                        if item.decoding is None
                        else item.decoding.result()
                    )
                except Unprocessable as error:
                    item.failure = error
                    continue
                [seen] = self._views([picture])
                if seen:
                    inferences = [self._encoder.submit(_stacked(views)) for views in self._requests(seen)]
                    item.encoded = Encoded.concatenate([inference.result() for inference in inferences])
                item.frames = [view.region for view in seen]
            # Last: until its vector is there, a repeat of this step has to find this item unconfirmed.
            item.exact = earlier

    def _new_row(self, item: Item) -> NewRecord:
        vector = patches = None
        within: list[NDArray[np.float32]] = []
        if item.encoded is not None:
            vector, *within = item.encoded.embeddings
            if item.encoded.patches is not None and self._encoder.info.verification_rule is not None:
                patches = item.encoded.patches[0].tobytes()
        event, uploaded_at = item.event, item.uploaded_at
        return NewRecord(
            event.tenant, event.image_id, item.digest, vector, uploaded_at, patches, item.source, (*within,)
        )

    def _messages(self, items: list[Item], received_at: datetime) -> Iterator[OutgoingMessage]:
        kafka = self._settings.kafka
        lettered: Record | None = None
        for item in items:
            if kafka.embeddings_topic:
                yield from self._embedding(item)
            if isinstance(item.event.body, ImageDeleted):
                continue
            message = verdict_message(self._verdict(item, received_at), item.event)
            key = message.key.encode() if isinstance(message.key, str) else message.key
            yield OutgoingMessage(
                kafka.output_topic, key, message.value, (*message.headers.items(), *item.trace.headers())
            )
            # One letter a message, however many of its uploads failed.
            if item.failure is not None and item.record is not lettered:
                lettered = item.record
                yield dead_letter(item.record, item.failure, item.event.image_id, kafka.dead_letter_topic)

    def _embedding(self, item: Item) -> Iterator[OutgoingMessage]:
        """What became of the window by this event, for whoever has to rebuild it."""
        topic, model, event = self._settings.kafka.embeddings_topic, self._encoder.info, item.event
        if item.stored is not None:
            yield embeddings.upsert_message(topic, model, event.tenant, item.stored)
        elif item.deleted_at is not None:
            yield embeddings.tombstone_message(topic, model, event.tenant, event.image_id, item.deleted_at, item.source)

    def _verdict(self, item: Item, received_at: datetime) -> Verdict:
        decision = item.decision
        matches = [] if decision is None else [decision.match, *decision.others]
        found = [
            Match(
                image_id=m.image_id,
                l2=m.l2,
                uploaded_at=m.uploaded_at,
                evidence=item.evidence.get(Position(*m.position)),
            )
            for m in matches
            if m is not None
        ]
        return Verdict(
            image_id=item.event.image_id,
            tenant=item.event.tenant,
            verdict="unprocessable" if decision is None else decision.verdict,
            kind=None if decision is None else decision.kind,
            match=found[0] if found else None,
            others=tuple(found[1:]),
            threshold_l2=self._encoder.info.threshold_l2,
            model=self._model,
            reason=None if item.failure is None else str(item.failure),
            received_at=received_at,
            decided_at=item.decided_at or datetime.now(UTC),
        )

    def _count(self, items: list[Item]) -> None:
        now_ms = time.time() * 1000
        for item in items:
            if isinstance(item.event.body, ImageDeleted):
                self._metrics.deleted.inc()
                continue
            self._metrics.end_to_end_seconds.observe(max(0.0, now_ms - item.record.timestamp_ms) / 1000)
            if item.failure is not None:
                self._metrics.unprocessable.labels(item.failure.reason).inc()
                self._metrics.verdicts.labels("unprocessable", "").inc()
                log.info("unprocessable: %r: %s", item.event.image_id, item.failure, extra=_about(item))
            elif item.decision is not None:
                self._metrics.verdicts.labels(item.decision.verdict, item.decision.kind or "").inc()
                if item.decision.kind == "near" and item.decision.match is not None:
                    self._metrics.match_l2.observe(item.decision.match.l2)
                log.debug("%s: %r", item.decision.verdict, item.event.image_id, extra=_about(item))


def _about(item: Item) -> dict[str, object]:
    """What tells a log line's upload from all others."""
    event, record = item.event, item.record
    about = {"image_id": event.image_id, "tenant": event.tenant, "partition": record.partition, "offset": record.offset}
    if item.failure is not None:
        return {**about, "reason": item.failure.reason}
    decision = item.decision
    match = None if decision is None else decision.match
    return {**about, "match": None if match is None else match.image_id, "l2": None if match is None else match.l2}


def _stacked(views: list[View]) -> NDArray[np.uint8]:
    return np.stack([view.pixels for view in views])
