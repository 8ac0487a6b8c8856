"""A store of thumbnails (moto, over HTTP): pictures are seen whose address has expired, until they are deleted."""

import json
import threading
from collections.abc import Iterator
from contextlib import closing
from unittest.mock import Mock

import boto3
import httpx
import pytest
from moto.server import ThreadedMotoServer

from consumer.cli.preflight.access import check_thumbnails
from consumer.errors import Misconfigured, Unavailable
from consumer.http.thumbnails import ThumbnailStore, ThumbnailWriter
from consumer.local.process import free_ports
from consumer.sections import ServeSettings
from consumer.settings import FetchSettings, Settings
from tests.http.conftest import serve
from tests.http.pictures import PHOTO, jpeg
from tests.processes import until
from tests.service_fixtures import Service, new_service
from tests.web import answer
from tests.web import serve as serve_pictures

BUCKET, SECRET = "thumbnails", "test"


class Bucket:
    """A store that begins to answer when it is told to."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
        self.is_there = False

    def start(self) -> None:
        if self.is_there:
            return
        self.server.start()
        self.is_there = True
        with closing(self.client()) as client:
            client.create_bucket(Bucket=BUCKET)

    def names(self) -> list[str]:
        with closing(self.client()) as client:
            return [each["Key"] for each in client.list_objects_v2(Bucket=BUCKET).get("Contents", [])]

    def client(self):  # type: ignore[no-untyped-def]  # boto3 makes its classes at run time
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=SECRET,
            aws_secret_access_key=SECRET,
            region_name="us-east-1",
        )


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    new = Bucket(*free_ports(1))
    yield new
    if new.is_there:
        new.server.stop()


@pytest.fixture(scope="module")
def uploads(broker: str, redis_server: str, triton: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with a consumer, which fetches from this machine."""
    settings = {"SEENIT_FETCH_SCHEMES": '["http"]', "SEENIT_FETCH_NETWORKS": '["127.0.0.0/8"]'}
    with new_service(broker, redis_server, triton, tmp_path_factory.mktemp("consumer"), **settings) as service:
        service.consumer()
        yield service


@pytest.fixture(scope="module")
def page(uploads: Service, bucket: Bucket, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A page with that store, which is not there yet."""
    settings = {
        "SEENIT_SERVE_THUMBNAILS": f"s3://{BUCKET}/of/pages",
        "SEENIT_FETCH_S3_ENDPOINT": bucket.url,
        "AWS_ACCESS_KEY_ID": SECRET,
        "AWS_SECRET_ACCESS_KEY": SECRET,
    }
    with serve(uploads.environment, tmp_path_factory.mktemp("page"), **settings) as client:
        yield client


def upload(service: Service, image_id: str, url: str) -> None:
    event = {"specversion": "1.0", "id": image_id, "source": "/test", "type": "image.uploaded"}
    service.send(json.dumps({**event, "data": {"image_id": image_id, "url": url}}).encode(), image_id.encode())


def test_a_picture_whose_address_has_expired_is_seen_until_it_is_deleted(
    uploads: Service, page: httpx.Client, bucket: Bucket
) -> None:
    with serve_pictures(lambda _, connection: answer(connection, jpeg(PHOTO))) as site:
        uploads.picture("no picture", b"no picture")
        upload(uploads, "expires", site.url("/signed?until=now"))
        assert uploads.await_verdict("expires").verdict == "unique"
        bucket.start()
        until(lambda: len(bucket.names()) == 1, 60, "there is no thumbnail")
    shown = page.get("/pictures", params={"image_id": "expires"})
    assert (shown.status_code, shown.headers["content-type"]) == (200, "image/jpeg")
    [name] = bucket.names()
    assert name.startswith("of/pages/")
    with closing(bucket.client()) as client:
        assert client.get_object(Bucket=BUCKET, Key=name)["Body"].read() == shown.content
    assert page.get("/pictures", params={"image_id": "no picture"}).status_code == 404
    assert page.delete("/v1/images/expires").status_code == 202
    until(lambda: bucket.names() == [], 60, "the thumbnail of a deleted picture is still there")
    assert page.get("/pictures", params={"image_id": "expires"}).status_code == 404


def settings(bucket: Bucket, monkeypatch: pytest.MonkeyPatch, address: str) -> Settings:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, SECRET)
    return Settings(serve=ServeSettings(thumbnails=address), fetch=FetchSettings(s3_endpoint=bucket.url))


def store(bucket: Bucket, monkeypatch: pytest.MonkeyPatch, address: str) -> ThumbnailStore:
    return ThumbnailStore(settings(bucket, monkeypatch, address))


def test_versions_of_an_object_are_deleted_with_it(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.start()
    kept = store(bucket, monkeypatch, f"s3://{BUCKET}")
    names = ("s3://a/b", "s3://a/b?versionId=1", "s3://a/b?versionId=2", "s3://a/b2", "../s3://a/b ä")
    for number, name in enumerate(names):
        kept.put("shop", name, b"%d" % number)
        assert kept.get("other", name) is None
    kept.delete("shop", "s3://a/b?versionId=2")
    assert [kept.get("shop", name) for name in names] == [b"0", b"1", None, b"3", b"4"]
    kept.delete("shop", "s3://a/b")
    assert [kept.get("shop", name) for name in names] == [None, None, None, b"3", b"4"]
    kept.delete("shop", "s3://a/b")


def test_a_store_that_cannot_be_asked_is_away_and_a_wrong_address_is_said(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.start()
    for address, outcome in ((f"s3://{BUCKET}", "ok"), ("s3://no-such-bucket", "failed"), ("no address", "failed")):
        assert [finding.outcome for finding in check_thumbnails(settings(bucket, monkeypatch, address))] == [outcome]
    missing = store(bucket, monkeypatch, "s3://no-such-bucket")
    with pytest.raises(Unavailable, match="object-store"):
        missing.put("shop", "a", b"jpeg")
    for address in ("thumbnails", "s3://", "gs://thumbnails"):
        with pytest.raises(Misconfigured, match="SEENIT_SERVE_THUMBNAILS"):
            store(bucket, monkeypatch, address)


def test_a_fault_of_the_writer_ends_nothing_and_is_tried_again(
    uploads: Service, bucket: Bucket, page: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    configured = settings(bucket, monkeypatch, f"s3://{BUCKET}")
    configured = configured.model_copy(update={"kafka": uploads.kafka.model_copy(update={"group_id": "faulty"})})
    shown, stop = Mock(), threading.Event()
    shown.jpeg.side_effect = [RuntimeError("nobody expected this"), *[b"jpeg"] * 10]
    kept = ThumbnailStore(configured)
    worker = threading.Thread(target=ThumbnailWriter(configured, kept, shown).run, args=(stop,))
    worker.start()
    uploads.picture("after a fault", jpeg(PHOTO))
    until(lambda: kept.get("default", "after a fault") == b"jpeg", 60, "the writer has given up")
    stop.set()
    worker.join(30)
    assert shown.jpeg.call_count > 1
