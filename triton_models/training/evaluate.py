"""Compares encoders over a folder of pictures: what they find of 40 kinds of copies, and what they take for copies.

    python -m triton_models.training.evaluate --images FOLDER --output out/evaluation \\
        --encoders ours=model.onnx imagenet=baseline.onnx phash pdq

Vectors are kept in the output folder, so that a later call only encodes for encoders that are new or have changed.
Copies are made of held-out pictures; all pictures of the folder are references, those of the training as mere
distractors. Pairs of references that PDQ calls the same at its recommended distance are duplicates, no errors.
Of the model that the rule of the second look belongs to, by its version, what both looks find is reported as well.
"""

import argparse
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from triton_models.training import errors
from triton_models.training.bench import PDQ_SAME, Bench, Vectors, duplicates, make_bench, vectors_of
from triton_models.training.bench_report import Scored
from triton_models.training.bench_report import report as second_look_report
from triton_models.training.edits import Edit, screenshot
from triton_models.training.encoders import Encoder, Floats, OnnxEncoder, Pdq, make_encoder
from triton_models.training.held_out_edits import HELD_OUT_EDITS
from triton_models.training.measure import Measured, measure
from triton_models.training.parameters import CONFIGS, MODEL_FOLDER, model_of
from triton_models.training.scores import score_pairs
from triton_models.training.uploads import open_picture

RATES = (1e-4, 1e-5, 1e-6, 1e-7)
LOOK_ALIKES = 10  # nearest references of a picture that count as its look-alikes


def look_alikes(vectors: Floats, originals: NDArray[np.int64], excluded: set[tuple[int, int]]) -> list[tuple[int, int]]:
    """Pair each original with its nearest other references."""
    pairs = []
    for original in originals:
        order = np.argsort(-(vectors @ vectors[original]))[: LOOK_ALIKES + 8]
        near = [int(o) for o in order if o != original and (int(original), int(o)) not in excluded]
        pairs += [(int(original), other) for other in near[:LOOK_ALIKES]]
    return pairs


def framed_apart(paths: list[Path], originals: NDArray[np.int64], encoders: list[Encoder]) -> dict[str, Floats]:
    """Measure L2 between screenshots of two different pictures in the very same window, by encoder: [N - 1]."""
    framed: dict[str, list[Floats]] = {encoder.name: [] for encoder in encoders}
    for original in originals:
        picture = open_picture(paths[original]).resize((256, 256))
        shot = screenshot(picture, 0.5, np.random.default_rng(0), picture)
        for encoder in encoders:
            framed[encoder.name].append(encoder([shot])[0])
    return {name: np.linalg.norm(np.diff(np.stack(vectors), axis=0), axis=1) for name, vectors in framed.items()}


def time_side_by_side(encoders: list[Encoder], pictures: list[Image.Image], rounds: int = 15) -> dict[str, float]:
    """Measure the median milliseconds a picture, each encoder in turn on the same pictures and so under one load."""
    spent: dict[str, list[float]] = {encoder.name: [] for encoder in encoders}
    for _ in range(rounds):
        for encoder in encoders:
            start = time.perf_counter()
            encoder(pictures)
            spent[encoder.name].append((time.perf_counter() - start) / len(pictures) * 1e3)
    return {name: float(np.median(values)) for name, values in spent.items()}


def report(
    edits: Mapping[str, Edit], measured: dict[str, Measured], times: dict[str, float],
    alike: dict[str, Floats], framed: dict[str, Floats],
) -> str:  # fmt: skip
    """Write the tables, in Markdown.

    `times` are milliseconds a picture by encoder, `alike` and `framed` distances of look-alikes and of other pictures
    in one frame, see `look_alikes` and `framed_apart`.
    """
    names = list(measured)
    some = next(iter(measured.values()))
    lines = [
        f"{some.copies.shape[1]} pictures, {len(edits)} kinds of copies, {some.pairs:.2g} other pairs. "
        "Share of copies found at a pairwise false positive rate of 1e-6; in brackets 95% intervals.",
        "",
        "| | " + " | ".join(names) + " |",
        "|---|" + "---|" * len(names),
    ]
    thresholds = {name: m.threshold(1e-6) for name, m in measured.items()}
    recalls = {name: m.recall(thresholds[name]) for name, m in measured.items()}
    intervals = {name: m.interval(1e-6) for name, m in measured.items()}
    for kind, (label, edit) in enumerate(edits.items()):
        lines.append(_row(f"{edit.family}: {label}", (f"{recalls[n][kind]:.3f}" for n in names)))
    means = (f"**{recalls[n].mean():.3f}** ({_interval(intervals[n][1][-1])})" for n in names)
    lines.append(_row("**mean**", means))
    for rate in RATES:
        if rate * some.pairs >= 10:
            cells = (f"{m.recall(m.threshold(rate)).mean():.3f}" for m in measured.values())
            lines.append(_row(f"mean at {rate:g}", cells))
    one_percent = {n: float(np.quantile(alike[n], 0.01)) for n in names}
    lines += [
        _row("found at rank 1", (f"{m.ranked_first.mean():.3f}" for m in measured.values())),
        _row("uAP", (f"{m.average_precision():.3f}" for m in measured.values())),
        _row("L2 at 1e-6", (f"{thresholds[n]:.3f} ({_interval(intervals[n][0])})" for n in names)),
        _row("look-alikes taken for copies", (f"{(alike[n] <= thresholds[n]).mean():.4f}" for n in names)),
        _row("mean when 1% of look-alikes are", (f"{measured[n].recall(one_percent[n]).mean():.3f}" for n in names)),
        _row(
            "other pictures in one frame taken for copies",
            (f"{(framed[n] <= thresholds[n]).mean():.4f}" for n in names),
        ),
        _row("ms a picture", (f"{times[n]:.1f}" for n in names)),
        "",
    ]
    lines += [
        f"{name}: {time_ms:.1f} ms a picture in the same run." for name, time_ms in times.items() if name not in names
    ]
    return "\n".join(lines) + "\n"


def _row(label: str, cells: Iterable[str]) -> str:
    return f"| {label} | " + " | ".join(cells) + " |"


def _interval(bounds: Sequence[float]) -> str:
    low, high = bounds
    return f"{low:.3f}..{high:.3f}"


def plot(folder: Path, edits: Mapping[str, Edit], measured: dict[str, Measured], strengths: Floats) -> None:
    """Plot histograms of distances, and recall by strength of the edits that the service was made for."""
    import matplotlib  # noqa: PLC0415 (slow to import)

    matplotlib.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415

    figure, axes = pyplot.subplots(1, len(measured), figsize=(5 * len(measured), 4), squeeze=False)
    for axis, (name, m) in zip(axes[0], measured.items(), strict=True):
        axis.hist(m.copies.ravel(), 100, density=True, alpha=0.6, label="copies")
        axis.hist(m.others, 100, density=True, alpha=0.6, label="nearest 1e-4 of other pairs")
        axis.axvline(m.threshold(1e-6), color="black", label="threshold at 1e-6")
        axis.set_title(name)
        axis.set_xlabel("L2")
        axis.legend()
    figure.tight_layout()
    figure.savefig(folder / "distances.png", dpi=80)
    pyplot.close(figure)

    shown = [kind for kind, edit in enumerate(edits.values()) if edit.family in ("seed", "crop")]
    figure, axes = pyplot.subplots(1, len(shown), figsize=(4 * len(shown), 3.5), sharey=True, squeeze=False)
    bins = np.linspace(0, 1, 6)
    for axis, kind in zip(axes[0], shown, strict=True):
        for name, m in measured.items():
            detected = m.copies[kind] <= m.threshold(1e-6)
            bin_of_copy = np.clip(np.digitize(strengths[kind], bins) - 1, 0, 4)
            recalls = [detected[bin_of_copy == b].mean() for b in range(5)]
            axis.plot((bins[:-1] + bins[1:]) / 2, recalls, marker="o", label=name)
        axis.set_title(list(edits)[kind])
        axis.set_xlabel("strength")
    axes[0][0].set_ylabel("recall at 1e-6")
    axes[0][0].legend()
    figure.tight_layout()
    figure.savefig(folder / "strength.png", dpi=80)
    pyplot.close(figure)


def main() -> None:
    arguments = _arguments()
    folder: Path = arguments.output
    folder.mkdir(parents=True, exist_ok=True)
    bench = make_bench(
        arguments.images, arguments.pictures, arguments.own_edits_only, arguments.seed, arguments.originals_from
    )
    by_spec = {spec: make_encoder(spec) for spec in arguments.encoders}
    encoders, with_pdq = list(by_spec.values()), by_spec | {"pdq": Pdq()}
    vectors = vectors_of(bench, with_pdq, folder)
    same = duplicates(vectors[Pdq.name].references.vectors, bench.originals)
    table = _compare(bench, encoders, vectors, same, arguments)
    (folder / "table.md").write_text(table)
    print(table)

    model = model_of(arguments.model_config)
    own = [each for each in encoders if isinstance(each, OnnxEncoder) and each.version == model.version]
    if model.verification_rule is None or not own:
        return
    apart = replace(bench, edits=HELD_OUT_EDITS) if arguments.held_out_kinds else None
    vectors_apart = {} if apart is None else vectors_of(apart, by_spec, folder)
    for encoder in own:
        scores = score_pairs(vectors[encoder.name], bench.originals, same, bench.mixed_in(), model)
        held_out = None
        if apart is not None:
            of_held_out = vectors_apart[encoder.name]
            held_out = Scored(apart, score_pairs(of_held_out, apart.originals, same, apart.mixed_in(), model))
        (features,) = vectors[encoder.name].references.features([0])
        text = second_look_report(Scored(bench, scores), held_out, model.verification_rule, len(features.to_bytes()))
        (folder / f"second-look-{encoder.name}.md").write_text(text)
        print(text)
        min_score = scores.min_score(1e-6) if scores.can_tell(1e-6) else model.verification_rule.min_scores["balanced"]
        wrong = scores.false_pairs(min_score)
        false_pairs = scores.others_copy[wrong], scores.others_reference[wrong]
        errors.save(bench, *false_pairs, scores.detected(min_score), folder, encoder.name)


def _compare(
    bench: Bench,
    encoders: list[Encoder],
    vectors: dict[str, Vectors],
    same: dict[int, set[int]],
    arguments: argparse.Namespace,
) -> str:
    """Compare encoders by their vectors alone: write the table, and the plots and nearest others to the output."""
    held_out = bench.originals
    pairs_of_same = {(a, b) for a, others in same.items() for b in others}
    strengths = np.stack([bench.draws(place)[0] for place in range(len(held_out))], axis=1)
    mixed_in = bench.mixed_in()
    measured = {}
    for encoder in encoders:
        references, copies = vectors[encoder.name]
        measured[encoder.name] = measure(
            copies.wholes.vectors.reshape(*mixed_in.shape, -1),
            held_out,
            references.vectors,
            excluded=pairs_of_same,
            mixed_in=mixed_in,
        )
    judge = arguments.look_alikes_by or encoders[-1].name
    pairs = np.array(look_alikes(vectors[judge].references.vectors, held_out, pairs_of_same))
    alike = {
        name: np.linalg.norm(references.vectors[pairs[:, 0]] - references.vectors[pairs[:, 1]], axis=1)
        for name, (references, _) in vectors.items()
    }
    framed = framed_apart(bench.paths, held_out[:200], encoders)
    timed = [*encoders, *(make_encoder(spec) for spec in arguments.timed)]
    times = time_side_by_side(timed, [open_picture(bench.paths[i]) for i in held_out[:8]])
    (arguments.output / "worst.json").write_text(json.dumps(_nearest_others(bench, measured)))
    plot(arguments.output, bench.edits, measured, strengths)
    return (
        report(bench.edits, measured, times, alike, framed)
        + f"\nLook-alikes: the {LOOK_ALIKES} nearest references of each picture by {judge}. {len(pairs_of_same) // 2} "
        f"pairs of references are duplicates themselves (PDQ at most {PDQ_SAME} bits) and left out.\n"
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, required=True, help="folder of pictures")
    parser.add_argument(
        "--encoders", nargs="+", required=True, help="phash, pdq, triton:HOST:PORT, or [NAME=]FILE.onnx"
    )
    parser.add_argument("--timed", nargs="*", default=[], help="encoders whose time alone is of interest")
    parser.add_argument("--output", type=Path, required=True, help="where tables and plots go")
    parser.add_argument("--pictures", type=int, default=0, help="held-out pictures that copies are made of; 0: all")
    parser.add_argument(
        "--look-alikes-by", default="", metavar="NAME", help="encoder that says what looks alike; default the last"
    )
    parser.add_argument("--own-edits-only", action="store_true", help="leave the kinds of albumentations out")
    parser.add_argument("--held-out-kinds", action="store_true", help="report kinds that nothing was fitted to, apart")
    parser.add_argument(
        "--originals-from", type=Path, metavar="FOLDER", help="make copies of pictures of this folder instead"
    )
    parser.add_argument(
        "--model-config", type=Path, default=MODEL_FOLDER / CONFIGS[1], help="with the rule of the second look"
    )
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def _nearest_others(bench: Bench, measured: dict[str, Measured]) -> dict[str, list[list[float | str]]]:
    """List for each encoder the nearest other pairs: distance, original of the copy, other picture."""
    return {
        name: [
            [round(float(distance), 4), bench.paths[bench.originals[picture]].name, bench.paths[reference].name]
            for distance, picture, reference in zip(m.others[:300], m.others_picture, m.others_reference, strict=False)
        ]
        for name, m in measured.items()
    }


if __name__ == "__main__":
    main()
