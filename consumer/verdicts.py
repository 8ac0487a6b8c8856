"""The shared language of what goes out: the verdict that answers an upload, and the events beside it."""

from typing import Literal

from pydantic import AwareDatetime, Field

from consumer.events import Body


class Box(Body):
    """A rectangle as fractions of width and height, from the top left corner."""

    left: float
    top: float
    right: float
    bottom: float


class Edit(Body):
    """The edit that leads from the match to the upload, with both pictures squeezed into squares.

    `zoom` is how much longer things are in the upload than in the match, `rotation_deg` how far they are turned
    clockwise, after mirroring left to right if `mirrored`. The boxes bound the part of each picture that the other
    shows; `overlap` is the area of that part over the area of both pictures laid upon each other: 1 for the same frame.
    Where another picture was found within the upload, all this is about that one.
    """

    zoom: float
    rotation_deg: float
    mirrored: bool
    box_in_match: Box
    box_in_upload: Box
    overlap: float


class Evidence(Body):
    """What comparing both pictures in detail found.

    `verified` tells whether they are copies: no near match without it. `score`, 0 to 1, tells how sure that is: the
    model's rule makes it of all that was measured. Of these measures, `inliers` is how many parts of both pictures
    agree on the edit, `agreement`, -1 to 1, how well their fine structure agrees when one is laid upon the other, and
    `least_agreement` how well it does in the worst tenth of it: covered in a copy, other content in a look-alike.
    `stretch` is by how much one side would have to be stretched more than the other, as a share; copies keep theirs.
    `writing` tells that both are mostly writing or line art on a plain ground, so that only what is written counts.
    """

    verified: bool
    score: float
    inliers: int
    agreement: float | None = None
    least_agreement: float | None = None
    stretch: float | None = None
    writing: bool | None = None
    edit: Edit | None = None


class Match(Body):
    """An earlier picture of the same tenant of which the upload is a copy.

    `l2` is the distance of both pictures' unit vectors, 0 to 2; where a picture within the upload shows the match, that
    of this part. It says how alike both are, not whether they are copies: that is what the evidence says.
    """

    image_id: str
    l2: float
    uploaded_at: AwareDatetime
    evidence: Evidence | None = None


class Campaign(Body):
    """All uploads of a tenant that show the same picture, as they were when the upload had joined them.

    `id` is the image id of the first of them, the earliest that the upload was compared with and is a copy of; `size`
    counts it too. `uploads_per_hour` is how many came in the last hour.
    """

    id: str
    size: int
    first_seen: AwareDatetime
    last_seen: AwareDatetime
    uploads_per_hour: int


class Flood(Body):
    """Data of `image.flood`: the uploads of a campaign went beyond its tenant's bound, or are well under it again."""

    campaign: str
    tenant: str
    uploads_per_hour: int
    bound: float
    state: Literal["began", "ended"]


class Model(Body):
    """The encoder that made the vectors."""

    name: str
    version: str


BankKind = Literal["block", "review", "allow"]


class BankHit(Body):
    """An entry of a bank that the upload shows.

    It is `exact` if the bytes are the same. Otherwise `l2` is the distance of both pictures' vectors and the evidence
    says why they are copies; an entry that is only a PDQ hash has neither. `action` and `labels` are the bank's and the
    entry's own.
    """

    bank: str
    kind: BankKind
    entry_id: str
    action: str | None = None
    exact: bool
    l2: float | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    evidence: Evidence | None = None


class ImageRematched(BankHit):
    """Data of `image.rematched`: an upload from before an entry of a bank, that shows it."""

    image_id: str
    tenant: str
    uploaded_at: AwareDatetime


class SilencedBy(Body):
    """An entry of an allow bank that the upload shows."""

    bank: str
    entry_id: str


class Verdict(Body):
    """Data of `image.verdict`: the one answer to one upload.

    Of a duplicate, `match` is the best original among earlier uploads, the earliest of those that are as good, and
    `others` further ones, nearest first. It is `exact` if the bytes are the same, else `near`, and then each match has
    verified evidence; only encoders without local features decide by distance alone. No match is farther than
    `threshold_l2`. A duplicate belongs to a `campaign`.

    `banks` are the entries of banks that it shows, exact ones first, then the nearest; whether it is unique says
    nothing of them. `silenced_by` are allowed pictures that it shows: hits of the banks that these silence are left
    out.
    """

    image_id: str
    tenant: str
    verdict: Literal["unique", "duplicate", "unprocessable"]
    kind: Literal["exact", "near"] | None = None
    match: Match | None = None
    others: tuple[Match, ...] = ()
    banks: tuple[BankHit, ...] = ()
    silenced_by: tuple[SilencedBy, ...] = ()
    campaign: Campaign | None = None
    threshold_l2: float
    model: Model
    reason: str | None = None
    received_at: AwareDatetime
    decided_at: AwareDatetime
