"""The service on real servers: each upload gets one right verdict, whatever its neighbours are."""

import json
import socket
import threading
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from urllib.request import urlopen

import boto3
import numpy as np
import pytest
from jsonschema import Draft202012Validator
from moto.server import ThreadedMotoServer

from consumer.kafka.lag import LagReader
from consumer.local.pictures import edited, photographs
from consumer.local.process import Server
from deploy.reference import schemas
from tests.pictures import noise
from tests.processes import until
from tests.service_fixtures import PARTITIONS, Service, new_service
from tests.web import serve

PHOTOGRAPHS = dict(photographs())
CAT, CHINA = PHOTOGRAPHS["chelsea.png"], PHOTOGRAPHS["china.jpg"]


@pytest.fixture(scope="module")
def running(
    broker: str, redis_server: str, triton: str, s3: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """A service with one consumer, for the tests that do not hurt it."""
    folder = tmp_path_factory.mktemp("service")
    pictures = folder / "pictures"
    pictures.mkdir()
    (pictures / "cat.png").write_bytes(CAT)
    settings = {
        "SEENIT_FETCH_FOLDERS": json.dumps([str(pictures)]),
        "SEENIT_FETCH_S3_ENDPOINT": s3,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }
    with new_service(broker, redis_server, triton, folder, **settings) as service:
        consumer = service.consumer()
        yield service
        consumer.stop()


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """An S3-compatible store with a picture in it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    client = boto3.client(
        "s3", endpoint_url=url, aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1"
    )
    client.create_bucket(Bucket="pics")
    client.put_object(Bucket="pics", Key="ein Ordner/Katze ä+.png", Body=CAT)
    client.create_bucket(Bucket="versioned")
    client.put_bucket_versioning(Bucket="versioned", VersioningConfiguration={"Status": "Enabled"})
    client.close()
    yield url
    server.stop()


def upload(service: Service, image_id: str, tenant: str = "default", **data: object) -> None:
    cloud_event = {
        "specversion": "1.0",
        "id": image_id,
        "source": "/test",
        "type": "image.uploaded",
        "data": {"image_id": image_id, "tenant": tenant, **data},
    }
    service.send(json.dumps(cloud_event).encode(), None, {"content-type": b"application/cloudevents+json"})


def test_exact_and_near_copies_are_told_from_others(running: Service) -> None:
    running.picture("cat", CAT)
    assert running.await_verdict("cat").verdict == "unique"
    running.picture("same cat", CAT)
    running.picture("re-compressed cat", edited(CAT, "re-compressed", np.random.default_rng(0)))
    running.picture("pagoda", CHINA)
    same, again, pagoda = (running.await_verdict(name) for name in ("same cat", "re-compressed cat", "pagoda"))
    assert (same.kind, same.match and same.match.image_id, same.match and same.match.l2) == ("exact", "cat", 0.0)
    assert (again.kind, again.match and again.match.image_id) == ("near", "cat")
    assert again.match is not None
    assert 0 < again.match.l2 <= again.threshold_l2
    assert pagoda.verdict == "unique"


def test_tenants_are_apart(running: Service) -> None:
    upload(running, "a", "tenant {1}", url=f"file://{running.folder}/pictures/cat.png")
    upload(running, "b", "tenant {2}", url=f"file://{running.folder}/pictures/cat.png")
    assert {running.await_verdict(name).verdict for name in "ab"} == {"unique"}


def test_a_repeated_upload_gets_the_same_verdict_and_never_matches_itself(running: Service) -> None:
    for _ in range(2):
        running.picture("repeated", PHOTOGRAPHS["coffee.png"])
    verdicts = running.await_verdicts(lambda verdicts: sum(each.image_id == "repeated" for each in verdicts) == 2)
    assert [each.verdict for each in verdicts if each.image_id == "repeated"] == ["unique", "unique"]


def test_a_bucket_notification_gets_a_verdict(running: Service) -> None:
    notification = {
        "EventName": "s3:ObjectCreated:Put",
        "Key": "pics/ein Ordner/Katze ä+.png",
        "Records": [
            {
                "eventVersion": "2.0",
                "eventSource": "minio:s3",
                "awsRegion": "",
                "eventTime": datetime.now(UTC).isoformat(),
                "eventName": "s3:ObjectCreated:Put",
                "s3": {
                    "bucket": {"name": "pics", "arn": "arn:aws:s3:::pics"},
                    "object": {"key": "ein+Ordner%2FKatze+%C3%A4%2B.png", "size": len(CAT), "sequencer": "17A"},
                },
            }
        ],
    }
    running.send(json.dumps(notification).encode(), b"pics/ein Ordner/Katze")
    verdict = running.await_verdict("s3://pics/ein Ordner/Katze ä+.png")
    assert verdict.verdict in {"unique", "duplicate"}, verdict.reason


def notify(service: Service, name: str, key: str, version: str, sequencer: str) -> None:
    stored_object = {"key": key, "versionId": version, "sequencer": sequencer}
    entry = {"eventName": name, "eventTime": datetime.now(UTC).isoformat()}
    entry |= {"s3": {"bucket": {"name": "versioned"}, "object": stored_object}}
    service.send(json.dumps({"EventName": name, "Records": [entry]}).encode(), key.encode())


def test_the_version_that_a_notification_names_is_judged_and_forgotten(running: Service, s3: str) -> None:
    """Both versions are there before the first notification is read; then the older one is removed."""
    one, other = noise(np.random.default_rng(71)), noise(np.random.default_rng(72))
    client = boto3.client(
        "s3", endpoint_url=s3, aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1"
    )
    versions = [client.put_object(Bucket="versioned", Key="a.jpg", Body=body)["VersionId"] for body in (one, other)]
    client.close()
    names = [f"s3://versioned/a.jpg?versionId={version}" for version in versions]

    def copies(tag: str) -> list[str | None]:
        """What copies of both are copies of; the partition is that of the notifications, which come first."""
        for number, body in enumerate((one, other)):
            cloud_event = {"specversion": "1.0", "id": f"{tag}{number}", "source": "/test", "type": "image.uploaded"}
            data = {"image_id": f"{tag}{number}", "tenant": "default", "data_base64": b64encode(body).decode()}
            running.send(json.dumps({**cloud_event, "data": data}).encode(), b"a.jpg")
        verdicts = [running.await_verdict(f"{tag}{number}") for number in range(2)]
        return [verdict.match and verdict.match.image_id for verdict in verdicts]

    for number, version in enumerate(versions):
        notify(running, "s3:ObjectCreated:Put", "a.jpg", version, str(number))
    assert [running.await_verdict(name).verdict for name in names] == ["unique", "unique"]
    assert copies("copy") == names
    notify(running, "s3:ObjectRemoved:Delete", "a.jpg", versions[0], "3")
    assert copies("later copy")[1] == names[1]
    assert names[0] not in copies("last copy")
    notify(running, "s3:ObjectRemoved:DeleteMarkerCreated", "a.jpg", "of the marker", "4")
    assert names[1] not in copies("very last copy")


def test_what_asks_for_nothing_is_committed_in_silence(running: Service) -> None:
    test_event = {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "pics"}
    running.await_verdicts(0)
    for _ in range(20):
        running.send(json.dumps(test_event).encode())
    before = len(running.await_verdicts(0))
    reader = LagReader(running.kafka)
    until(lambda: sum(reader.ask(range(PARTITIONS)).values()) == 0, 30, "the offsets are not committed")
    running.picture("after silence", noise(np.random.default_rng(73)))
    running.await_verdict("after silence")
    assert len(running.verdicts) == before + 1


def test_a_deleted_picture_is_no_match_any_more(running: Service) -> None:
    rocket = PHOTOGRAPHS["rocket.jpg"]
    running.picture("rocket", rocket)
    running.await_verdict("rocket")
    event = {
        "specversion": "1.0",
        "id": "d",
        "source": "/test",
        "type": "image.deleted",
        "data": {"image_id": "rocket"},
    }
    running.send(json.dumps(event).encode(), b"rocket", {"content-type": b"application/cloudevents+json"})
    # The same key, so the same partition: after the deletion, in the same batch or a later one.
    data = {"image_id": "rocket again", "data_base64": b64encode(rocket).decode()}
    again = {"specversion": "1.0", "id": "again", "source": "/test", "type": "image.uploaded", "data": data}
    running.send(json.dumps(again).encode(), b"rocket", {"content-type": b"application/cloudevents+json"})
    assert running.await_verdict("rocket again").verdict == "unique"


def test_bad_uploads_end_with_a_reason_and_leave_their_neighbours_alone(running: Service) -> None:
    before = len(running.verdicts)
    bad = {
        "no json": (b"{", "malformed-event"),
        "no picture": (b"plain text, really", "not-an-image"),
        "half a picture": (CHINA[: len(CHINA) // 2], "broken-image"),
        "Ünïcødé 🐈 \x00 name": (b"GIF89a", "broken-image"),
    }
    for name, (value, _) in bad.items():
        running.send(value, name.encode(), {} if name == "no json" else {"content-type": b"image/jpeg"})
    upload(running, "forbidden", url="http://169.254.169.254/latest/meta-data")
    upload(running, "elsewhere", url="file:///etc/passwd")
    upload(running, "nowhere", url=f"file://{running.folder}/pictures/none.png")
    running.picture("good neighbour", PHOTOGRAPHS["astronaut.png"])
    expected = {name: reason for name, (_, reason) in bad.items()} | {
        "forbidden": "forbidden-address",
        "elsewhere": "forbidden-address",
        "nowhere": "not-found",
    }
    verdicts = {each.image_id: each for each in running.await_verdicts(before + len(expected) + 1)[before:]}
    assert verdicts["good neighbour"].verdict == "unique"
    for name, reason in expected.items():
        assert verdicts[name].verdict == "unprocessable"
        assert (verdicts[name].reason or "").startswith(f"{reason}: "), verdicts[name].reason
    letters = {message.key(): message for message in running.dead_letters(len(expected))}
    half = letters[b"half a picture"]
    assert half.value() == CHINA[: len(CHINA) // 2]
    headers = dict(half.headers() or ())
    assert headers["content-type"] == b"image/jpeg"
    assert headers["seenit-reason"] == b"broken-image"
    assert headers["seenit-topic"] == running.kafka.input_topic.encode()


def test_published_verdicts_fit_the_published_schema(running: Service) -> None:
    validator = Draft202012Validator(json.loads(schemas()["image.verdict.schema.json"]))
    running.picture("for the schema", CAT)
    running.await_verdict("for the schema")
    for published in running.published:
        validator.validate(json.loads(published.value))


def kill(consumer: Server) -> None:
    consumer.stop(0)


def test_kill_in_mid_flow_leaves_every_upload_with_a_verdict(service: Service) -> None:
    count, random = 500, np.random.default_rng(1)
    pictures = [noise(random) for _ in range(count)]
    for number, data in enumerate(pictures):
        service.picture(f"picture {number}", data)
    consumer = service.consumer()
    service.await_verdicts(count // 10)
    kill(consumer)
    before_kill = len(service.verdicts)
    assert before_kill < count, "the kill came too late to be in mid-flow"
    successor = service.consumer()
    names = {f"picture {number}" for number in range(count)}
    verdicts = service.await_verdicts(lambda verdicts: {each.image_id for each in verdicts} == names)
    successor.stop()
    assert all(each.match is None or each.match.image_id != each.image_id for each in verdicts)
    assert all(each.verdict != "unprocessable" for each in verdicts)
    # A verdict that is repeated after the crash is the same as before it.
    answers = Counter((each.image_id, each.verdict, each.match and each.match.image_id) for each in verdicts)
    assert len(answers) == count


def test_a_stop_is_graceful(service: Service) -> None:
    consumer = service.consumer()
    with urlopen(f"http://127.0.0.1:{consumer.ports[0]}/livez") as reply:
        assert json.load(reply) == {"ok": True, "problems": {}}
    service.picture("last", CAT)
    service.await_verdict("last")
    consumer.stop()
    log = consumer.tail(50)
    assert "SIGTERM: stopping" in log
    assert "Traceback" not in log


def test_a_stop_waits_for_nobody_who_does_not_answer(service: Service) -> None:
    answering = threading.Event()

    def never(path: str, connection: socket.socket) -> None:
        answering.wait()

    with serve(never) as server:
        consumer = service.consumer(
            {
                "SEENIT_FETCH_SCHEMES": '["http"]',
                "SEENIT_FETCH_NETWORKS": '["127.0.0.1/32"]',
                "SEENIT_FETCH_CONCURRENCY": "2",
                "SEENIT_FETCH_TIMEOUT_S": "60",
                "SEENIT_PIPELINE_SHUTDOWN_TIMEOUT_S": "1",
            }
        )
        for number in range(10):
            data = {"image_id": f"picture {number}", "url": server.url()}
            event = {"specversion": "1.0", "id": str(number), "source": "test", "type": "image.uploaded", "data": data}
            service.send(json.dumps(event).encode())
        until(lambda: len(server.requests) == 2, 30, "nothing was fetched")
        began_s = time.monotonic()
        consumer.stop(30)
        assert time.monotonic() - began_s < 10
        answering.set()
    log = consumer.tail(50)
    assert "they stay uncommitted" in log
    assert "Traceback" not in log
    assert "its session will time out" not in log
