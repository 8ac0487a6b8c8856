"""What the HTTP interface answers, as it stands in the OpenAPI document."""

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from consumer.events import Evidence, Model
from consumer.http.matching import FoundMatch


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
