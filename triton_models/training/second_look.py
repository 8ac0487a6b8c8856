"""Fit the rule of the second look: which pairs of pictures count as the same, by what a look finds.

    python -m triton_models.training.second_look --images train alike --copies 300 --stream-shares 0.25 1 \
        --encoder model.int8.onnx --hold-out-sources sroie --output out/second-look --write

The pictures of all folders, in order, are a stream of different pictures: each is compared with those before it, as the
service does. Edited copies are compared with their originals, and with the strangers near them. Boosted trees learn to
tell the one from the other. How many different pictures are called duplicates, and how many copies are found, is
measured on pictures that the trees have not seen (cross-validation), and sets the least score of each strictness. With
`--write` the rule goes into both Triton configurations of the model, and into the metadata of its ONNX files.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from consumer.encoder.contract import Strictness, VerificationRule
from consumer.encoder.model_config import STRICTNESSES
from consumer.verification.measures import MEASURES
from triton_models.training.boosting import Fitted, fit
from triton_models.training.edits import EDITS, is_headline, library_edits
from triton_models.training.encoders import OnnxEncoder
from triton_models.training.looks import (
    NO_RANK,
    Pairs,
    best_of_each,
    find_near,
    gets_look,
    measure_pairs,
    rank_candidates,
)
from triton_models.training.measure import distance
from triton_models.training.parameters import (
    CONFIGS,
    MODEL_FOLDER,
    model_of,
    rule_parameters,
    set_metadata,
    set_second_look,
)
from triton_models.training.uploads import Floats, Indexes, Set, encode_set, list_all

CANDIDATE_L2 = 1.26  # farther pictures are not looked at: one copy in a hundred, four strangers in five
FOLDS = 3
# Of the different pictures of the fitting stream, full of look-alikes, so many may be called duplicates: one in two
# hundred by what is strict, which is for uploaders who must not be accused; 4% by what is eager.
STREAM_SHARES = (0.005, 0.015, 0.04)  # strict, balanced, eager
STRANGER_WEIGHT = 0.05  # of a pair of a copy and a stranger: there are many, and uploads of new pictures count more
MAX_COPY_STRANGERS = 30_000
MIN_GAIN = 0.001  # of a measure, as a share of all gains; others are left out of the rule


class Examples(NamedTuple):
    """Pairs to learn from: `measures` [M, MEASURES] of each, and whether it `is_copy` [M].

    `picture` [M] is the picture of the stream that the pair's upload is, or is a copy of. `upload` [M] is the place
    among the pictures of the stream, or among the copies. `rank` [M] tells how many candidates promised more.
    """

    measures: Floats
    is_copy: NDArray[np.bool_]
    weights: NDArray[np.float64]
    picture: Indexes
    upload: Indexes
    of_stream: NDArray[np.bool_]
    rank: Indexes

    def best_scores(self, scores: Floats, of_stream: bool, count: int) -> Floats:
        """Return the score of each of `count` pictures of the stream, or copies: of copies, with their originals."""
        counts = gets_look(self.rank) & (self.of_stream == of_stream) & (self.is_copy != of_stream)
        return best_of_each(count, self.upload[counts], scores[counts])


def collect(
    data: Set, streamed: Indexes, threshold_l2: float, rotation_maps: Floats | None, workers: int, seed: int
) -> Examples:
    """Look at the pairs to learn from: those of the pictures `streamed` with all before them, and those of copies."""
    window, copies = data.stream.wholes, data.copies.wholes
    chosen = window.take(streamed)
    near = find_near(chosen.vectors, window.vectors, threshold_l2, before=streamed)
    strangers = rank_candidates(chosen, window, near, CANDIDATE_L2)
    left_out = data.mixed_in.reshape(-1, 1)
    candidates = rank_candidates(
        copies, window, find_near(copies.vectors, window.vectors, threshold_l2, left_out=left_out), CANDIDATE_L2
    )
    own = _own_pairs(data, candidates)
    others = np.flatnonzero(candidates.place != data.owners[candidates.query])
    rng = np.random.default_rng(seed)
    others = np.sort(rng.choice(others, min(MAX_COPY_STRANGERS, len(others)), replace=False))
    near_copies = candidates.take(others)
    measures = [
        measure_pairs(chosen, window, strangers, rotation_maps, workers, "looks at strangers"),
        measure_pairs(copies, window, own, rotation_maps, workers, "looks at copies"),
        measure_pairs(copies, window, near_copies, rotation_maps, workers, "looks at strangers of copies"),
    ]
    counts = [len(part) for part in measures]
    return Examples(
        np.concatenate(measures),
        np.repeat([False, True, False], counts),
        np.repeat([1.0, 1.0, STRANGER_WEIGHT], counts),
        np.concatenate([streamed[strangers.query], data.owners[own.query], data.owners[near_copies.query]]),
        np.concatenate([strangers.query, own.query, near_copies.query]),
        np.repeat([True, False, False], counts),
        np.concatenate([strangers.rank, own.rank, near_copies.rank]),
    )


def _own_pairs(data: Set, candidates: Pairs) -> Pairs:
    """List the pairs of copies with their originals, whose rank is that among the candidates, if they are any."""
    copies, originals = data.copies.wholes.vectors, data.stream.wholes.vectors
    l2 = distance(np.einsum("nd,nd->n", copies, originals[data.owners]))
    rank = np.full(len(copies), NO_RANK)
    found = candidates.place == data.owners[candidates.query]
    rank[candidates.query[found]] = candidates.rank[found]
    near = np.flatnonzero(l2 <= CANDIDATE_L2)
    return Pairs(near, data.owners[near], l2[near], rank[near])


def cross_validate(examples: Examples, columns: Sequence[int], rounds: int, seed: int) -> Floats:
    """Score all pairs by rules that were fitted on other pictures: [M]."""
    fold = np.random.default_rng(seed).integers(FOLDS, size=int(examples.picture.max()) + 1)[examples.picture]
    scores = np.empty(len(fold), np.float32)
    for number in range(FOLDS):
        scores[fold == number] = fit_on(examples, fold != number, columns, rounds, seed).trees.scores(
            examples.measures[fold == number][:, list(columns)]
        )
    return scores


def fit_on(examples: Examples, rows: NDArray[np.bool_], columns: Sequence[int], rounds: int, seed: int) -> Fitted:
    """Fit trees to some `rows` of the examples."""
    return fit(
        examples.measures[rows][:, list(columns)],
        examples.is_copy[rows],
        examples.weights[rows],
        [MEASURES[column] for column in columns],
        rounds=rounds,
        seed=seed,
    )


def least_scores(strangers: Floats, shares: Sequence[float] = STREAM_SHARES) -> dict[Strictness, float]:
    """Find for each strictness the least score that its share of `strangers` [N], each by its best score, reaches."""
    falling = np.sort(strangers)[::-1]
    return {
        name: float(np.ceil(1e4 * falling[int(share * len(falling))] + 1) / 1e4)
        for name, share in zip(STRICTNESSES, shares, strict=True)
    }


def fit_rule(
    examples: Examples, stream_size: int, shares: Sequence[float], rounds: int, seed: int
) -> tuple[VerificationRule, NDArray[np.float64], Floats]:
    """Fit the rule, by which a share of the stream, for each strictness, is called duplicates.

    Returns it with the gain of each measure, [MEASURES], and the cross-validated scores [M].
    """
    everything = np.ones(len(examples.rank), bool)
    gains = fit_on(examples, everything, range(len(MEASURES)), rounds, seed).gains
    columns = np.flatnonzero(gains >= MIN_GAIN).tolist()
    scores = cross_validate(examples, columns, rounds, seed)
    rule = VerificationRule(
        CANDIDATE_L2,
        tuple(MEASURES[column] for column in columns),
        fit_on(examples, everything, columns, rounds, seed).trees,
        least_scores(examples.best_scores(scores, True, stream_size), shares),
    )
    return rule, gains, scores


def report(data: Set, streamed: Indexes, examples: Examples, rule: VerificationRule, scores: Floats) -> str:
    """Write tables in Markdown: what the rule does to pictures that it was not fitted on, by kind of copy."""
    strangers = examples.best_scores(scores, True, len(streamed))
    copies = examples.best_scores(scores, False, len(data.owners)).reshape(-1, len(data.kinds))
    least = [rule.min_scores[name] for name in STRICTNESSES]
    own = [place for place, kind in enumerate(data.kinds) if is_headline(kind)]
    lines = [
        f"{len(streamed)} different pictures, {copies.size} copies of {len(copies)}; {len(rule.measures)} measures. "
        "All shares are cross-validated.",
        "",
        "| | " + " | ".join(STRICTNESSES) + " |",
        "|---|" + "---|" * len(least),
        _row("least score", least, 4),
        _row("different pictures called duplicates", [(strangers >= each).mean() for each in least], 4),
        _row(f"copies found, {len(own)} kinds", [(copies[:, own] >= each).mean() for each in least]),
        _row(f"copies found, {len(data.kinds)} kinds", [(copies >= each).mean() for each in least]),
    ]
    lines += [_row(kind, [(copies[:, k] >= each).mean() for each in least]) for k, kind in enumerate(data.kinds)]
    return "\n".join(lines) + "\n"


def _row(name: str, values: Sequence[float], decimals: int = 3) -> str:
    return f"| {name} | " + " | ".join(f"{value:.{decimals}f}" for value in values) + " |"


def gain_table(gains: NDArray[np.float64]) -> str:
    """List measures by their gain."""
    ranked = sorted(zip(gains.tolist(), MEASURES, strict=True), reverse=True)
    kept = [f"| {name} | {gain:.4f} |" for gain, name in ranked if gain >= MIN_GAIN]
    left_out = ", ".join(name for gain, name in ranked if gain < MIN_GAIN)
    return (
        "\n".join(["| measure | share of the gain |", "|---|---|", *kept, "", f"Left out: {left_out or 'none'}."])
        + "\n"
    )


def choose(
    folders: Sequence[Path], held_out: Sequence[str], copies: Sequence[int], shares: Sequence[float], seed: int
) -> tuple[list[Path], Indexes, Indexes]:
    """List the pictures of all folders, those that copies are made of, and those that are compared as a stream.

    `copies` and `shares` are for each folder, or one for all.
    """
    paths: list[Path] = []
    originals, streamed = [], []
    rng = np.random.default_rng(seed)
    for number, folder in enumerate(folders):
        found = list_all([folder], held_out)
        count, share = copies[number % len(copies)], shares[number % len(shares)]
        originals.append(len(paths) + np.sort(rng.choice(len(found), min(count, len(found)), replace=False)))
        streamed.append(len(paths) + np.flatnonzero(np.random.default_rng((seed, number)).random(len(found)) < share))
        paths += found
    return paths, np.concatenate(originals), np.concatenate(streamed)


def main(arguments: Sequence[str] | None = None) -> None:
    given = _parser().parse_args(arguments)
    paths, originals, streamed = choose(
        given.images, given.hold_out_sources, given.copies, given.stream_shares, given.seed
    )
    aspects = json.loads(given.aspects.read_text()) if given.aspects else None
    data = encode_set(
        given.encoder,
        paths,
        originals,
        tuple(given.kinds) or (*EDITS, *library_edits()),
        within=False,
        aspects=aspects,
        seed=given.seed,
        workers=given.workers,
        cache_folder=given.output,
    )
    threshold_l2 = model_of(given.model / CONFIGS[1]).threshold_l2
    maps = OnnxEncoder(given.encoder).rotation_maps
    examples = collect(data, streamed, threshold_l2, maps, given.workers, given.seed)
    rule, gains, scores = fit_rule(examples, len(streamed), given.accused_shares, given.rounds, given.seed)
    text = report(data, streamed, examples, rule, scores) + "\n" + gain_table(gains)
    given.output.mkdir(parents=True, exist_ok=True)
    (given.output / "second-look.md").write_text(text)
    print(text)
    if given.write:
        parameters = rule_parameters(rule)
        _, count, channels = data.stream.wholes.patches.shape
        set_second_look(given.model, given.model, (count, channels), parameters)
        set_metadata(given.model / "1", parameters)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, nargs="+", required=True, help="folders of different pictures")
    parser.add_argument("--aspects", type=Path, help="JSON: width over height by file name, of files that are squares")
    parser.add_argument("--hold-out-sources", nargs="*", default=[], help="leave out pictures named SOURCE-*")
    parser.add_argument("--copies", type=int, nargs="+", default=[300], help="pictures that are copied, by folder")
    parser.add_argument(
        "--kinds", nargs="+", default=[], help="kinds of copies; by default all that may be learned from"
    )
    parser.add_argument(
        "--stream-shares", type=float, nargs="+", default=[1.0], help="of each folder's pictures, compared as strangers"
    )
    parser.add_argument(
        "--accused-shares",
        type=float,
        nargs=3,
        default=STREAM_SHARES,
        metavar=("STRICT", "BALANCED", "EAGER"),
        help="shares of the stream that may be called duplicates",
    )
    parser.add_argument("--encoder", type=Path, default=MODEL_FOLDER / "1" / "model.int8.onnx")
    parser.add_argument("--output", type=Path, required=True, help="where vectors are kept and the table goes")
    parser.add_argument("--rounds", type=int, default=400, help="trees")
    parser.add_argument("--write", action="store_true", help="put the rule into the model's files")
    parser.add_argument("--model", type=Path, default=MODEL_FOLDER, help="whose files they are")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--seed", type=int, default=0)
    return parser


if __name__ == "__main__":
    main()
