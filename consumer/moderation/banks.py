"""Banks and their entries, as they stand on `image-banks`: a compacted topic of CloudEvents.

A message's key is `["bank", tenant, bank]` or `["entry", tenant, bank, entry_id]` as JSON, with null for the tenant of
what holds for all; a null value deletes what the key names. `["picture", tenant, bank, entry_id, message]` is the
service's own: see `kept`.
"""

import json
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, NamedTuple

from pydantic import AwareDatetime, BeforeValidator, Field, ValidationError, model_validator

from consumer.encoder.contract import Strictness
from consumer.errors import Unprocessable
from consumer.events import Base64, Body, Name, Record, decode_base64
from consumer.json_values import cut, parse_json, parse_json_or_none
from consumer.kafka.messages import OutgoingMessage, event_message
from consumer.moderation.kept import KeptPicture
from consumer.verdicts import BankKind

BANK_DEFINED, BANK_ENTRY = "bank.defined", "bank.entry"
PDQ_HEX_DIGITS = 64
# Text beside a picture that every process keeps.
MAX_LABELS, LABEL_LENGTH, NOTE_LENGTH = 32, 256, 1024

BankName = Annotated[str, Field(min_length=1, max_length=256)]
Scope = Annotated[str, Field(min_length=1, max_length=256)] | None  # a tenant, or None for all of them
Label = Annotated[str, Field(max_length=LABEL_LENGTH)]


class BankKey(NamedTuple):
    """Names a bank of a tenant, or of all tenants."""

    tenant: str | None
    bank: str


class EntryKey(NamedTuple):
    """Names an entry of a bank."""

    tenant: str | None
    bank: str
    entry_id: str

    @property
    def of_bank(self) -> BankKey:
        return BankKey(self.tenant, self.bank)


class PictureKey(NamedTuple):
    """Names the picture that is kept of an entry, as the message `partition:offset` says it."""

    tenant: str | None
    bank: str
    entry_id: str
    message: str

    @classmethod
    def of(cls, entry: EntryKey, at: tuple[int, int]) -> "PictureKey":
        return cls(*entry, f"{at[0]}:{at[1]}")

    @property
    def of_entry(self) -> EntryKey:
        return EntryKey(self.tenant, self.bank, self.entry_id)


AnyKey = BankKey | EntryKey | PictureKey


class BankDefined(Body):
    """Data of `bank.defined`: a bank, for one tenant or for all.

    Pictures are compared with its entries as strictly as `strictness` says. Those that show an entry of an `allow` bank
    are not reported as hits of the banks that it `silences`: banks of the same tenant, or of all tenants as it is.
    """

    bank: BankName
    tenant: Scope = None
    kind: BankKind
    enabled: bool = True
    strictness: Strictness = "balanced"
    action: Annotated[str, Field(max_length=LABEL_LENGTH)] | None = None
    silences: Annotated[tuple[BankName, ...], Field(max_length=100)] = ()
    note: Annotated[str, Field(max_length=NOTE_LENGTH)] | None = None

    @model_validator(mode="after")
    def _only_allow_silences(self) -> "BankDefined":
        if self.silences and self.kind != "allow":
            raise ValueError("only a bank of kind allow silences others")
        return self

    @property
    def key(self) -> BankKey:
        return BankKey(self.tenant, self.bank)


def _bytes(value: object) -> object:
    return (decode_base64(value) if isinstance(value, str) else value) or None


class BankEntry(Body):
    """Data of `bank.entry`: a known picture, in one of four ways.

    By `url`, in the event itself, by the `image_id` of an upload that the window holds, or only by its hash, `pdq`.
    With `lookback`, in seconds, earlier uploads are also looked for among those that have left the window.
    """

    bank: BankName
    entry_id: Name
    tenant: Scope = None
    url: Annotated[str, Field(min_length=1, max_length=8192)] | None = None
    data_base64: Annotated[Base64 | None, BeforeValidator(_bytes)] = None
    image_id: Name | None = None
    pdq: Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$")] | None = None
    labels: dict[Label, Label] = Field(default={}, max_length=MAX_LABELS)
    note: Annotated[str, Field(max_length=NOTE_LENGTH)] | None = None
    source: Annotated[str, Field(max_length=LABEL_LENGTH)] | None = None
    expires_at: AwareDatetime | None = None
    lookback: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _one_picture(self) -> "BankEntry":
        if sum(given is not None for given in (self.url, self.data_base64, self.image_id, self.pdq)) != 1:
            raise ValueError("give one of url, data_base64, image_id and pdq")
        return self

    @property
    def key(self) -> EntryKey:
        return EntryKey(self.tenant, self.bank, self.entry_id)

    def is_expired(self, now: datetime) -> bool:
        """Whether it counts no more."""
        return self.expires_at is not None and self.expires_at <= now


_KINDS: dict[type[AnyKey], str] = {BankKey: "bank", EntryKey: "entry", PictureKey: "picture"}
_BODIES: dict[str, type[BankDefined] | type[BankEntry]] = {BANK_DEFINED: BankDefined, BANK_ENTRY: BankEntry}


@dataclass(frozen=True, slots=True)
class BankChange:
    """What a message of the topic says of `key`; `body` is None where it is deleted."""

    key: AnyKey
    body: BankDefined | BankEntry | KeptPicture | None


def encode_key(key: AnyKey) -> bytes:
    """Write a key as it stands on the topic."""
    return json.dumps([_KINDS[type(key)], *key]).encode()


def read_own_key(text: bytes) -> BankKey | EntryKey:
    """Read a key of a bank or an entry that `encode_key` wrote: quicker than `decode_key`, which trusts nothing."""
    kind, *names = json.loads(text)
    return BankKey(*names) if kind == "bank" else EntryKey(*names)


def decode_key(text: bytes | None) -> AnyKey:
    """Read a key. Raises Unprocessable."""
    match parse_json_or_none(text or b""):
        case ["bank", str() | None as tenant, str() as bank]:
            return BankKey(tenant, bank)
        case ["entry", str() | None as tenant, str() as bank, str() as entry_id]:
            return EntryKey(tenant, bank, entry_id)
        case ["picture", str() | None as tenant, str() as bank, str() as entry_id, str() as message]:
            return PictureKey(tenant, bank, entry_id, message)
    raise Unprocessable(
        "malformed-event", 'the key has to be ["bank", tenant, bank] or ["entry", tenant, bank, entry_id] as JSON'
    )


def parse_change(record: Record) -> BankChange:
    """Parse a message of the topic. Raises Unprocessable for one that no bank can be made of."""
    key = decode_key(record.key)
    if record.key != encode_key(key):
        # One key in two spellings is two to Kafka's compaction: what one of them removes would come back by the other.
        expected = cut(encode_key(key).decode())
        raise Unprocessable("malformed-event", f"the key has to be written as {expected}: spaces and escapes count")
    if record.value is None:
        return BankChange(key, None)
    if isinstance(key, PictureKey):
        kept = KeptPicture.read(record)
        if PictureKey.of(key.of_entry, kept.row.at) != key:
            raise Unprocessable("malformed-event", "the key of this message names another message than its value")
        return BankChange(key, kept)
    kind, data = _read_cloud_event(record, record.value)
    if not isinstance(kind, str) or kind not in _BODIES:
        raise Unprocessable("unknown-event", f"event type {cut(str(kind), 80)!r} is not one of {', '.join(_BODIES)}")
    try:
        body = _BODIES[kind].model_validate(data)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = cut(".".join(map(str, first["loc"])), 80)
        raise Unprocessable("malformed-event", cut(f"{field}: {first['msg']}" if field else first["msg"])) from None
    if body.key != key:
        expected = cut(encode_key(body.key).decode())
        raise Unprocessable("malformed-event", f"the key of this message has to be {expected}")
    return BankChange(key, body)


def _read_cloud_event(record: Record, value: bytes) -> tuple[Any, Any]:
    """Read type and data of a CloudEvent, in binary or structured mode. Raises Unprocessable."""
    headers = {name.lower(): text for name, text in record.headers if text is not None}
    document = parse_json(value)
    if "ce_type" in headers:
        return headers["ce_type"].decode("utf-8", "backslashreplace"), document
    if not isinstance(document, dict) or "specversion" not in document:
        raise Unprocessable("malformed-event", "neither a CloudEvent nor null, which would delete")
    return document.get("type"), document.get("data")


def change_message(topic: str, change: BankDefined | BankEntry) -> OutgoingMessage:
    """Write the message that defines a bank or adds an entry: a CloudEvent in binary mode."""
    kind = BANK_DEFINED if isinstance(change, BankDefined) else BANK_ENTRY
    return event_message(topic, kind, str(uuid.uuid4()), encode_key(change.key).decode(), datetime.now(UTC), change)


def picture_message(topic: str, key: EntryKey, kept: KeptPicture) -> OutgoingMessage:
    """Write the message that keeps the picture of an entry."""
    return OutgoingMessage(topic, encode_key(PictureKey.of(key, kept.row.at)), kept.value, kept.headers)


def removal_message(topic: str, key: AnyKey) -> OutgoingMessage:
    """Write the message that deletes a bank, an entry or what is kept of one."""
    return OutgoingMessage(topic, encode_key(key), None, ())
