"""How well distances tell copies from other pictures: thresholds at false positive rates, recall, confidence.

A *pair* is a copy and an unedited picture. Pairs of a copy with its own original are to be detected; all others, save
pairs with a duplicate of the original or with a picture that was mixed into the copy, are false positives if detected.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
CHUNK = 512
RESAMPLES = 200


@dataclass(frozen=True, slots=True)
class Measured:
    """Distances (L2 between unit vectors) of one encoder.

    `copies` float32 [K, N] are those of K kinds of copies of N pictures to their originals; `ranked_first` bool [K, N]
    tells whether no other picture is nearer. `others` float32 [T] are the smallest of the `pairs` distances to other
    pictures, ascending; `others_picture` [T] tells from which of the N pictures the copy was made, `others_reference`
    [T] the other picture.
    """

    copies: Floats
    ranked_first: NDArray[np.bool_]
    others: Floats
    others_picture: NDArray[np.int64]
    others_reference: NDArray[np.int64]
    pairs: int

    def threshold(self, rate: float) -> float:
        """Return the distance up to which a share `rate` of the other pairs lies.

        Raises ValueError when fewer than ten pairs would decide, or more than were kept.
        """
        count = int(rate * self.pairs)
        if count < 10:
            raise ValueError(
                f"A false positive rate of {rate:g} cannot be read from {self.pairs:.2g} pairs; "
                f"that takes {10 / rate:.2g}: more pictures or copies, or a rate of at least {10 / self.pairs:.1g}."
            )
        if count > len(self.others):
            raise ValueError(f"Only the nearest {len(self.others)} of {self.pairs:.2g} other pairs were kept")
        return float(self.others[count - 1])

    def recall(self, threshold: float) -> NDArray[np.float64]:
        """Return the share of the copies of each kind within `threshold`: [K]."""
        return (self.copies <= threshold).mean(axis=1)

    def interval(self, rate: float, seed: int = 0) -> tuple[tuple[float, float], NDArray[np.float64]]:
        """Estimate 95% intervals of the threshold at `rate` and of the recall there.

        The former is (low, high), the latter [K + 1, 2] by kind, the mean last. Both are bootstrapped over pictures: a
        picture brings all its copies and all their false positives, which come in bursts, so that pairs are far from
        independent.
        """
        count = self.copies.shape[1]
        rng = np.random.default_rng(seed)
        thresholds, recalls = [], []
        for _ in range(RESAMPLES):
            weights = rng.multinomial(count, np.full(count, 1 / count))
            false_positives = np.cumsum(weights[self.others_picture])
            last = min(int(np.searchsorted(false_positives, rate * self.pairs)), len(self.others) - 1)
            thresholds.append(float(self.others[last]))
            recall = ((self.copies <= self.others[last]) * weights).sum(axis=1) / count
            recalls.append([*recall, recall.mean()])
        low, high = np.quantile(thresholds, (0.025, 0.975))
        return (float(low), float(high)), np.quantile(recalls, (0.025, 0.975), axis=0).T

    def average_precision(self) -> float:
        """Compute the micro average precision, of one ranking of all pairs, as in the image similarity challenges.

        Copies farther than the farthest other pair that was kept count as never detected.
        """
        distances = np.sort(self.copies.ravel())
        before = np.searchsorted(self.others, distances, side="right")
        precision = np.arange(1, len(distances) + 1) / (np.arange(1, len(distances) + 1) + before)
        return float(precision[before < len(self.others)].sum() / len(distances))


def measure(
    copies: Floats,
    originals: NDArray[np.int64],
    references: Floats,
    *,
    excluded: Iterable[tuple[int, int]] = (),
    mixed_in: NDArray[np.int64] | None = None,
    keep_rate: float = 1e-4,
) -> Measured:
    """Compare copies with all references.

    `copies` [K, N, D] unit vectors of K kinds of copies of N pictures; `originals` [N] their places among the
    `references` [R, D]; `excluded` pairs of references that are duplicates themselves; `mixed_in` [K, N] the reference
    that was put into a copy, or -1. The nearest `keep_rate` of all other pairs are kept.
    """
    kinds, count, dim = copies.shape
    queries = copies.reshape(kinds * count, dim)
    owners = np.tile(originals, kinds)
    inside = np.full(len(owners), -1) if mixed_in is None else mixed_in.ravel()
    duplicates: dict[int, list[int]] = {}
    for a, b in excluded:
        duplicates.setdefault(a, []).append(b)
        duplicates.setdefault(b, []).append(a)
    keep = max(1000, int(keep_rate * len(queries) * len(references)))
    own, ranked_first, pairs = np.empty(len(queries), np.float32), np.empty(len(queries), bool), 0
    cut = -np.inf
    tails: list[tuple[Floats, NDArray[np.int64], NDArray[np.int64]]] = []
    held = 0
    for start in range(0, len(queries), CHUNK):
        rows = np.arange(start, min(start + CHUNK, len(queries)))
        cosines = queries[rows] @ references.T
        own[rows] = cosines[np.arange(len(rows)), owners[rows]]
        for place, row in enumerate(rows):
            members = [int(index) for index in (owners[row], inside[row]) if index >= 0]
            left_out = {reference for index in members for reference in (index, *duplicates.get(index, ()))}
            cosines[place, list(left_out)] = -2.0
            pairs += len(references) - len(left_out)
        ranked_first[rows] = own[rows] >= cosines.max(axis=1)
        places, reference = np.nonzero(cosines > max(cut, -1.5))
        tails.append((cosines[places, reference], rows[places] % count, reference))
        held += len(reference)
        if held > 3 * keep:
            tails = [_nearest(tails, keep)]
            held, cut = keep, float(tails[0][0][-1])
    nearest, picture, reference = _nearest(tails, keep)
    shape = kinds, count
    own_l2, others_l2 = distance(own), distance(nearest)
    return Measured(own_l2.reshape(shape), ranked_first.reshape(shape), others_l2, picture, reference, pairs)


def _nearest(
    tails: list[tuple[Floats, NDArray[np.int64], NDArray[np.int64]]], keep: int
) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64]]:
    """Keep the pairs of highest cosine: their cosines, pictures and references."""
    cosines, picture, reference = (np.concatenate(part) for part in zip(*tails, strict=True))
    order = np.argsort(-cosines, kind="stable")[:keep]
    return cosines[order], picture[order], reference[order]


def distance(cosines: Floats) -> Floats:
    """Compute the L2 distances of unit vectors from their cosines."""
    return np.sqrt(np.maximum(0, 2 - 2 * cosines)).astype(np.float32)
