"""What the HTTP interface answers, as it stands in the OpenAPI document."""

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from consumer.encoder.contract import Strictness
from consumer.events import FeedbackDecision
from consumer.http.matching import FoundMatch
from consumer.moderation.banks import BankKey
from consumer.moderation.shelf import Entry
from consumer.moderation.store import BankRow
from consumer.verdicts import BankHit, BankKind, Campaign, Evidence, Model, SilencedBy
from consumer.window.records import to_datetime


class Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class LookupMatch(Answer):
    """A picture of the window of which the one that was looked up is a copy."""

    image_id: str
    exact: bool = Field(description="The bytes are the same.")
    l2: float = Field(description="Distance of both pictures' unit vectors, 0 to 2.")
    uploaded_at: AwareDatetime
    evidence: Evidence | None = None

    @classmethod
    def of(cls, found: FoundMatch) -> "LookupMatch":
        """Describe a match."""
        match = found.match
        return cls(
            image_id=match.image_id,
            exact=found.is_exact,
            l2=match.l2,
            uploaded_at=match.uploaded_at,
            evidence=found.evidence,
        )


class LookupAnswer(Answer):
    """What is known of a picture: the exact match first, then the best near one, then the others, nearest first."""

    matches: list[LookupMatch]
    banks: list[BankHit]
    silenced_by: list[SilencedBy]
    campaign: Campaign | None = Field(description="That the first match is in, by its last verdict.")
    model: Model


class Problem(Answer):
    """What is wrong, as RFC 9457 has it: `reason` is one of few words, `detail` a sentence that says what to do."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    reason: str


class Comparison(Answer):
    """Whether one picture is a copy of another; without `l2` where one shows too little to compare."""

    duplicate: bool
    exact: bool = Field(description="The bytes are the same.")
    l2: float | None = None
    evidence: Evidence | None = None
    model: Model


class Accepted(Answer):
    """An event is on its topic; `id` is its id. What it asks for is done when it is processed."""

    id: str


class BankBody(BaseModel):
    """What a bank is for."""

    model_config = ConfigDict(extra="forbid")
    kind: BankKind
    enabled: bool = True
    strictness: Strictness = "balanced"
    action: str | None = None
    silences: tuple[str, ...] = ()
    note: str | None = None


class EntryBody(BaseModel):
    """A known picture: one of `url`, `data_base64`, `image_id` of an upload in the window, and `pdq`."""

    model_config = ConfigDict(extra="forbid")
    url: str | None = None
    data_base64: str | None = None
    image_id: str | None = None
    pdq: str | None = None
    labels: dict[str, str] = {}
    note: str | None = None
    source: str | None = None
    expires_at: AwareDatetime | None = None
    lookback: float | None = None


class BankAnswer(Answer):
    """A bank; without a tenant it holds for all of them."""

    bank: str
    tenant: str | None
    kind: BankKind
    enabled: bool
    strictness: Strictness
    action: str | None
    silences: tuple[str, ...]
    entries: int

    @classmethod
    def of(cls, key: BankKey, row: BankRow, entries: int) -> "BankAnswer":
        """Describe a bank."""
        return cls(bank=key.bank, tenant=key.tenant, entries=entries, **row.model_dump(exclude={"at"}))


class EntryAnswer(Answer):
    """An entry of a bank, by the hash of its picture's bytes (SHA-256) or its PDQ hash."""

    entry_id: str
    serial: int
    digest: str | None
    pdq: str | None
    labels: dict[str, str]
    source: str | None
    expires_at: AwareDatetime | None

    @classmethod
    def of(cls, entry: Entry) -> "EntryAnswer":
        """Describe an entry."""
        row = entry.row
        return cls(
            entry_id=entry.key.entry_id,
            serial=entry.serial,
            digest=row.digest,
            pdq=row.pdq,
            labels=row.labels,
            source=row.source,
            expires_at=None if row.expires_us is None else to_datetime(row.expires_us),
        )


class CampaignAnswer(Campaign):
    """A campaign as it is now, and whether it is in flood."""

    in_flood: bool


class FeedbackBody(BaseModel):
    """What is decided about a match: named by both its pictures, or by the id of the verdict's event."""

    model_config = ConfigDict(extra="forbid")
    image_id: str | None = None
    match_id: str | None = None
    verdict_id: str | None = None
    tenant: str | None = None
    decision: FeedbackDecision
    note: str | None = None
    to_bank: str | None = None
