"""Fits boosted trees that tell copies from strangers by the measures of a look, and exports them as the service's."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from consumer.encoder.trees import BoostedTrees

Floats = NDArray[np.float32]

DEPTH, ROUNDS = 5, 400
# Measures that can only speak against a copy as they grow, and those that can only speak for one, by their beginnings.
# Held so, the rule cannot learn accidents of the pictures that it was fitted on.
AGAINST = ("l2", "moved", "stretch", "rotation_deg")
IN_FAVOUR = (
    "inliers",
    "trust",
    "similarity",
    "match_weight",
    "inlier_weight",
    "correlation",
    "contained",
    "overlap",
    "fine",
    "small_blocks",
    "shared_blocks",
    "large_blocks",
)
PARAMETERS: Mapping[str, Any] = {
    "objective": "binary",
    "max_depth": DEPTH,
    "num_leaves": 2**DEPTH,
    "learning_rate": 0.08,
    "min_data_in_leaf": 60,
    "feature_fraction": 0.5,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "lambda_l2": 2,
    "monotone_constraints_method": "advanced",
    "verbose": -1,
}


class Fitted(NamedTuple):
    """Trees, and what each measure brought: its share of the loss that the splits took away, [F]."""

    trees: BoostedTrees
    gains: NDArray[np.float64]


def fit(
    rows: Floats,
    is_copy: NDArray[np.bool_],
    weights: NDArray[np.float64],
    measures: Sequence[str],
    *,
    rounds: int = ROUNDS,
    seed: int = 0,
) -> Fitted:
    """Fit trees (LightGBM; Ke et al., 2017) to tell copies by `rows` [M, F] of the `measures` F, with M `weights`."""
    import lightgbm  # noqa: PLC0415 (an optional dependency)

    parameters = {
        **PARAMETERS,
        "monotone_constraints": [direction(name) for name in measures],
        "num_threads": 1,  # where other work takes the cores, threads wait for each other
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
    }
    booster = lightgbm.train(parameters, lightgbm.Dataset(rows, is_copy.astype(np.int8), weight=weights), rounds)
    gains = booster.feature_importance("gain")
    return Fitted(export([tree["tree_structure"] for tree in booster.dump_model()["tree_info"]]), gains / gains.sum())


def direction(measure: str) -> int:
    """Tell which way the score may go as a measure grows: 1 up, -1 down, 0 either."""
    return -1 if measure.startswith(AGAINST) else int(measure.startswith(IN_FAVOUR))


def export(structures: Sequence[dict[str, Any]]) -> BoostedTrees:
    """Turn the trees of a LightGBM dump into complete ones; branches that end early are padded."""
    count, inner = len(structures), 2**DEPTH - 1
    columns = np.zeros((count, inner), np.uint8)
    thresholds = np.full((count, inner), np.inf, np.float16)  # all rows to the left
    leaves = np.zeros((count, inner + 1), np.float32)
    for tree, structure in enumerate(structures):
        _fill(structure, 0, columns[tree], thresholds[tree], leaves[tree])
    # The first tree begins with the log odds of all rows: these by themselves, since float16 has eleven bits.
    base = float(leaves[0].mean())
    leaves[0] -= base
    return BoostedTrees(columns, thresholds, leaves.astype(np.float16), base)


def _fill(
    node: dict[str, Any], place: int, columns: NDArray[np.uint8], thresholds: NDArray[np.float16], leaves: Floats
) -> None:
    """Write a node of a dump, and all below it, to its `place` in the complete tree."""
    inner = len(columns)
    if place >= inner:
        leaves[place - inner] = node["leaf_value"]
        return
    if "split_feature" in node:
        columns[place], thresholds[place] = node["split_feature"], node["threshold"]
        children = node["left_child"], node["right_child"]
    else:
        children = node, node
    for child, side in zip(children, (1, 2), strict=True):
        _fill(child, 2 * place + side, columns, thresholds, leaves)
