"""Make a first projection without training: principal components of the features of many pictures, whitened."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from triton_models.training.network import Network, channels_first, mixed_precision

# Vectors are normalised after the projection, so its scale changes nothing but how far one step of Adam, whose size is
# that of the learning rate whatever the gradient, turns it. At the natural scale of these features, 0.001, a hundred
# steps replace it altogether, and the vectors fall into a few directions.
WEIGHT_SCALE = 0.05
FLOOR = 0.02  # of the mean variance, added to each component's: the last ones are noise


def fit_projections(network: Network, pixels: NDArray[np.uint8], batch: int = 64, power: float = 1.0) -> None:
    """Set both projections of `network` from its features of `pixels`, uint8 [N, S, S, 3].

    Each component is scaled by its variance to `-power / 2`: 1 whitens, 0 leaves plain principal components.
    """
    pooled, tokens = [], []
    with torch.inference_mode(), mixed_precision(network.device):
        for start in range(0, len(pixels), batch):
            images = torch.from_numpy(pixels[start : start + batch]).to(network.device)
            features, token_map = network.features(channels_first(images))
            pooled.append(features.float())
            tokens.append(token_map[:, :, 1::3, 1::3].float().permute(0, 2, 3, 1).flatten(0, 2))
    _fit(network.projection, torch.cat(pooled), power)
    _fit(network.token_projection, torch.cat(tokens), power)


def rewhiten(network: Network, pixels: NDArray[np.uint8], batch: int = 64, power: float = 1.0) -> None:
    """Whiten the embeddings of a trained network on `pixels`, inside its projection.

    Training leaves some directions much narrower than others, and the narrow ones tell look-alikes apart as well.
    """
    pooled = []
    with torch.inference_mode(), mixed_precision(network.device):
        for start in range(0, len(pixels), batch):
            images = torch.from_numpy(pixels[start : start + batch]).to(network.device)
            features, _ = network.features(channels_first(images))
            pooled.append(features.float())
    layer = network.projection
    with torch.no_grad():
        outputs = nn.functional.linear(torch.cat(pooled), layer.weight, layer.bias)
        mean = outputs.mean(0)
        variances, components = torch.linalg.eigh((outputs - mean).T.cov())
        whitening = components.T * (variances + FLOOR * variances.mean()).pow(-power / 2)[:, None]
        layer.weight.copy_(whitening @ layer.weight)
        layer.bias.copy_(whitening @ (layer.bias - mean))


def rescale(layer: nn.Linear) -> None:
    """Give a projection the scale that training wants, see `WEIGHT_SCALE`; its normalised output stays the same."""
    with torch.no_grad():
        factor = WEIGHT_SCALE / layer.weight.square().mean().sqrt()
        layer.weight *= factor
        layer.bias *= factor


def _fit(layer: nn.Linear | nn.Conv2d, features: torch.Tensor, power: float) -> None:
    """Set a projection to the whitened principal components of its input, `features` [N, F]."""
    mean = features.mean(0)
    variances, components = torch.linalg.eigh((features - mean).T.cov())
    count = layer.weight.shape[0]
    variances = variances[-count:] + FLOOR * variances[-count:].mean()
    weight = components[:, -count:].T * variances.pow(-power / 2)[:, None]
    weight *= WEIGHT_SCALE / weight.square().mean().sqrt()
    with torch.no_grad():
        layer.weight.copy_(weight.view_as(layer.weight))
        layer.bias.copy_(-weight @ mean)  # type: ignore[union-attr]  # both have one
