"""Each malformed input gets the verdict that its source calls right: see `tests.malformed`."""

import pytest

from consumer.errors import Unprocessable
from consumer.events import ImageUpload
from consumer.images.decode import decode
from consumer.parse import parse
from consumer.settings import DecodeSettings
from tests.malformed import EVENTS, PICTURE, PICTURES, Malformed, MalformedEvent

SETTINGS = DecodeSettings()


@pytest.mark.parametrize(
    "malformed", [each for each in PICTURES if each.right == PICTURE], ids=lambda malformed: malformed.name
)
def test_a_picture_that_is_shown_all_the_same(malformed: Malformed) -> None:
    assert decode(malformed.make(), 96, SETTINGS).detail > 1, "the picture does not show what it should"


@pytest.mark.parametrize(
    "malformed", [each for each in PICTURES if each.right != PICTURE], ids=lambda malformed: malformed.name
)
def test_a_picture_that_is_refused(malformed: Malformed) -> None:
    with pytest.raises(Unprocessable) as caught:
        decode(malformed.make(), 96, SETTINGS)
    assert caught.value.reason == malformed.right, caught.value.detail


@pytest.mark.parametrize("malformed", EVENTS, ids=lambda malformed: malformed.name)
def test_an_event(malformed: MalformedEvent) -> None:
    [event] = parse(malformed.record)
    body = event.body
    assert isinstance(body, ImageUpload | Unprocessable)
    assert (body.image_id if isinstance(body, ImageUpload) else body.reason) == malformed.right, body


def test_each_is_another_kind() -> None:
    names = [each.name for each in (*PICTURES, *EVENTS)]
    assert len(names) == len(set(names)) > 100
    assert all(each.source for each in (*PICTURES, *EVENTS))
