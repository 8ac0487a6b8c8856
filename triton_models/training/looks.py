"""Second looks at many pictures at once: what is near each, what of it promises most, and what a look finds.

Candidates are chosen as in `consumer.verification.rerank`, and looks are those of `consumer.verification.look`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from consumer.verification.features import PAIRS_AT_ONCE, candidate_scores
from consumer.verification.look import look
from consumer.verification.looks import MAX_CANDIDATES, MAX_LOOKS
from consumer.verification.measures import MEASURES
from triton_models.training.measure import distance
from triton_models.training.uploads import Floats, Indexes, Stored, with_progress

CHUNK = 512  # vectors compared with a window at once
PAIRS_A_JOB = 8 * PAIRS_AT_ONCE
NO_RANK = 1_000  # of what is no candidate


class Near(NamedTuple):
    """The pictures of a window near each of Q pictures: their `place` [Q, C] and `l2` [Q, C], nearest first.

    `l2` is inf where there are fewer than C. The last column is the earliest within the threshold, if it is not one of
    the nearest.
    """

    place: Indexes
    l2: Floats


class Pairs(NamedTuple):
    """M pairs of a picture, by its row among the queries, and a picture of the window, with their distance.

    `rank` tells how many candidates of the same picture promise more.
    """

    query: Indexes
    place: Indexes
    l2: Floats
    rank: Indexes

    def take(self, chosen: NDArray[np.bool_] | Indexes) -> "Pairs":
        return Pairs(self.query[chosen], self.place[chosen], self.l2[chosen], self.rank[chosen])


def gets_look(rank: Indexes) -> NDArray[np.bool_]:
    """Tell which candidates of a view are looked at, by their `rank` [M]."""
    looked: NDArray[np.bool_] = rank < MAX_LOOKS
    return looked


def find_near(
    queries: Floats,
    window: Floats,
    threshold_l2: float,
    *,
    before: Indexes | None = None,
    left_out: Indexes | None = None,
) -> Near:
    """Find the candidates of unit vectors `queries` [Q, D] among `window` [R, D].

    Of the window only what stands `before` [Q] counts, and not what is `left_out` [Q, L].
    """
    count = min(MAX_CANDIDATES, len(window))
    place = np.zeros((len(queries), count + 1), np.int64)
    l2 = np.full((len(queries), count + 1), np.inf, np.float32)
    for start in range(0, len(queries), CHUNK):
        rows = np.arange(start, min(start + CHUNK, len(queries)))
        cosines = queries[rows] @ window.T
        if before is not None:
            cosines[np.arange(len(window)) >= before[rows, None]] = -np.inf
        if left_out is not None:
            cosines[np.arange(len(rows))[:, None], left_out[rows]] = -np.inf
        nearest = np.argpartition(-cosines, count - 1, axis=1)[:, :count]
        nearest.sort(axis=1)  # of two as near the earlier
        near = np.take_along_axis(cosines, nearest, 1)
        order = np.argsort(-near, axis=1, kind="stable")
        place[rows, :count], near = np.take_along_axis(nearest, order, 1), np.take_along_axis(near, order, 1)
        l2[rows, :count] = np.where(near > -2, distance(near), np.inf)
        within = cosines >= 1 - threshold_l2**2 / 2
        earliest = within.argmax(axis=1)
        further = within.any(axis=1) & (place[rows, :count] != earliest[:, None]).all(axis=1)
        place[rows, count] = earliest
        l2[rows[further], count] = distance(cosines[further, earliest[further]])
    return Near(place, l2)


def rank_candidates(queries: Stored, window: Stored, near: Near, radius_l2: float) -> Pairs:
    """List the pairs that are at most `radius_l2` apart, ranked as the service ranks them for a look."""
    query, column = np.nonzero(near.l2 <= radius_l2)
    place, l2 = near.place[query, column], near.l2[query, column]
    scores = np.empty(len(query), np.float32)
    for start in range(0, len(query), CHUNK):
        part = slice(start, start + CHUNK)
        scores[part] = candidate_scores(queries.patches[query[part]], window.patches[place[part]], l2[part])
    order = np.lexsort((-scores, query))  # stable: of two with the same score the nearer
    first = np.searchsorted(query[order], query[order])
    rank = np.empty(len(query), np.int64)
    rank[order] = np.arange(len(query)) - first
    return Pairs(query, place, l2, rank)


def measure_pairs(
    queries: Stored,
    window: Stored,
    pairs: Pairs,
    rotation_maps: Floats | None,
    workers: int = 1,
    what: str = "looks",
) -> Floats:
    """Look at pairs: their measures [M, MEASURES]."""
    if not len(pairs.query):
        return np.zeros((0, len(MEASURES)), np.float32)
    jobs = [np.arange(s, min(s + PAIRS_A_JOB, len(pairs.query))) for s in range(0, len(pairs.query), PAIRS_A_JOB)]
    with _looking(_Looker(queries, window, pairs, rotation_maps), jobs, workers) as results:
        return np.concatenate(list(with_progress(results, what, len(jobs))))


class _Looker(NamedTuple):
    queries: Stored
    window: Stored
    pairs: Pairs
    rotation_maps: Floats | None

    def measures(self, rows: Indexes) -> Floats:
        """Look at some of the pairs, by their `rows`."""
        parts = []
        for start in range(0, len(rows), PAIRS_AT_ONCE):
            part = rows[start : start + PAIRS_AT_ONCE]
            uploads = self.queries.features(self.pairs.query[part])
            candidates = self.window.features(self.pairs.place[part])
            parts.append(look(uploads, candidates, self.pairs.l2[part], self.rotation_maps).measures)
        return np.concatenate(parts)


_looker: list[_Looker] = []  # of a worker process, which inherits it


def _start(looker: _Looker) -> None:
    _looker[:] = [looker]


def _run(rows: Indexes) -> Floats:
    return _looker[0].measures(rows)


@contextmanager
def _looking(looker: _Looker, jobs: list[Indexes], workers: int) -> Iterator[Iterator[Floats]]:
    if workers < 2 or len(jobs) < 2:
        yield map(looker.measures, jobs)
        return
    with get_context("fork").Pool(workers, _start, (looker,)) as pool:  # forked: they share the pictures' memory
        yield pool.imap(_run, jobs)


def best_of_each(count: int, query: Indexes, scores: NDArray[np.float32]) -> Floats:
    """Return the best score of each of `count` pictures, 0 for those without any."""
    best = np.zeros(count, np.float32)
    np.maximum.at(best, query, scores)
    return best
