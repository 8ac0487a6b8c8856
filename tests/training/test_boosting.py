"""Boosted trees keep what LightGBM learned when they become the service's, and what a measure may say."""

import lightgbm
import numpy as np
import pytest

from consumer.encoder.trees import BoostedTrees
from triton_models.training import boosting
from triton_models.training.boosting import DEPTH, direction, export, fit

MEASURES = ("l2", "inliers", "log_area")


def rows(count: int = 600, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Copies are near, have inliers, and an area of one."""
    rng = np.random.default_rng(seed)
    values = np.stack([rng.uniform(0, 1.3, count), rng.integers(0, 30, count), rng.normal(0, 1, count)], axis=1)
    odds = 6 - 8 * values[:, 0] + 0.2 * values[:, 1] - 2 * values[:, 2] ** 2
    return values.astype(np.float32), rng.random(count) < 1 / (1 + np.exp(-odds))


def test_the_trees_score_as_lightgbm_does() -> None:
    values, is_copy = rows()
    parameters = {**boosting.PARAMETERS, "min_data_in_leaf": 10, "monotone_constraints": [-1, 1, 0], "num_threads": 1}
    booster = lightgbm.train(parameters, lightgbm.Dataset(values, is_copy.astype(np.int8)), 30)
    dumped = booster.dump_model()["tree_info"]
    assert any("leaf_value" in tree["tree_structure"]["left_child"] for tree in dumped)  # branches that end early
    trees = export([tree["tree_structure"] for tree in dumped])
    assert trees.columns.shape == (30, 2**DEPTH - 1)
    expected = booster.predict(values, raw_score=True)
    # Thresholds have eleven bits: a few values change sides.
    assert np.quantile(np.abs(trees.log_odds(values) - expected), 0.9) < 0.02
    packed = BoostedTrees.from_bytes(trees.to_bytes(), len(MEASURES))
    assert packed.log_odds(values) == pytest.approx(trees.log_odds(values))


def test_a_fit_tells_copies_and_goes_one_way_with_what_speaks_for_or_against() -> None:
    values, is_copy = rows()
    fitted = fit(values, is_copy, np.ones(len(values)), MEASURES, rounds=40)
    scores = fitted.trees.scores(rows(seed=1)[0])
    assert scores[rows(seed=1)[1]].mean() > scores[~rows(seed=1)[1]].mean() + 0.4
    assert fitted.gains.sum() == pytest.approx(1)
    line = np.tile(np.array([0.6, 10, 0], np.float32), (50, 1))
    nearer, more_inliers = line.copy(), line.copy()
    nearer[:, 0], more_inliers[:, 1] = np.linspace(1.3, 0, 50), np.linspace(0, 30, 50)
    for each in (nearer, more_inliers):
        assert (np.diff(fitted.trees.log_odds(each)) >= -1e-3).all()
    assert [direction(name) for name in ("stretch_in_frame", "finest", "match_content")] == [-1, 1, 0]
    again = fit(values, is_copy, np.ones(len(values)), MEASURES, rounds=40)
    assert again.trees.to_bytes() == fitted.trees.to_bytes()
