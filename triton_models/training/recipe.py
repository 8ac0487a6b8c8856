"""The choices of a training run; what each changed is recorded in README.md."""

import math
from dataclasses import dataclass

WARM_UP = 0.04  # share of the run in which the learning rate rises


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a run learns. The values here are for two CPU cores, see `RECIPES`."""

    dim: int = 256
    token_dim: int = 22  # with a place of two bytes: 24 bytes a token, 64 tokens in 1.5 KB
    batch: int = 64  # pairs of views in a step
    halves: float = 0.2  # share of the pairs that show a half of a picture, whose other half is in the batch as well
    group: int = 4  # look-alikes that are put into a batch together
    queue: int = 4096  # vectors of recent batches that serve as further negatives
    temperature: float = 0.05
    triplet_margin: float = 0.0  # above 0: the triplet loss instead of the contrastive one
    spread: float = 16.0
    local: float = 0.2
    local_temperature: float = 0.07
    local_points: int = 20
    early_every: int = 4  # on CPUs the layers at a half and a quarter of the size, a third of the cost, learn so often
    rate: float = 4e-4
    weight_decay: float = 0.02
    average: float = 0.997  # decay of the averaged weights, which are what is served
    start_share: float = 0.5  # of the model that a run began with, in the weights that it writes at its end
    size: int = 128  # side of the pictures for most of the run
    final_size: int = 192  # side of the pictures at the end, as served
    final_share: float = 0.15  # share of the run at that size
    save_s: float = 480.0  # seconds between checkpoints

    def rate_at(self, progress: float) -> float:
        """Compute the learning rate at `progress` 0 to 1: a short rise, then half a cosine."""
        return self.rate * min(1.0, progress / WARM_UP, 0.01 + 0.5 * (1 + math.cos(math.pi * progress)))

    def size_at(self, progress: float) -> int:
        return self.final_size if progress >= 1 - self.final_share else self.size


RECIPES = {
    "cpu": Recipe(),
    "gpu": Recipe(
        batch=384,
        queue=12_288,
        local=0.3,
        early_every=1,
        rate=8e-4,
        average=0.998,
        start_share=0.0,
        size=144,
        final_share=0.5,
        save_s=120.0,
    ),
}
