"""Redis loses the window while two consumers work: it is recovered or begins anew, as configured."""

import json
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
from confluent_kafka import Message

from consumer.errors import Misconfigured
from consumer.local.binaries import Binaries
from consumer.local.pictures import edited, photographs
from consumer.local.process import Server, wait_until_ready
from consumer.settings import Settings
from tests.commands import seenit
from tests.kafka_cluster import KafkaCluster
from tests.pictures import noise
from tests.processes import until
from tests.redis_servers import client_of, redis_like
from tests.service_fixtures import Service, new_service
from tests.stack_fixtures import serving

pytestmark = pytest.mark.timeout(300)

ORIGINALS = {f"original {name}": data for name, data in list(photographs())[:8]}
DELETED = next(iter(ORIGINALS))


@pytest.fixture
def server(binaries: Binaries, tmp_path: Path) -> Iterator[Server]:
    with serving(redis_like("valkey", binaries, tmp_path)) as server:
        yield server


Begin = Callable[..., Service]


@pytest.fixture
def begin(kafka_cluster: KafkaCluster, server: Server, triton: str, tmp_path: Path) -> Iterator[Begin]:
    """Begins a service that publishes embeddings, with two consumers, and uploads the originals."""
    opened = []

    def begin(on_loss: str) -> Service:
        topic = f"embeddings-{uuid.uuid4().hex[:8]}"
        url = f"redis://127.0.0.1:{server.ports[0]}/0"
        context = new_service(
            kafka_cluster.bootstrap_servers,
            url,
            triton,
            tmp_path,
            SEENIT_KAFKA_DELIVERY="exactly-once",
            SEENIT_KAFKA_EMBEDDINGS_TOPIC=topic,
            SEENIT_WINDOW_ON_LOSS=on_loss,
        )
        service = context.__enter__()
        opened.append(context)
        consumers.extend((service.consumer(), service.consumer()))
        for name, data in ORIGINALS.items():
            service.picture(name, data)
        service.await_verdicts(len(ORIGINALS))
        delete(service, DELETED)
        until(lambda: len([each for each in published(service) if each.value() is None]) == 1, 30, "no tombstone")
        return service

    yield begin
    for context in opened:
        context.__exit__(None, None, None)
    consumers.clear()


consumers: list[Server] = []


def delete(service: Service, image_id: str) -> None:
    event = {"specversion": "1.0", "id": image_id, "source": "/test", "type": "image.deleted"}
    value = json.dumps({**event, "data": {"image_id": image_id}}).encode()
    service.send(value, image_id.encode(), {"content-type": b"application/cloudevents+json"})
    service._producer.flush()


def published(service: Service) -> list[Message]:
    """The committed messages of the embeddings topic."""
    return service.all_messages(service.environment["SEENIT_KAFKA_EMBEDDINGS_TOPIC"])


def flush(server: Server) -> None:
    with client_of(server) as client:
        client.flushall()


def kill_and_restart(server: Server) -> None:
    [port] = server.ports
    server.stop(0)
    server.start([port])
    wait_until_ready([server])


def lose_in_mid_flow(service: Service, server: Server, lose: Callable[[Server], None]) -> set[str]:
    """Upload more, and lose the window while that goes on; the names of what was uploaded."""
    random = np.random.default_rng(7)
    pictures = {f"more {number}": noise(random) for number in range(400)}
    before = len(service.verdicts)
    for name, data in pictures.items():
        service.picture(name, data)
    service.await_verdicts(before + 20)
    lose(server)
    assert len(service.verdicts) < before + 350, "it came too late to be in mid-flow"
    service.await_verdicts(before + len(pictures))
    return set(pictures)


def upload_copies(service: Service) -> dict[str, tuple[str, str | None, str | None]]:
    """Upload an edited and then an equal copy of each original: verdict, kind and match of each."""
    random = np.random.default_rng(0)
    for name, data in ORIGINALS.items():
        service.picture(f"edited {name}", edited(data, "re-compressed", random))
        service.await_verdict(f"edited {name}")
        service.picture(f"equal {name}", data)
        service.await_verdict(f"equal {name}")
    return {
        each.image_id: (each.verdict, each.kind, each.match and each.match.image_id)
        for each in service.verdicts
        if each.image_id.startswith(("edited", "equal"))
    }


@contextmanager
def asking(consumer: Server) -> Iterator[httpx.Client]:
    url = f"http://127.0.0.1:{consumer.ports[0]}"
    with httpx.Client(base_url=url, trust_env=False, timeout=15) as client:
        yield client


def resets(consumer: Server) -> float:
    with asking(consumer) as client:
        [line] = [line for line in client.get("/metrics").text.splitlines() if line.startswith("seenit_window_resets ")]
    return float(line.split()[1])


def assert_one_verdict_each(service: Service) -> None:
    counts = Counter(verdict.image_id for verdict in service.verdicts)
    assert set(counts.values()) == {1}


@pytest.mark.parametrize("lose", [flush, kill_and_restart])
def test_a_window_lost_in_mid_flow_is_recovered(begin: Begin, server: Server, lose: Callable[[Server], None]) -> None:
    service = begin("rebuild")
    more = lose_in_mid_flow(service, server, lose)
    answers = upload_copies(service)
    for name in set(ORIGINALS) - {DELETED}:
        assert answers[f"edited {name}"] == ("duplicate", "near", name)
        assert answers[f"equal {name}"] == ("duplicate", "exact", name)
    # What was deleted has not come back.
    assert answers[f"edited {DELETED}"] == ("unique", None, None)
    # Some of the random pictures lie near each other.
    for each in service.verdicts:
        if each.image_id in more and each.match is not None:
            assert each.match.image_id in more - {each.image_id}
    assert_one_verdict_each(service)
    logs = [consumer.log.read_text() for consumer in consumers]
    # Once at the very first start, of nothing, and once more, by whichever was quicker. The other may have seen by then
    # that there was something to do: it finds nothing left, of which it says so.
    rebuilt = [line for log in logs for line in log.splitlines() if "rebuilt the window from" in line]
    assert any(": 0 pictures of 0 tenants from 0 messages" in line for line in rebuilt)
    assert sum(": 0 pictures of 0 tenants from " not in line for line in rebuilt) == 1
    until(lambda: sum(map(resets, consumers)) > 0, 15, "no metric tells")
    assert "Traceback" not in "".join(logs)
    upserts = [message for message in published(service) if message.value() is not None]
    headers = dict(upserts[0].headers() or ())
    assert headers["model-version"] == service.verdicts[0].model.version.encode()
    assert {json.loads(message.key() or b"")[0] for message in upserts} == {"default"}


def test_nothing_goes_on_until_the_window_is_recovered(begin: Begin, server: Server) -> None:
    service = begin("rebuild")
    with client_of(server) as client:
        [marker] = client.keys("*:marker")  # type: ignore[misc]
        lock = marker.removesuffix(b"marker") + b"lock"
        # Somebody else holds the lock from the very moment on.
        client.pipeline().flushall().set(lock, "another process").execute()
        before = len(service.verdicts)
        service.picture("late", ORIGINALS[DELETED])
        for consumer in consumers:
            with asking(consumer) as http:
                until(lambda http=http: http.get("/readyz").status_code == 503, 15, "it is still ready")  # type: ignore[misc]
                assert "window" in http.get("/readyz").json()["problems"]["redis"]
                assert http.get("/livez").status_code == 200
        service.await_verdicts(before)
        assert len(service.verdicts) == before
        client.delete(lock)
    service.await_verdict("late")
    for consumer in consumers:
        with asking(consumer) as http:
            until(lambda http=http: http.get("/readyz").status_code == 200, 15, "it is not ready again")  # type: ignore[misc]


@pytest.mark.parametrize("lose", [flush, kill_and_restart])
def test_with_continue_an_empty_window_goes_on_and_says_so(
    begin: Begin, server: Server, lose: Callable[[Server], None]
) -> None:
    service = begin("continue")
    lose_in_mid_flow(service, server, lose)
    answers = upload_copies(service)
    for name in ORIGINALS:
        assert answers[f"edited {name}"] == ("unique", None, None)
        assert answers[f"equal {name}"] == ("duplicate", "near", f"edited {name}")
    assert_one_verdict_each(service)
    # One that had no partition yet when it happened had nothing to lose.
    until(lambda: any(resets(consumer) > 0 for consumer in consumers), 15, "no metric tells")
    for consumer in (each for each in consumers if resets(each) > 0):
        assert "Redis came back without what it had" in consumer.log.read_text()
        with asking(consumer) as http:
            answer = http.get("/readyz")
            assert answer.status_code == 200
            assert "copies may be called unique until" in answer.json()["notes"]["window"]


def test_the_command_fills_an_empty_redis(begin: Begin, server: Server) -> None:
    service = begin("continue")
    for consumer in consumers:
        consumer.stop()
    flush(server)
    environment = {name: value for name, value in service.environment.items() if name.startswith("SEENIT_")}
    process = seenit("rebuild", **environment)
    assert process.returncode == 0, process.stderr
    count = len(ORIGINALS)
    assert process.stdout.startswith(f"rebuilt {count - 1} pictures of 1 tenants from {count + 1} messages; "), (
        process.stdout
    )
    consumers.append(service.consumer())
    answers = upload_copies(service)
    assert answers[f"edited {DELETED}"][0] == "unique"
    assert sum(verdict == "duplicate" for verdict, _, _ in answers.values()) == 2 * count - 1
    again = seenit("rebuild", **environment)
    assert again.returncode == 0, again.stderr
    assert "left alone the windows of 1 tenants that are not empty: 'default'" in again.stdout


def test_a_recovery_needs_a_topic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEENIT_WINDOW_ON_LOSS", "rebuild")
    with pytest.raises(Misconfigured, match="SEENIT_KAFKA_EMBEDDINGS_TOPIC"):
        Settings.load()
    process = seenit("rebuild")
    assert process.returncode == 1
    assert "SEENIT_KAFKA_EMBEDDINGS_TOPIC" in process.stderr
