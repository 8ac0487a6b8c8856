"""What counts as the same on one's own pictures: the least scores of the second look, or the distance of the vectors.

    python -m triton_models.training.calibrate --images FOLDER --accused-share 0.01
    python -m triton_models.training.calibrate --images FOLDER --model OTHER_MODEL --fpr 1e-6

Pictures are compared with each other, and edited copies of them with all. Where the model has a rule for a second look,
a share of different pictures that may be called duplicates is chosen, and the least scores of the three strictnesses
follow from it: see `calibrate_rule`. An encoder without local features decides by distance alone: its threshold is that
up to which a wanted share of unrelated pairs lies. Either way the results are figures, a plot when matplotlib is there,
and both Triton configurations with the new numbers in the place of the model's own: they put them in force.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from consumer.settings import TritonSettings
from triton_models.training.calibrate_rule import calibrate_rule, table, write_rule
from triton_models.training.data import list_pictures
from triton_models.training.edits import EDITS
from triton_models.training.encoders import Encoder, Floats, ServedEncoder, make_encoder
from triton_models.training.measure import Measured, measure
from triton_models.training.parameters import CONFIGS, MODEL_FOLDER, model_of, set_parameters
from triton_models.training.uploads import open_picture

BATCH = 32
THUMBNAIL = 16
SAME_CORRELATION = 0.98  # of two thumbnails: the same picture twice in the folder, whatever an encoder makes of it


@dataclass(frozen=True, slots=True)
class Calibration:
    """A threshold with the figures that it rests on. Intervals hold 95%; `recall` is the mean over kinds of copies."""

    threshold_l2: float
    threshold_interval: tuple[float, float]
    false_positive_rate: float
    pairs: int
    pictures: int
    references: int
    duplicates_left_out: int
    recall: float
    recall_interval: tuple[float, float]
    recall_by_kind: dict[str, float]


def calibrate(
    paths: list[Path], encoder: Encoder, false_positive_rate: float, pictures: int = 500, seed: int = 0
) -> tuple[Calibration, Measured]:
    """Make copies of at most `pictures` of the pictures at `paths` and compare them with all pictures there.

    Raises ValueError when the pictures are too few to tell so low a rate.
    """
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(len(paths), min(pictures, len(paths)), replace=False))
    references, thumbnails = _references(paths, encoder)
    shape = (len(EDITS), len(chosen))
    mixed_in = np.empty(shape, np.int64)
    vectors: list[Floats] = []
    for place, original in enumerate(chosen):
        picture = open_picture(paths[original])
        copies = []
        for kind, edit in enumerate(EDITS.values()):
            mixed_in[kind, place] = other = int(rng.integers(len(paths)))
            copies.append(edit.apply(picture, float(rng.random()), rng, open_picture(paths[other])))
        vectors.append(encoder(copies))
    same = [
        (int(original), int(other))
        for original in chosen
        for other in np.flatnonzero(thumbnails @ thumbnails[original] > SAME_CORRELATION)
        if other != original
    ]
    measured = measure(
        np.stack(vectors, axis=1),
        chosen,
        references,
        excluded=same,
        mixed_in=mixed_in,
        keep_rate=max(1e-4, 2 * false_positive_rate),
    )
    threshold = measured.threshold(false_positive_rate)
    recalls = measured.recall(threshold)
    threshold_interval, recall_intervals = measured.interval(false_positive_rate)
    calibration = Calibration(
        threshold_l2=round(threshold, 4),
        threshold_interval=threshold_interval,
        false_positive_rate=false_positive_rate,
        pairs=measured.pairs,
        pictures=len(chosen),
        references=len(paths),
        duplicates_left_out=len(same),
        recall=float(recalls.mean()),
        recall_interval=(float(recall_intervals[-1][0]), float(recall_intervals[-1][1])),
        recall_by_kind={name: float(recall) for name, recall in zip(EDITS, recalls, strict=True)},
    )
    return calibration, measured


def _references(paths: list[Path], encoder: Encoder) -> tuple[Floats, Floats]:
    """Make vectors and thumbnails of unedited pictures, each [N, .] of unit length."""
    vectors, thumbnails = [], []
    for start in range(0, len(paths), BATCH):
        pictures = [open_picture(path) for path in paths[start : start + BATCH]]
        vectors.append(encoder(pictures))
        small = [
            np.asarray(p.convert("L").resize((THUMBNAIL,) * 2, Image.Resampling.BOX), np.float32) for p in pictures
        ]
        thumbnails.append(np.stack(small).reshape(len(small), -1))
    flat = np.concatenate(thumbnails)
    flat -= flat.mean(axis=1, keepdims=True)
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1.0)
    return np.concatenate(vectors), flat


def write(calibration: Calibration, measured: Measured, output: Path, model: Path = MODEL_FOLDER) -> list[Path]:
    """Write figures, configurations with the threshold, and a plot when matplotlib is there. Return the files."""
    output.mkdir(parents=True, exist_ok=True)
    figures = output / "calibration.json"
    figures.write_text(json.dumps(asdict(calibration), indent=2) + "\n")
    set_parameters(model, output, {"threshold_l2": f"{calibration.threshold_l2:.4f}"})
    written = [figures, output / "config.pbtxt", output / "configs" / "cpu.pbtxt"]
    try:
        import matplotlib  # noqa: PLC0415 (an optional dependency)
    except ImportError:
        return written
    matplotlib.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415

    figure, axis = pyplot.subplots(figsize=(8, 4))
    bins = np.linspace(0, max(float(measured.copies.max()), float(measured.others.max())), 120)
    axis.hist(measured.copies.ravel(), bins, weights=_shares(measured.copies.size), alpha=0.6, label="copies")
    axis.hist(measured.others, bins, weights=_shares(len(measured.others)), alpha=0.6, label="nearest other pairs")
    axis.axvspan(*calibration.threshold_interval, alpha=0.3, color="black")
    axis.axvline(calibration.threshold_l2, color="black", label=f"threshold at {calibration.false_positive_rate:g}")
    axis.set_xlabel("L2")
    axis.legend()
    figure.tight_layout()
    figure.savefig(output / "calibration.png", dpi=80)
    pyplot.close(figure)
    return [*written, output / "calibration.png"]


def _shares(count: int) -> NDArray[np.float64]:
    """Weigh the values of a histogram so that its bars are shares of `count`."""
    return np.full(count, 1 / count)


def main(arguments: Sequence[str] | None = None) -> None:
    given = _parser().parse_args(arguments)
    paths, model = list_pictures(given.images), model_of(given.model / CONFIGS[1])
    spec = given.encoder or str(given.model / "1" / "model.onnx")
    if model.verification_rule is not None:
        is_served = spec.startswith("triton:")
        calibrated, judged = calibrate_rule(
            paths,
            ServedEncoder(TritonSettings(url=spec.removeprefix("triton:"))) if is_served else Path(spec),
            model,
            given.accused_share,
            given.pictures,
            given.seed,
            given.workers,
        )
        print(table(calibrated))
        written = write_rule(calibrated, judged, given.output, given.model)
    else:
        calibration, measured = calibrate(paths, make_encoder(spec), given.fpr, given.pictures, given.seed)
        written = write(calibration, measured, given.output, given.model)
        print(describe(calibration))
    print("Written:")
    print("\n".join(f"  {path}" for path in written))


def describe(calibration: Calibration) -> str:
    """Say in a line what was found."""
    low, high = calibration.threshold_interval
    rate, recall = calibration.false_positive_rate, calibration.recall
    return (
        f"threshold_l2 {calibration.threshold_l2:.4f} (95%: {low:.4f} to {high:.4f}) at {rate:g} of "
        f"{calibration.pairs:.2g} pairs, finding {recall:.3f} of copies"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="folder of pictures like those to be served")
    parser.add_argument("--model", type=Path, default=MODEL_FOLDER, help="folder of the model, with its configurations")
    parser.add_argument("--encoder", help="ONNX file or triton:HOST:PORT; by default that of the model")
    parser.add_argument(
        "--accused-share", type=float, default=0.01, help="share of different pictures that may be called duplicates"
    )
    parser.add_argument("--fpr", type=float, default=1e-6, help="of a model without a rule: share of other pairs")
    parser.add_argument("--pictures", type=int, default=200, help="pictures that copies are made of, at most")
    parser.add_argument("--output", type=Path, default=Path("out/calibration"), help="where the files go")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--seed", type=int, default=0)
    return parser


if __name__ == "__main__":
    main()
