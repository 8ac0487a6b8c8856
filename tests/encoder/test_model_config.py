"""The contract that is read from the model's configuration, and the configurations, graphs and code that are served."""

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig

from consumer.encoder.model_config import STRICTNESSES, read_model_info
from consumer.errors import Misconfigured
from consumer.local.servers import MODEL, REPOSITORY
from consumer.verification.measures import columns_of
from tests.fakes.rule import make_rule
from tests.stack_fixtures import model_code

GPU = REPOSITORY / MODEL / "config.pbtxt"
CPU = REPOSITORY / MODEL / "configs" / "cpu.pbtxt"
GRAPHS = [REPOSITORY / MODEL / "1" / name for name in ("model.onnx", "model.int8.onnx")]
ELEMENTS = {"TYPE_UINT8": "UINT8", "TYPE_FP32": "FLOAT", "TYPE_INT8": "INT8"}


def config(path: Any = CPU) -> Any:
    """Read a configuration of the repository."""
    return text_format.Parse(path.read_text(), ModelConfig())


def with_rule(**parameters: str) -> Any:
    """Configure a rule that nothing was fitted for, with other `parameters` in place of its own."""
    served, rule = config(), make_rule(measure="l2,moved")
    rule_parameters = {
        "candidate_l2": "1.1",
        "rule_measures": rule.measures[0],
        "rule_trees": base64.b64encode(rule.trees.to_bytes()).decode(),
        **{f"min_score_{name}": str(rule.min_scores[name]) for name in STRICTNESSES},
        **parameters,
    }
    for name, value in rule_parameters.items():
        served.parameters[name].string_value = value
    return served


def test_both_configurations_describe_one_model() -> None:
    gpu, cpu = config(GPU), config(CPU)
    assert (gpu.platform, cpu.backend) == ("tensorrt_plan", "python")
    for field in ("name", "input", "output", "max_batch_size", "parameters", "model_warmup"):
        assert getattr(gpu, field) == getattr(cpu, field), field
    assert read_model_info(gpu) == read_model_info(cpu)


@pytest.mark.parametrize("path", [GPU, CPU], ids=["gpu", "cpu"])
def test_batches_are_joined_bounded_and_warmed_up(path: Any) -> None:
    served = config(path)
    policy = served.dynamic_batching.default_queue_policy
    assert 0 < served.dynamic_batching.max_queue_delay_microseconds <= 5_000
    assert policy.max_queue_size > 0
    assert policy.default_timeout_microseconds > 0
    assert {sample.batch_size for sample in served.model_warmup} == {1, served.max_batch_size}


def test_the_gpu_configuration_uses_cuda_graphs() -> None:
    assert config(GPU).optimization.cuda.graphs
    assert config(GPU).instance_group[0].kind == config(GPU).instance_group[0].KIND_GPU


@pytest.mark.parametrize("path", GRAPHS, ids=lambda path: path.name)
def test_the_configuration_describes_the_model_file(path: Path) -> None:
    model = onnx.load(path)
    served = config()
    for declared, actual in ((served.input, model.graph.input), (served.output, model.graph.output)):
        assert [tensor.name for tensor in declared] == [tensor.name for tensor in actual]
        for tensor, value in zip(declared, actual, strict=True):
            kind = onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type)
            assert ELEMENTS[DataType.Name(tensor.data_type)] == kind
            # A dimension without a number is one that the exporter could not infer.
            for expected, dim in zip(tensor.dims, value.type.tensor_type.shape.dim[1:], strict=True):
                assert dim.dim_value in {0, expected}
    info, metadata = read_model_info(served), {each.key: each.value for each in model.metadata_props}
    assert metadata["model_version"] == info.version
    assert int(metadata["input_size"]) == info.size
    assert int(metadata["embedding_dim"]) == info.dim
    assert float(metadata["threshold_l2"]) == pytest.approx(info.threshold_l2)
    # The configuration may have been written for an earlier model.
    assert metadata["turns"] == served.parameters["turns"].string_value


def test_the_rule_of_the_second_look_is_read_and_optional() -> None:
    served, expected = with_rule(), make_rule()
    info = read_model_info(served)
    rule = info.verification_rule
    assert rule is not None
    assert rule.measures == ("l2", "moved")
    assert rule.min_scores == expected.min_scores
    assert rule.trees.to_bytes() == expected.trees.to_bytes()
    assert rule.candidate_l2 == info.match_radius_l2 == 1.1 > info.threshold_l2
    assert rule.accepts(1.1, 0.5, "balanced")
    del served.parameters["rule_trees"]
    info = read_model_info(served)
    assert info.verification_rule is None
    assert info.match_radius_l2 == info.threshold_l2
    served = with_rule()
    del served.output[1:]
    assert read_model_info(served).verification_rule is None  # there is nothing to look at


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("candidate_l2", "", "lacks the parameter 'candidate_l2'"),
        ("candidate_l2", "far", "'candidate_l2' of model 'image_encoder' should be a number, not 'far'"),
        ("candidate_l2", "0.1", "'candidate_l2' of model 'image_encoder' is below its 'threshold_l2'"),
        ("rule_measures", "", "lacks the parameter 'rule_measures'"),
        ("rule_trees", "", "lacks the parameter 'rule_trees'"),
        ("rule_trees", "no base64", "'rule_trees' of model 'image_encoder' holds no rule"),
        ("rule_trees", base64.b64encode(b"no trees").decode(), "holds no rule: no packed trees"),
        ("min_score_strict", "", "lacks the parameter 'min_score_strict'"),
        ("min_score_eager", "-1", "'min_score_eager' of model 'image_encoder' should be a number"),
        ("min_score_balanced", "nan", "'min_score_balanced' of model 'image_encoder' should be a number"),
    ],
)
def test_a_rule_that_does_not_fit_is_refused_with_what_is_wrong(name: str, value: str, message: str) -> None:
    with pytest.raises(Misconfigured) as refusal:
        read_model_info(with_rule(**{name: value}))
    assert message in str(refusal.value)


def test_code_books_are_read_with_the_model() -> None:
    served = config()
    codebooks = read_model_info(served).codebooks
    assert codebooks is not None
    assert (codebooks.words.shape, codebooks.centres.shape) == ((64, 16, 4), (256, 256))
    encoded = served.parameters["codebooks"].string_value
    assert base64.b64encode(codebooks.to_bytes()).decode() == encoded
    for value in (encoded[4:], "no base64"):
        served.parameters["codebooks"].string_value = value
        with pytest.raises(Misconfigured, match="'codebooks' of model 'image_encoder' holds none"):
            read_model_info(served)
    del served.parameters["codebooks"]
    assert read_model_info(served).codebooks is None


def test_a_rule_that_asks_for_more_measures_than_it_names_is_refused() -> None:
    trees = make_rule().trees
    trees.columns[3] = 2
    encoded = base64.b64encode(trees.to_bytes()).decode()
    with pytest.raises(Misconfigured, match="holds no rule: the trees ask for number 3 of 2"):
        read_model_info(with_rule(rule_trees=encoded))


def test_the_rule_that_is_served_asks_for_what_is_measured() -> None:
    rule = read_model_info(config()).verification_rule
    assert rule is not None
    assert len(columns_of(rule.measures)) == len(set(rule.measures)) > rule.trees.columns.max()
    eager, balanced, strict = (rule.min_scores[name] for name in ("eager", "balanced", "strict"))
    assert 0 < eager < balanced < strict < 1


def test_rotation_maps_are_read_and_optional() -> None:
    served = with_rule()
    rule = read_model_info(served).verification_rule
    assert rule is not None
    assert rule.rotation_maps is not None
    assert rule.rotation_maps.shape == (3, 22, 22)
    assert 0.5 < np.abs(rule.rotation_maps).max() <= 2
    served.parameters["turns"].string_value = ""
    rule = read_model_info(served).verification_rule
    assert rule is not None
    assert rule.rotation_maps is None


@pytest.mark.parametrize("maps", ["AAAA", "no base64"])
def test_rotation_maps_of_another_form_are_refused(maps: str) -> None:
    with pytest.raises(Misconfigured, match="'turns'"):
        read_model_info(with_rule(turns=maps))


def test_local_features_are_optional() -> None:
    served = config()
    del served.output[1:]
    assert read_model_info(served).patches is None
    served.output.add(name="patches", data_type=DataType.TYPE_INT8, dims=[25, 24])
    assert read_model_info(served).patches == (25, 24)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda served: served.parameters.pop("threshold_l2"), "lacks the parameter 'threshold_l2'"),
        (lambda served: served.parameters["input_size"].ParseFromString(b""), "lacks the parameter 'input_size'"),
        (lambda served: setattr(served.parameters["embedding_dim"], "string_value", "many"), "a number, not 'many'"),
        (lambda served: setattr(served.parameters["threshold_l2"], "string_value", "nan"), "not 'nan'"),
        (lambda served: setattr(served.input[0], "data_type", DataType.TYPE_FP32), "'images' TYPE_UINT8"),
        (lambda served: setattr(served.input[0], "name", "pixels"), "and has None"),
        (lambda served: served.output[0].dims.append(2), "'embeddings' TYPE_FP32"),
        (lambda served: setattr(served, "max_batch_size", 0), "batches"),
        (
            lambda served: served.output.add(name="patches", data_type=DataType.TYPE_FP32, dims=[25, 32]),
            "'patches' TYPE_INT8",
        ),
        (
            lambda served: served.output.add(name="patches", data_type=DataType.TYPE_INT8, dims=[25]),
            "'patches' TYPE_INT8",
        ),
        (
            lambda served: served.output.add(name="patches", data_type=DataType.TYPE_INT8, dims=[1, 24]),
            "too few: [1, 24]",
        ),
    ],
)
def test_a_model_without_the_contract_is_refused_with_what_is_wrong(
    spoil: Callable[[Any], object], message: str
) -> None:
    served = config()
    del served.output[1:]
    spoil(served)
    with pytest.raises(Misconfigured) as refusal:
        read_model_info(served)
    assert message in str(refusal.value)
    assert "image_encoder" in str(refusal.value)


def test_the_8_bit_graph_is_served_only_where_it_is_exact(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = model_code()
    plain, quantised = tmp_path / "model.onnx", tmp_path / "model.int8.onnx"
    cpuinfo = "flags : fpu avx2 avx512_vnni"
    monkeypatch.setattr(model.Path, "read_text", lambda _: cpuinfo)
    monkeypatch.setattr(model.platform, "machine", lambda: "x86_64")
    assert model.graph(tmp_path) == plain
    quantised.touch()
    assert model.graph(tmp_path) == quantised
    cpuinfo = "flags : fpu avx2"
    assert model.graph(tmp_path) == plain
    monkeypatch.setattr(model.platform, "machine", lambda: "aarch64")
    assert model.graph(tmp_path) == quantised
