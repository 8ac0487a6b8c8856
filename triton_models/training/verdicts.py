"""What the service would find for many uploads: scores of the candidates that it looks at, and the match it names."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from consumer.decide import DOUBT_RATIO, SURE_DOUBT
from consumer.encoder.contract import VerificationRule
from consumer.verification.measures import columns_of
from triton_models.training.looks import Pairs, find_near, gets_look, measure_pairs, rank_candidates
from triton_models.training.uploads import Floats, Indexes, Stored, Uploads


class Judge(NamedTuple):
    """The model's rule, and up to which distance every candidate is looked at once one is verified."""

    rule: VerificationRule
    threshold_l2: float
    workers: int = 1


class Looked(NamedTuple):
    """M looks at candidates of N uploads: the `upload` [M], the `place` [M] in the window and the `score` [M] of each.

    `follows` [M] tells of looks that are taken only where the whole upload has a match already, at others near it.
    """

    upload: Indexes
    place: Indexes
    score: Floats
    follows: NDArray[np.bool_]

    def best(self, count: int) -> tuple[Floats, Indexes]:
        """Return the best score of each of `count` uploads, 0 where nothing was looked at, and its place, else -1."""
        first = np.flatnonzero(~self.follows)
        order = first[np.argsort(self.score[first], kind="stable")]
        score, place = np.zeros(count, np.float32), np.full(count, -1)
        score[self.upload[order]], place[self.upload[order]] = self.score[order], self.place[order]
        return score, place

    def score_of(self, places: Indexes) -> Floats:
        """Return for each of N uploads the best score of its pair with `places` [N], 0 without a look at it."""
        own = (self.place == places[self.upload]) & ~self.follows
        score = np.zeros(len(places), np.float32)
        np.maximum.at(score, self.upload[own], self.score[own])
        return score

    def named(self, count: int, min_score: float) -> Indexes:
        """Name the match of each of `count` uploads as `consumer.decide` does; -1 without one."""
        accepted = np.flatnonzero(self.score >= min_score)
        best = np.zeros(count, np.float32)
        np.maximum.at(best, self.upload[accepted], self.score[accepted])
        least = 1 - np.maximum(DOUBT_RATIO * (1 - best), SURE_DOUBT)
        as_good = accepted[self.score[accepted] >= least[self.upload[accepted]]]
        named = np.full(count, np.iinfo(np.int64).max)
        np.minimum.at(named, self.upload[as_good], self.place[as_good])
        return np.where(best > 0, named, -1)


def judge_uploads(
    uploads: Uploads,
    window: Stored,
    judge: Judge,
    *,
    before: Indexes | None = None,
    left_out: Indexes | None = None,
    follow_at: float | None = None,
    what: str = "looks",
) -> Looked:
    """Look at the candidates of uploads in a window, as `consumer.verification.rerank` does.

    `before` [N] and `left_out` [N, L] limit the window, see `find_near`. With `follow_at`, an upload with a match of at
    least this score is compared with all others within the threshold as well.
    """
    rule = judge.rule
    whole = _ranked(uploads.wholes, window, judge, before, left_out)
    first = whole.take(gets_look(whole.rank))
    scores = _scores(uploads.wholes, window, first, judge, what)
    parts = [(first.query, first.place, scores, False)]
    if follow_at is not None:
        has_match = np.zeros(len(uploads.wholes.vectors), bool)
        has_match[first.query[scores >= follow_at]] = True
        follow = ~gets_look(whole.rank) & has_match[whole.query] & (whole.l2 <= judge.threshold_l2)
        rest = whole.take(follow)
        parts.append((rest.query, rest.place, _scores(uploads.wholes, window, rest, judge, what), True))
    if len(uploads.region_of):
        limits = (None if each is None else each[uploads.region_of] for each in (before, left_out))
        ranked = _ranked(uploads.regions, window, judge._replace(threshold_l2=0.0), *limits)
        likeliest = ranked.take(gets_look(ranked.rank))
        scores = _scores(uploads.regions, window, likeliest, judge, what)
        parts.append((uploads.region_of[likeliest.query], likeliest.place, scores, False))
    upload, place, score = (np.concatenate([part[column] for part in parts]) for column in range(3))
    assert rule.candidate_l2 >= judge.threshold_l2  # noqa: S101 (the service refuses such models)
    return Looked(upload, place, score, np.repeat([part[3] for part in parts], [len(part[0]) for part in parts]))


def _ranked(queries: Stored, window: Stored, judge: Judge, before: Indexes | None, left_out: Indexes | None) -> Pairs:
    near = find_near(queries.vectors, window.vectors, judge.threshold_l2, before=before, left_out=left_out)
    return rank_candidates(queries, window, near, judge.rule.candidate_l2)


def _scores(queries: Stored, window: Stored, pairs: Pairs, judge: Judge, what: str) -> Floats:
    measures = measure_pairs(queries, window, pairs, judge.rule.rotation_maps, judge.workers, what)
    columns, trees = columns_of(judge.rule.measures), judge.rule.trees
    parts = [trees.scores(measures[start : start + 1024, columns]) for start in range(0, len(measures), 1024)]
    return np.concatenate([np.zeros(0, np.float32), *parts])
