"""Traces by OpenTelemetry, sent by OTLP over gRPC; the standard OTEL_* variables say where to and how many.

    producer ─> process image-uploads ─┬─ fetch, look_up, decode, encode, infer, match
                                       └─ create image-verdicts ─> whoever reads the verdict
    batch image-uploads ─┬─ look_up, encode, infer, match
                         └─ publish

An upload's trace continues the `traceparent` of its message. A step that a batch takes for all of its uploads is a span
in the trace of each, with the times of the batch's span and a link to it; the batch links to its uploads. Only uploads
that are sampled are recorded, and batches that hold one. Names follow the semantic conventions for messaging.
"""

import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
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
from consumer.events import Ignored, ImageDeleted, Record
from consumer.settings import KafkaSettings
from consumer.telemetry.tracing import NO_TRACE, Trace, Traced, Tracing

log = logging.getLogger(__name__)

# Before the names of the headers: the producer's own come first, then the event's (CloudEvents Distributed Tracing).
_HEADER_PREFIXES = ("", "ce_")
# W3C Trace Context asks everybody to hand on values up to this length; longer ones are ignored.
_MAX_HEADER_BYTES = 512
# A receiver that is away does not hold up a stop: spans that it has not taken by then are lost.
CLOSE_TIMEOUT_S = 3.0
_LAST_STEP = "publish"

_w3c = TraceContextTextMapPropagator()


class OpenTelemetry(Tracing):
    """Traces that are recorded and sent from a thread of their own; spans not taken in time are dropped.

    Raises Misconfigured for OTEL_* variables that do not fit.
    """

    def __init__(self, kafka: KafkaSettings) -> None:
        self._kafka = kafka
        # They log each try to send, and each header of others that is malformed.
        for name in ("opentelemetry.exporter", "opentelemetry.sdk._shared_internal", "opentelemetry.trace"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        service = Resource({"service.name": "seenit", "service.version": version("seenit")})
        resource = service.merge(OTELResourceDetector().detect())
        try:
            self._processor = BatchSpanProcessor(_Exporter())
            sampled = TracerProvider(resource=resource, shutdown_on_exit=False)
            always = TracerProvider(ALWAYS_ON, resource, shutdown_on_exit=False)
        except (OSError, ValueError) as error:
            raise Misconfigured(f"tracing cannot be set up as the OTEL_* variables say: {error}") from None
        for provider in (sampled, always):
            provider.add_span_processor(self._processor)
        # The sampler decides for each upload; every span that belongs to a recorded upload is recorded too.
        self._upload_tracer, self._tracer = (provider.get_tracer("seenit") for provider in (sampled, always))

    def begin(self, items: Sequence[Traced]) -> Trace:
        """Continue the trace of each upload's producer, or begin one; return the trace of the batch."""
        recorded = []
        for item in items:
            item.trace = self._begin(item)
            if isinstance(item.trace, _UploadTrace):
                recorded.append(item)
        return _BatchTrace(self._tracer, self._kafka, recorded) if recorded else NO_TRACE

    @contextmanager
    def request(self, name: str, headers: Mapping[str, str]) -> Iterator[Trace]:
        """Continue the trace of a client, or begin one."""
        carrier = {name: headers.get(name, "")[:_MAX_HEADER_BYTES] for name in ("traceparent", "tracestate")}
        with self._upload_tracer.start_as_current_span(name, _w3c.extract(carrier), SpanKind.SERVER) as span:
            yield _UploadTrace(self._tracer, span, None) if span.is_recording() else NO_TRACE

    def close(self) -> None:
        """Send the remaining spans, for CLOSE_TIMEOUT_S at most."""
        closer = threading.Thread(target=self._processor.shutdown, daemon=True)
        closer.start()
        closer.join(CLOSE_TIMEOUT_S)

    def _begin(self, item: Traced) -> Trace:
        record = item.record
        message: dict[str, str | int] = {
            **_messaging("process", "process", record.topic, self._kafka),
            "messaging.destination.partition.id": str(record.partition),
            "messaging.kafka.offset": record.offset,
        }
        span = self._upload_tracer.start_span(
            f"process {record.topic}",
            _w3c.extract(_carrier(record)),
            SpanKind.CONSUMER,
            {**message, "seenit.image_id": item.event.image_id, "seenit.tenant": item.event.tenant},
        )
        if span.is_recording():
            topic = None if isinstance(item.event.body, ImageDeleted | Ignored) else self._kafka.output_topic
            return _UploadTrace(self._tracer, span, topic)
        return Trace(_headers(span))


class _UploadTrace(Trace):
    """The trace of a sampled upload, whose verdict goes to `verdict_topic`; None for a deletion, which has none."""

    def __init__(self, tracer: Tracer, span: Span, verdict_topic: str | None) -> None:
        self.span = span
        self._tracer = tracer
        self._context = set_span_in_context(span)
        self._verdict_topic = verdict_topic
        self._verdict_span: Span | None = None

    def headers(self) -> tuple[tuple[str, bytes], ...]:
        """Return the headers of the verdict, which are the same for each try to publish it."""
        if self._verdict_span is None and self._verdict_topic is not None:
            name, attributes = f"create {self._verdict_topic}", _messaging("create", "create", self._verdict_topic)
            self._verdict_span = self._tracer.start_span(name, self._context, SpanKind.PRODUCER, attributes)
        return () if self._verdict_span is None else _headers(self._verdict_span)

    def step(self, name: str) -> AbstractContextManager[object]:
        return self._tracer.start_as_current_span(name, self._context)

    def add_batch_step(self, name: str, began_ns: int, batch: SpanContext, problem: str = "") -> None:
        """Record a step of the whole batch, from `began_ns` to now; `batch` is the batch's span for it."""
        span = self._tracer.start_span(name, self._context, links=[Link(batch)], start_time=began_ns)
        _end(span, problem)

    def end(self, item: Traced, batch: SpanContext) -> None:
        """Record the published verdict and end the trace; `batch` is the batch's span for publishing."""
        decision, failure = item.decision, item.failure
        if failure is not None:
            self.span.set_attributes({"seenit.verdict": "unprocessable", "seenit.reason": failure.reason})
        elif decision is not None:
            self.span.set_attribute("seenit.verdict", decision.verdict)
            if decision.kind is not None and decision.match is not None:
                self.span.set_attribute("seenit.kind", decision.kind)
                self.span.set_attribute("seenit.match.image_id", decision.match.image_id)
                self.span.set_attribute("seenit.match.l2", decision.match.l2)
        if self._verdict_span is not None:
            self._verdict_span.add_link(batch)
            self._verdict_span.end()
        self.span.end()


class _BatchTrace(Trace):
    """The trace of a batch, for those of its uploads that are sampled."""

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
        self._step_context = self._span.get_span_context()
        for _, trace in self._uploads():
            trace.span.add_link(self._step_context)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        began_ns = time.time_ns()
        with self._tracer.start_as_current_span(name, self._context) as span:
            self._step_context = span.get_span_context()
            yield
        if name != _LAST_STEP:
            for _, trace in self._uploads():
                trace.add_batch_step(name, began_ns, self._step_context)
            return
        for _, trace in self._uploads():
            if trace.span.is_recording():
                _end(trace.span, "not published here: whoever has its partition next answers")
        self._span.end()

    def follow(self, name: str, work: Future[Any], view_range: range) -> None:
        began_ns = time.time_ns()
        span = self._tracer.start_span(name, self._context, SpanKind.CLIENT)

        def done(work: Future[Any]) -> None:
            error = None if work.cancelled() else work.exception()
            problem = "" if error is None else str(error)
            _end(span, problem)
            for item, trace in self._uploads():
                if max(item.view_range.start, view_range.start) < min(item.view_range.stop, view_range.stop):
                    trace.add_batch_step(name, began_ns, span.get_span_context(), problem)

        work.add_done_callback(done)

    def published(self, items: Sequence[Traced]) -> None:
        for item in items:
            if isinstance(item.trace, _UploadTrace):
                item.trace.end(item, self._step_context)

    def _uploads(self) -> Iterator[tuple[Traced, _UploadTrace]]:
        for item in self._items:
            if isinstance(item.trace, _UploadTrace):
                yield item, item.trace


class _Exporter(OTLPSpanExporter):
    """Sends spans, and logs once when the receiver is away and once when it is back."""

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
    """Return `traceparent` and `tracestate` of a message, both under the same of the possible prefixes.

    Of a header that is there several times, the last counts.
    """
    headers = {
        name.lower(): value.decode("ascii", "replace")
        for name, value in record.headers
        if value is not None and len(value) <= _MAX_HEADER_BYTES
    }
    for prefix in _HEADER_PREFIXES:
        if f"{prefix}traceparent" in headers:
            return {name: headers.get(prefix + name, "") for name in ("traceparent", "tracestate")}
    return {}


def _headers(span: Span) -> tuple[tuple[str, bytes], ...]:
    carrier: dict[str, str] = {}
    _w3c.inject(carrier, set_span_in_context(span))
    return tuple((name, value.encode()) for name, value in carrier.items())


def _end(span: Span, problem: str = "") -> None:
    if problem:
        span.set_status(StatusCode.ERROR, problem)
    span.end()
