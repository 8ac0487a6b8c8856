"""The result of trying one thing."""

from dataclasses import dataclass
from typing import Literal

Outcome = Literal["ok", "warning", "failed"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing tried: what came of it, and what to do if it did not work."""

    what: str
    outcome: Outcome
    detail: str
    remedy: str = ""


def one_line(error: Exception) -> str:
    """Return the message of an error on one line, or the name of its class if it has none."""
    return " ".join(str(error).split()) or type(error).__name__
