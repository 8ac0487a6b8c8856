"""Trains the encoder on copies made from folders of pictures.

    python -m triton_models.training.train --images FOLDER --minutes 90 --output out/encoder

Every few minutes a checkpoint and the curves are written to `--output`; the same command goes on from there. With
`--steps` the learning rate follows the number of steps, and a run can be repeated by its seed and its number of
workers; with `--minutes` it follows the clock, so that a run ends in time on whatever machine it has.
"""

import argparse
import json
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from triton_models.training.batches import Batches, Views, make_loader
from triton_models.training.data import load
from triton_models.training.recipe import RECIPES, Recipe
from triton_models.training.run import Run

RECIPE_OPTIONS = {
    "batch": "pairs of views in a step",
    "halves": "share of them that show a half of a picture",
    "queue": "vectors of recent batches that serve as negatives",
    "rate": "highest learning rate",
    "local": "weight of the loss of local features",
    "average": "decay of the averaged weights",
    "start_share": "share of the model of --start in the weights that are written",
    "triplet_margin": "above 0: the triplet loss with this margin",
    "size": "side of the pictures for most of the run",
    "final_size": "side of the pictures at the end, as served",
    "final_share": "share of the run at that size",
    "save_s": "seconds between checkpoints",
}


def train(run: Run, *, minutes: float = 0.0, steps: int = 0, workers: int = 1) -> None:
    """Go on with `run` until it has spent `minutes`, or made `steps` when that is not 0.

    `workers` processes make views. The run is saved and plotted as often as its recipe says, and at its end.
    """
    recipe = run.recipe
    batches = Batches(run.members, run.vectors, recipe, run.seed)
    batches.step = run.step
    loader = make_loader(Views(run.pictures, run.members), batches, workers, run.device)

    def progress() -> float:
        return min(1.0, run.step / steps if steps else run.spent_s / (60 * minutes))

    last = saved = time.monotonic()
    sums: dict[str, Tensor] = {}
    steps_summed = 0
    batches.size = recipe.size_at(progress())
    bar = tqdm(unit="step", mininterval=30)
    for pairs in loader:
        batches.size = recipe.size_at(progress())
        for name, part in run.learn(pairs, progress()).items():
            sums[name] = sums.get(name, 0.0) + part
        steps_summed += 1
        bar.update()
        now = time.monotonic()
        run.spent_s, last = run.spent_s + now - last, now
        if now - saved >= recipe.save_s or progress() >= 1:
            saved = now
            row = {name: float(total) / steps_summed for name, total in sums.items()}
            row |= {"step": run.step, "minutes": run.spent_s / 60} | run.validate()
            run.history.append(row)
            sums, steps_summed = {}, 0
            run.save()
            bar.write(" ".join(f"{name}={value:.4g}" for name, value in row.items()))
        if progress() >= 1:
            run.finish()
            return


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, nargs="+", action="extend", required=True, help="folders of pictures")
    parser.add_argument("--aspects", type=Path, metavar="JSON", help="name to width over height, of squashed pictures")
    parser.add_argument("--hold-out-sources", nargs="+", default=[], metavar="SOURCE", help="not learned: SOURCE-*")
    parser.add_argument("--cache", type=Path, default=Path(".cache/training"), help="where decoded pictures are kept")
    parser.add_argument("--output", type=Path, required=True, help="where checkpoints and curves go")
    parser.add_argument("--start", type=Path, metavar="FILE", help="exported model or checkpoint (.pt) to begin with")
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--minutes", type=float, default=0.0, help="length of the run by the clock")
    length.add_argument("--steps", type=int, default=0, help="length of the run in steps")
    parser.add_argument("--device", type=torch.device, help="cpu or cuda; by default cuda where there is one")
    parser.add_argument("--workers", type=int, help="processes that make views; by default 1, with cuda one a core")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--recipe", choices=RECIPES, default="cpu", help="what the options below begin with")
    for name, meaning in RECIPE_OPTIONS.items():
        flags = ["--triplet"] if name == "triplet_margin" else [f"--{name.replace('_', '-')}"]
        parser.add_argument(*flags, dest=name, type=type(getattr(Recipe(), name)), metavar="N", help=meaning)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    arguments = _parser().parse_args(argv)
    given = {name: value for name in RECIPE_OPTIONS if (value := getattr(arguments, name)) is not None}
    device = arguments.device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    on_gpu = device.type == "cuda"
    torch.manual_seed(arguments.seed)
    aspects = json.loads(arguments.aspects.read_text()) if arguments.aspects else {}
    run = Run(
        load(arguments.images, arguments.cache, aspects),
        replace(RECIPES[arguments.recipe], **given),
        arguments.output,
        arguments.seed,
        arguments.start,
        device=device,
        held_out_sources=arguments.hold_out_sources,
    )
    workers = arguments.workers or (max(1, (os.cpu_count() or 2) - 1) if on_gpu else 1)
    train(run, minutes=arguments.minutes, steps=arguments.steps, workers=workers)


if __name__ == "__main__":
    main()
