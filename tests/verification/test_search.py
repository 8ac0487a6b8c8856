"""Search by pixels alone: drawings turned and mirrored as a whole."""

import numpy as np

from consumer.verification.search import TURNS, turned
from tests.verification.drawings import drawing, edited, thumbnail


def around_the_middle(linear: object) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Make the transformation that turns by `linear` [2, 2] and leaves the middle where it is."""
    turn = np.asarray(linear, np.float32)
    return np.concatenate([turn, 0.5 - turn.sum(axis=1, keepdims=True) / 2], axis=1)


def test_each_way_of_turning_and_mirroring_a_whole_picture_is_found() -> None:
    expected = np.stack([around_the_middle(turn) for turn in TURNS])
    uploads = np.stack([thumbnail(edited(drawing(n), each)) for n, each in enumerate(expected)])
    candidates = np.stack([thumbnail(drawing(n)) for n in range(len(expected))])
    np.testing.assert_array_equal(turned(uploads, candidates), expected)
    changed = np.clip(uploads * 0.6 + 4, 0, 15)
    np.testing.assert_array_equal(turned(changed, candidates), expected)
    for n in range(len(expected)):  # neighbours in a batch change nothing
        np.testing.assert_array_equal(turned(uploads[n : n + 1], candidates[n : n + 1])[0], expected[n])


def test_blank_pictures_are_no_error() -> None:
    blank = np.full((2, 48, 48), 7, np.float32)
    assert np.isfinite(turned(blank, blank)).all()
