"""Traces as the pipeline uses them, in the form that records nothing: what is in force while tracing is off.

`telemetry.otel` has the form that records, and the service chooses between the two, so that nothing of OpenTelemetry is
imported without need. Each upload has a trace of its own, which leads from the `traceparent` of its producer to the
`traceparent` of its verdict. A batch has a trace too: its steps serve many uploads, and their traces link to it.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

from consumer.decide import Decision
from consumer.errors import Unprocessable
from consumer.events import Event, Record

_NOTHING = nullcontext()


class Trace:
    """The trace of an upload or of a batch that records nothing.

    `headers` is handed on to the verdict: it may say that nothing is to be recorded of the upload.
    """

    def __init__(self, headers: tuple[tuple[str, bytes], ...] = ()) -> None:
        self._headers = headers

    def headers(self) -> tuple[tuple[str, bytes], ...]:
        """Return the headers of the upload's verdict that let its readers go on with the trace."""
        return self._headers

    def step(self, name: str) -> AbstractContextManager[object]:
        """Record the block as a step."""
        return _NOTHING

    def follow(self, name: str, work: Future[Any], view_range: range) -> None:
        """Record `work`, until it is done, as a step of the uploads that have any of these views of their batch."""

    def published(self, items: Sequence["Traced"]) -> None:
        """End the traces of uploads whose verdicts are published."""


NO_TRACE = Trace()


class Traced(Protocol):
    """An upload as its trace describes it; `view_range` tells which of the batch's views are of this upload."""

    record: Record
    event: Event
    trace: Trace
    failure: Unprocessable | None

    @property
    def view_range(self) -> range: ...
    @property
    def decision(self) -> Decision | None: ...


class Tracing:
    """Where traces begin and where they are sent to. This one records nothing."""

    def begin(self, items: Sequence[Traced]) -> Trace:
        """Give each upload of a batch its trace; return the trace of the batch."""
        return NO_TRACE

    def request(self, name: str, headers: Mapping[str, str]) -> AbstractContextManager[Trace]:
        """Record the block as the answer to a request over HTTP, whose `headers` may name the client's trace."""
        return nullcontext(NO_TRACE)

    def close(self) -> None:
        """Send what is not sent yet, within a bound on the time."""


NO_TRACING = Tracing()
