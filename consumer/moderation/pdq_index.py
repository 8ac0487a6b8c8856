"""Search of PDQ hashes for those that differ from a picture's in few bits."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Generic, TypeVar

import numpy as np

Holder = TypeVar("Holder")

# Hashes that are compared at once: what they take stays in the processor's cache.
CHUNK = 8192


class PdqIndex(Generic[Holder]):
    """Hashes, each as 64 hex digits, and what holds it. Does not change, so that threads may share it."""

    def __init__(self, hashes: Iterable[tuple[str, Holder]]) -> None:
        listed = list(hashes)
        self._holders: Sequence[Holder] = [holder for _, holder in listed]
        packed = np.frombuffer(bytes.fromhex("".join(pdq for pdq, _ in listed)), np.uint64)
        self._words = np.ascontiguousarray(packed.reshape(-1, 4).T)  # [4, N]

    def near(self, pdq: str, max_distance: int) -> Iterator[tuple[Holder, int]]:
        """Yield what holds a hash that differs in that many bits at most, and in how many it does."""
        asked = np.frombuffer(bytes.fromhex(pdq), np.uint64)
        for start in range(0, len(self._holders), CHUNK):
            words = self._words[:, start : start + CHUNK]
            # Nearly all differ in more bits in their first half alone.
            half = np.bitwise_count(words[0] ^ asked[0]) + np.bitwise_count(words[1] ^ asked[1])
            likely = np.flatnonzero(half <= max_distance)
            rest = np.bitwise_count(words[2:, likely] ^ asked[2:, np.newaxis]).sum(axis=0)
            for number, distance in zip(likely.tolist(), (half[likely] + rest).tolist(), strict=True):
                if distance <= max_distance:
                    yield self._holders[start + number], distance
