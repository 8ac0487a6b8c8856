"""The GPU's path as far as it can be tested without a GPU, and its scripts on a Triton with the CPU configuration."""

import os
import signal
import subprocess
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from google.protobuf import text_format
from onnx import TensorProto
from tritonclient.grpc.model_config_pb2 import ModelConfig

from consumer.encoder.contract import Encoded
from consumer.encoder.model_config import read_model_info
from consumer.encoder.triton import TritonEncoder
from consumer.images.decode import decode
from consumer.local.pictures import photographs
from consumer.local.process import answers
from consumer.local.servers import REPOSITORY, TritonServer
from consumer.settings import DecodeSettings, TritonSettings
from deploy.triton import build_plan, verify
from tests.stack_fixtures import served_graph

MODEL = REPOSITORY / "image_encoder"
GRAPH = MODEL / "1" / "model.onnx"
ALIVE = Path(build_plan.__file__).with_name("alive.sh")


def config(name: str) -> ModelConfig:
    parsed = ModelConfig()
    text_format.Parse((MODEL / name).read_text(), parsed)
    return parsed


def test_both_configurations_describe_the_same_model() -> None:
    gpu, cpu = config("config.pbtxt"), config("configs/cpu.pbtxt")
    assert gpu.platform == "tensorrt_plan"
    assert cpu.backend == "python"
    for field in ("name", "max_batch_size", "input", "output", "dynamic_batching", "model_warmup"):
        assert getattr(gpu, field) == getattr(cpu, field), field
    assert dict(gpu.parameters) == dict(cpu.parameters)
    policy = gpu.dynamic_batching.default_queue_policy
    assert policy.default_timeout_microseconds > 0
    assert policy.max_queue_size > 0
    assert gpu.optimization.cuda.graphs


def test_trtexec_is_asked_for_every_batch_in_the_dialect_of_its_release() -> None:
    names = {"graph": Path("model.onnx"), "plan": Path("model.plan")}
    ten = build_plan.command("trtexec", 10, **names, size=160, max_batch=32)
    shapes = {"--minShapes=images:1x160x160x3", "--optShapes=images:16x160x160x3", "--maxShapes=images:32x160x160x3"}
    assert shapes <= set(ten)
    assert "--fp16" in ten
    assert "--fp16" not in build_plan.command("trtexec", 11, **names, size=160, max_batch=8)
    assert build_plan.tensorrt_version("&&&& RUNNING TensorRT.trtexec [TensorRT v101000] [b31] # trtexec") == 10
    assert build_plan.tensorrt_version("[TensorRT v110001]") == 11
    with pytest.raises(ValueError, match="does not say"):
        build_plan.tensorrt_version("trtexec: not found")


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    size = int(config("config.pbtxt").parameters["input_size"].string_value)
    return np.stack([decode(data, size, DecodeSettings()).pixels for _, data in photographs()])


def test_the_graph_in_half_precision_is_the_same_encoder(pixels: np.ndarray, tmp_path: Path) -> None:
    """ONNX Runtime rounds where TensorRT would; the verdicts stay."""
    model = onnx.load(GRAPH)
    half = build_plan.half_precision(model)
    assert [tensor.type for tensor in half.graph.input] == [tensor.type for tensor in model.graph.input]
    assert [tensor.type for tensor in half.graph.output] == [tensor.type for tensor in model.graph.output]
    kinds = {tensor.name: tensor.data_type for tensor in half.graph.initializer}
    convolutions = [node for node in half.graph.node if node.op_type == "Conv"]
    single = [index for index, node in enumerate(convolutions) if kinds[node.input[1]] != TensorProto.FLOAT16]
    assert single[: build_plan.FIRST_SINGLE] == list(range(build_plan.FIRST_SINGLE))
    assert len(single) <= build_plan.FIRST_SINGLE + 1  # one may follow a sum
    path = tmp_path / "half.onnx"
    onnx.save(half, path)
    nearly_empty = np.full_like(pixels[:1], 255)
    nearly_empty[:, 20:22, 20:120] = 60
    pixels = np.concatenate((pixels, nearly_empty))
    expected, halved = verify.reference(GRAPH, pixels, 8), verify.reference(path, pixels, 8)
    assert np.sum(expected.embeddings * halved.embeddings, axis=1).min() >= verify.MIN_COSINE
    info = read_model_info(config("config.pbtxt"))
    assert verify.changed_verdicts(expected.embeddings, halved.embeddings, info.threshold_l2) == 0
    assert verify.feature_loss(expected, halved, info.verification_rule) <= verify.MAX_FEATURE_LOSS
    # Half precision did happen.
    assert not np.array_equal(expected.embeddings, halved.embeddings)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].type == "tensor(uint8)"


def test_verify_tells_the_encoder_from_another(triton: str, pixels: np.ndarray) -> None:
    with TritonEncoder(TritonSettings(url=triton, timeout_s=60.0)) as encoder:
        served = verify.served(encoder, pixels, 4)
        expected = verify.reference(served_graph(), pixels, 8)
        assert np.sum(expected.embeddings * served.embeddings, axis=1).min() >= verify.MIN_COSINE
        assert verify.changed_verdicts(expected.embeddings, served.embeddings, encoder.info.threshold_l2) == 0
        assert verify.feature_loss(expected, served, encoder.info.verification_rule) <= verify.MAX_FEATURE_LOSS
        assert verify.images_per_second(encoder, pixels, 2, 0.5) > 0
        # An encoder that answers with other vectors changes verdicts, and one with other features verifies less.
        same = np.broadcast_to(expected.embeddings[:1], expected.embeddings.shape)
        assert verify.changed_verdicts(expected.embeddings, same, 0.5) > 0
        assert expected.patches is not None
        other = Encoded(expected.embeddings, np.roll(expected.patches, 1, axis=0))
        assert verify.feature_loss(expected, other, encoder.info.verification_rule) > verify.MAX_FEATURE_LOSS


def test_alive_notices_that_the_process_behind_the_model_has_died(own_triton: TritonServer) -> None:
    url = f"http://127.0.0.1:{own_triton.ports[1]}"

    def alive() -> int:
        return subprocess.run(
            [str(ALIVE), url], env={"PATH": os.environ["PATH"], "no_proxy": "*"}, capture_output=True, check=False
        ).returncode

    assert alive() == 0
    for pid in children(own_triton.pid):
        os.kill(pid, signal.SIGKILL)
    assert alive() != 0
    assert answers(own_triton.ports[1], "/v2/health/ready")  # what Triton itself says


def children(pid: int) -> list[int]:
    """List the processes that any thread of this one started."""
    return [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]
