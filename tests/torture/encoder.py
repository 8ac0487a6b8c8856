"""A stand-in encoder with the contract of the real one, so light that it encodes thousands of uploads in seconds."""

import base64
import shutil
from pathlib import Path

import numpy as np
import onnx
from google.protobuf import text_format
from numpy.typing import NDArray
from onnx import TensorProto, helper
from tritonclient.grpc.model_config_pb2 import ModelConfig

from tests.torture.pictures import GRID, THRESHOLD_L2
from triton_models.training.codebooks import fit

REAL = Path(__file__).parents[2] / "triton_models" / "repository" / "image_encoder"
MODEL = "image_encoder"
SIZE = 4 * GRID
DIM = 3 * GRID * GRID
FITTED = 10_000  # vectors for the code books of large windows


def write_repository(folder: Path) -> None:
    """Write the model to `folder`, with the configuration and the Python code that serve the real one."""
    version = folder / MODEL / "1"
    version.mkdir(parents=True)
    shutil.copy(REAL / "1" / "model.py", version)
    onnx.save(_graph(), str(version / "model.onnx"))
    config = text_format.Parse((REAL / "configs" / "cpu.pbtxt").read_text(), ModelConfig())
    del config.model_warmup[:]
    config.input[0].dims[:] = [SIZE, SIZE, 3]
    del config.output[1:]
    config.output[0].dims[:] = [DIM]
    parameters = {
        "model_version": "torture-1",
        "input_size": str(SIZE),
        "embedding_dim": str(DIM),
        "threshold_l2": str(THRESHOLD_L2),
        "codebooks": base64.b64encode(fit(_vectors(FITTED)).to_bytes()).decode(),
    }
    config.parameters.clear()
    for name, value in parameters.items():
        config.parameters[name].string_value = value
    (folder / MODEL / "config.pbtxt").write_text(text_format.MessageToString(config))


def _vectors(count: int) -> NDArray[np.float32]:
    """Draw vectors as the model computes them of pictures, float32 [count, DIM]."""
    cells = np.random.default_rng(0).integers(32, 224, (count, DIM)).astype(np.float32)
    cells -= cells.mean(axis=1, keepdims=True)
    return np.asarray(cells / np.linalg.norm(cells, axis=1, keepdims=True), np.float32)


def _graph() -> onnx.ModelProto:
    """Build the model: uint8 [N, SIZE, SIZE, 3] -> float32 [N, DIM].

    The vector holds the colours of the cells by average pooling, less their mean, at unit length.
    """
    pool = SIZE // GRID
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["planes"], ["cells"], kernel_shape=[pool, pool], strides=[pool, pool]),
        helper.make_node("Flatten", ["cells"], ["flat"]),
        helper.make_node("ReduceMean", ["flat"], ["mean"], axes=[1], keepdims=1),
        helper.make_node("Sub", ["flat", "mean"], ["centred"]),
        helper.make_node("LpNormalization", ["centred"], ["embeddings"], axis=1, p=2),
    ]
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", SIZE, SIZE, 3])
    embeddings = helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["n", DIM])
    graph = helper.make_graph(nodes, "stand_in", [images], [embeddings])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model
