"""Traces by OpenTelemetry, sent by OTLP over gRPC; the standard OTEL_* variables say where to and how many.

    producer ─> process image-uploads ─┬─ fetch, look_up, decode, encode, infer, match
                                       └─ create image-verdicts ─> whoever reads the verdict
    batch image-uploads ─┬─ look_up, encode, infer, match
                         └─ publish

An upload's trace goes on from its message's `traceparent`. Its spans of steps that a batch takes together have the
batch's times and link to the batch's span; the batch links to its uploads. Only of uploads that are sampled is
anything recorded, and of batches that hold one. The names are those of the semantic conventions for messaging.
"""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from importlib.metadata import version
from typing import Any

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from consumer.errors import Misconfigured
from consumer.events import ImageDeleted, Record
from consumer.settings import KafkaSettings
from consumer.telemetry.tracing import NO_TRACE, Trace, Traced, Tracing

log = logging.getLogger(__name__)

# The producer's word comes first, then that of the event's own extension (CloudEvents Distributed Tracing).
_CARRIERS = ("", "ce_")
# What W3C Trace Context asks everybody to hand on; longer values are not looked at.
_LONGEST = 512
# A stop is not held up by a receiver that is away: what it has not taken by then is lost.
CLOSE_TIMEOUT_S = 3.0
_LAST_STEP = "publish"

_w3c = TraceContextTextMapPropagator()


class OpenTelemetry(Tracing):
    """Records, and sends from a thread of its own; what the receiver does not take in time is dropped."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._kafka = kafka
        # These tell of every try and of every foreign header that is not as it should be.
        for name in ("opentelemetry.exporter", "opentelemetry.sdk._shared_internal", "opentelemetry.trace"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        own = Resource({"service.name": "seenit", "service.version": version("seenit")})
        resource = own.merge(OTELResourceDetector().detect())
        try:
            self._processor = BatchSpanProcessor(_Exporter())
            sampled = TracerProvider(resource=resource, shutdown_on_exit=False)
            always = TracerProvider(ALWAYS_ON, resource, shutdown_on_exit=False)
        except (OSError, ValueError) as error:
            raise Misconfigured(f"tracing cannot be set up as the OTEL_* variables say: {error}") from None
        for provider in (sampled, always):
            provider.add_span_processor(self._processor)
        # The sampler is asked for each upload; what belongs to one that is recorded is recorded too.
        self._uploads, self._rest = (provider.get_tracer("seenit") for provider in (sampled, always))

    def begin(self, items: Sequence[Traced]) -> Trace:
        """Go on with the trace of each upload's producer, or begin one."""
        recorded = []
        for item in items:
            item.trace = self._begin(item)
            if isinstance(item.trace, _UploadTrace):
                recorded.append(item)
        return _BatchTrace(self._rest, self._kafka, recorded) if recorded else NO_TRACE

    def close(self) -> None:
        """Send what is left, for CLOSE_TIMEOUT_S at most."""
        closer = threading.Thread(target=self._processor.shutdown, daemon=True)
        closer.start()
        closer.join(CLOSE_TIMEOUT_S)

    def _begin(self, item: Traced) -> Trace:
        record = item.record
        where: dict[str, str | int] = {
            **_messaging("process", "process", record.topic, self._kafka),
            "messaging.destination.partition.id": str(record.partition),
            "messaging.kafka.offset": record.offset,
        }
        span = self._uploads.start_span(
            f"process {record.topic}",
            _w3c.extract(_carrier(record)),
            SpanKind.CONSUMER,
            {**where, "seenit.image_id": item.event.image_id, "seenit.tenant": item.event.tenant},
        )
        if span.is_recording():
            return _UploadTrace(self._rest, span, None if isinstance(item.event.body, ImageDeleted) else self._kafka)
        return Trace(_headers(span))


class _UploadTrace(Trace):
    """Of one upload that is sampled, or of a deletion, which has no verdict and therefore no `answers`."""

    def __init__(self, tracer: Tracer, span: Span, answers: KafkaSettings | None) -> None:
        self.span = span
        self._tracer = tracer
        self._context = set_span_in_context(span)
        self._answers = answers
        self._verdict: Span | None = None

    def headers(self) -> tuple[tuple[str, bytes], ...]:
        """The same for each try to publish."""
        if self._verdict is None and self._answers is not None:
            topic = self._answers.output_topic
            attributes = _messaging("create", "create", topic)
            self._verdict = self._tracer.start_span(f"create {topic}", self._context, SpanKind.PRODUCER, attributes)
        return () if self._verdict is None else _headers(self._verdict)

    def step(self, name: str) -> AbstractContextManager[object]:
        return self._tracer.start_as_current_span(name, self._context)

    def passed(self, name: str, began_ns: int, batch: SpanContext, problem: str = "") -> None:
        """A step that its batch took with it, from `began_ns` to now."""
        span = self._tracer.start_span(name, self._context, links=[Link(batch)], start_time=began_ns)
        _end(span, problem)

    def answered(self, item: Traced, batch: SpanContext) -> None:
        """The verdict stands."""
        decision, failure = item.decision, item.failure
        if failure is not None:
            self.span.set_attributes({"seenit.verdict": "unprocessable", "seenit.reason": failure.reason})
        elif decision is not None:
            self.span.set_attribute("seenit.verdict", decision.verdict)
            if decision.kind is not None and decision.match is not None:
                self.span.set_attribute("seenit.kind", decision.kind)
                self.span.set_attribute("seenit.match.image_id", decision.match.image_id)
                self.span.set_attribute("seenit.match.l2", decision.match.l2)
        if self._verdict is not None:
            self._verdict.add_link(batch)
            self._verdict.end()
        self.span.end()


class _BatchTrace(Trace):
    """Of the uploads that are sampled among those of a batch."""

    def __init__(self, tracer: Tracer, kafka: KafkaSettings, items: list[Traced]) -> None:
        self._tracer = tracer
        self._items = items
        self._span = tracer.start_span(
            f"batch {kafka.input_topic}",
            kind=SpanKind.CONSUMER,
            attributes={
                **_messaging("batch", "process", kafka.input_topic, kafka),
                "messaging.batch.message_count": len({(i.record.partition, i.record.offset) for i in items}),
            },
            links=[Link(trace.span.get_span_context()) for _, trace in self._uploads()],
        )
        self._context = set_span_in_context(self._span)
        self._step = self._span.get_span_context()
        for _, trace in self._uploads():
            trace.span.add_link(self._step)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        began_ns = time.time_ns()
        with self._tracer.start_as_current_span(name, self._context) as span:
            self._step = span.get_span_context()
            yield
        if name != _LAST_STEP:
            for _, trace in self._uploads():
                trace.passed(name, began_ns, self._step)
            return
        for _, trace in self._uploads():
            if trace.span.is_recording():
                _end(trace.span, "not published here: whoever has its partition next answers")
        self._span.end()

    def follow(self, name: str, work: Future[Any], rows: range) -> None:
        began_ns = time.time_ns()
        span = self._tracer.start_span(name, self._context, SpanKind.CLIENT)

        def done(work: Future[Any]) -> None:
            error = None if work.cancelled() else work.exception()
            problem = "" if error is None else str(error)
            _end(span, problem)
            for item, trace in self._uploads():
                if max(item.view_range.start, rows.start) < min(item.view_range.stop, rows.stop):
                    trace.passed(name, began_ns, span.get_span_context(), problem)

        work.add_done_callback(done)

    def published(self, items: Sequence[Traced]) -> None:
        for item in items:
            if isinstance(item.trace, _UploadTrace):
                item.trace.answered(item, self._step)

    def _uploads(self) -> Iterator[tuple[Traced, _UploadTrace]]:
        for item in self._items:
            if isinstance(item.trace, _UploadTrace):
                yield item, item.trace


class _Exporter(OTLPSpanExporter):
    """Tells once when the receiver is away, and once when it is back."""

    _away = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = super().export(spans)
        away = result is not SpanExportResult.SUCCESS
        if away and not self._away:
            log.warning("traces are lost: %s does not take them; the service does not wait for it", self._endpoint)
        elif self._away and not away:
            log.info("%s takes traces again", self._endpoint)
        self._away = away
        return result


def _messaging(name: str, kind: str, topic: str, kafka: KafkaSettings | None = None) -> dict[str, str | int]:
    attributes: dict[str, str | int] = {
        "messaging.system": "kafka",
        "messaging.operation.name": name,
        "messaging.operation.type": kind,
        "messaging.destination.name": topic,
    }
    return attributes if kafka is None else {**attributes, "messaging.consumer.group.name": kafka.group_id}


def _carrier(record: Record) -> dict[str, str]:
    """`traceparent` and `tracestate` of a message, the last of each, both from the same of the possible places."""
    found = {
        name.lower(): value.decode("ascii", "replace")
        for name, value in record.headers
        if value is not None and len(value) <= _LONGEST
    }
    for prefix in _CARRIERS:
        if f"{prefix}traceparent" in found:
            return {name: found.get(prefix + name, "") for name in ("traceparent", "tracestate")}
    return {}


def _headers(span: Span) -> tuple[tuple[str, bytes], ...]:
    carrier: dict[str, str] = {}
    _w3c.inject(carrier, set_span_in_context(span))
    return tuple((name, value.encode()) for name, value in carrier.items())


def _end(span: Span, problem: str = "") -> None:
    if problem:
        span.set_status(StatusCode.ERROR, problem)
    span.end()
