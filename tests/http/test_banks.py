"""`/v1/banks` on the real stack: what is put into a bank is found by look-ups, until it is removed."""

import uuid

import httpx
import pytest
from PIL import Image
from skimage import data

from tests.http.pictures import PHOTO, jpeg
from tests.processes import until
from tests.service_fixtures import Service

COPY = jpeg(PHOTO.crop((20, 20, 480, 490)), 60)
IMAGE = {"content-type": "image/jpeg"}


@pytest.fixture
def bank(http: httpx.Client) -> str:
    """The name of a new bank."""
    name = f"bank-{uuid.uuid4().hex[:8]}"
    reply = http.put(f"/v1/banks/{name}", json={"kind": "block", "action": "remove"})
    assert reply.status_code == 202, reply.text
    return name


def hits(http: httpx.Client, picture: bytes, **params: str) -> list[dict[str, object]]:
    reply = http.post("/v1/lookup", content=picture, params=params, headers=IMAGE)
    assert reply.status_code == 200, reply.text
    found: list[dict[str, object]] = reply.json()["banks"]
    return found


def test_a_bank_is_defined_listed_and_deleted(http: httpx.Client, bank: str) -> None:
    described = {"bank": bank, "tenant": "default", "kind": "block", "enabled": True, "strictness": "balanced"}
    described |= {"action": "remove", "silences": [], "entries": 0}
    assert http.get(f"/v1/banks/{bank}").json() == described
    assert described in http.get("/v1/banks").json()
    assert described not in http.get("/v1/banks", params={"tenant": "other"}).json()
    assert http.delete(f"/v1/banks/{bank}").status_code == 202
    assert http.get(f"/v1/banks/{bank}").status_code == 404


def test_an_entry_is_found_until_it_is_removed(http: httpx.Client, bank: str) -> None:
    entry = f"/v1/banks/{bank}/entries/a/b"
    assert http.put(entry, content=jpeg(PHOTO), headers=IMAGE).status_code == 202
    until(lambda: http.get(f"/v1/banks/{bank}/entries").json(), 60, "the entry is not in the bank")
    [listed] = http.get(f"/v1/banks/{bank}/entries").json()
    assert listed["entry_id"] == "a/b"
    assert http.get(f"/v1/banks/{bank}/entries", params={"after": listed["serial"]}).json() == []
    exact, near = hits(http, jpeg(PHOTO), banks=bank), hits(http, COPY, banks=f"another,{bank}")
    assert [(hit["entry_id"], hit["exact"], hit["action"]) for hit in exact] == [("a/b", True, "remove")]
    assert [(hit["entry_id"], hit["exact"]) for hit in near] == [("a/b", False)]
    assert hits(http, COPY, banks="another") == []
    assert hits(http, COPY, tenant="other", banks=bank) == []
    assert http.delete(entry).status_code == 202
    assert hits(http, COPY, banks=bank) == []


def test_a_bank_of_all_tenants_counts_for_each(http: httpx.Client, uploads: Service) -> None:
    name = f"shared-{uuid.uuid4().hex[:8]}"
    shared = {"tenant": "*"}
    assert http.put(f"/v1/banks/{name}", json={"kind": "review"}, params=shared).status_code == 202
    picture = jpeg(Image.fromarray(data.coffee()))
    assert http.put(f"/v1/banks/{name}/entries/cup", content=picture, params=shared, headers=IMAGE).status_code == 202
    until(lambda: hits(http, picture, tenant="anybody", banks=name), 60, "the entry is not in the bank")
    uploads.picture(f"cup-{name}", picture)
    assert name in {hit.bank for hit in uploads.await_verdict(f"cup-{name}").banks}
    assert http.delete(f"/v1/banks/{name}", params=shared).status_code == 202
    until(lambda: not hits(http, picture, banks=name), 10, "the bank is still there")


@pytest.mark.parametrize(
    ("path", "body", "status", "reason"),
    [
        ("/v1/banks/a", {"kind": "none"}, 422, "invalid-request"),
        ("/v1/banks/a", {"kind": "block", "silences": ["b"]}, 422, "invalid-request"),
        ("/v1/banks/a", {"kind": "block", "other": 1}, 422, "invalid-request"),
        ("/v1/banks/nowhere/entries/a", {"url": "https://example.org/a.png"}, 404, "unknown-bank"),
        ("/v1/banks/nowhere/entries/a", {"url": "https://example.org/a.png", "pdq": "0" * 64}, 422, "invalid-request"),
        ("/v1/banks/nowhere/entries/a", {"pdq": "0"}, 422, "invalid-request"),
        ("/v1/banks/nowhere/entries/a", {"pdq": "0" * 64, "lookback": -1}, 422, "invalid-request"),
    ],
)
def test_what_no_bank_is_made_of_is_refused(
    http: httpx.Client, path: str, body: dict[str, object], status: int, reason: str
) -> None:
    reply = http.put(path, json=body)
    assert (reply.status_code, reply.json()["reason"]) == (status, reason)
