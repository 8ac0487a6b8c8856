"""Which pictures meet in a batch: halves with their other halves, never with the whole, and none that is held out."""

from collections import Counter, defaultdict
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests.training.drawings import draw_picture
from triton_models.training.batches import FIRST_HALF, SECOND_HALF, Batches, Draw, Views, cut
from triton_models.training.data import Pictures, is_validation, load, split
from triton_models.training.loss import WHOLE
from triton_models.training.recipe import Recipe

SIZE = 64
NAMES = [f"{source}-{number:03d}.png" for source in ("lamps", "lampshades", "maps") for number in range(30)]


def batches(members: np.ndarray, seed: int = 0, **choices: float) -> list[list[Draw]]:
    vectors = functional.normalize(torch.randn(100, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    return list(islice(Batches(members, vectors, Recipe(size=SIZE, **choices), seed), 20))  # type: ignore[arg-type]


def test_a_share_of_a_batch_are_both_halves_of_pictures_that_are_not_in_it_whole() -> None:
    for batch in batches(np.arange(100), batch=40, halves=0.2):
        assert len(batch) == len({(draw.picture, draw.part) for draw in batch}) == 40
        halves = {part: {draw.picture for draw in batch if draw.part == part} for part in (FIRST_HALF, SECOND_HALF)}
        assert halves[FIRST_HALF] == halves[SECOND_HALF]
        assert len(halves[FIRST_HALF]) == 4
        assert not halves[FIRST_HALF] & {draw.picture for draw in batch if draw.part == WHOLE}


def test_batches_repeat_by_their_seed_and_need_no_halves() -> None:
    members = np.arange(100)
    assert batches(members, batch=40) == batches(members, batch=40) != batches(members, seed=1, batch=40)
    assert {draw.part for batch in batches(members, batch=40, halves=0.0) for draw in batch} == {WHOLE}


def test_fewer_pictures_than_a_batch_are_enough() -> None:
    assert {len(batch) for batch in batches(np.arange(9), batch=384)} == {9}


@pytest.mark.parametrize("upright", [True, False])
def test_two_halves_make_the_picture_and_have_its_proportions(upright: bool) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    (first, aspect), (second, other_aspect) = (
        cut(picture, 1.5, part, upright=upright) for part in (FIRST_HALF, SECOND_HALF)
    )
    np.testing.assert_array_equal(np.concatenate((first, second), axis=1 if upright else 0), picture)
    assert aspect == other_aspect == (0.75 if upright else 3.0)


def test_views_of_a_half_show_that_half_and_repeat() -> None:
    """Left, right, upper and lower halves of a picture whose quarters have one colour each."""
    quarters = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], np.uint8)
    pixels = quarters.repeat(128, axis=0).repeat(128, axis=1)[None]
    views = Views(Pictures(pixels, np.ones(1, np.float32), ["quarters-0.png"]), np.arange(1))
    shown = defaultdict[tuple[int, int], Counter[tuple[int, ...]]](Counter)
    for seed in range(40):
        for part in (FIRST_HALF, SECOND_HALF):
            draw = Draw(0, part, seed, SIZE)
            pairs, again = views[draw], views[draw]
            assert all(torch.equal(one, other) for one, other in zip(pairs, again, strict=True))
            assert pairs.first.shape == pairs.second.shape == (SIZE, SIZE, 3)
            inner = pairs.first[8:-8:4, 8:-8:4].flatten(0, 1).int()
            distances = (inner[:, None] - torch.from_numpy(quarters).flatten(0, 1).int()).abs().amax(2)
            if distances.amin(1).max() == 0:  # as nearly half of the first views, this one is not edited
                shown[seed % 2, part][tuple(distances.argmin(1).unique().tolist())] += 1
    most = {draw: colours.most_common(1)[0][0] for draw, colours in shown.items()}
    assert most == {
        (0, FIRST_HALF): (0, 1),
        (0, SECOND_HALF): (2, 3),
        (1, FIRST_HALF): (0, 2),
        (1, SECOND_HALF): (1, 3),
    }


def test_sources_held_out_do_not_occur_in_batches_and_the_validation_stays() -> None:
    plain, without = split(NAMES), split(NAMES, ["lamps", "maps"])
    np.testing.assert_array_equal(without.validation, plain.validation)
    assert [is_validation(name) for name in NAMES] == np.isin(np.arange(len(NAMES)), plain.validation).tolist()
    drawn = {NAMES[draw.picture] for batch in batches(without.training, batch=8) for draw in batch}
    assert drawn
    assert {name.partition("-")[0] for name in drawn} == {"lampshades"}
    assert {NAMES[i].partition("-")[0] for i in without.held_out_sources} == {"lamps", "maps"}
    with pytest.raises(ValueError, match=r"lamp$"):
        split(NAMES, ["lamp"])


def test_pictures_come_from_several_folders_with_the_proportions_that_they_had(tmp_path: Path) -> None:
    folders = [tmp_path / "some", tmp_path / "more"]
    for seed, folder in enumerate(folders):
        folder.mkdir()
        draw_picture(seed).save(folder / f"drawn-{seed}.png")
    pictures = load(folders, tmp_path / "cache", {"drawn-1.png": 2.5})
    assert pictures.names == ["drawn-0.png", "drawn-1.png"]
    np.testing.assert_allclose(pictures.aspects, [112 / 96, 2.5], rtol=1e-3)
    assert load(folders, tmp_path / "cache").aspects[1] == pytest.approx(112 / 96, rel=1e-3)
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match="none holds no pictures"):
        load([*folders, tmp_path / "none"], tmp_path / "cache")
