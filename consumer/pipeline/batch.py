"""A batch on its way through the pipeline. Each stage fills in its own part of each item, and reads those before it."""

from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime

from consumer.decide import Decision
from consumer.encoder.contract import Encoded
from consumer.encoder.views import EncodedViews
from consumer.errors import Unprocessable
from consumer.events import Event, Ignored, ImageDeleted, ImageUpload, Record
from consumer.images.decode import Picture
from consumer.images.region import Region
from consumer.images.regions import View
from consumer.images.thumbnail import Thumbnail
from consumer.kafka.leases import Lease
from consumer.kafka.messages import OutgoingMessage
from consumer.moderation.campaigns import NOT_JOINED, Joined
from consumer.moderation.hits import NO_HITS, BankResult
from consumer.pipeline.remembered import RememberedViews
from consumer.telemetry.tracing import NO_TRACE, Trace
from consumer.verdicts import Evidence
from consumer.window.records import ExactMatch, Position, Source, StoredRecord, to_us
from consumer.window.redo_log import BatchWrites


@dataclass(slots=True)
class Content:
    """The bytes of an upload, filled in by the ingest stage."""

    fetching: Future[bytes] | None = None
    data: bytes = b""  # let go once it is decoded
    digest: bytes = b""  # SHA-256
    exact_match: ExactMatch | None = None
    decoding: Future[Picture] | None = None
    # Of an exact copy, which is encoded only to be compared with banks: what was encoded of these bytes before, and
    # whether it is to be encoded again.
    remembered: RememberedViews | None = None
    encode_copy: bool = False
    pdq: str | None = None

    @property
    def takes_no_inference(self) -> bool:
        """Whether the bytes are known, and nothing has to be encoded of them."""
        return self.exact_match is not None and not self.encode_copy


@dataclass(slots=True)
class Encoding:
    """What was encoded of an upload, filled in by the encode stage: the whole picture first, then regions of it."""

    regions: list[Region] = field(default_factory=list)
    thumbnails: list[Thumbnail] = field(default_factory=list)
    view_range: range = range(0)  # of these regions among all views of the batch
    encoded: Encoded | None = None  # a row for each region

    @property
    def views(self) -> EncodedViews | None:
        """What was encoded, view by view; None if nothing was."""
        return None if self.encoded is None else EncodedViews.of(self.regions, self.thumbnails, self.encoded)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the match stage did with an item: a decision on an upload, or the place of a deletion."""

    decided_at: datetime
    decision: Decision | None = None
    evidence: dict[Position, Evidence] = field(default_factory=dict)
    stored_record: StoredRecord | None = None
    deleted_at: Position | None = None
    banks: BankResult = NO_HITS
    joined: Joined = NOT_JOINED
    messages: tuple[OutgoingMessage, ...] = ()  # to be published beside the answer


@dataclass(slots=True)
class Item:
    """One event on its way. An item with a `failure` takes no part in later stages but the last."""

    record: Record
    lease: Lease
    event: Event
    suspect: bool = False  # it may be poison: its picture is fetched and decoded in the sandbox
    trace: Trace = NO_TRACE
    content: Content = field(default_factory=Content)
    encoding: Encoding = field(default_factory=Encoding)
    outcome: Outcome | None = None
    failure: Unprocessable | None = None

    @property
    def upload(self) -> ImageUpload:
        """The event's data, for an item that is an upload."""
        assert isinstance(self.event.body, ImageUpload)  # noqa: S101 (narrows the type)
        return self.event.body

    @property
    def is_deletion(self) -> bool:
        """Whether the event asks to forget a picture."""
        return isinstance(self.event.body, ImageDeleted)

    @property
    def is_ignored(self) -> bool:
        """Whether the event asks for nothing: it only has its offset committed."""
        return isinstance(self.event.body, Ignored)

    @property
    def uploaded_at(self) -> datetime:
        """When the picture was uploaded, by the event's own word or else by the time of its message."""
        return self.upload.uploaded_at or self.event.time

    @property
    def source(self) -> Source:
        """Where the event stands in its topic, and when it deleted what it deletes, if it tells."""
        deleted_at = self.event.body.deleted_at if isinstance(self.event.body, ImageDeleted) else None
        deleted_us = None if deleted_at is None else to_us(deleted_at)
        return Source(self.record.partition, self.record.offset, deleted_us)

    @property
    def content_key(self) -> tuple[str, str, bytes, datetime]:
        """What the window finds exact copies by: tenant, image id, digest and time."""
        return self.event.tenant, self.event.image_id, self.content.digest, self.uploaded_at

    @property
    def decision(self) -> Decision | None:
        """The decision on the upload, once there is one."""
        return None if self.outcome is None else self.outcome.decision

    @property
    def view_range(self) -> range:
        """The places of what is encoded of the upload, among all views of the batch."""
        return self.encoding.view_range


@dataclass(slots=True)
class Batch:
    """Items that were polled together and are committed together."""

    items: list[Item]
    received_at: datetime
    trace: Trace = NO_TRACE
    # Views in requests that the model takes at once, and the inferences of these. One message may hold many uploads.
    requests: list[list[View]] = field(default_factory=list)
    inferences: list[Future[Encoded]] = field(default_factory=list)
    writes: BatchWrites = field(default_factory=BatchWrites)  # what the batch did to the window

    def uploads(self) -> list[Item]:
        """The items that are uploads and have not failed."""
        return [item for item in self.items if item.failure is None and isinstance(item.event.body, ImageUpload)]
