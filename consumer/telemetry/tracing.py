"""Traces, as the steps see them, and the form that they have while they are off: nothing is recorded or imported.

`otel` has the form that records. Each upload has a trace of its own, which goes on from the `traceparent` of its
producer to the one of its verdict. A batch has one too: its steps serve many uploads, whose traces link to it.
"""

from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

from consumer.decide import Decision
from consumer.errors import Misconfigured, Unprocessable
from consumer.events import Event, Record
from consumer.settings import Settings

_NOTHING = nullcontext()


class Trace:
    """Of an upload or a batch. This one records nothing; it may hand on that nothing is to be recorded."""

    def __init__(self, headers: tuple[tuple[str, bytes], ...] = ()) -> None:
        self._headers = headers

    def headers(self) -> tuple[tuple[str, bytes], ...]:
        """What the verdict on the upload carries, so that its readers can go on with the trace."""
        return self._headers

    def step(self, name: str) -> AbstractContextManager[object]:
        """Record the block as a step."""
        return _NOTHING

    def follow(self, name: str, work: Future[Any], rows: range) -> None:
        """Record, as a step of the uploads with any of these rows, what is under way until it is done."""

    def published(self, items: Sequence["Traced"]) -> None:
        """End what is recorded of uploads whose verdicts stand."""


UNTRACED = Trace()


class Traced(Protocol):
    """What a trace tells of an upload."""

    record: Record
    event: Event
    trace: Trace
    rows: range
    decision: Decision | None
    failure: Unprocessable | None


class Tracing:
    """Where traces begin and go to. This one records nothing."""

    def begin(self, items: Sequence[Traced]) -> Trace:
        """Give each its trace; returns that of their batch."""
        return UNTRACED

    def close(self) -> None:
        """Send what is not sent yet, within a bound."""


OFF = Tracing()


def start(settings: Settings) -> Tracing:
    """Tracing as the settings say. Raises Misconfigured when it cannot be done."""
    if not settings.tracing.enabled:
        return OFF
    try:
        from consumer.telemetry.otel import OpenTelemetry  # noqa: PLC0415  # an optional dependency
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "opentelemetry":
            raise
        raise Misconfigured(
            "SEENIT_TRACING_ENABLED is set, but OpenTelemetry is not installed: pip install '.[tracing]'"
        ) from None
    return OpenTelemetry(settings.kafka)
