"""What can go wrong, by who has to act.

SeenitError
├── Unprocessable       the upload's own fault: it ends as a verdict with this reason, its neighbours go on
├── Unavailable         a dependency is away: pause, retry, go on by itself; nothing is decided meanwhile
└── Misconfigured       an operator has to change something; the service does not start
"""

from typing import Literal, get_args

Dependency = Literal["kafka", "redis", "triton", "object-store", "oidc"]

Reason = Literal[
    "malformed-event",  # not JSON, not a CloudEvent, a field missing or of the wrong form
    "unknown-event",  # well formed, but of a type this service does not know
    "forbidden-address",  # scheme, host, bucket or folder that no allow-list names, or a private address
    "not-found",  # the address was asked and has no such picture
    "unreachable",  # nobody answers at the address within the time allowed
    "too-large",  # more bytes or more pixels than allowed
    "not-an-image",  # bytes that no decoder knows
    "wrong-content-type",  # announced as something else than a picture
    "broken-image",  # a picture whose data is cut short or damaged
    "not-supported",  # a sound picture of a known format, in a form that no decoder here knows
    "too-small",  # fewer pixels than can be told apart
    "unknown-bank",  # an entry of a bank that its tenant does not have
    "unknown-picture",  # feedback on a picture or a verdict that nothing is known of, or not any more
    "poison",  # brought the process down each time it was tried
]
REASONS: tuple[Reason, ...] = get_args(Reason)


class SeenitError(Exception):
    """The root of what this package raises on purpose."""


class Unprocessable(SeenitError):
    """An upload that cannot be processed, whatever is retried.

    `reason` is one of a small set, fit for a metric's label; `detail` is a sentence for a person, with no secret in it.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason: Reason = reason
        self.detail = detail


class Unavailable(SeenitError):
    """A dependency that cannot be asked at the moment; the same call may succeed later."""

    def __init__(self, dependency: Dependency, detail: str) -> None:
        super().__init__(f"{dependency} is unavailable: {detail}")
        self.dependency: Dependency = dependency
        self.detail = detail


class Misconfigured(SeenitError):
    """A setting, a served model or a permission that does not fit; says which and how to mend it."""
