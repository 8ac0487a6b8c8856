"""Trains the encoder on copies made from a folder of pictures.

    python -m triton_models.training.train --images FOLDER --minutes 90 --output out/encoder

Every few minutes a checkpoint and the curves are written to `--output`; the same command goes on from there. With
`--steps` the learning rate follows the number of steps, and a run can be repeated exactly by its seed; with `--minutes`
it follows the clock, so that a run ends in time on whatever machine it has.
"""

import argparse
import copy
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from triton_models.training import loss
from triton_models.training.augment import light_view, strong_view
from triton_models.training.data import Pictures, is_validation, load
from triton_models.training.network import Network, detail, load_imagenet, load_served
from triton_models.training.whiten import fit_projections, rescale, rewhiten

Draw = tuple[int, int, int]  # picture, seed, size of the views
VALIDATION_PICTURES, VALIDATION_RATE = 500, 1e-4  # for the curve; `evaluate` measures in earnest
WARM_UP = 0.04  # share of the run in which the learning rate rises


@dataclass(frozen=True, slots=True)
class Recipe:
    """The choices of a run; what each changed is recorded in README.md."""

    dim: int = 256
    token_dim: int = 22  # with a place of two bytes: 24 bytes a token, 64 tokens in 1.5 KB
    batch: int = 64  # pictures, each in two views
    group: int = 4  # look-alikes that are put into a batch together
    queue: int = 4096  # vectors of recent batches that serve as further negatives
    temperature: float = 0.05
    triplet_margin: float = 0.0  # above 0: the triplet loss instead of the contrastive one
    spread: float = 16.0
    local: float = 0.2
    local_temperature: float = 0.07
    local_points: int = 20
    early_every: int = 4  # the layers at a half and a quarter of the size, a third of the cost, learn every n-th step
    rate: float = 4e-4
    weight_decay: float = 0.02
    average: float = 0.997  # decay of the averaged weights, which are what is served


class Views(Dataset[tuple[int, Tensor, Tensor, Tensor, Tensor]]):
    """Pairs of views, each a pure function of its draw."""

    def __init__(self, pictures: Pictures, members: np.ndarray) -> None:
        self.pictures, self.members = pictures, members

    def __getitem__(self, draw: Draw) -> tuple[int, Tensor, Tensor, Tensor, Tensor]:
        index, seed, size = draw
        rng = np.random.default_rng((seed, index))
        picture, aspect = self.pictures.pixels[index], float(self.pictures.aspects[index])

        def other(rng: np.random.Generator) -> np.ndarray:
            return self.pictures.pixels[int(rng.choice(self.members))]

        first, second = (make(rng, picture, aspect, other, size) for make in (light_view, strong_view))
        return (
            index,
            torch.from_numpy(first.pixels),
            torch.from_numpy(second.pixels),
            torch.from_numpy(first.to_source).float(),
            torch.from_numpy(second.to_source).float(),
        )


class Batches:
    """Draws the pictures of each batch: groups of look-alikes, by the vectors of the last passes."""

    def __init__(self, members: np.ndarray, vectors: Tensor, recipe: Recipe, seed: int) -> None:
        self.members, self.vectors, self.recipe, self.seed = members, vectors, recipe, seed
        self.step, self.size = 0, 0

    def __iter__(self) -> Iterator[list[Draw]]:
        while True:
            rng = np.random.default_rng((self.seed, self.step, 1))
            chosen: dict[int, None] = {}
            heads = rng.choice(self.members, self.recipe.batch, replace=False)
            look_alikes = self._look_alikes(heads) if self.recipe.group > 1 else heads[:, None]
            for head, alike in zip(heads, look_alikes, strict=True):
                picked = rng.choice(alike, min(self.recipe.group - 1, len(alike)), replace=False)
                for index in (head, *picked):
                    chosen.setdefault(int(index))
            self.step += 1
            yield [(index, self.seed + self.step, self.size) for index in list(chosen)[: self.recipe.batch]]

    def _look_alikes(self, heads: np.ndarray) -> np.ndarray:
        """Find the 12 nearest training pictures of each head, nearest first."""
        cosines = self.vectors[heads] @ self.vectors[self.members].T
        return self.members[cosines.topk(13, dim=1).indices[:, 1:].numpy()]


class Queue:
    """Holds the vectors of the last batches. With frozen BatchNorm they age slowly enough to serve as negatives."""

    def __init__(self, length: int, dim: int) -> None:
        self.length = length
        self.vectors, self.pictures = torch.zeros(0, dim), torch.zeros(0, dtype=torch.long)

    def push(self, vectors: Tensor, pictures: Tensor) -> None:
        self.vectors = torch.cat((vectors, self.vectors))[: self.length]
        self.pictures = torch.cat((pictures, self.pictures))[: self.length]


def embed(network: Network, pixels: np.ndarray, members: np.ndarray, size: int, batch: int = 64) -> Tensor:
    """Compute vectors [len(members), D] of unedited pictures."""
    vectors = []
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        for start in range(0, len(members), batch):
            chunk = (
                cv2.resize(pixels[i], (size, size), interpolation=cv2.INTER_AREA)
                for i in members[start : start + batch]
            )
            vectors.append(network(channels_first(torch.from_numpy(np.stack(list(chunk))))).embeddings)
    return torch.cat(vectors)


def channels_first(pixels: Tensor) -> Tensor:
    """View uint8 [N, S, S, 3] as [N, 3, S, S]. Nothing is copied: channels stay last in memory."""
    return pixels.permute(0, 3, 1, 2)


def recall_at(copies: Tensor, references: Tensor, rate: float) -> float:
    """Compute the share of `copies` that are nearer to their own row of `references` than `rate` of all others."""
    cosines = copies @ references.T
    others = cosines[~torch.eye(len(copies), dtype=torch.bool)]
    threshold = others.topk(max(1, int(rate * len(others)))).values[-1]
    return float((cosines.diagonal() > threshold).float().mean())


def _begin_with(network: Network, model: Path) -> None:
    """Fill the network from an exported model, to train it further."""
    load_served(network, model)
    rescale(network.projection)


class Run:
    """A training run: its network, the average of its weights, its optimiser, and its progress."""

    def __init__(self, pictures: Pictures, recipe: Recipe, output: Path, seed: int, start: Path | None = None) -> None:
        """`start` is an exported model to begin with, in place of the ImageNet weights."""
        self.pictures, self.recipe, self.output, self.seed, self.start = pictures, recipe, output, seed, start
        held_out = np.array([is_validation(name) for name in pictures.names])
        self.members, self.validation = np.flatnonzero(~held_out), np.flatnonzero(held_out)[:VALIDATION_PICTURES]
        self.copies: Tensor | None = None  # of the validation pictures, made once
        self.network = Network(recipe.dim, recipe.token_dim).to(memory_format=torch.channels_last)
        self.step, self.spent_s, self.history = 0, 0.0, list[dict[str, float]]()
        self.optimiser = torch.optim.AdamW(self.network.parameters(), recipe.rate, weight_decay=recipe.weight_decay)
        self.vectors = torch.zeros(len(pictures), recipe.dim)  # of each picture, from the last batch that had it
        output.mkdir(parents=True, exist_ok=True)
        if self.checkpoint.exists():
            state = torch.load(self.checkpoint, weights_only=True)
            self.network.load_state_dict(state["network"])
            self.average = copy.deepcopy(self.network)
            self.average.load_state_dict(state["average"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.step, self.spent_s, self.history = state["step"], state["spent_s"], state["history"]
            self.vectors = state["vectors"]
        else:
            if start is None:
                load_imagenet(self.network)
                fit_projections(self.network, self.sample(4000, 128))
            else:
                _begin_with(self.network, start)
            self.average = copy.deepcopy(self.network)
            self.vectors[self.members] = embed(self.network, pictures.pixels, self.members, 128)
        self.queue = Queue(recipe.queue, recipe.dim)

    @property
    def checkpoint(self) -> Path:
        return self.output / "checkpoint.pt"

    def save(self) -> None:
        state = {
            "dim": self.recipe.dim,
            "token_dim": self.recipe.token_dim,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "spent_s": self.spent_s,
            "history": self.history,
            "vectors": self.vectors,
        }
        draft = self.checkpoint.with_suffix(".tmp")
        torch.save(state, draft)
        draft.replace(self.checkpoint)  # a run that dies while it writes keeps the one before
        (self.output / "history.json").write_text(json.dumps(self.history))

    def learn(self, batch: list[Tensor], progress: float) -> dict[str, float]:
        """Make one step, with the learning rate for the run's `progress`, 0 to 1. Return the parts of the loss."""
        recipe = self.recipe
        indices, first, second, to_source, second_to_source = batch
        for group in self.optimiser.param_groups:
            group["lr"] = recipe.rate * min(1.0, progress / WARM_UP, 0.01 + 0.5 * (1 + math.cos(math.pi * progress)))
        pixels = channels_first(torch.cat((first, second)))
        self.network.train()
        for parameter in self.network.early_parameters():
            parameter.requires_grad_(self.step % recipe.early_every == 0)
        with torch.autocast("cpu", torch.bfloat16):
            encoded = self.network(pixels)
        a, b = encoded.embeddings.chunk(2)
        tokens_a, tokens_b = encoded.tokens.chunk(2)
        compared = loss.Batch(a, b, indices, self.queue.vectors, self.queue.pictures)
        parts = {
            "pairs": loss.triplet(compared, recipe.triplet_margin)
            if recipe.triplet_margin
            else loss.contrastive(compared, recipe.temperature),
            "spread": (loss.spread(a, indices) + loss.spread(b, indices)) / 2,
            "local": loss.local_features(
                loss.LocalView(tokens_a, to_source),
                loss.LocalView(tokens_b, second_to_source),
                detail(channels_first(first)),
                temperature=recipe.local_temperature,
                points=recipe.local_points,
            ),
        }
        total = parts["pairs"] + recipe.spread * parts["spread"] + recipe.local * parts["local"]
        self.optimiser.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimiser.step()
        self.step += 1
        self.vectors[indices] = a.detach()
        self.queue.push(torch.cat((a, b)).detach(), torch.cat((indices, indices)))
        decay = min(recipe.average, self.step / (self.step + 10))
        with torch.no_grad():
            for mine, theirs in zip(self.average.parameters(), self.network.parameters(), strict=True):
                mine.lerp_(theirs, 1 - decay)
        return {name: float(part.detach()) for name, part in parts.items()}

    def validate(self, size: int) -> float:
        """Measure the recall of strong copies of held-out pictures at a pairwise false positive rate of 1e-4."""
        if self.copies is None:
            views = Views(self.pictures, self.validation)
            self.copies = torch.stack([views[int(i), 0, size][2] for i in self.validation])
        references = embed(self.average, self.pictures.pixels, self.validation, size)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            copies = torch.cat([self.average(channels_first(part)).embeddings for part in self.copies.split(64)])
        return recall_at(copies, references, VALIDATION_RATE)

    def finish(self, size: int) -> None:
        """Write the checkpoint for the export: averaged weights, with embeddings whitened on the training's pictures.

        A run that began with a model writes the mean of the weights that it began with and the weights that it reached
        (Wortsman et al., Model soups, 2022).
        """
        network = copy.deepcopy(self.average)
        if self.start is not None:
            beginning = Network(self.recipe.dim, self.recipe.token_dim)
            _begin_with(beginning, self.start)
            with torch.no_grad():
                for ours, theirs in zip(network.parameters(), beginning.parameters(), strict=True):
                    ours.lerp_(theirs, 0.5)
        rewhiten(network, self.sample(4000, size))
        weights = {"dim": self.recipe.dim, "token_dim": self.recipe.token_dim, "average": network.state_dict()}
        torch.save(weights, self.output / "encoder.pt")

    def sample(self, count: int, size: int) -> np.ndarray:
        """Draw at most `count` pictures of the training: uint8 [N, size, size, 3]."""
        chosen = np.random.default_rng(self.seed).choice(self.members, min(count, len(self.members)), replace=False)
        pixels = self.pictures.pixels
        return np.stack([cv2.resize(pixels[i], (size, size), interpolation=cv2.INTER_AREA) for i in chosen])

    def plot(self) -> None:
        """Plot the losses and the validated recall by step."""
        import matplotlib  # noqa: PLC0415 (slow to import)

        matplotlib.use("Agg")
        from matplotlib import pyplot  # noqa: PLC0415

        figure, axes = pyplot.subplots(1, 2, figsize=(12, 4))
        for name in ("pairs", "spread", "local"):
            axes[0].plot([row["step"] for row in self.history], [row[name] for row in self.history], label=name)
        measured = [(row["step"], row["recall"]) for row in self.history if "recall" in row]
        axes[1].plot(*zip(*measured, strict=True), marker="o", label="recall of strong copies at 1e-4")
        for axis in axes:
            axis.set_xlabel("step")
            axis.legend()
        figure.tight_layout()
        figure.savefig(self.output / "curves.png")
        pyplot.close(figure)


def train(
    run: Run, *, minutes: float, steps: int, size: int, final_size: int, final_share: float, every_s: float = 480.0
) -> None:
    """Go on with `run` until it has spent `minutes`, or made `steps` when that is not 0.

    The last `final_share` of the run trains on pictures of `final_size`, as they are served, the rest on the smaller
    `size`. Every `every_s` the run is saved and plotted.
    """
    batches = Batches(run.members, run.vectors, run.recipe, run.seed)
    batches.step, batches.size = run.step, size
    loader = DataLoader(Views(run.pictures, run.members), batch_sampler=batches, num_workers=1, prefetch_factor=4)  # type: ignore[arg-type]

    def progress() -> float:
        return min(1.0, run.step / steps if steps else run.spent_s / (60 * minutes))

    last = saved = time.monotonic()
    sums: dict[str, float] = {}
    steps_summed = 0
    bar = tqdm(unit="step", mininterval=30)
    for batch in loader:
        batches.size = final_size if progress() >= 1 - final_share else size
        for name, part in run.learn(batch, progress()).items():
            sums[name] = sums.get(name, 0.0) + part
        steps_summed += 1
        bar.update()
        now = time.monotonic()
        run.spent_s, last = run.spent_s + now - last, now
        if now - saved >= every_s or progress() >= 1:
            saved = now
            row = {name: total / steps_summed for name, total in sums.items()}
            row |= {"step": run.step, "minutes": run.spent_s / 60, "recall": run.validate(final_size)}
            run.history.append(row)
            sums, steps_summed = {}, 0
            run.save()
            run.plot()
            bar.write(" ".join(f"{name}={value:.4g}" for name, value in row.items()))
        if progress() >= 1:
            run.finish(final_size)
            return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, required=True, help="folder of pictures")
    parser.add_argument("--cache", type=Path, default=Path(".cache/training"), help="where decoded pictures are kept")
    parser.add_argument("--output", type=Path, required=True, help="where checkpoints and curves go")
    parser.add_argument("--start", type=Path, metavar="ONNX", help="exported model to begin with")
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--minutes", type=float, default=0.0, help="length of the run by the clock")
    length.add_argument("--steps", type=int, default=0, help="length of the run in steps")
    parser.add_argument("--size", type=int, default=128, help="side of the pictures for most of the run")
    parser.add_argument("--final-size", type=int, default=192, help="side of the pictures at the end, as served")
    parser.add_argument("--final-share", type=float, default=0.15, help="share of the run at that size")
    parser.add_argument(
        "--triplet", type=float, default=0.0, metavar="MARGIN", help="the triplet loss with this margin"
    )
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    recipe = Recipe(triplet_margin=arguments.triplet)
    run = Run(load(arguments.images, arguments.cache), recipe, arguments.output, arguments.seed, arguments.start)
    train(
        run,
        minutes=arguments.minutes,
        steps=arguments.steps,
        size=arguments.size,
        final_size=arguments.final_size,
        final_share=arguments.final_share,
    )


if __name__ == "__main__":
    main()
