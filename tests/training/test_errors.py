"""The sheets of errors show what they should, also when there is nothing to show."""

from pathlib import Path

import numpy as np

from triton_models.training import errors
from triton_models.training.bench import make_bench
from triton_models.training.sheets import CAPTION, SIDE


def test_sheets_show_each_wrong_pair_once_and_the_misses_first_that_should_be_easy(
    folder: Path, tmp_path: Path
) -> None:
    bench = make_bench(folder, 2, own_edits_only=True, seed=0)
    kinds, count = len(bench.edits), len(bench.originals)
    copies = np.array([0, 0, count, 1])  # of the first picture thrice, of the second once
    sheet = errors.false_positives(bench, copies, np.array([3, 3, 3, 4]))
    assert sheet.height == SIDE + CAPTION
    drawn = np.asarray(sheet) < 250
    width = 2 * SIDE + 10
    assert drawn[:SIDE, : 2 * width].any()
    assert not drawn[:SIDE, 2 * width :].any()
    detected = np.ones((kinds, count), bool)
    detected[3, 0] = False
    assert (np.asarray(errors.misses(bench, detected)) < 250)[:, :width].any()
    assert not (np.asarray(errors.misses(bench, np.ones_like(detected))) < 250).any()
    errors.save(bench, copies[:1], np.array([3]), detected, tmp_path, "ours")
    assert {path.name for path in tmp_path.iterdir()} == {"false-positives-ours.png", "misses-ours.png"}
