"""What holds for pictures from every source: attempts, the largest file, and what a message may say about a URL."""

import re

from consumer.errors import Unavailable, Unprocessable

ATTEMPTS = 3  # a host that fails so often within the deadline is left alone
FIRST_PAUSE_S = 0.1

# Answers of a store that are about this service's credentials, not about the object asked for.
CREDENTIAL_FAULTS = (
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
    "TokenRefreshRequired",
    "RequestTimeTooSkewed",
    "AuthenticationFailed",
)
# Answers that may be others the next time.
PASSING_STATUSES = ("401", "408", "429")


def store_error(url: str, status: str, code: str) -> Unprocessable | Unavailable:
    """Tell by a store's answer whether this one object is refused, or the store cannot be asked at the moment."""
    if status[0] in "34" and status not in PASSING_STATUSES and code not in CREDENTIAL_FAULTS:
        return Unprocessable("not-found", f"{redacted(url)} may not be read: the store answers {status}.")
    return Unavailable("object-store", f"{redacted(url)}: the store answers {status} {code[:60]}")


def check_length(url: str, length: int, max_bytes: int) -> None:
    """Raise Unprocessable when the file at `url` has more than `max_bytes` bytes."""
    if length > max_bytes:
        raise Unprocessable("too-large", f"{redacted(url)} has more than {max_bytes} bytes; send a smaller file.")


def redacted(url: str) -> str:
    """Return the URL fit for a log: without user, password, query and fragment, which may hold secrets."""
    scheme, colon, rest = url.partition(":")
    rest = re.split(r"[?#]", rest, maxsplit=1)[0]
    if rest.startswith("//"):
        authority, slash, path = rest[2:].partition("/")
        rest = "//" + authority.rpartition("@")[2] + slash + path
    return printable_line(scheme + colon + rest)


def printable_line(text: object) -> str:
    """Return one printable line, of bounded length, without the queries of any URLs in it."""
    line = re.sub(r"\?\S+", "", str(text))[:300]
    return "".join(c if c.isprintable() else "\ufffd" for c in line) or type(text).__name__
