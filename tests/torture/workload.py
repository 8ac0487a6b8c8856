"""The workload: thousands of pictures, with copies planted near each other in time, and their right outcomes."""

import base64
import hashlib
import json
import random
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

import numpy as np
from confluent_kafka import KafkaError, Producer
from confluent_kafka import Message as SentMessage

from tests.torture import pictures
from tests.torture.store import ObjectStore

TENANTS = ("default", "north", "süd/{1}")
SOURCE = "/torture"
FLUSH_TIMEOUT_S = 120.0

Outcome = Literal["decided", "unprocessable", "none"]
Destination = Literal["uploads", "feedback", "banks"]

# Banks of all tenants, by kind; what is in `allowed` silences `banned`, and the last one is off.
BANKS: dict[str, dict[str, object]] = {
    "banned": {"kind": "block"},
    "watched": {"kind": "review"},
    "allowed": {"kind": "allow", "silences": ["banned"]},
    "off": {"kind": "block", "enabled": False},
}


@dataclass(frozen=True)
class Planted:
    """One image of the workload.

    Images of the same tenant and the same `picture` are copies of each other; those with the same `content`, a SHA-256,
    are copies byte by byte.
    """

    image_id: str
    tenant: str
    picture: int
    content: str
    outcome: Outcome
    uploaded_at: datetime | None = None
    deleted: bool = False  # by a later message of the same partition
    judged: bool = False  # people decide about it and its only copy, so that what it matches may change
    banked: bool = False  # entries of banks are of its picture


@dataclass(frozen=True)
class PlantedEntry:
    """An entry of a bank: a copy of a picture of the workload, which is `removed` after a while or stays."""

    bank: str
    entry_id: str
    picture: int
    removed: bool


@dataclass(frozen=True)
class Message:
    """A message to be sent to the input topic, or to another one."""

    image_id: str
    partition: int
    key: bytes
    value: bytes | None
    headers: list[tuple[str, str | bytes | None]] = field(default_factory=list)
    to: Destination = "uploads"


@dataclass
class Workload:
    """All messages in the order of sending, the images they hold by id, and when each image was first sent."""

    messages: list[Message]
    planted: dict[str, Planted]
    entries: list[PlantedEntry] = field(default_factory=list)
    sent_at_s: dict[str, float] = field(default_factory=dict)

    def once_more(self) -> "Workload":
        """The uploads that people decided about or that banks have, to be sent again when nothing is on its way."""
        chosen = {name for name, planted in self.planted.items() if planted.judged or planted.banked}
        messages = [each for each in self.messages if each.image_id in chosen and each.to == "uploads"]
        return Workload(messages, self.planted, self.entries, self.sent_at_s)


def plan(seed: int, uploads: int, partitions: int, store: ObjectStore) -> Workload:
    """Plan the workload of a seed: about `uploads` messages. Pictures that are to be fetched are put into `store`."""
    return _Planner(seed, uploads, partitions, store).plan()


class _Planner:
    """Draws the messages. Their times, `due`, are numbers of messages: at r a second, n is n / r s from the start."""

    def __init__(self, seed: int, uploads: int, partitions: int, store: ObjectStore) -> None:
        self.random = random.Random(seed)
        self.noise = np.random.default_rng(seed)
        self.seed = seed
        self.uploads = uploads
        self.partitions = partitions
        self.store = store
        self.planted: dict[str, Planted] = {}
        self.entries: list[PlantedEntry] = []
        self.scheduled: list[tuple[float, Message]] = []
        self.vectors: list[tuple[int, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]] = []
        self.picture_count = 0

    def plan(self) -> Workload:
        for bank, definition in BANKS.items():
            self._change_bank(-1, ["bank", None, bank], "bank.defined", {"bank": bank, **definition})
        while len(self.scheduled) < self.uploads:
            due = self.random.uniform(0, self.uploads)
            add = self.random.choices(
                (
                    self._single,
                    self._copies,
                    self._across_tenants,
                    self._deletion,
                    self._broken,
                    self._judged,
                    self._banked,
                ),
                (50, 40, 3, 2, 5, 2, 4),
            )[0]
            add(due)
        self._check_distances()
        messages = [message for _, message in sorted(self.scheduled, key=lambda pair: pair[0])]
        return Workload(messages, self.planted, self.entries)

    def _single(self, due: float) -> None:
        """Add a picture without copies."""
        self._upload(due, self._partition(), *self._new_picture())

    def _copies(self, due: float) -> None:
        """Add copies close together, on whatever partitions; some exact, some near, some a while later."""
        number, pixels = self._new_picture()
        files = [pictures.jpeg(pixels)]
        tenant = self.random.choice(TENANTS)
        for _ in range(self.random.choice((2, 2, 2, 3, 4, 6))):
            if self.random.random() < 0.6:
                files.append(pictures.jpeg(pictures.variant(pixels, self.noise), self.random.choice((70, 85, 95))))
            later = self.random.choice((0.5, 2, 8, 200))
            data = self.random.choice(files)
            self._upload(due + self.random.uniform(0, later), self._partition(), number, pixels, tenant, data)

    def _across_tenants(self, due: float) -> None:
        """Add the same bytes for every tenant: these are no copies of each other."""
        number, pixels = self._new_picture()
        data = pictures.jpeg(pixels)
        for tenant in TENANTS:
            self._upload(due, self._partition(), number, pixels, tenant, data)

    def _deletion(self, due: float) -> None:
        """Add a picture, its deletion, and a copy of it, in this order on one partition."""
        number, pixels = self._new_picture()
        partition, tenant = self._partition(), self.random.choice(TENANTS)
        first = self._upload(due, partition, number, pixels, tenant, deleted=True)
        identity = f"delete-{first}"
        data = {"image_id": first, "tenant": tenant}
        headers = _binary_headers("image.deleted", identity)
        self._schedule(due + 2, Message(identity, partition, first.encode(), json.dumps(data).encode(), headers))
        # Sent a second time, on another partition, it could overtake the deletion.
        self._upload(due + 4, partition, number, pixels, tenant, once=True)

    def _judged(self, due: float) -> None:
        """Add two copies of a picture, and a while later what people decide about them, perhaps more than once."""
        number, pixels = self._new_picture()
        tenant = self.random.choice(TENANTS)
        files = pictures.jpeg(pixels), pictures.jpeg(pictures.variant(pixels, self.noise))
        pair = [
            self._upload(due + 5 * index, self._partition(), number, pixels, tenant, data, judged=True)
            for index, data in enumerate(files)
        ]
        for index in range(self.random.choice((1, 1, 2, 3))):
            decision = self.random.choice(("reject", "reject", "confirm"))
            first, second = self.random.sample(pair, 2)
            data = {"image_id": first, "match_id": second, "tenant": tenant, "decision": decision, "by": "torture"}
            identity = f"feedback-{pair[0]}-{index}"
            event = {**_event(identity, data), "type": "match.feedback"}
            message = Message(identity, 0, identity.encode(), json.dumps(event).encode(), to="feedback")
            self._schedule(due + 400 + 100 * index, message)

    def _banked(self, due: float) -> None:
        """Add entries of a picture, which may go again, and copies of it before, meanwhile and after."""
        number, pixels = self._new_picture()
        files = [pictures.jpeg(pixels), *(pictures.jpeg(pictures.variant(pixels, self.noise)) for _ in range(3))]
        for bank in self.random.sample(list(BANKS), self.random.choice((1, 1, 2, 3))):
            entry = PlantedEntry(bank, f"entry-{self.seed}-{number}", number, self.random.random() < 0.3)
            self.entries.append(entry)
            key = ["entry", None, bank, entry.entry_id]
            data = {"data_base64": base64.b64encode(self.random.choice(files)).decode()}
            at = due + self.random.uniform(0, 30)
            for repeat in range(self.random.choice((1, 1, 2))):
                body = {"bank": bank, "entry_id": entry.entry_id, **data}
                self._change_bank(at + 40 * repeat, key, "bank.entry", body)
            if entry.removed:
                self._change_bank(at + 150, key, "bank.entry", None)
        tenant = self.random.choice(TENANTS)
        for data in files:
            later = self.random.uniform(-250, 250)
            self._upload(due + later, self._partition(), number, pixels, tenant, data, banked=True)

    def _change_bank(self, due: float, key: list[str | None], kind: str, data: dict[str, object] | None) -> None:
        """Define a bank or an entry, or remove it."""
        name = json.dumps(key)
        event = json.dumps({**_event(f"bank-{len(self.scheduled)}", data or {}), "type": kind}).encode()
        self._schedule(due, Message(name, 0, name.encode(), None if data is None else event, to="banks"))

    def _broken(self, due: float) -> None:
        """Add an upload that cannot be processed."""
        image_id = self._name("broken")
        kind = self.random.choice(("text", "half", "missing"))
        headers: list[tuple[str, str | bytes | None]] = []
        if kind == "text":
            value = b"{ this is not JSON"
        elif kind == "half":
            whole = pictures.jpeg(self._new_picture()[1])
            value, headers = whole[: len(whole) // 2], [("content-type", b"image/jpeg")]
        else:
            document = _event(image_id, {"image_id": image_id, "url": self._missing_url(image_id)})
            value = json.dumps(document).encode()
        self.planted[image_id] = Planted(image_id, "default", -1, "", "unprocessable")
        self._schedule(due, Message(image_id, self._partition(), image_id.encode(), value, headers))

    def _upload(
        self,
        due: float,
        partition: int,
        number: int,
        pixels: pictures.Pixels,
        tenant: str | None = None,
        data: bytes | None = None,
        *,
        deleted: bool = False,
        once: bool = False,
        judged: bool = False,
        banked: bool = False,
    ) -> str:
        """Add an upload of a picture in one of the forms of the input topic; return its image id."""
        tenant = tenant or self.random.choice(TENANTS)
        data = data or pictures.jpeg(pixels)
        self.vectors.append((number, pictures.vector(data)))
        image_id = self._name("image")
        body: dict[str, object] = {"image_id": image_id, "tenant": tenant}
        form = self.random.choice(
            ("inline", "inline", "binary", "store", "raw" if tenant == "default" and not banked else "inline")
        )
        uploaded_at = None
        if form == "store":
            body["url"] = self.store.put(f"{self.seed}/{image_id}.jpg", data)
        else:
            body["data_base64"] = base64.b64encode(data).decode()
        if form != "raw" and self.random.random() < 0.5:
            uploaded_at = datetime.fromtimestamp(time.time() - self.random.uniform(0, 60), UTC)
            body["uploaded_at"] = uploaded_at.isoformat()
        if form == "raw":
            message = Message(image_id, partition, image_id.encode(), data, [("content-type", b"image/jpeg")])
        elif form == "binary":
            headers = _binary_headers("image.uploaded", f"event-{image_id}")
            message = Message(image_id, partition, image_id.encode(), json.dumps(body).encode(), headers)
        else:
            message = Message(image_id, partition, image_id.encode(), json.dumps(_event(image_id, body)).encode())
        content = hashlib.sha256(data).hexdigest()
        self.planted[image_id] = Planted(
            image_id, tenant, number, content, "decided", uploaded_at, deleted, judged, banked
        )
        self._schedule(due, message)
        sent_twice = self.random.random() < 0.03  # by its producer
        if sent_twice and form != "raw" and not (deleted or once or judged):
            again = Message(image_id, self._partition(), message.key, message.value, message.headers)
            self._schedule(due + self.random.choice((0, 1, 100)), again)
        return image_id

    def _schedule(self, due: float, message: Message) -> None:
        self.scheduled.append((due, message))

    def _partition(self) -> int:
        return self.random.randrange(self.partitions)

    def _name(self, kind: str) -> str:
        return f"{kind}-{self.seed}-{len(self.planted)}"

    def _missing_url(self, image_id: str) -> str:
        """Return an address in the store where no object is."""
        return self.store.put(image_id, b"").removesuffix(image_id) + f"not-there/{image_id}"

    def _new_picture(self) -> tuple[int, pictures.Pixels]:
        self.picture_count += 1
        return self.picture_count, pictures.texture(self.noise)

    def _check_distances(self) -> None:
        """Assert that copies are clearly near and strangers clearly far: the expected outcomes rest on that."""
        numbers = np.array([number for number, _ in self.vectors])
        vectors = np.stack([vector for _, vector in self.vectors])
        l2 = np.sqrt(np.maximum(0, 2 - 2 * vectors @ vectors.T))
        same = numbers[:, None] == numbers[None, :]
        assert l2[same].max() < 0.8 * pictures.THRESHOLD_L2, f"copies {l2[same].max():.2f} apart"
        assert l2[~same].min() > 1.5 * pictures.THRESHOLD_L2, f"strangers {l2[~same].min():.2f} apart"


def _event(image_id: str, data: dict[str, object]) -> dict[str, object]:
    """Return a structured CloudEvent of an upload."""
    return {
        "specversion": "1.0",
        "id": f"event-{image_id}",
        "source": SOURCE,
        "type": "image.uploaded",
        "datacontenttype": "application/json",
        "data": data,
    }


def _binary_headers(kind: str, identity: str) -> list[tuple[str, str | bytes | None]]:
    """Return the headers of a binary CloudEvent."""
    return [
        ("ce_specversion", b"1.0"),
        ("ce_id", identity.encode()),
        ("ce_source", SOURCE.encode()),
        ("ce_type", kind.encode()),
        ("content-type", b"application/json"),
    ]


class Uploader(threading.Thread):
    """Sends a workload at a steady rate; whatever the brokers do, each message arrives once."""

    def __init__(
        self, workload: Workload, bootstrap_servers: str, topics: Mapping[Destination, str], per_second: float
    ) -> None:
        """Messages to a destination without a topic are left out."""
        super().__init__(name="uploader", daemon=True)
        self._workload = workload
        self._topics = topics
        self._per_second = per_second
        self._refused: list[str] = []
        self._sent = 0
        self._stopping = threading.Event()
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap_servers,
                "enable.idempotence": True,
                "message.timeout.ms": int(FLUSH_TIMEOUT_S * 1000),
                "socket.timeout.ms": 10_000,
                "linger.ms": 2,
                "log_level": 0,
            }
        )

    @property
    def refused(self) -> Sequence[str]:
        """The messages that the brokers did not take, each with the error."""
        return self._refused

    @property
    def sent(self) -> int:
        """How many messages were given to the client so far."""
        return self._sent

    def stop(self) -> None:
        """Send no more."""
        self._stopping.set()

    def run(self) -> None:
        """Send everything, unless stopped."""
        started = time.monotonic()
        for count, message in enumerate(self._workload.messages):
            if self._stopping.wait(max(0.0, started + count / self._per_second - time.monotonic())):
                break
            topic = self._topics.get(message.to)
            if not topic:
                continue
            self._workload.sent_at_s.setdefault(message.image_id, time.time())
            self._producer.produce(
                topic,
                message.value,
                message.key,
                message.partition,
                headers=message.headers,
                on_delivery=self._delivered,
            )
            self._producer.poll(0)
            self._sent = count + 1
        if self._producer.flush(FLUSH_TIMEOUT_S):
            self._refused.append("the rest")

    def _delivered(self, error: KafkaError | None, message: SentMessage) -> None:
        if error is not None:
            self._refused.append(f"{message.key()!r}: {error}")
