"""`POST /v1/lookup` on the real stack: what it finds, what it refuses, and that it stores nothing."""

import io
import uuid

import httpx
import pytest
from PIL import Image
from skimage import data

from tests.service_fixtures import Service

PHOTO = Image.fromarray(data.astronaut())


def jpeg(picture: Image.Image, quality: int = 90) -> bytes:
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=quality)
    return out.getvalue()


def look_up(http: httpx.Client, data: bytes, **params: str | int) -> dict[str, list[dict[str, object]]]:
    reply = http.post("/v1/lookup", content=data, params=params, headers={"content-type": "image/jpeg"})
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
