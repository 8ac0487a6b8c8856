"""Moderation in a running service: campaigns, floods and feedback, by events and by commands."""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Producer
from redis import Redis

from consumer.local.pictures import edited, photographs
from consumer.moderation.banks import BankDefined, BankEntry, change_message
from consumer.verdicts import Campaign
from tests.moderation.stored import stored_bytes
from tests.processes import until
from tests.service_fixtures import Service, new_service

PHOTOGRAPHS = dict(photographs())
CAT = edited(PHOTOGRAPHS["chelsea.png"], "re-compressed", np.random.default_rng(0))
CHINA = PHOTOGRAPHS["china.jpg"]
BRIGHTER = edited(CAT, "lighting", np.random.default_rng(0))
BOUND = 3
KINDS = ("REMATCHES", "FEEDBACK", "DECISIONS", "EMBEDDINGS")


@pytest.fixture(scope="module")
def service(broker: str, redis_server: str, triton: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    name = uuid.uuid4().hex[:8]
    topics = {f"SEENIT_KAFKA_{kind}_TOPIC": f"{kind.lower()}-{name}" for kind in KINDS}
    more = {"SEENIT_CAMPAIGNS_FLOOD_UPLOADS_PER_HOUR": str(BOUND), **topics}
    with new_service(broker, redis_server, triton, tmp_path_factory.mktemp("service"), banks=True, **more) as service:
        service.consumer()
        yield service


def topic(service: Service, kind: str) -> str:
    return service.environment[f"SEENIT_KAFKA_{kind}_TOPIC"]


def upload(service: Service, tenant: str, image_id: str, data: bytes, event: str = "first") -> Any:
    """Upload a picture, and return the verdict on it."""
    event = f"{event} {tenant} {image_id}"
    attributes = {"specversion": "1.0", "id": event, "source": "/test", "type": "image.uploaded"}
    headers = {f"ce_{name}": text.encode() for name, text in attributes.items()}
    headers |= {"ce_subject": image_id.encode(), "ce_tenant": tenant.encode(), "content-type": b"image/jpeg"}
    before = len(service.verdicts)
    service.send(data, image_id.encode(), headers)

    def mine(verdict: Any) -> bool:
        return (verdict.tenant, verdict.image_id) == (tenant, image_id)

    verdicts = service.await_verdicts(lambda verdicts: any(map(mine, verdicts[before:])))
    return next(verdict for verdict in verdicts[before:] if mine(verdict))


def delete(service: Service, tenant: str, image_id: str) -> None:
    event = {"specversion": "1.0", "id": f"{tenant} no {image_id}", "source": "/test", "type": "image.deleted"}
    service.send(json.dumps({**event, "data": {"image_id": image_id, "tenant": tenant}}).encode(), image_id.encode())


def seenit(service: Service, *arguments: str) -> str:
    """Run a command against the service's servers; return what it prints."""
    return run(service, *arguments).stdout


def run(service: Service, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command against the service's servers, with some more in its environment."""
    command = [sys.executable, "-m", "consumer", *arguments]
    environment = {**os.environ, **service.environment, **more}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done


def compacted(service: Service) -> bytes:
    """All that is left of the compacted topics when Kafka has compacted them: the last value of each key."""
    left: dict[tuple[str, bytes | None], bytes] = {}
    for name in (service.kafka.banks_topic, topic(service, "DECISIONS"), topic(service, "EMBEDDINGS")):
        for message in service.all_messages(name):
            left[name, message.key()] = message.value() or b""
    return b" ".join(left.values())


def decisions(service: Service, tenant: str) -> dict[tuple[str, ...], bytes | None]:
    """The last decision about each pair of a tenant, by both image ids."""
    latest: dict[tuple[str, ...], bytes | None] = {}
    for message in service.all_messages(topic(service, "DECISIONS")):
        owner, *pair = json.loads(message.key() or b"")
        if owner == tenant:
            latest[tuple(pair)] = message.value()
    return latest


def test_a_duplicate_names_its_campaign(service: Service) -> None:
    assert upload(service, "one", "a", CAT).campaign is None
    near, exact = upload(service, "one", "b", BRIGHTER), upload(service, "one", "c", CAT)
    assert [(each.campaign.id, each.campaign.size) for each in (near, exact)] == [("a", 2), ("a", 3)]
    upload(service, "one", "stranger", CHINA)
    [line] = seenit(service, "campaigns", "--tenant", "one", "--json").splitlines()
    assert Campaign.model_validate_json(line) == exact.campaign
    assert "last hour" in seenit(service, "campaigns", "--tenant", "one")


def test_campaigns_are_told_apart_in_a_narrow_terminal(service: Service) -> None:
    names = [f"holiday/2026/summer/the-very-same-beginning/{number}.jpg" for number in (1, 2)]
    for name, picture in zip(names, (CAT, CHINA), strict=True):
        upload(service, "narrow", name, picture)
        upload(service, "narrow", f"{name} again", picture)
    shown = run(service, "campaigns", "--tenant", "narrow", COLUMNS="80")
    cells = [line.split("│")[1].strip() for line in shown.stdout.splitlines() if line.count("│") > 1]
    assert "".join(cells) in {"".join(names), "".join(reversed(names))}
    assert shown.stderr == ""
    for form in ((), ("--json",)):
        cut = run(service, "campaigns", "--tenant", "narrow", "--top", "1", *form)
        assert cut.stderr == "the first 1 of 2; more of them: --top 2\n"


def test_a_rejected_pair_stays_apart(service: Service) -> None:
    upload(service, "two", "a", CAT)
    assert upload(service, "two", "b", BRIGHTER).match.image_id == "a"
    sent = seenit(service, "feedback", "b", "a", "--reject", "--by", "ann", "--tenant", "two", "--json")
    assert json.loads(sent)["decision"] == "reject"
    until(lambda: decisions(service, "two"), 30, "nothing was decided")
    until(lambda: upload(service, "two", "b", BRIGHTER, "again").match is None, 10, "it is not applied")
    again = upload(service, "two", "b", BRIGHTER, "again")
    assert (again.verdict, again.match, again.campaign) == ("unique", None, None)
    assert "1 decisions on near matches" in seenit(service, "calibrate", "--from-feedback")
    # A copy of b is a copy of b, and of nothing else.
    copy = upload(service, "two", "c", BRIGHTER)
    assert (copy.match.image_id, copy.others, copy.campaign.id) == ("b", (), "b")
    seenit(service, "feedback", "b", "a", "--withdraw", "--by", "ann", "--tenant", "two")
    until(lambda: not any(decisions(service, "two").values()), 30, "it was not taken back")
    until(lambda: upload(service, "two", "b", BRIGHTER, "at last").match, 30, "they stay apart")


def test_a_flood_is_told_once(service: Service) -> None:
    upload(service, "three", "a", CHINA)
    for number in range(6):
        upload(service, "three", f"copy {number}", CHINA)
    upload(service, "three", "stranger", CAT)  # what the last copy told is on its topic by then
    messages = service.all_messages(topic(service, "REMATCHES"))
    floods = [json.loads(message.value() or b"") for message in messages]
    mine = [flood for flood in floods if flood["tenant"] == "three"]
    assert mine == [
        {"campaign": "a", "tenant": "three", "uploads_per_hour": BOUND + 1, "bound": BOUND, "state": "began"}
    ]
    assert dict(messages[-1].headers() or ())["ce_type"] == b"image.flood"


def test_nothing_is_left_of_a_deleted_picture(service: Service, redis_server: str) -> None:
    name, other = f"original {uuid.uuid4()}", f"copy {uuid.uuid4()}"
    upload(service, "four", name, CAT)
    upload(service, "four", "b", BRIGHTER)
    upload(service, "four", other, CAT)
    producer = Producer({"bootstrap.servers": service.kafka.bootstrap_servers})
    for pair in (("b", name), (other, name)):
        data = {"image_id": pair[0], "match_id": pair[1], "tenant": "four", "decision": "confirm", "by": "ann"}
        event = {"specversion": "1.0", "id": "1", "source": "/desk", "type": "match.feedback", "data": data}
        producer.produce(topic(service, "FEEDBACK"), json.dumps(event).encode())
    producer.flush()
    until(lambda: len(decisions(service, "four")) == 2, 30, "nothing was decided")
    entry = BankEntry(bank="kept", entry_id="e", tenant="four", image_id=name)
    for change in (BankDefined(bank="kept", tenant="four", kind="review"), entry):
        service.send_message(change_message(service.kafka.banks_topic, change))
    until(lambda: [hit.bank for hit in upload(service, "four", "b", BRIGHTER, "again").banks] == ["kept"], 30, "no hit")

    def named(stored: bytes) -> set[str]:
        return {each for each in (name, other) if each.encode() in stored}

    assert named(compacted(service)) == {name, other}
    with Redis.from_url(redis_server) as redis:
        pattern = f"{service.environment['SEENIT_REDIS_KEY_PREFIX']}:*"
        assert named(stored_bytes(redis, pattern)) == {name, other}
        for image_id in (name, other):
            delete(service, "four", image_id)
        upload(service, "four", "last", CHINA)
        until(lambda: not any(decisions(service, "four").values()), 30, "decisions are left")
        until(lambda: not named(compacted(service)), 30, "something is left on a topic")
        until(lambda: not named(stored_bytes(redis, pattern)), 10, "something is left in Redis")
