"""Draws from a generator of random numbers."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

Rng = np.random.Generator
Item = TypeVar("Item")


def pick(rng: Rng, items: Sequence[Item]) -> Item:
    return items[int(rng.integers(len(items)))]


def chance(rng: Rng, share: float) -> bool:
    return bool(rng.random() < share)


def between(rng: Rng, low: float, high: float) -> float:
    return float(rng.uniform(low, high))


def count(rng: Rng, low: int, high: int) -> int:
    """A whole number from `low` to `high`, both included."""
    return int(rng.integers(low, high + 1))
