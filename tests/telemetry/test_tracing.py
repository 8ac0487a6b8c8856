"""Traces, as a real OTLP receiver gets them from a consumer at work."""

import json
import os
import socket
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest as Request
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse as Response
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from consumer.local.pictures import photographs
from consumer.local.process import StartFailed
from tests.processes import free_ports, until
from tests.service_fixtures import Service, new_service

CAT = next(data for name, data in photographs() if name == "chelsea.png")
PRODUCER, PRODUCER_SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{PRODUCER}-{PRODUCER_SPAN}-01".encode()
STEPS = {"look_up", "decode", "encode", "infer", "match"}


class Receiver(TraceServiceServicer):
    """Keeps the spans that are sent to it."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.resource: dict[str, str] = {}

    def Export(self, request: Request, context: grpc.ServicerContext) -> Response:  # noqa: N802
        for sent in request.resource_spans:
            self.resource = {each.key: each.value.string_value for each in sent.resource.attributes}
            self.spans += [span for scope in sent.scope_spans for span in scope.spans]
        return Response()

    def await_upload(self, image_id: str) -> Span:
        """The span of the whole upload, once it is there; its children were sent before or with it."""
        until(lambda: self._of(image_id), 20, f"no span of {image_id!r}", 0.02)
        [span] = self._of(image_id)
        return span

    def children(self, parent: Span) -> dict[str, Span]:
        """The spans below this one, by name; they have to be of the same trace."""
        children = [each for each in self.spans if each.parent_span_id == parent.span_id]
        assert {each.trace_id for each in children} == {parent.trace_id}
        assert len({each.name for each in children}) == len(children)
        return {each.name: each for each in children}

    def linked(self, span: Span) -> list[Span]:
        """The spans that this one links to."""
        targets = {(link.trace_id, link.span_id) for link in span.links}
        spans = [each for each in self.spans if (each.trace_id, each.span_id) in targets]
        assert len(spans) == len(targets)
        return spans

    def _of(self, image_id: str) -> list[Span]:
        return [each for each in list(self.spans) if attributes(each).get("seenit.image_id") == image_id]


def attributes(span: Span) -> dict[str, object]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes}


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    new = Receiver()
    server = grpc.server(ThreadPoolExecutor(2))
    add_TraceServiceServicer_to_server(new, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{port}"
    yield new
    del os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"]
    server.stop(0).wait()


@pytest.fixture(scope="module")
def traced(
    receiver: Receiver, broker: str, redis_server: str, triton: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """A consumer that sends its traces; batches wait for what was sent together."""
    folder = tmp_path_factory.mktemp("traced")
    (folder / "cat.png").write_bytes(CAT)
    with new_service(broker, redis_server, triton, folder) as service:
        service.consumer(
            {
                "SEENIT_TRACING_ENABLED": "true",
                "SEENIT_FETCH_FOLDERS": json.dumps([str(folder)]),
                "SEENIT_PIPELINE_BATCH_WAIT_MS": "300",
                "SEENIT_LOG_FORMAT": "json",
                "OTEL_BSP_SCHEDULE_DELAY": "100",
                "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
            }
        )
        yield service


def picture(service: Service, image_id: str, headers: Mapping[str, bytes], data: bytes = CAT) -> None:
    service.send(data, image_id.encode(), {"content-type": b"image/jpeg", **headers})


def verdict_headers(service: Service, image_id: str) -> dict[str, bytes]:
    service.await_verdict(image_id)
    messages = service.messages(service.kafka.output_topic, len(service.verdicts))
    [message] = [each for each in messages if each.key() == image_id.encode()]
    return dict(message.headers() or ())  # type: ignore[arg-type]


def test_an_upload_is_one_trace_from_its_producer_to_its_verdict(traced: Service, receiver: Receiver) -> None:
    data = {"image_id": "by address", "tenant": "t", "url": f"file://{traced.folder}/cat.png"}
    event = {"specversion": "1.0", "id": "1", "source": "/test", "type": "image.uploaded", "data": data}
    kind = b"application/cloudevents+json"
    traced.send(json.dumps(event).encode(), None, {"content-type": kind, "traceparent": PARENT, "tracestate": b"a=b"})
    headers = verdict_headers(traced, "by address")
    upload = receiver.await_upload("by address")
    assert (upload.trace_id.hex(), upload.parent_span_id.hex()) == (PRODUCER, PRODUCER_SPAN)
    assert upload.kind == Span.SPAN_KIND_CONSUMER
    assert upload.name == f"process {traced.kafka.input_topic}"
    about = attributes(upload)
    assert about["messaging.system"] == "kafka"
    assert about["messaging.destination.name"] == traced.kafka.input_topic
    assert about["messaging.consumer.group.name"] == traced.kafka.group_id
    assert {about["messaging.destination.partition.id"], about["messaging.kafka.offset"]} <= {"0", "1", 0}
    assert (about["seenit.tenant"], about["seenit.verdict"]) == ("t", "unique")
    steps = receiver.children(upload)
    created = steps.pop(f"create {traced.kafka.output_topic}")
    assert set(steps) == {"fetch"} | STEPS
    assert created.kind == Span.SPAN_KIND_PRODUCER
    assert headers["traceparent"] == f"00-{PRODUCER}-{created.span_id.hex()}-01".encode()
    assert headers["tracestate"] == b"a=b"
    ends_ns = [steps[name].end_time_unix_nano for name in ("fetch", "look_up", "encode", "match")]
    assert ends_ns == sorted(ends_ns)
    assert all(upload.start_time_unix_nano <= each.start_time_unix_nano for each in steps.values())
    assert receiver.resource["service.name"] == "seenit"
    assert receiver.resource["deployment.environment.name"] == "test"


def test_uploads_and_their_batch_link_to_each_other(traced: Service, receiver: Receiver) -> None:
    names = ["together 1", "together 2", "together 3"]
    for name in names:
        picture(traced, name, {})
    for name in names:
        traced.await_verdict(name)
    uploads = [receiver.await_upload(name) for name in names]
    assert [each.parent_span_id for each in uploads] == [b""] * 3
    assert len({each.trace_id for each in uploads}) == 3
    batches = defaultdict(list)
    for upload in uploads:
        [link] = upload.links
        batches[link.span_id].append(upload)
    until(lambda: {each.span_id for each in receiver.spans} >= set(batches), 10, "no span of the batch")
    for span_id, members in batches.items():
        [batch] = [each for each in receiver.spans if each.span_id == span_id]
        assert {link.span_id for link in batch.links} == {upload.span_id for upload in members}
        assert attributes(batch)["messaging.batch.message_count"] == len(members)
        taken = receiver.children(batch)
        assert {"look_up", "encode", "match", "publish"} <= set(taken)
        for upload in members:
            steps = receiver.children(upload)
            assert receiver.linked(steps["match"]) == [taken["match"]]
            assert receiver.linked(steps[f"create {traced.kafka.output_topic}"]) == [taken["publish"]]
    assert any(len(members) > 1 for members in batches.values()), "nothing was batched"


@pytest.mark.parametrize(
    ("name", "headers", "goes_on"),
    [
        ("not one", {"traceparent": b"hello"}, False),
        ("all zeros", {"traceparent": b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01"}, False),
        ("capitals", {"traceparent": PARENT.upper()}, False),
        ("no text", {"traceparent": b"\xff\xfe\x00" + PARENT}, False),
        ("endless", {"traceparent": PARENT + b"-" * 100_000}, False),
        ("bad state", {"traceparent": PARENT, "tracestate": b"=,,=\xff;" * 50}, True),
        ("endless state", {"traceparent": PARENT, "tracestate": b"a=" + b"b" * 100_000}, True),
        ("of the event", {"ce_traceparent": PARENT, "traceparent": b""}, False),
        ("of the event alone", {"ce_traceparent": PARENT}, True),
    ],
)
def test_what_is_no_traceparent_begins_a_trace(
    traced: Service, receiver: Receiver, name: str, headers: dict[str, bytes], goes_on: bool
) -> None:
    if "ce_traceparent" in headers:
        data = json.dumps({"image_id": name, "data_base64": "AAAA"}).encode()
        event = {"ce_specversion": b"1.0", "ce_id": name.encode(), "ce_source": b"/t", "ce_type": b"image.uploaded"}
        traced.send(data, None, {**event, "content-type": b"application/json", **headers})
    else:
        picture(traced, name, headers)
    answer = verdict_headers(traced, name)
    upload = receiver.await_upload(name)
    assert (upload.trace_id.hex() == PRODUCER) is goes_on
    assert bool(upload.parent_span_id) is goes_on
    assert answer["traceparent"].decode().startswith(f"00-{upload.trace_id.hex()}-")
    assert "tracestate" not in answer


def test_a_producer_may_say_that_nothing_is_recorded(traced: Service, receiver: Receiver) -> None:
    silent = "4bf92f3577b34da6a3ce929d0e0e4736"
    picture(traced, "silent", {"traceparent": f"00-{silent}-{PRODUCER_SPAN}-00".encode()})
    answer = verdict_headers(traced, "silent")["traceparent"].decode()
    assert answer.startswith(f"00-{silent}-")
    assert answer.endswith("-00")
    picture(traced, "after it", {})
    receiver.await_upload("after it")
    assert silent not in {each.trace_id.hex() for each in receiver.spans}


def test_a_dead_letter_keeps_the_traceparent_that_came(traced: Service, receiver: Receiver) -> None:
    picture(traced, "junk", {"traceparent": PARENT, "tracestate": b"a=b"}, b"no picture")
    assert verdict_headers(traced, "junk")["traceparent"] != PARENT
    letters = traced.messages(traced.kafka.dead_letter_topic, sum(v.reason is not None for v in traced.verdicts))
    [letter] = [each for each in letters if each.key() == b"junk"]
    carried = [(name, value) for name, value in letter.headers() or () if name in ("traceparent", "tracestate")]
    assert carried == [("traceparent", PARENT), ("tracestate", b"a=b")]
    upload = receiver.await_upload("junk")
    assert attributes(upload)["seenit.verdict"] == "unprocessable"
    assert attributes(upload)["seenit.reason"] == "not-an-image"
    decoding = receiver.children(upload)["decode"]
    assert decoding.status.code == Status.STATUS_CODE_ERROR
    assert "not-an-image" in decoding.status.message


def test_a_name_that_is_no_unicode_is_sent_too(traced: Service, receiver: Receiver) -> None:
    data = {"image_id": "half \ud800", "data_base64": "AAAA"}
    event = {"specversion": "1.0", "id": "half", "source": "/test", "type": "image.uploaded", "data": data}
    traced.send(json.dumps(event).encode(), None, {"content-type": b"application/cloudevents+json"})
    receiver.await_upload("half \\ud800")


@pytest.mark.parametrize("listening", [False, True], ids=["nobody listens", "nobody answers"])
def test_a_receiver_that_is_away_holds_up_nothing(service: Service, listening: bool) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen() if listening else None
        port = silent.getsockname()[1] if listening else free_ports(1)[0]
        consumer = service.consumer(
            {
                "SEENIT_TRACING_ENABLED": "true",
                "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
                "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
                "OTEL_BSP_SCHEDULE_DELAY": "50",
                "OTEL_BSP_MAX_QUEUE_SIZE": "64",
                "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "16",
                "SEENIT_LOG_FORMAT": "json",
            }
        )
        for number in range(300):
            picture(service, f"copy {number}", {"traceparent": PARENT})
        service.await_verdicts(300)
        assert len({each.image_id for each in service.verdicts}) == 300
        until(lambda: "traces are lost" in consumer.log.read_text(), 20, "no warning in the log")
        began_s = time.monotonic()
        consumer.stop(timeout_s=30)
        assert time.monotonic() - began_s < 15
    lines = [json.loads(line) for line in consumer.log.read_text().splitlines() if line.startswith('{"time"')]
    problems = [line for line in lines if line["level"] not in ("info", "debug")]
    assert [line["logger"] for line in problems] == ["consumer.telemetry.otel"]
    assert "Traceback" not in consumer.log.read_text()


@pytest.fixture
def without_the_package(tmp_path: Path) -> dict[str, str]:
    """Variables of a Python that does not have OpenTelemetry."""
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['opentelemetry'] = None\n")
    return {"PYTHONPATH": str(tmp_path)}


def test_the_service_needs_the_package_only_to_trace(service: Service, without_the_package: dict[str, str]) -> None:
    service.consumer(without_the_package)
    picture(service, "untraced", {"traceparent": PARENT}, b"no picture")
    assert "traceparent" not in verdict_headers(service, "untraced")
    with pytest.raises(StartFailed) as failed:
        service.consumer({**without_the_package, "SEENIT_TRACING_ENABLED": "true"})
    assert "status 1" in str(failed.value)
    assert "seenit: SEENIT_TRACING_ENABLED is set, but OpenTelemetry is not installed" in str(failed.value)
    assert "Traceback" not in str(failed.value)


def test_a_variable_that_does_not_fit_is_told(service: Service) -> None:
    with pytest.raises(StartFailed, match="tracing cannot be set up as the OTEL_\\* variables say"):
        service.consumer({"SEENIT_TRACING_ENABLED": "true", "OTEL_EXPORTER_OTLP_TIMEOUT": "soon"})
