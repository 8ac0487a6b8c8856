"""The shared language of what comes in: a `Record` of a topic holds one `Event` or several (`consumer.parse`)."""

import base64
import binascii
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
    model_validator,
)

from consumer.errors import Unprocessable

DEFAULT_TENANT = "default"
# The last moment that a calendar has.
_LAST_MS = int(datetime.max.replace(tzinfo=UTC).timestamp() * 1000)


@dataclass(frozen=True, slots=True)
class Record:
    """One message of a topic, as it stands there."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    timestamp_ms: int

    @property
    def time(self) -> datetime:
        """When it was sent: now for a timestamp of a year that no calendar has, since producers set what they like."""
        dated = 0 < self.timestamp_ms < _LAST_MS
        return datetime.fromtimestamp(self.timestamp_ms / 1000, UTC) if dated else datetime.now(UTC)


_DATA_URL = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)
_STANDARD_BASE64 = bytes.maketrans(b"-_", b"+/")


def decode_base64(text: str) -> bytes:
    """Decode base64 as it is written in practice: in lines, url-safe, without padding, or as a `data:` URL.

    Raises ValueError.
    """
    prefix = _DATA_URL.match(text)
    letters = text[prefix.end() if prefix else 0 :].encode("ascii", "replace")
    letters = letters.translate(_STANDARD_BASE64, b" \t\r\n").rstrip(b"=")
    try:
        return base64.b64decode(letters + b"=" * (-len(letters) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError(f"not base64: {error}") from None


def _from_base64(value: object) -> object:
    return (decode_base64(value) if isinstance(value, str) else value) or None


def _or_none(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    """Take what cannot be read for absent."""
    try:
        return handler(value)
    except ValidationError:
        return None


def read_tenant(value: object) -> object:
    """Name the default tenant for one that is null, empty or no name; take a number for the name that it is.

    A name too long is left to be refused: the picture must not end up in the window of others.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) and value else DEFAULT_TENANT


def _labels(value: object) -> object:
    """Keep the labels that are texts."""
    return {name: text for name, text in value.items() if isinstance(text, str)} if isinstance(value, dict) else {}


# An S3 key may have 1,024 bytes, and an object is named by its whole address.
NAME_LENGTH = 2048
VERSION_LENGTH = 1024
Name = Annotated[str, Field(min_length=1, max_length=NAME_LENGTH)]
Tenant = Annotated[str, Field(min_length=1, max_length=256), BeforeValidator(read_tenant)]
Base64 = Annotated[
    bytes,
    PlainSerializer(lambda data: base64.b64encode(data).decode(), when_used="json"),
    WithJsonSchema({"type": "string", "contentEncoding": "base64", "minLength": 1}),
]


class Body(BaseModel):
    """A part of an event. Unknown fields are let through on input, so that producers may add their own."""

    model_config = ConfigDict(frozen=True)


class ImageUpload(Body):
    """Data of `image.uploaded`: a picture by address or in the event itself.

    `version_id` is the version of the object at `url`, an address of a store; the newest if there is none.
    """

    image_id: Name
    tenant: Tenant = DEFAULT_TENANT
    url: Annotated[
        Annotated[str, Field(min_length=1, max_length=8192)] | None, BeforeValidator(lambda url: url or None)
    ] = None
    version_id: Annotated[
        Annotated[str, Field(min_length=1, max_length=VERSION_LENGTH)] | None,
        BeforeValidator(lambda version: None if version == "" else version),
    ] = None
    data_base64: Annotated[Base64 | None, BeforeValidator(_from_base64)] = None
    content_type: Annotated[str | None, WrapValidator(_or_none)] = None
    uploaded_at: Annotated[AwareDatetime | None, WrapValidator(_or_none)] = None
    labels: Annotated[dict[str, str], BeforeValidator(_labels)] = {}

    @model_validator(mode="after")
    def _one_source(self) -> "ImageUpload":
        if (self.url is None) == (self.data_base64 is None):
            raise ValueError("give either url or data_base64")
        return self


class ImageDeleted(Body):
    """Data of `image.deleted`: the picture to forget.

    With `deleted_at`, what was uploaded under this name later is not forgotten.
    """

    image_id: Name
    tenant: Tenant = DEFAULT_TENANT
    deleted_at: Annotated[AwareDatetime | None, WrapValidator(_or_none)] = None


FeedbackDecision = Literal["confirm", "reject", "withdraw"]


class MatchFeedback(Body):
    """Data of `match.feedback`: what a person decided about a match.

    The match is named by both its pictures, or by the id of the verdict's event (`verdict_id`). A rejected pair is not
    matched again, nor are exact copies of the two with each other; the latest decision counts. A confirmed one goes
    into the bank `to_bank`, if it names one. `withdraw` takes back what was decided, as if nobody ever had, and what
    that put into the bank `to_bank`. `by` is who decided.
    """

    image_id: Name | None = None
    match_id: Name | None = None
    verdict_id: Annotated[str, Field(min_length=1, max_length=VERSION_LENGTH)] | None = None
    tenant: Tenant = DEFAULT_TENANT
    decision: FeedbackDecision
    by: Annotated[str, Field(min_length=1, max_length=256)]
    note: Annotated[str, Field(max_length=4096)] | None = None
    to_bank: Annotated[str, Field(min_length=1, max_length=256)] | None = None

    @model_validator(mode="after")
    def _one_match(self) -> "MatchFeedback":
        pair = (self.image_id, self.match_id)
        if self.verdict_id is None and None in pair:
            raise ValueError("give image_id and match_id, or verdict_id")
        if self.verdict_id is None and self.image_id == self.match_id:
            raise ValueError("image_id and match_id are the same picture")
        if self.to_bank is not None and self.decision == "reject":
            raise ValueError("only a confirmed match can go into a bank")
        return self


@dataclass(frozen=True, slots=True)
class Ignored:
    """What a message says that asks for nothing: a store's test, a change of an object's tags."""


@dataclass(frozen=True, slots=True)
class Event:
    """One thing to do. `id` names it for good: redelivery and replay of the same event give the same id."""

    id: str
    image_id: str
    tenant: str
    body: ImageUpload | ImageDeleted | Ignored | Unprocessable
    time: datetime
