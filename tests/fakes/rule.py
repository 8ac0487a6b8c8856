"""A rule of the second look that nothing was fitted for: how well small blocks agree, in steps."""

import numpy as np

from consumer.encoder.contract import VerificationRule
from consumer.encoder.trees import BoostedTrees

MEASURE = "small_blocks_mean"
# A mean agreement of small blocks above all of these makes a score of 0.95, one below them all 0.05.
STEPS = np.linspace(0.05, 0.75, 20)
LOG_ODDS = 3.0


def stumps(steps: np.ndarray = STEPS, log_odds: float = LOG_ODDS) -> BoostedTrees:
    """Make a tree of depth one for each step: from -log_odds below all steps of the first column to log_odds above."""
    count = len(steps)
    leaves = np.tile(np.array([-log_odds, log_odds], np.float16) / np.float16(count), (count, 1))
    return BoostedTrees(np.zeros((count, 1), np.uint8), steps.astype(np.float16)[:, None], leaves, 0.0)


def make_rule(candidate_l2: float = 1.2, measure: str = MEASURE, rotation_map_bytes: bytes = b"") -> VerificationRule:
    """Make a rule that accepts where most steps are passed."""
    min_scores = {"strict": 0.8, "balanced": 0.5, "eager": 0.2}
    return VerificationRule(candidate_l2, (measure,), stumps(), min_scores, rotation_map_bytes)
