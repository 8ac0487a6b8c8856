"""What a run measures as it goes: the recall of strong copies of pictures that it does not learn from."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from triton_models.training.batches import Draw, Views, resized
from triton_models.training.data import Pictures
from triton_models.training.loss import WHOLE
from triton_models.training.network import Network, channels_first, mixed_precision

RATE = 1e-4  # of false pairs; for the curve: `evaluate` measures in earnest
BATCH = 64


class Validation:
    """Some pictures, and a strong copy of each, made once."""

    def __init__(self, pictures: Pictures, chosen: NDArray[np.intp]) -> None:
        self.pictures, self.chosen = pictures, chosen
        self.copies: Tensor | None = None

    def recall(self, network: Network, size: int) -> float:
        """Measure the recall of the copies at a pairwise false positive rate of `RATE`."""
        if self.copies is None:
            views = Views(self.pictures, self.chosen)
            self.copies = torch.stack([views[Draw(int(i), WHOLE, 0, size)].second for i in self.chosen])
        references = embed(network, self.pictures, self.chosen, size)
        return recall_at(_embed(network, self.copies), references, RATE)


def embed(network: Network, pictures: Pictures, chosen: NDArray[np.intp], size: int) -> Tensor:
    """Compute vectors [len(chosen), D] of unedited pictures."""
    chunks = (chosen[start : start + BATCH] for start in range(0, len(chosen), BATCH))
    return torch.cat([_embed(network, torch.from_numpy(resized(pictures, chunk, size))) for chunk in chunks])


def _embed(network: Network, pixels: Tensor) -> Tensor:
    """Compute vectors [N, D] of pixels, uint8 [N, S, S, 3]."""
    with torch.inference_mode(), mixed_precision(network.device):
        return torch.cat([network(channels_first(part.to(network.device))).embeddings for part in pixels.split(BATCH)])


def recall_at(copies: Tensor, references: Tensor, rate: float) -> float:
    """Compute the share of `copies` that are nearer to their own row of `references` than `rate` of all others."""
    cosines = copies @ references.T
    others = cosines[~torch.eye(len(copies), dtype=torch.bool, device=cosines.device)]
    threshold = others.topk(max(1, int(rate * len(others)))).values[-1]
    return float((cosines.diagonal() > threshold).float().mean())
