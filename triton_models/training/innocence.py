"""Measure how many different pictures are called duplicates, and how many copies are found, at each strictness.

    python -m triton_models.training.innocence --images FOLDER --encoder model.int8.onnx --copies 300 \
        --output out/innocence

The pictures of the folder must all be different, but for those that `--leave-out` names. They are a stream of uploads:
each is compared with all before it, as the service does, and every one that is called a duplicate is an uploader who is
accused wrongly. Copies are made of some of them in many ways and compared with all. Of the copies, the headline are 26
kinds that leave most of a picture and put it into no other; all 40, and those that nothing was ever fitted to, are
given apart. Written are a table, a curve, and sheets of the worst: `accused.png` and `missed.png`, which show the
pictures: mind their licence.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from consumer.encoder.contract import VerificationRule
from triton_models.training import innocence_report, yardsticks
from triton_models.training.data import list_pictures
from triton_models.training.edits import EDITS, library_edits
from triton_models.training.growth import judge_windows
from triton_models.training.held_out_edits import HELD_OUT_EDITS
from triton_models.training.innocence_report import Innocence, Yardstick
from triton_models.training.looks import find_near
from triton_models.training.measure import distance
from triton_models.training.parameters import CONFIGS, MODEL_FOLDER, model_of
from triton_models.training.uploads import PixelEncoder, Set, encode_set
from triton_models.training.verdicts import Judge, judge_uploads


def measure_innocence(data: Set, judge: Judge, windows: bool = True, seed: int = 0) -> Innocence:
    """Judge the stream, the copies, and random windows of the stream if asked to."""
    stream = data.stream
    count, window = len(stream.wholes.vectors), stream.wholes
    accused = judge_uploads(stream, window, judge, before=np.arange(count), what="looks at different pictures")
    score, place = accused.best(count)
    copies = judge_uploads(
        data.copies,
        window,
        judge,
        left_out=data.mixed_in.reshape(-1, 1),
        follow_at=judge.rule.min_scores["balanced"],
        what="looks at copies",
    )
    shape = data.mixed_in.shape
    return Innocence(
        score,
        place,
        copies.score_of(data.owners).reshape(shape),
        copies.named(len(data.owners), judge.rule.min_scores["balanced"]).reshape(shape),
        judge_windows(stream, judge, seed) if windows else None,
    )


def by_vector(data: Set, threshold_l2: float) -> Yardstick:
    """Decide by the distance of the vectors alone."""
    vectors = data.stream.wholes.vectors
    near = find_near(vectors, vectors, threshold_l2, before=np.arange(len(vectors)))
    own = distance(np.einsum("nd,nd->n", data.copies.wholes.vectors, vectors[data.owners]))
    return Yardstick(
        f"the vector alone, L2 {threshold_l2:g}",
        np.asarray((near.l2 <= threshold_l2).any(axis=1)),
        (own <= threshold_l2).reshape(data.mixed_in.shape),
    )


def evaluate(
    paths: list[Path],
    encoder: PixelEncoder | Path,
    judge: Judge,
    copies: int,
    kinds: tuple[str, ...],
    *,
    aspects: Mapping[str, float] | None = None,
    windows: bool = True,
    seed: int = 0,
    cache_folder: Path | None = None,
) -> tuple[Set, Innocence]:
    """Encode pictures and copies of at most `copies` of them, and measure. Raises ValueError for too few pictures."""
    if len(paths) < 3:
        raise ValueError(f"{len(paths)} pictures say nothing: take some hundreds, all different")
    rng = np.random.default_rng(seed)
    originals = np.sort(rng.choice(len(paths), min(copies, len(paths)), replace=False))
    data = encode_set(
        encoder,
        paths,
        originals,
        kinds,
        aspects=aspects,
        seed=seed,
        workers=judge.workers,
        cache_folder=cache_folder,
    )
    return data, measure_innocence(data, judge, windows, seed)


def main(arguments: Sequence[str] | None = None) -> None:
    given = _parser().parse_args(arguments)
    model = model_of(given.model_config)
    rule = model.verification_rule
    if rule is None:
        raise SystemExit(f"{given.model_config} holds no rule: write one with triton_models.training.second_look")
    kinds = tuple(given.kinds) or (*EDITS, *library_edits(), *HELD_OUT_EDITS)
    left_out = set(given.leave_out.read_text().splitlines()) if given.leave_out else set()
    paths = [path for path in list_pictures(given.images) if path.name not in left_out]
    if given.shuffle:
        np.random.default_rng(given.seed).shuffle(paths)  # type: ignore[arg-type]
    aspects = json.loads(given.aspects.read_text()) if given.aspects else None
    data, measured = evaluate(
        paths,
        given.encoder,
        Judge(rule, model.threshold_l2, given.workers),
        given.copies,
        kinds,
        aspects=aspects,
        seed=given.seed,
        cache_folder=given.output,
    )
    others = []
    if given.baselines:
        others = [by_vector(data, model.threshold_l2), *yardsticks.judge_hashes(data, aspects, given.workers)]
    write(data, measured, rule, others, given.output)


def write(data: Set, measured: Innocence, rule: VerificationRule, others: Sequence[Yardstick], output: Path) -> None:
    """Write and print the table; write the curve and the sheets."""
    text = innocence_report.table(data, measured, rule, others)
    (output / "table.md").write_text(text)
    print(text)
    innocence_report.save_curve(data, measured, rule, others, output / "curve.png")
    innocence_report.save_sheets(data, measured, rule, output)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="folder of pictures that are all different")
    parser.add_argument("--encoder", type=Path, default=MODEL_FOLDER / "1" / "model.int8.onnx")
    parser.add_argument("--model-config", type=Path, default=MODEL_FOLDER / CONFIGS[1], help="with the rule")
    parser.add_argument("--copies", type=int, default=300, help="pictures that copies are made of")
    parser.add_argument("--kinds", nargs="+", default=[], help="kinds of copies; by default all")
    parser.add_argument("--aspects", type=Path, help="JSON: width over height by file name, of files that are squares")
    parser.add_argument("--baselines", action="store_true", help="also the vector alone, PDQ and pHash")
    parser.add_argument("--leave-out", type=Path, help="names of files, one a line, that show the same as another one")
    parser.add_argument("--shuffle", action="store_true", help="upload in another order than by name")
    parser.add_argument("--output", type=Path, default=Path("out/innocence"), help="where vectors and results go")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--seed", type=int, default=0)
    return parser


if __name__ == "__main__":
    main()
