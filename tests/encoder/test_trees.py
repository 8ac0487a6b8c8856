"""Boosted trees as data: packed and unpacked, evaluated as a plain walk would, and refused when they are broken."""

import math
import struct
import zlib
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from consumer.encoder.trees import MAX_DEPTH, MAX_TREES, BoostedTrees

Floats = NDArray[np.float32]
COLUMNS = 5
HALF_FLOATS = st.floats(-1000, 1000, width=16)


@st.composite
def boosted_trees(draw: st.DrawFn) -> BoostedTrees:
    count, depth = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    inner = 2**depth - 1
    return BoostedTrees(
        draw(hnp.arrays(np.uint8, (count, inner), elements=st.integers(0, COLUMNS - 1))),
        draw(hnp.arrays(np.float16, (count, inner), elements=HALF_FLOATS)),
        draw(hnp.arrays(np.float16, (count, inner + 1), elements=HALF_FLOATS)),
        draw(st.floats(-100, 100, width=32)),
    )


# Values that lie on a threshold, and beyond all of them.
rows = hnp.arrays(
    np.float32,
    st.tuples(st.integers(0, 4), st.just(COLUMNS)),
    elements=st.one_of(HALF_FLOATS, st.floats(allow_nan=False, width=32)),
)


def walk(trees: BoostedTrees, row: Floats) -> float:
    """Walk down each tree for one row, and sum up the leaves."""
    total = trees.base
    for columns, thresholds, leaves in zip(trees.columns, trees.thresholds, trees.leaves, strict=True):
        node = 0
        while node < len(columns):
            goes_right = float(row[columns[node]]) > float(thresholds[node])
            node = 2 * node + (2 if goes_right else 1)
        total += float(leaves[node - len(columns)])
    return total


@settings(deadline=None)
@given(boosted_trees(), rows)
def test_trees_are_walked_as_one_would_by_hand(trees: BoostedTrees, rows: Floats) -> None:
    expected = [walk(trees, row) for row in rows]
    np.testing.assert_allclose(trees.log_odds(rows), expected, rtol=1e-5, atol=1e-2)
    scores = trees.scores(rows)
    assert scores.shape == (len(rows),)
    assert ((scores >= 0) & (scores <= 1)).all()
    for score, log_odds in zip(scores.tolist(), expected, strict=True):
        assert score == pytest.approx(1 / (1 + math.exp(-min(max(log_odds, -30), 30))), abs=5e-3)


@settings(deadline=None)
@given(boosted_trees(), rows)
def test_each_row_is_scored_by_itself(trees: BoostedTrees, rows: Floats) -> None:
    together = trees.scores(rows)
    for row, score in zip(rows, together, strict=True):
        assert trees.scores(row[None])[0] == score


@settings(deadline=None)
@given(boosted_trees())
def test_what_is_packed_is_unpacked(trees: BoostedTrees) -> None:
    again = BoostedTrees.from_bytes(trees.to_bytes(), COLUMNS)
    for name in ("columns", "thresholds", "leaves"):
        before, after = getattr(trees, name), getattr(again, name)
        assert before.dtype == after.dtype
        np.testing.assert_array_equal(before, after)
    assert again.base == trees.base
    assert again.to_bytes() == trees.to_bytes()


def test_trees_are_equal_by_what_they_hold() -> None:
    """A model whose configuration is read once more is still the same model."""
    one, same, other = (one_tree(leaf) for leaf in (4, 4, 5))
    assert one == same == BoostedTrees.from_bytes(one.to_bytes(), 3)
    assert hash(one) == hash(same)
    assert one != other
    assert one != one.to_bytes()


def test_trees_that_were_walked_are_still_the_same() -> None:
    """Of what is kept for the next rows, nothing is packed, and nothing counts in comparisons."""
    walked, fresh = one_tree(), one_tree()
    walked.scores(np.zeros((2, 3), np.float32))
    assert walked == fresh
    assert hash(walked) == hash(fresh)
    assert walked.to_bytes() == fresh.to_bytes()
    with pytest.raises(FrozenInstanceError):
        walked.base = 1.0  # type: ignore[misc]


def test_a_value_on_the_threshold_goes_to_the_left() -> None:
    trees = BoostedTrees(
        np.zeros((1, 1), np.uint8), np.full((1, 1), 0.5, np.float16), np.array([[-1, 1]], np.float16), 0.25
    )
    values = np.array([[0.5], [np.nextafter(np.float32(0.5), np.float32(1))]], np.float32)
    assert trees.log_odds(values).tolist() == [-0.75, 1.25]


def test_a_missing_number_gives_a_score_all_the_same() -> None:
    """No measure is NaN; if one were, its row would go to the left everywhere."""
    trees = one_tree()
    assert trees.log_odds(np.full((1, 3), np.nan, np.float32)).tolist() == [1]


def one_tree(leaf: float = 4.0, threshold: float = 0.0) -> BoostedTrees:
    """Make a tree of depth two that asks for three columns."""
    return BoostedTrees(
        np.array([[0, 1, 2]], np.uint8),
        np.array([[threshold, 1, 2]], np.float16),
        np.array([[1, 2, 3, leaf]], np.float16),
        0.0,
    )


def packed(content: bytes) -> bytes:
    return zlib.compress(content)


CONTENT = zlib.decompress(one_tree().to_bytes())


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no packed trees"),
        (b"no trees", "no packed trees"),
        (one_tree().to_bytes()[:-3], "no packed trees"),
        (packed(b"\1"), "no packed trees"),
        (packed(struct.pack("<HBf", 0, 2, 0)), "0 trees of depth 2"),
        (packed(struct.pack("<HBf", 1, 0, 0)), "1 trees of depth 0"),
        (packed(struct.pack("<HBf", 1, MAX_DEPTH + 1, 0)), f"depth 1 to {MAX_DEPTH} are taken"),
        (packed(struct.pack("<HBf", 65535, 1, 0)), f"at most {MAX_TREES}"),
        (packed(struct.pack("<HBf", 1, 255, 0)), "depth 255"),
        (packed(CONTENT[:-1]), "bytes are not the length of 1 trees of depth 2"),
        (packed(CONTENT + b"\0"), "bytes are not the length of 1 trees of depth 2"),
        (packed(struct.pack("<HBf", 2, 2, 0) + CONTENT[7:]), "not the length of 2 trees"),
        (one_tree(leaf=math.nan).to_bytes(), "not finite"),
        (one_tree(leaf=math.inf).to_bytes(), "not finite"),
        (one_tree(threshold=math.nan).to_bytes(), "not finite"),
    ],
)
def test_broken_trees_are_refused_with_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        BoostedTrees.from_bytes(data, 3)


def test_trees_that_ask_for_more_numbers_than_there_are_are_refused() -> None:
    assert BoostedTrees.from_bytes(one_tree().to_bytes(), 3).columns.max() == 2
    with pytest.raises(ValueError, match="the trees ask for number 3 of 2"):
        BoostedTrees.from_bytes(one_tree().to_bytes(), 2)


def test_trees_with_a_base_that_is_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        BoostedTrees.from_bytes(packed(struct.pack("<HBf", 1, 2, math.nan) + CONTENT[7:]), 3)


@settings(deadline=None)
@given(st.one_of(st.binary(max_size=200), st.binary(max_size=200).map(zlib.compress)))
@example(packed(CONTENT))
def test_any_bytes_are_trees_or_are_refused(data: bytes) -> None:
    try:
        trees = BoostedTrees.from_bytes(data, 3)
    except ValueError:
        return
    assert trees.scores(np.zeros((1, 3), np.float32)).shape == (1,)
