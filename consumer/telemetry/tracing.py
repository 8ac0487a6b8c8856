"""Traces as the pipeline sees them, and the form they have while tracing is off: nothing is recorded or imported.

`telemetry.otel` has the form that records; the service chooses one of them. Each upload has a trace of its own, which
goes on from the `traceparent` of its producer to the one of its verdict. A batch has a trace too: its steps serve many
uploads, whose traces link to it.
"""

from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

from consumer.decide import Decision
from consumer.errors import Unprocessable
from consumer.events import Event, Record

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


NO_TRACE = Trace()


class Traced(Protocol):
    """What a trace tells of an upload; `view_range` are its places among all views of its batch."""

    record: Record
    event: Event
    trace: Trace
    failure: Unprocessable | None

    @property
    def view_range(self) -> range: ...
    @property
    def decision(self) -> Decision | None: ...


class Tracing:
    """Where traces begin and go to. This one records nothing."""

    def begin(self, items: Sequence[Traced]) -> Trace:
        """Give each its trace; returns that of their batch."""
        return NO_TRACE

    def close(self) -> None:
        """Send what is not sent yet, within a bound."""


NO_TRACING = Tracing()
