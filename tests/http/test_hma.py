"""HMA's routes as its clients use them: what they send, and what they rely on in the answers."""

import json
import uuid

import httpx
import pytest
from PIL import Image
from skimage import data

from tests.http.pictures import PHOTO, jpeg
from tests.processes import until
from tests.service_fixtures import Service

COPY = jpeg(PHOTO.resize((300, 300)), 60)
STRANGER = jpeg(Image.fromarray(data.coffee()))
ONE = "facd8bcb2a49bcebdec1985298d5fe84bcd006c187c598c720c3c087b3fdb318"
OTHER = "facd8bcb2a49bcebdec1985228d5ae84bcd006c187c598c720c2b087b3fdb318"


def photo(picture: bytes) -> dict[str, tuple[str, bytes, str]]:
    return {"photo": ("a.jpg", picture, "image/jpeg")}


@pytest.fixture
def bank(http: httpx.Client) -> str:
    """A new bank, by the name that a moderation tool gives it."""
    name = f"COOP_ORG1_{uuid.uuid4().hex[:8].upper()}"
    reply = http.post("/c/banks", json={"name": name, "enabled_ratio": "1"})
    assert (reply.status_code, reply.json()) == (201, {"name": name, "matching_enabled_ratio": 1.0})
    return name


def test_it_says_that_it_is_alive(http: httpx.Client) -> None:
    assert http.get("/status").text == http.get("/status/live").text == "I-AM-ALIVE"


def test_a_picture_is_hashed(http: httpx.Client) -> None:
    signals = http.post("/h/hash", files=photo(jpeg(PHOTO))).json()
    assert set(signals) == {"seenit", "pdq"}
    assert len(signals["pdq"]) == 64
    assert set(http.post("/h/hash", files=photo(jpeg(PHOTO)), params={"types": "pdq"}).json()) == {"pdq"}
    assert http.post("/h/hash", files={"video": ("a.mp4", b"", "video/mp4")}).status_code == 400
    assert http.post("/h/hash").status_code == 400
    assert http.get("/h/hash", params={"url": "https://127.0.0.1/a.jpg"}).status_code == 400
    assert http.get("/h/hash").status_code == 400


def test_types_of_signals_that_are_not_there_are_refused(http: httpx.Client) -> None:
    for types in (" pdq, ", "pdq,"):
        assert set(http.post("/h/hash", files=photo(jpeg(PHOTO)), params={"types": types}).json()) == {"pdq"}
    assert set(http.post("/m/lookup", files=photo(jpeg(PHOTO)), params={"types": "pdq"}).json()) == {"pdq"}
    for types in ("", ",", "pdq,md5"):
        for path in ("/h/hash", "/m/lookup"):
            assert http.post(path, files=photo(jpeg(PHOTO)), params={"types": types}).status_code == 400
            by_url = {"types": types, "url": "https://example.org/a.jpg"}
            assert "signal type" in http.get(path, params=by_url).json()["detail"]


def test_what_is_said_to_be_no_picture_is_refused(http: httpx.Client, bank: str) -> None:
    params = {"url": "https://example.org/a.jpg", "content_type": "video"}
    for reply in (
        http.get("/h/hash", params=params),
        http.get("/m/lookup", params=params),
        http.post(f"/c/bank/{bank}/content", params=params),
    ):
        assert reply.status_code == 400
        assert "content type" in reply.json()["detail"]


def test_signals_are_compared(http: httpx.Client) -> None:
    assert http.post("/m/compare", json={"pdq": [ONE, OTHER]}).json() == {"pdq": [True, {"distance": 9}]}
    one, copy, stranger = (
        http.post("/h/hash", files=photo(each)).json()["seenit"] for each in (jpeg(PHOTO), COPY, STRANGER)
    )
    same, apart = (http.post("/m/compare", json={"seenit": [one, each]}).json()["seenit"] for each in (copy, stranger))
    assert (same[0], apart[0]) == (True, False)
    assert same[1]["distance"] < apart[1]["distance"]


@pytest.mark.parametrize(
    "body",
    [
        ["banana"],
        {"pdq": "banana"},
        {"pdq": []},
        {"pdq": ["banana", "banana"]},
        {"pdq": [ONE, OTHER, ONE]},
        {"seenit": ["banana", "AAAA"]},
        {"md5": [ONE, OTHER]},
    ],
    ids=str,
)
def test_what_cannot_be_compared_is_a_bad_request(http: httpx.Client, body: object) -> None:
    assert http.post("/m/compare", json=body).status_code == 400


def test_banks_are_created_listed_turned_off_and_deleted(http: httpx.Client, bank: str) -> None:
    on = {"name": bank, "matching_enabled_ratio": 1.0}
    assert http.get(f"/c/bank/{bank}").json() == on
    assert on in http.get("/c/banks").json()
    assert http.post("/c/banks", json={"name": bank}).status_code == 403
    for name in ("01_TEST_BANK", "my_test_bank", "", "BANK\n", "B" * 257):
        assert http.post("/c/banks", json={"name": name}).status_code == 400
    for body in ({}, {"name": None}, {"name": "BANK", "enabled": "perhaps"}):
        assert http.post("/c/banks", json=body).status_code == 422
    assert http.put(f"/c/bank/{bank}", json={"enabled": False}).json()["matching_enabled_ratio"] == 0
    assert http.get(f"/c/bank/{bank}").json()["matching_enabled_ratio"] == 0
    assert http.put(f"/c/bank/{bank}", json={"enabled_ratio": 1.0}).status_code == 200
    for ratio in ("much", 10**400):
        assert http.put(f"/c/bank/{bank}", json={"enabled_ratio": ratio}).status_code == 422
    assert http.put(f"/c/bank/{bank}", json={"name": "1_invalid_name"}).status_code == 400
    for _ in range(2):  # one that is not there as well
        assert http.delete(f"/c/bank/{bank}").status_code == 200
    assert http.get(f"/c/bank/{bank}").status_code == 404
    assert http.put(f"/c/bank/{bank}", json={"enabled": True}).status_code == 404


def test_null_is_the_same_as_left_out(http: httpx.Client, bank: str) -> None:
    unknown = {"enabled": None, "enabled_ratio": None}
    for enabled in (True, False):
        assert http.put(f"/c/bank/{bank}", json={"enabled": enabled}).status_code == 200
        for body in (unknown, {"name": None}, {}):
            assert http.put(f"/c/bank/{bank}", json=body).json()["matching_enabled_ratio"] == float(enabled)
    created = http.post("/c/banks", json={"name": f"{bank}_2", **unknown})
    assert (created.status_code, created.json()["matching_enabled_ratio"]) == (201, 1.0)


def test_a_banked_picture_is_found_by_each_way_to_look_up(http: httpx.Client, bank: str) -> None:
    added = http.post(f"/c/bank/{bank}/content", files=photo(jpeg(PHOTO)), data={"content_id": "x", "metadata": "{}"})
    assert added.status_code == 200, added.text
    content_id = added.json()["id"]
    assert set(added.json()["signals"]) == {"seenit", "pdq"}
    signals = http.post("/h/hash", files=photo(COPY)).json()
    asked = {"signal": signals["seenit"], "signal_type": "seenit"}
    until(lambda: bank in http.get("/m/lookup", params=asked).json(), 60, "the picture is not in the bank")
    by_signal = http.get("/m/lookup", params=asked).json()
    assert [match["bank_content_id"] for match in by_signal[bank]] == [content_id]
    assert isinstance(by_signal[bank][0]["distance"], str)
    by_picture = http.post("/m/lookup", files=photo(COPY)).json()
    assert [match["bank_content_id"] for match in by_picture["seenit"][bank]] == [content_id]
    assert bank not in http.post("/m/lookup", files=photo(STRANGER)).json()["seenit"]
    assert http.post("/m/lookup", files=photo(COPY), params={"banks": "ANOTHER"}).json()["seenit"] == {}
    for banks in ("", f"ANOTHER,{bank}"):  # none is the same as all
        assert bank in http.post("/m/lookup", files=photo(COPY), params={"banks": banks}).json()["seenit"]
    described = http.get(f"/c/bank/{bank}/content/{content_id}", params={"include_signals": "true"}).json()
    assert described == {
        "id": content_id,
        "disable_until_ts": 1,  # 0 would be that it is disabled
        "original_media_uri": None,
        "bank": {"name": bank, "matching_enabled_ratio": 1.0},
    }
    assert http.delete(f"/c/bank/{bank}/content/{content_id}").json() == {"deleted": 1}
    assert http.delete(f"/c/bank/{bank}/content/{content_id}").json() == {"deleted": 0}
    assert http.get(f"/c/bank/{bank}/content/{content_id}").status_code == 404
    assert bank not in http.get("/m/lookup", params=asked).json()


def test_a_banked_pdq_hash_is_found(http: httpx.Client, bank: str) -> None:
    added = http.post(f"/c/bank/{bank}/signal", json={"pdq": ONE})
    assert added.status_code == 200, added.text
    found = http.get("/m/lookup", params={"signal": OTHER, "signal_type": "pdq"}).json()
    assert found[bank] == [{"bank_content_id": added.json()["id"], "distance": "9"}]
    content = f"/c/bank/{bank}/content/{added.json()['id']}"
    assert http.get(content, params={"include_signals": "true"}).json()["signals"] == {"pdq": ONE}
    assert "signals" not in http.get(content).json()
    assert http.post(f"/c/bank/{bank}/signal", json={"pdq": "banana"}).status_code == 400
    assert http.post(f"/c/bank/{bank}/signal", json={"md5": ONE}).status_code == 400


@pytest.mark.parametrize("params", [{}, {"signal": ONE}, {"signal": ONE, "signal_type": "md5"}, {"signal_type": "pdq"}])
def test_half_a_look_up_is_a_bad_request(http: httpx.Client, params: dict[str, str]) -> None:
    assert http.get("/m/lookup", params=params).status_code == 400


def test_notes_stand_with_the_entries(http: httpx.Client, uploads: Service, bank: str) -> None:
    path, note = f"/c/bank/{bank}", f"seen in {bank}"
    assert http.post(f"{path}/signal", json={"pdq": ONE, "note": f"{note} 1"}).status_code == 200
    assert http.post(f"{path}/content", files=photo(COPY), data={"note": f"{note} 2"}).status_code == 200
    messages = uploads.all_messages(uploads.kafka.banks_topic)
    values = {message.key(): message.value() or b"{}" for message in messages}
    notes = {json.loads(value).get("note") for key, value in values.items() if key.startswith(b'["entry"')}
    assert notes >= {f"{note} 1", f"{note} 2"}


@pytest.mark.parametrize("note", ["x" * 256, 5], ids=["too long", "no text"])
def test_what_is_no_note_is_a_bad_request(http: httpx.Client, bank: str, note: object) -> None:
    url = {"url": "https://example.org/a.jpg"}
    for reply in (
        http.post(f"/c/bank/{bank}/signal", json={"pdq": ONE, "note": note}),
        http.post(f"/c/bank/{bank}/content", params=url, json={"note": note}),
        http.post(f"/c/bank/{bank}/content", files=photo(COPY), data={"note": str(note) * 256}),
    ):
        assert reply.status_code == 400
        assert "note" in reply.json()["detail"]


def test_half_of_a_character_is_no_note(http: httpx.Client, bank: str) -> None:
    body, headers = f'{{"pdq": "{ONE}", "note": "\\ud800"}}', {"content-type": "application/json"}
    url = {"url": "https://example.org/a.jpg"}
    for reply in (
        http.post(f"/c/bank/{bank}/signal", content=body, headers=headers),
        http.post(f"/c/bank/{bank}/content", params=url, content=body, headers=headers),
    ):
        assert reply.status_code == 400
        assert "note" in reply.json()["detail"]
