"""A store of thumbnails, so that people see pictures whose address has expired: written as uploads come, in S3.

Each `seenit serve` is a member of a group of its own that reads the input topic: the consumers' throughput does not
depend on it. A deletion removes what it follows on its partition. How long thumbnails are kept is for a rule of the
bucket to say; it also removes what a process wrote that stood still while its partition went to another one.
"""

import json
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from hashlib import sha256
from typing import Any

import obstore
from confluent_kafka import TopicPartition
from obstore.exceptions import BaseError
from obstore.store import S3Store

from consumer.errors import Misconfigured, Unavailable, Unprocessable
from consumer.events import ImageDeleted, ImageUpload
from consumer.http.shown import CHILDREN, ShownPictures
from consumer.kafka.consumer import UploadsConsumer
from consumer.kafka.leases import Leased
from consumer.kafka.member_loop import MemberLoop
from consumer.parse import parse
from consumer.settings import Settings

log = logging.getLogger(__name__)

TIMEOUT_S = 5.0
# Few, since the group hears nothing of a member while it works on them, and one picture may take a minute.
_BATCH, _POLL_S = 4, 0.5


class ThumbnailStore:
    """Small JPEGs by tenant and image id. Thread-safe. Every method raises Unavailable("object-store", ...)."""

    def __init__(self, settings: Settings) -> None:
        """Raises Misconfigured for what is no address of a bucket."""
        address = settings.serve.thumbnails
        bucket, _, folder = address.removeprefix("s3://").partition("/")
        if not address.startswith("s3://") or not bucket:
            raise Misconfigured("SEENIT_SERVE_THUMBNAILS has to be s3://BUCKET or s3://BUCKET/FOLDER")
        options: dict[str, Any] = {"region": settings.fetch.s3_region}
        if settings.fetch.s3_endpoint:
            options["endpoint"] = settings.fetch.s3_endpoint
        timeout = timedelta(seconds=TIMEOUT_S)
        self._store = S3Store(
            bucket,
            prefix=folder.strip("/") or None,
            client_options={"timeout": timeout, "connect_timeout": timeout, "allow_http": True},
            retry_config={"max_retries": 2, "retry_timeout": timeout},
            **options,
        )

    def put(self, tenant: str, image_id: str, jpeg: bytes) -> None:
        """Keep the thumbnail of a picture, in place of an earlier one."""
        with _failures():
            obstore.put(self._store, _name(tenant, image_id), jpeg, attributes={"Content-Type": "image/jpeg"})

    def get(self, tenant: str, image_id: str) -> bytes | None:
        """Get a thumbnail; None if there is none, or not any more."""
        with _failures():
            try:
                return bytes(obstore.get(self._store, _name(tenant, image_id)).bytes())
            except FileNotFoundError:
                return None

    def delete(self, tenant: str, image_id: str) -> None:
        """Delete the thumbnail of a picture, and those of the versions of an object: `image_id?versionId=version`."""
        with _failures():
            names = [_name(tenant, image_id)]
            if "?versionId=" not in image_id:
                listed = obstore.list(self._store, _folder(tenant, image_id)).collect()
                names = [each["path"] for each in listed]
            if names:
                obstore.delete(self._store, names)


class ThumbnailWriter:
    """Fills the store as uploads and deletions come, until `run` is told to stop."""

    def __init__(self, settings: Settings, store: ThumbnailStore, shown: ShownPictures) -> None:
        group = f"{settings.kafka.group_id}-thumbnails"
        self._settings = settings.kafka.model_copy(update={"group_id": group})
        self._store = store
        self._shown = shown

    def run(self, stop: threading.Event) -> None:
        """Read uploads and deletions. Raises Misconfigured when the brokers refuse this member for good."""
        with ExitStack() as stack:
            pool = stack.enter_context(ThreadPoolExecutor(CHILDREN, "thumbnails"))
            # Nothing is in flight while the client is polled, which is when partitions are taken away.
            consumer = UploadsConsumer(self._settings, lambda: None)
            stack.callback(consumer.close)
            leased: list[Leased] = []

            def step() -> None:
                nonlocal leased
                leased = leased or consumer.poll(_BATCH, _POLL_S, 0.0)
                self._take_in([each for each in leased if consumer.holds(each[1])], consumer, pool)
                leased = []

            MemberLoop("thumbnails wait").run(step, consumer, stop)

    def _take_in(self, leased: list[Leased], consumer: UploadsConsumer, pool: ThreadPoolExecutor) -> None:
        """Do what these records say, of each picture the last one, and commit them."""
        last: dict[tuple[str, str], ImageUpload | ImageDeleted] = {}
        for record, _ in leased:
            for event in parse(record):
                if isinstance(event.body, ImageUpload | ImageDeleted):
                    last.pop((event.body.tenant, event.body.image_id), None)
                    last[event.body.tenant, event.body.image_id] = event.body
        deletes = any(isinstance(body, ImageDeleted) for body in last.values())
        # A deletion may be of all versions of an object: nothing overtakes it.
        list((map if deletes else pool.map)(self._apply, last.values()))
        if leased:
            offsets = {record.partition: record.offset + 1 for record, _ in leased}
            consumer.commit([TopicPartition(consumer.topic, *position) for position in offsets.items()])

    def _apply(self, body: ImageUpload | ImageDeleted) -> None:
        if isinstance(body, ImageDeleted):
            self._store.delete(body.tenant, body.image_id)
            return
        try:
            jpeg = self._shown.jpeg(body)
        except Unprocessable as error:
            log.debug("no thumbnail: %s", error, extra={"image_id": body.image_id, "tenant": body.tenant})
            return
        self._store.put(body.tenant, body.image_id, jpeg)


def _folder(tenant: str, image_id: str) -> str:
    """The folder of a picture, or of all versions of an object. Image ids have any characters; names of objects not."""
    return _hash(tenant, image_id.partition("?versionId=")[0])


def _name(tenant: str, image_id: str) -> str:
    return f"{_folder(tenant, image_id)}/{_hash(image_id)}.jpg"


def _hash(*words: str) -> str:
    return sha256(json.dumps(words).encode()).hexdigest()


@contextmanager
def _failures() -> Iterator[None]:
    """Raise Unavailable for whatever the store says that is not about one object."""
    try:
        yield
    except FileNotFoundError as error:
        raise Unavailable("object-store", "SEENIT_SERVE_THUMBNAILS names a bucket that is not there") from error
    except BaseError as error:
        # Not the whole answer, which may name keys and what was signed.
        raise Unavailable("object-store", f"SEENIT_SERVE_THUMBNAILS: {str(error).partition(': <')[0][:200]}") from None
