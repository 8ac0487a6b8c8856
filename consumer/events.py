"""The shared language: what comes in, and the verdict that goes out.

A `Record` of the input topic holds one `Event` or several (`consumer.parse`); each upload is answered by a `Verdict`.
"""

import base64
import binascii
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
    model_validator,
)

from consumer.errors import Unprocessable

DEFAULT_TENANT = "default"


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


def _from_base64(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise ValueError(f"not base64: {error}") from None


# An S3 key may have 1,024 bytes, and an object is named by its whole address.
NAME_LENGTH = 2048
Name = Annotated[str, Field(min_length=1, max_length=NAME_LENGTH)]
Base64 = Annotated[
    bytes,
    BeforeValidator(_from_base64),
    PlainSerializer(lambda data: base64.b64encode(data).decode(), when_used="json"),
    WithJsonSchema({"type": "string", "contentEncoding": "base64", "minLength": 1}),
    Field(min_length=1),
]


class Body(BaseModel):
    """A part of an event. Unknown fields are let through on input, so that producers may add their own."""

    model_config = ConfigDict(frozen=True)


class ImageUpload(Body):
    """Data of `image.uploaded`: a picture by address or in the event itself."""

    image_id: Name
    tenant: Annotated[str, Field(min_length=1, max_length=256)] = DEFAULT_TENANT
    url: Annotated[str, Field(min_length=1, max_length=8192)] | None = None
    data_base64: Base64 | None = None
    content_type: str | None = None
    uploaded_at: AwareDatetime | None = None
    labels: dict[str, str] = {}

    @model_validator(mode="after")
    def _one_source(self) -> "ImageUpload":
        if (self.url is None) == (self.data_base64 is None):
            raise ValueError("give either url or data_base64")
        return self


class ImageDeleted(Body):
    """Data of `image.deleted`: the picture to forget."""

    image_id: Name
    tenant: Annotated[str, Field(min_length=1, max_length=256)] = DEFAULT_TENANT


@dataclass(frozen=True, slots=True)
class Event:
    """One thing to do. `id` names it for good: redelivery and replay of the same event give the same id."""

    id: str
    image_id: str
    tenant: str
    body: ImageUpload | ImageDeleted | Unprocessable
    time: datetime


class Box(Body):
    """A rectangle as fractions of width and height, from the top left corner."""

    left: float
    top: float
    right: float
    bottom: float


class Edit(Body):
    """The edit that leads from the match to the upload, each squeezed into a square as the encoder sees them.

    `zoom` is how much longer things are in the upload than in the match, `rotation_deg` how far they are turned
    clockwise, after mirroring left to right if `mirrored`. The boxes bound the part of each picture that the other
    shows; `overlap` is the area of that part over the area of both pictures laid upon each other: 1 for the same frame.
    Of an upload in which another picture was found, that one counts alone.
    """

    zoom: float
    rotation_deg: float
    mirrored: bool
    box_in_match: Box
    box_in_upload: Box
    overlap: float


class Evidence(Body):
    """What a second look at the local features of both pictures found, and at both laid upon each other.

    `verified` says that it makes them duplicates at their distance; `score`, 0 to 1, how well the pictures fit upon
    each other; `inliers` how many pairs of parts agree on the edit.
    """

    verified: bool
    score: float
    inliers: int
    edit: Edit | None = None


class Match(Body):
    """An earlier picture of the same tenant and its distance: Euclidean, of unit vectors, 0 to 2.

    When a picture within the upload shows it, the distance is that of this part.
    """

    image_id: str
    l2: float
    uploaded_at: AwareDatetime
    evidence: Evidence | None = None


class Model(Body):
    """The encoder that made the vectors."""

    name: str
    version: str


class Verdict(Body):
    """Data of `image.verdict`: the one answer to one upload."""

    image_id: str
    tenant: str
    verdict: Literal["unique", "duplicate", "unprocessable"]
    kind: Literal["exact", "near"] | None = None
    match: Match | None = None
    others: tuple[Match, ...] = ()
    threshold_l2: float
    model: Model
    reason: str | None = None
    received_at: AwareDatetime
    decided_at: AwareDatetime
