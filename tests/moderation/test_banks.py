"""Banks on real servers: each upload is told which known pictures it shows, whatever was done to them."""

import io
import json
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import numpy as np
import pdqhash
import pytest
from confluent_kafka import Consumer, Message, TopicPartition
from PIL import Image
from redis import Redis

from consumer.kafka.messages import OutgoingMessage
from consumer.local.pictures import EDITS, edited, photographs
from consumer.moderation.banks import BankDefined, BankEntry, BankKey, EntryKey, change_message, removal_message
from consumer.settings import KafkaSettings
from consumer.verdicts import ImageRematched, Verdict
from tests.pictures import noise
from tests.processes import until
from tests.service_fixtures import PARTITIONS, Service, new_service

PHOTOGRAPHS = dict(photographs())
CAT, CHINA = PHOTOGRAPHS["chelsea.png"], PHOTOGRAPHS["china.jpg"]


def event(event_type: str, **data: object) -> bytes:
    return json.dumps({"specversion": "1.0", "id": "1", "source": "/t", "type": event_type, "data": data}).encode()


DELETE_FLOWER = event("image.deleted", image_id="flower")
# A busy machine takes its time to start the processes that decode entries.
PATIENCE_S = 120.0
pytestmark = pytest.mark.timeout(300)
RANDOM = np.random.default_rng(0)


class Follower:
    """Reads a topic from its beginning."""

    def __init__(self, kafka: KafkaSettings, topic: str) -> None:
        options = {"bootstrap.servers": kafka.bootstrap_servers, "group.id": uuid.uuid4().hex}
        self._consumer = Consumer({**options, "enable.auto.commit": False})
        self._consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
        self._messages: list[Message] = []

    def read(self) -> list[Message]:
        """Return all messages that came by now."""
        self._messages += [each for each in self._consumer.consume(100, 0.2) if each.error() is None]
        return self._messages

    def close(self) -> None:
        self._consumer.close()


class Moderated:
    """A service with banks."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.topic = service.kafka.banks_topic
        self.consumer = service.consumer()
        self._rematches = Follower(service.kafka, service.kafka.rematches_topic)
        self._letters = Follower(service.kafka, service.kafka.dead_letter_topic)
        self._numbers = iter(range(1_000_000))

    def close(self) -> None:
        self._rematches.close()
        self._letters.close()

    def change(self, *changes: BankDefined | BankEntry) -> None:
        for change in changes:
            self.service.send_message(change_message(self.topic, change))

    def remove(self, *keys: BankKey | EntryKey) -> None:
        for key in keys:
            self.service.send_message(removal_message(self.topic, key))

    def restart(self) -> None:
        self.consumer.stop()
        self.consumer = self.service.consumer()

    def verdict(self, data: bytes) -> Verdict:
        name = f"upload {next(self._numbers)}"
        self.service.picture(name, data)
        return self.service.await_verdict(name)

    def rematches(self, bank: str, count: int) -> list[ImageRematched]:
        """Wait for events on earlier uploads that show entries of a bank; return all that came by then."""

        def events() -> list[ImageRematched]:
            return [ImageRematched.model_validate_json(each.value() or b"") for each in self._rematches.read()]

        until(lambda: sum(each.bank == bank for each in events()) >= count, PATIENCE_S, f"no {count} events on {bank}")
        return events()

    def refused(self, message: OutgoingMessage) -> dict[str, str]:
        """Send a message that has to be dead-lettered; return the headers that say why."""
        self.service.send_message(message)
        expected = (message.key, message.value)
        until(
            lambda: expected in [(each.key(), each.value()) for each in self._letters.read()],
            PATIENCE_S,
            "no dead letter",
        )
        letter = next(each for each in self._letters.read() if (each.key(), each.value()) == expected)
        headers = {name: value.decode() for name, value in letter.headers() or ()}
        assert headers["seenit-topic"] == self.topic
        return headers

    def await_banks(self, data: bytes, *expected: str, pause_s: float = 0.2) -> Verdict:
        """Upload a picture again until its verdict has hits of these banks; entries come within a second or two."""
        found: list[Verdict] = []

        def told() -> bool:
            verdict = self.verdict(data)
            found.append(verdict)
            return sorted(hit.bank for hit in verdict.banks) == sorted(expected)

        until(told, PATIENCE_S, f"no verdict with hits of {expected}", pause_s)
        return found[-1]


@pytest.fixture(scope="module")
def moderated(
    broker: str, redis_server: str, triton: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Moderated]:
    folder = tmp_path_factory.mktemp("banks")
    with new_service(broker, redis_server, triton, folder, banks=True) as service:
        moderated = Moderated(service)
        yield moderated
        moderated.close()


def beside(left: bytes, right: bytes) -> bytes:
    """Return a picture that shows two of them side by side."""
    collage = Image.new("RGB", (1200, 600))
    for index, data in enumerate((left, right)):
        with Image.open(io.BytesIO(data)) as picture:
            collage.paste(picture.convert("RGB").resize((600, 600)), (600 * index, 0))
    file = io.BytesIO()
    collage.save(file, "PNG")
    return file.getvalue()


def test_copies_of_an_entry_are_told_and_a_look_alike_is_not(moderated: Moderated) -> None:
    moderated.change(
        BankDefined(bank="cats", kind="block", action="remove"),
        BankEntry(bank="cats", entry_id="c", data_base64=CAT, labels={"policy": "pets"}),
    )
    exact = moderated.await_banks(CAT, "cats").banks[0]
    told = (exact.entry_id, exact.kind, exact.action, exact.exact, exact.l2)
    assert told == ("c", "block", "remove", True, 0.0)
    assert exact.labels == {"policy": "pets"}
    for edit in EDITS:
        [near] = moderated.verdict(edited(CAT, edit, RANDOM)).banks
        assert (near.entry_id, near.exact) == ("c", False)
        assert near.evidence is not None
        assert near.evidence.verified
        assert near.l2 is not None
        assert near.l2 > 0
    assert moderated.verdict(CHINA).banks == ()


def test_an_entry_counts_within_a_second(moderated: Moderated) -> None:
    """From the entry on its way to its topic until a verdict has it; of five, since a busy machine holds some up.

    A machine that is slow throughout may take five times what it takes for an upload.
    """
    moderated.change(BankDefined(bank="quick", kind="block"))
    moderated.change(BankEntry(bank="quick", entry_id="first", data_base64=PHOTOGRAPHS["gravel.png"]))
    moderated.await_banks(PHOTOGRAPHS["gravel.png"], "quick")  # the children that decode are there
    took_s, upload_s = [], []
    for name in ("rocket.jpg", "retina.jpg", "grass.png", "page.png", "text.png"):
        copy = edited(PHOTOGRAPHS[name], "re-compressed", RANDOM)
        sent_s = time.time()
        upload_s.append(moderated.verdict(noise(RANDOM)).decided_at.timestamp() - sent_s)
        sent_s = time.time()
        moderated.change(BankEntry(bank="quick", entry_id=name, data_base64=PHOTOGRAPHS[name]))
        verdict = moderated.await_banks(copy, "quick", pause_s=0.0)
        took_s.append(verdict.decided_at.timestamp() - sent_s)
    assert min(took_s) < max(1, 5 * min(upload_s)), f"entries took {took_s} seconds, and uploads {upload_s}"


def test_an_exact_copy_of_a_copy_is_told_too_also_by_a_process_that_knows_neither(moderated: Moderated) -> None:
    """An exact copy takes no inference otherwise, and pictures within it are not stored."""
    moderated.change(BankDefined(bank="cats", kind="block"), BankEntry(bank="cats", entry_id="c", data_base64=CAT))
    moderated.await_banks(CAT, "cats")
    shot = edited(CAT, "screenshot", np.random.default_rng(1))
    assert [hit.bank for hit in moderated.verdict(shot).banks] == ["cats"]
    again = moderated.verdict(shot)
    assert (again.kind, [hit.bank for hit in again.banks]) == ("exact", ["cats"])
    moderated.restart()
    again = moderated.verdict(shot)
    assert (again.kind, [hit.bank for hit in again.banks]) == ("exact", ["cats"])


def test_an_allowed_picture_silences_the_banks_it_names_and_only_what_shows_it(moderated: Moderated) -> None:
    logo, banned = PHOTOGRAPHS["coffee.png"], PHOTOGRAPHS["astronaut.png"]
    moderated.change(
        BankDefined(bank="logos", kind="allow", silences=("brands",)),
        BankDefined(bank="brands", kind="block"),
        BankDefined(bank="other", kind="review"),
        BankEntry(bank="brands", entry_id="coffee", data_base64=logo),
        BankEntry(bank="other", entry_id="coffee", data_base64=logo),
        BankEntry(bank="brands", entry_id="astronaut", data_base64=banned),
        BankEntry(bank="logos", entry_id="cup", data_base64=edited(logo, "re-compressed", RANDOM)),
    )
    silenced = moderated.await_banks(logo, "other")
    assert [(each.bank, each.entry_id) for each in silenced.silenced_by] == [("logos", "cup")]
    assert moderated.verdict(banned).silenced_by == ()
    assert [hit.entry_id for hit in moderated.verdict(beside(logo, banned)).banks if hit.bank == "brands"] == [
        "astronaut"
    ]


def test_banks_of_other_tenants_and_disabled_and_expired_ones_do_not_count(moderated: Moderated) -> None:
    picture, now = PHOTOGRAPHS["motorcycle_left.png"], datetime.now(UTC)
    moderated.change(
        BankDefined(bank="theirs", tenant="other", kind="block"),
        BankEntry(bank="theirs", tenant="other", entry_id="m", data_base64=picture),
        BankDefined(bank="off", kind="block", enabled=False),
        BankEntry(bank="off", entry_id="m", data_base64=picture),
        BankDefined(bank="old", kind="block"),
        BankEntry(bank="old", entry_id="m", data_base64=picture, expires_at=now - timedelta(seconds=1)),
        BankDefined(bank="ours", tenant="default", kind="block"),
        BankEntry(bank="ours", tenant="default", entry_id="m", data_base64=picture),
    )
    moderated.await_banks(picture, "ours")
    moderated.change(BankDefined(bank="off", kind="block"))
    moderated.await_banks(picture, "off", "ours")
    moderated.remove(EntryKey("default", "ours", "m"), BankKey(None, "off"))
    moderated.await_banks(picture)


def test_an_entry_of_an_upload_goes_when_the_upload_is_deleted(moderated: Moderated) -> None:
    flower = PHOTOGRAPHS["flower.jpg"]
    moderated.service.picture("flower", flower)
    moderated.service.await_verdict("flower")
    moderated.change(
        BankDefined(bank="flowers", kind="review"), BankEntry(bank="flowers", entry_id="f", image_id="flower")
    )
    copy = edited(flower, "zoom", RANDOM)
    moderated.await_banks(copy, "flowers")
    moderated.service.send(DELETE_FLOWER, None, {"content-type": b"application/cloudevents+json"})
    moderated.await_banks(copy)


def test_an_entry_of_an_upload_outlives_the_window_and_all_that_redis_has(
    moderated: Moderated, redis_server: str
) -> None:
    sky = PHOTOGRAPHS["hubble_deep_field.jpg"]
    moderated.service.picture("sky", sky)
    moderated.service.await_verdict("sky")
    moderated.change(BankDefined(bank="skies", kind="block"), BankEntry(bank="skies", entry_id="s", image_id="sky"))
    copy = edited(sky, "zoom", np.random.default_rng(0))
    moderated.await_banks(copy, "skies")
    with Redis.from_url(redis_server) as redis:
        prefix = moderated.service.environment["SEENIT_REDIS_KEY_PREFIX"]
        redis.delete(*redis.scan_iter(f"{prefix}:*"))
    assert [hit.entry_id for hit in moderated.await_banks(copy, "skies").banks] == ["s"]
    deletion = event("image.deleted", image_id="sky")
    moderated.service.send(deletion, None, {"content-type": b"application/cloudevents+json"})
    moderated.await_banks(copy)

    def left() -> list[bytes | None]:
        """The last values of the entry and of what was kept of it, as Kafka compacts them."""
        messages = moderated.service.all_messages(moderated.topic)
        latest = {message.key(): message.value() for message in messages}
        return [value for key, value in latest.items() if b'"skies", "s"' in (key or b"")]

    until(lambda: left() == [None, None], PATIENCE_S, "the topic still has the entry, or what was kept of it")


def test_pictures_are_found_by_the_hash_of_an_exchange_alone(moderated: Moderated) -> None:
    camera = PHOTOGRAPHS["camera.png"]
    with Image.open(io.BytesIO(camera)) as image:
        bits, _ = pdqhash.compute(np.asarray(image.convert("RGB")))
    pdq = np.packbits(bits).tobytes().hex()
    moderated.verdict(camera)  # what is remembered of it has no such hash
    moderated.change(BankDefined(bank="hashes", kind="block"), BankEntry(bank="hashes", entry_id=pdq, pdq=pdq))
    [hit] = moderated.await_banks(camera, "hashes").banks
    assert (hit.entry_id, hit.exact, hit.l2, hit.evidence) == (pdq, False, None, None)
    assert [each.bank for each in moderated.verdict(edited(camera, "re-compressed", RANDOM)).banks] == ["hashes"]
    assert moderated.verdict(PHOTOGRAPHS["ihc.png"]).banks == ()


def test_an_entry_finds_the_uploads_before_it_each_once(moderated: Moderated) -> None:
    moon = PHOTOGRAPHS["moon.png"]
    for name, data in (("moon", moon), ("copy", edited(moon, "zoom", RANDOM)), ("another", PHOTOGRAPHS["coins.png"])):
        moderated.service.picture(name, data)
        moderated.service.await_verdict(name)
    # Of what is sent again as it was, nothing is told again.
    moderated.change(BankDefined(bank="moons", kind="block"), BankDefined(bank="all moons", kind="review"))
    moderated.change(BankEntry(bank="moons", entry_id="m", data_base64=moon))
    expected = {("moon", True), ("copy", False)}
    assert {(each.image_id, each.exact) for each in moderated.rematches("moons", 2) if each.bank == "moons"} == expected
    moderated.change(BankEntry(bank="moons", entry_id="m", data_base64=moon, note="sent again"))
    moderated.change(BankEntry(bank="all moons", entry_id="m", data_base64=moon))
    events = moderated.rematches("all moons", 2)
    assert sorted(each.bank for each in events if "moons" in each.bank) == ["all moons", "all moons", "moons", "moons"]
    assert all(each.tenant == "default" and each.uploaded_at for each in events)


def test_what_an_allowed_entry_silences_is_not_told_of_earlier_uploads_either(moderated: Moderated) -> None:
    brick, random = PHOTOGRAPHS["brick.png"], np.random.default_rng(0)
    for name, data in (("brick", brick), ("zoomed brick", edited(brick, "zoom", random))):
        moderated.service.picture(name, data)
        moderated.service.await_verdict(name)
    moderated.change(
        BankDefined(bank="walls", kind="allow", silences=("no bricks",)),
        BankDefined(bank="no bricks", kind="block"),
        BankDefined(bank="all bricks", kind="review"),
        BankEntry(bank="walls", entry_id="w", data_base64=edited(brick, "re-compressed", random)),
        BankEntry(bank="no bricks", entry_id="b", data_base64=brick),
        BankEntry(bank="all bricks", entry_id="b", data_base64=brick),
    )
    told = {(each.bank, each.image_id) for each in moderated.rematches("all bricks", 2) if "bricks" in each.bank}
    assert told == {("all bricks", "brick"), ("all bricks", "zoomed brick")}


@pytest.mark.parametrize(
    ("change", "reason", "detail"),
    [
        (BankEntry(bank="nobody's", entry_id="a", data_base64=CAT), "unknown-bank", "there is no bank"),
        (BankEntry(bank="cats", tenant="t", entry_id="a", data_base64=CAT), "unknown-bank", "leave the entry's tenant"),
        (BankEntry(bank="cats", entry_id="a", data_base64=b"no picture"), "not-an-image", ""),
        (BankEntry(bank="cats", entry_id="a", url="http://127.0.0.1/a.png"), "forbidden-address", ""),
        (BankEntry(bank="cats", entry_id="a", image_id="never uploaded"), "not-found", "no picture of its own"),
    ],
)
def test_an_entry_that_cannot_be_is_dead_lettered_with_the_reason(
    moderated: Moderated, change: BankEntry, reason: str, detail: str
) -> None:
    moderated.change(BankDefined(bank="cats", kind="block"))
    refused = moderated.refused(change_message(moderated.topic, change))
    assert refused["seenit-reason"] == reason
    assert detail in refused["seenit-detail"]


@pytest.mark.parametrize(
    ("key", "value", "detail"),
    [
        (b"cats", b"{}", "the key has to be"),
        (
            b'["bank",null,"a"]',
            event("bank.defined", bank="a", kind="block"),
            'has to be written as ["bank", null, "a"]',
        ),
        (
            b'["bank", null, "\xc3\xa9"]',
            event("bank.defined", bank="\u00e9", kind="block"),
            r'["bank", null, "\u00e9"]',
        ),
        (b'["bank", null, "a"]', b"{}", "neither a CloudEvent nor null"),
        (b'["bank", null, "a"]', event("bank.defined", bank="a", kind="ban"), "kind"),
        (b'["bank", null, "a"]', event("bank.defined", bank="b", kind="block"), "the key of this message has to be"),
        (b'["bank", null, "a"]', event("bank.defined", bank="a", kind="block", strictness="very"), "strictness"),
        (b'["bank", null, "a"]', event("bank.opened", bank="a"), "is not one of"),
        (b'["entry", null, "a", "b"]', event("bank.entry", bank="a", entry_id="b"), "give one of"),
        (b'["bank", null, "a"]', b'{"specversion": "1.0", "type": [], "data": {}}', "is not one of"),
        (
            b'["entry", null, "a", "b"]',
            event("bank.entry", bank="a", entry_id="b", pdq="0" * 64, lookback="Infinity"),
            "lookback",
        ),
    ],
)
def test_what_is_no_bank_is_dead_lettered_with_the_reason(
    moderated: Moderated, key: bytes, value: bytes, detail: str
) -> None:
    refused = moderated.refused(OutgoingMessage(moderated.topic, key, value, ()))
    assert detail in refused["seenit-detail"]


def test_no_verdict_is_given_without_the_banks_that_redis_lost(moderated: Moderated, redis_server: str) -> None:
    moderated.change(BankDefined(bank="kept", kind="block"), BankEntry(bank="kept", entry_id="c", data_base64=CHINA))
    moderated.await_banks(CHINA, "kept")
    with Redis.from_url(redis_server) as redis:
        prefix = moderated.service.environment["SEENIT_REDIS_KEY_PREFIX"]
        lost = list(redis.scan_iter(f"{prefix}:{{%}}:*:bank-*"))
        assert lost
        redis.delete(*lost)
    assert [hit.bank for hit in moderated.verdict(CHINA).banks] == ["kept"]
