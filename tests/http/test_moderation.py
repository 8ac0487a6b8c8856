"""`/v1/campaigns` and `/v1/feedback`: what is uploaded again and again, and what is decided about it."""

import uuid

import httpx
import pytest

from tests.http.pictures import PHOTO, jpeg
from tests.processes import until
from tests.service_fixtures import Service


def test_a_campaign_is_listed_and_named_by_look_ups(http: httpx.Client, uploads: Service) -> None:
    tenant = f"t-{uuid.uuid4().hex[:8]}"
    for number in range(3):
        params = {"image_id": f"{tenant}-{number}", "tenant": tenant}
        picture = jpeg(PHOTO, 90 - number)
        reply = http.post("/v1/uploads", params=params, content=picture, headers={"content-type": "image/jpeg"})
        assert reply.status_code == 202
        uploads.await_verdict(f"{tenant}-{number}")
    [campaign] = http.get("/v1/campaigns", params={"tenant": tenant}).json()
    assert (campaign["id"], campaign["size"], campaign["in_flood"]) == (f"{tenant}-0", 3, False)
    assert http.get("/v1/campaigns", params={"tenant": "other"}).json() == []

    def named() -> object:
        headers = {"content-type": "image/jpeg"}
        found = http.post("/v1/lookup", params={"tenant": tenant}, content=jpeg(PHOTO, 50), headers=headers).json()
        return found["campaign"] and found["campaign"]["id"]

    until(lambda: named() == f"{tenant}-0", 30, "the campaign is not named")


@pytest.mark.parametrize(
    "body",
    [
        {"decision": "maybe", "image_id": "a", "match_id": "b"},
        {"decision": "confirm", "image_id": "a"},
        {"decision": "confirm", "image_id": "a", "match_id": "a"},
        {"decision": "reject", "image_id": "a", "match_id": "b", "to_bank": "c"},
        {"decision": "confirm", "image_id": "a", "match_id": "b", "by": "somebody else"},
    ],
    ids=str,
)
def test_feedback_that_means_nothing_is_refused(http: httpx.Client, body: dict[str, str]) -> None:
    assert http.post("/v1/feedback", json=body).status_code in {422, 501}


def test_a_rejected_pair_is_not_matched_any_more(http: httpx.Client, uploads: Service) -> None:
    tenant = f"t-{uuid.uuid4().hex[:8]}"
    headers, pictures = {"content-type": "image/jpeg"}, {"first": jpeg(PHOTO), "copy": jpeg(PHOTO, 50)}
    for name, picture in pictures.items():
        params = {"image_id": f"{tenant}-{name}", "tenant": tenant}
        assert http.post("/v1/uploads", params=params, content=picture, headers=headers).status_code == 202
        uploads.await_verdict(f"{tenant}-{name}")

    def matches() -> list[str]:
        reply = http.post("/v1/lookup", params={"tenant": tenant}, content=pictures["copy"], headers=headers)
        return [match["image_id"] for match in reply.json()["matches"]]

    assert matches() == [f"{tenant}-copy", f"{tenant}-first"]
    feedback = {"image_id": f"{tenant}-copy", "match_id": f"{tenant}-first", "decision": "reject", "note": "no"}
    assert http.post("/v1/feedback", json=feedback, params={"tenant": tenant}).status_code == 202
    until(lambda: matches() == [f"{tenant}-copy"], 60, "the pair is still matched")
