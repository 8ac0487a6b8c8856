"""A training run: what it learns, and what it keeps on disk to go on from."""

import copy
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from triton_models.training import loss
from triton_models.training.batches import Pairs, Queue, resized
from triton_models.training.curves import plot
from triton_models.training.data import Pictures, split
from triton_models.training.export import load_checkpoint
from triton_models.training.network import (
    Encoded,
    Network,
    channels_first,
    detail,
    load_imagenet,
    load_served,
    mixed_precision,
)
from triton_models.training.recipe import Recipe
from triton_models.training.validation import Validation, embed
from triton_models.training.whiten import fit_projections, rescale, rewhiten

VALIDATION_PICTURES = 500
FIRST_SIZE = 128  # side of the pictures whose vectors choose the first look-alikes
WHITENING_PICTURES = 4000
CPU = torch.device("cpu")


class Run:
    """A training run: its network, the average of its weights, its optimiser, and its progress."""

    def __init__(
        self,
        pictures: Pictures,
        recipe: Recipe,
        output: Path,
        seed: int,
        start: Path | None = None,
        *,
        device: torch.device = CPU,
        held_out_sources: Sequence[str] = (),
    ) -> None:
        """`start` is an exported model or a checkpoint to begin with, in place of the ImageNet weights."""
        self.pictures, self.recipe, self.output, self.seed, self.start = pictures, recipe, output, seed, start
        self.device = device
        self.members, held_out, of_sources = split(pictures.names, held_out_sources)
        self.validations = {"recall": Validation(pictures, held_out[:VALIDATION_PICTURES])}
        if len(of_sources):
            spread = np.linspace(0, len(of_sources) - 1, min(len(of_sources), VALIDATION_PICTURES)).astype(int)
            self.validations["recall_sources"] = Validation(pictures, of_sources[spread])
        self.network = Network(recipe.dim, recipe.token_dim).to(device, memory_format=torch.channels_last)
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), recipe.rate, weight_decay=recipe.weight_decay, fused=device.type == "cuda"
        )
        self.step, self.spent_s, self.history = 0, 0.0, list[dict[str, float]]()
        self.vectors = torch.zeros(len(pictures), recipe.dim, device=device)  # from the last batch with each picture
        self.queue = Queue(recipe.queue, recipe.dim, device)
        output.mkdir(parents=True, exist_ok=True)
        if self.checkpoint.exists():
            self._resume()
        else:
            self._begin()

    @property
    def checkpoint(self) -> Path:
        return self.output / "checkpoint.pt"

    def _begin(self) -> None:
        self.network.load_state_dict(_beginning(self.recipe, self.start).state_dict())
        if self.start is None:
            fit_projections(self.network, self.sample(FIRST_SIZE))
        self.average = copy.deepcopy(self.network)
        self.vectors[self.members] = embed(self.network, self.pictures, self.members, FIRST_SIZE)

    def _resume(self) -> None:
        state = torch.load(self.checkpoint, map_location=CPU, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.average = copy.deepcopy(self.network)
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.spent_s, self.history = state["step"], state["spent_s"], state["history"]
        self.vectors.copy_(state["vectors"])

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
        plot(self.history, self.output / "curves.png")

    def learn(self, pairs: Pairs, progress: float) -> dict[str, Tensor]:
        """Make one step, with the learning rate for the run's `progress`, 0 to 1. Return the parts of the loss."""
        recipe, pairs = self.recipe, pairs.to(self.device)
        for group in self.optimiser.param_groups:
            group["lr"] = recipe.rate_at(progress)
        self.network.train()
        if self.device.type == "cpu":
            for parameter in self.network.early_parameters():
                parameter.requires_grad_(self.step % recipe.early_every == 0)
        with mixed_precision(self.device):
            encoded = self.network(channels_first(torch.cat((pairs.first, pairs.second))))
        parts = self._losses(encoded, pairs)
        total = parts["pairs"] + recipe.spread * parts["spread"] + recipe.local * parts["local"]
        self.optimiser.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimiser.step()
        self.step += 1
        self._remember(encoded.embeddings.detach(), pairs)
        decay = min(recipe.average, self.step / (self.step + 10))
        with torch.no_grad():
            for mine, theirs in zip(self.average.parameters(), self.network.parameters(), strict=True):
                mine.lerp_(theirs, 1 - decay)
        return {name: part.detach() for name, part in parts.items()}  # on the device, which is not waited for

    def _losses(self, encoded: Encoded, pairs: Pairs) -> dict[str, Tensor]:
        recipe, subjects = self.recipe, pairs.subjects
        a, b = encoded.embeddings.chunk(2)
        tokens_a, tokens_b = encoded.tokens.chunk(2)
        compared = loss.Batch(a, b, subjects, self.queue.vectors, self.queue.pictures)
        return {
            "pairs": loss.triplet(compared, recipe.triplet_margin)
            if recipe.triplet_margin
            else loss.contrastive(compared, recipe.temperature),
            "spread": (loss.spread(a, subjects) + loss.spread(b, subjects)) / 2,
            "local": loss.local_features(
                loss.LocalView(tokens_a, pairs.first_to_source),
                loss.LocalView(tokens_b, pairs.second_to_source),
                detail(channels_first(pairs.first)),
                temperature=recipe.local_temperature,
                points=recipe.local_points,
            ),
        }

    def _remember(self, embeddings: Tensor, pairs: Pairs) -> None:
        """Keep the vectors of whole pictures, for the choice of look-alikes and as negatives."""
        whole = pairs.parts == loss.WHOLE
        pictures = pairs.pictures[whole]
        a, b = (view[whole] for view in embeddings.chunk(2))
        self.vectors[pictures] = a
        self.queue.push(torch.cat((a, b)), torch.cat((pictures, pictures)))

    def validate(self) -> dict[str, float]:
        """Measure the recall of strong copies of held-out pictures, and of those of the sources held out."""
        size = self.recipe.final_size
        return {name: validation.recall(self.average, size) for name, validation in self.validations.items()}

    def finish(self) -> None:
        """Write the checkpoint for the export: averaged weights, with embeddings whitened on the training's pictures.

        A run that began with a model writes the mean of the weights that it began with and the weights that it reached
        (Wortsman et al., Model soups, 2022), with the share of the former that the recipe says.
        """
        network = copy.deepcopy(self.average)
        if self.start is not None and self.recipe.start_share > 0:
            beginning = _beginning(self.recipe, self.start).to(self.device)
            with torch.no_grad():
                for ours, theirs in zip(network.parameters(), beginning.parameters(), strict=True):
                    ours.lerp_(theirs, self.recipe.start_share)
        rewhiten(network, self.sample(self.recipe.final_size))
        weights = {"dim": self.recipe.dim, "token_dim": self.recipe.token_dim, "average": network.to(CPU).state_dict()}
        torch.save(weights, self.output / "encoder.pt")

    def sample(self, size: int) -> np.ndarray:
        """Draw some pictures of the training, for whitening: uint8 [N, size, size, 3]."""
        count = min(WHITENING_PICTURES, len(self.members))
        return resized(self.pictures, np.random.default_rng(self.seed).choice(self.members, count, replace=False), size)


def _beginning(recipe: Recipe, start: Path | None) -> Network:
    """Load the weights that a run begins with: of ImageNet, of an exported model, or of a checkpoint (`.pt`).

    Raises ValueError when the checkpoint's vectors have another length than the recipe's.
    """
    network = Network(recipe.dim, recipe.token_dim)
    if start is None:
        load_imagenet(network)
        return network
    if start.suffix == ".pt":
        network = load_checkpoint(start)
    else:
        load_served(network, start)
    lengths = network.projection.out_features, network.token_projection.out_channels
    if lengths != (recipe.dim, recipe.token_dim):
        raise ValueError(f"{start} has vectors of {lengths}, the recipe of {(recipe.dim, recipe.token_dim)}")
    rescale(network.projection)
    return network
