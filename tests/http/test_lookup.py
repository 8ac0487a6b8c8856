"""`POST /v1/lookup` on the real stack: what it finds, what it refuses, and that it stores nothing."""

import uuid

import httpx
import pytest
from PIL import Image
from skimage import data

from tests.http.pictures import PHOTO, jpeg
from tests.service_fixtures import Service


def look_up(http: httpx.Client, picture: bytes, **params: str | int) -> dict[str, list[dict[str, object]]]:
    reply = http.post("/v1/lookup", content=picture, params=params, headers={"content-type": "image/jpeg"})
    assert reply.status_code == 200, reply.text
    answer: dict[str, list[dict[str, object]]] = reply.json()
    return answer


@pytest.fixture(scope="module")
def photo(uploads: Service) -> str:
    """The image id of a photograph in the window."""
    image_id = f"photo-{uuid.uuid4().hex[:8]}"
    uploads.picture(image_id, jpeg(PHOTO))
    assert uploads.await_verdict(image_id).verdict == "unique"
    return image_id


def test_the_same_bytes_are_an_exact_match(http: httpx.Client, photo: str) -> None:
    [match] = look_up(http, jpeg(PHOTO))["matches"]
    assert (match["image_id"], match["exact"], match["l2"]) == (photo, True, 0.0)


def test_an_edited_copy_is_a_near_match_with_evidence(http: httpx.Client, photo: str) -> None:
    [match] = look_up(http, jpeg(PHOTO.crop((20, 20, 480, 490)), 60))["matches"]
    assert (match["image_id"], match["exact"]) == (photo, False)
    evidence = match["evidence"]
    assert isinstance(evidence, dict)
    assert evidence["verified"]
    assert evidence["edit"]["box_in_match"]["left"] == pytest.approx(20 / 512, abs=0.03)


def test_another_picture_and_another_tenant_match_nothing(http: httpx.Client, photo: str) -> None:
    assert look_up(http, jpeg(Image.fromarray(data.coffee())))["matches"] == []
    assert look_up(http, jpeg(PHOTO), tenant="other")["matches"] == []


def test_nothing_is_stored(http: httpx.Client, photo: str) -> None:
    new = jpeg(Image.fromarray(data.cat()))
    assert look_up(http, new)["matches"] == []
    assert look_up(http, new)["matches"] == []


def test_a_form_and_an_octet_stream_are_taken(http: httpx.Client, photo: str) -> None:
    reply = http.post("/v1/lookup", files={"image": ("p.jpg", jpeg(PHOTO), "image/jpeg")})
    assert [match["image_id"] for match in reply.json()["matches"]] == [photo]


def test_the_page_is_served(http: httpx.Client) -> None:
    reply = http.get("/")
    assert reply.status_code == 200
    assert reply.headers["content-type"].startswith("text/html")


def test_two_pictures_are_compared(http: httpx.Client) -> None:
    copy, stranger = jpeg(PHOTO.crop((20, 20, 480, 490)), 60), jpeg(Image.fromarray(data.coffee()))
    files = {"original": ("a.jpg", jpeg(PHOTO), "image/jpeg"), "upload": ("b.jpg", copy, "image/jpeg")}
    reply = http.post("/v1/compare", files=files)
    assert reply.status_code == 200, reply.text
    assert (reply.json()["duplicate"], reply.json()["exact"]) == (True, False)
    files["upload"] = ("b.jpg", stranger, "image/jpeg")
    assert http.post("/v1/compare", files=files).json()["duplicate"] is False
    files["upload"] = files["original"]
    assert http.post("/v1/compare", files=files).json()["exact"] is True


@pytest.mark.parametrize(
    ("body", "content_type", "status", "reason"),
    [
        (b"no picture", "image/jpeg", 400, "not-an-image"),
        (jpeg(PHOTO)[:2000], "image/jpeg", 400, "broken-image"),
        (b"", "image/jpeg", 400, "not-an-image"),
        (b"no picture", "text/plain", 415, "wrong-content-type"),
        (b"no picture", "application/json", 422, "invalid-request"),
        (b'{"url": "https://127.0.0.1/a.png"}', "application/json", 400, "forbidden-address"),
        (b'{"url": "file:///etc/passwd"}', "application/json", 400, "forbidden-address"),
        (b"no form", "multipart/form-data; boundary=a", 422, "invalid-request"),
        (b"no form", "multipart/form-data", 422, "invalid-request"),
    ],
)
def test_bad_pictures_are_refused_with_a_reason(
    http: httpx.Client, body: bytes, content_type: str, status: int, reason: str
) -> None:
    reply = http.post("/v1/lookup", content=body, headers={"content-type": content_type})
    assert (reply.status_code, reply.json()["reason"]) == (status, reason)
    assert reply.headers["content-type"] == "application/problem+json"


def test_bad_parameters_are_refused(http: httpx.Client) -> None:
    for params in ({"limit": 0}, {"strictness": "none"}, {"tenant": ""}, {"tenant": "t" * 300}):
        reply = http.post("/v1/lookup", params=params, content=jpeg(PHOTO), headers={"content-type": "image/jpeg"})
        assert reply.status_code == 422
