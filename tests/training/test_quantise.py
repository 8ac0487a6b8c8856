"""The 8-bit graph: the same encoder, nearly."""

from pathlib import Path

import numpy as np
import onnx
import torch

from tests.training.drawings import draw_picture
from triton_models.training.encoders import OnnxEncoder
from triton_models.training.export import to_onnx
from triton_models.training.network import Network, load_imagenet
from triton_models.training.quantise import IN_FLOAT, quantise


def test_the_8_bit_graph_says_nearly_the_same(folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Network(dim=48)
    load_imagenet(network)
    plain, small = tmp_path / "model.onnx", tmp_path / "model.int8.onnx"
    to_onnx(network.eval(), 144, {"model_version": "7"}, plain)
    quantise(plain, small, sorted(folder.iterdir())[:24])
    assert small.stat().st_size < plain.stat().st_size / 2
    graph = onnx.load(small)
    assert {each.key: each.value for each in graph.metadata_props} == {"model_version": "7"}
    from_float = {name for node in graph.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    convolutions = [node for node in graph.graph.node if node.op_type == "Conv"]
    assert [node.input[1] in from_float for node in convolutions].count(False) == IN_FLOAT
    pictures = [draw_picture(seed) for seed in range(100, 112)]
    (vectors, patches), (near, near_patches) = (OnnxEncoder(path).features(pictures) for path in (plain, small))
    assert np.sum(vectors * near, axis=1).min() > 0.95
    assert patches is not None
    assert near_patches is not None
    assert patches.shape == near_patches.shape
    assert near_patches.dtype == np.int8
