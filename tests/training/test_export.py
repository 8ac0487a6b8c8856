"""The served graph computes what torch computes, holds only what TensorRT can build, and carries its parameters."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from tests.training.drawings import draw_picture
from triton_models.training.encoders import OnnxEncoder, make_encoder, squares
from triton_models.training.export import PATCHES, Served, patches_shape, to_onnx
from triton_models.training.network import MIN_DETAIL, Network, load_imagenet, load_served
from triton_models.training.parameters import CONFIGS, MODEL_FOLDER, set_parameters, with_parameters

SIZE = 144
# Of TensorRT's operator support matrix for ONNX (10.x), those that this network has a use for.
TENSORRT = {
    *("Add", "AveragePool", "Cast", "Clip", "Concat", "Constant", "ConstantOfShape", "Conv", "Div", "Equal", "Expand"),
    *(
        "Flatten",
        "Gather",
        "GatherElements",
        "Gemm",
        "Greater",
        "Identity",
        "MatMul",
        "Max",
        "Min",
        "Mul",
        "Pad",
        "Pow",
    ),
    *(
        "QuantizeLinear",
        "Range",
        "ReduceL2",
        "ReduceMean",
        "Reshape",
        "Round",
        "Shape",
        "Slice",
        "Sqrt",
        "Squeeze",
        "Sub",
    ),
    *("TopK", "Transpose", "Unsqueeze", "Where"),
}


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    made = Network(dim=48)
    load_imagenet(made)
    return made.eval()


@pytest.fixture(scope="module")
def file(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "model.onnx"
    to_onnx(network, SIZE, {"model_version": "test"}, path)
    return path


def test_onnx_and_torch_agree_for_any_batch(network: Network, file: Path) -> None:
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    for count in (1, 5):
        images = squares([draw_picture(seed) for seed in range(count)], SIZE)
        embeddings, patches = session.run(["embeddings", "patches"], {"images": images})
        with torch.inference_mode():
            expected, local = Served(network, SIZE).eval()(torch.from_numpy(images))
        assert np.sum(embeddings * expected.numpy(), axis=1).min() > 0.9999
        np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)
        assert patches.shape == local.shape == (count, *patches_shape(network))
        assert patches.dtype == np.int8
        expected_patches = np.clip(local.numpy() * 128, -128, 127)
        for ours, theirs in zip(_by_place(patches), _by_place(expected_patches), strict=True):
            shared = ours.keys() & theirs.keys()
            assert len(shared) >= PATCHES - 2  # the last ones may be tied
            assert max(np.abs(ours[place] - theirs[place]).max() for place in shared) <= 1.01


def _by_place(patches: np.ndarray) -> list[dict[tuple[int, ...], np.ndarray]]:
    """Key the local features of each picture by their place: features of equal detail may come in any order."""
    return [{tuple(np.rint(row[-2:]).astype(int)): row[:-2].astype(float) for row in rows} for rows in patches]


def test_patches_are_sorted_by_detail_placed_and_silent_where_there_is_nothing(file: Path) -> None:
    image = np.full((1, SIZE, SIZE, 3), 128, np.uint8)
    rng = np.random.default_rng(0)
    image[0, 32:48, 64:80] = rng.integers(0, 256, (16, 16, 3))
    image[0, 96:112, 16:32] = rng.integers(100, 156, (16, 16, 3))
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (patches,) = session.run(["patches"], {"images": image})
    places = (patches[0, :, -2:] / 128 + 1) / 2
    np.testing.assert_allclose(places[0], (72 / SIZE, 40 / SIZE), atol=0.01)
    np.testing.assert_allclose(places[1], (24 / SIZE, 104 / SIZE), atol=0.01)
    assert np.abs(patches[0, :2, :-2]).max(axis=1).min() > 0
    assert (patches[0, 2:, :-2] == 0).all()
    assert MIN_DETAIL > 0


def test_only_operators_that_tensorrt_builds(file: Path) -> None:
    used = {node.op_type for node in onnx.load(file).graph.node}
    assert used <= TENSORRT, used - TENSORRT


def test_metadata_and_encoder(file: Path) -> None:
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map["model_version"] == "test"
    encoder = make_encoder(f"mine={file}")
    assert isinstance(encoder, OnnxEncoder)
    assert encoder.name == "mine"
    assert encoder([draw_picture(0)]).shape == (1, 48)
    with pytest.raises(ValueError, match="neither"):
        make_encoder("nothing.onnx")


def test_an_export_can_be_taken_up_again(network: Network, file: Path) -> None:
    trained = Network(dim=48)
    load_imagenet(trained)
    with torch.no_grad():
        for layer in (trained.stem, trained.head):
            layer.weight *= 1.1
        trained.stem.gain[:4] = 0.0
        trained.stem.shift += 0.3
    path = file.with_name("trained.onnx")
    to_onnx(trained.eval(), SIZE, {}, path)
    again = Network(dim=48).eval()
    load_served(again, path)
    pixels = torch.from_numpy(squares([draw_picture(seed) for seed in range(4)], SIZE)).permute(0, 3, 1, 2)
    with torch.inference_mode():
        expected, actual, untrained = trained(pixels), again(pixels), network(pixels)
    torch.testing.assert_close(actual.embeddings, expected.embeddings, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(actual.tokens, expected.tokens, atol=1e-3, rtol=1e-3)
    assert (untrained.embeddings - expected.embeddings).abs().max() > 0.01


def test_both_configurations_say_the_same_as_the_shipped_model(tmp_path: Path) -> None:
    session = onnxruntime.InferenceSession(str(MODEL_FOLDER / "1" / "model.onnx"), providers=["CPUExecutionProvider"])
    shipped = session.get_modelmeta().custom_metadata_map
    set_parameters(MODEL_FOLDER, tmp_path, shipped)
    for name in CONFIGS:
        assert (tmp_path / name).read_text() == (MODEL_FOLDER / name).read_text()
    assert session.get_inputs()[0].shape[1:] == [int(shipped["input_size"])] * 2 + [3]
    assert session.get_outputs()[0].shape[1:] == [int(shipped["embedding_dim"])]


def test_a_parameter_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="threshold_l2"):
        with_parameters('parameters { key: "input_size" value { string_value: "1" } }', {"threshold_l2": "0.5"})
