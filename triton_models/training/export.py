"""Checkpoint to served model: ONNX with the normalisation inside, and the parameters in Triton's configurations.

    python -m triton_models.training.export --checkpoint out/best.pt --images FOLDER --model-version 8

The graph takes `images` UINT8 [N, S, S, 3] and gives `embeddings` FP32 [N, D] of unit length and `patches` INT8
[N, P, C]: the 64 local features that show most detail, most first, as C - 2 channels of a descriptor (any scale; all
zero where there is nothing to see) and the place x, y of its centre, in 1/128 of half the picture's side from its
middle. Version, size, dimension and threshold are written here, and only here, into the metadata of the ONNX file and
into the `parameters` of `config.pbtxt` and of its twin for CPUs. Rotation maps and the rule of the second look belong
to the model before: `rotation_maps` and `second_look` fit new ones.
"""

import argparse
import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn
from torch.nn import functional

from triton_models.training.data import is_validation, list_pictures
from triton_models.training.encoders import squares
from triton_models.training.network import MIN_DETAIL, TOKEN_STRIDE, Network, detail
from triton_models.training.parameters import MODEL_FOLDER, set_second_look
from triton_models.training.uploads import open_picture

OPSET = 17
MIN_COSINE = 0.9999
PATCHES = 64  # local features
USUAL_PICTURES = 1000  # over which local features are averaged
DESCRIPTOR_SCALE = 1.5  # unit vectors of two dozen channels rarely hold a value above two thirds, and those saturate


class Served(nn.Module):
    """The network with the tensors of the served model, `patches` still as float in -1..1.

    The mean local features `usual` [T, S/16, S/16] are subtracted from those of a picture before these are normalised,
    see `usual_tokens`.
    """

    def __init__(self, network: Network, size: int, usual: Tensor | None = None) -> None:
        super().__init__()
        self.network = network
        if size % TOKEN_STRIDE:
            raise ValueError(
                f"The size is {size}: it has to be a multiple of {TOKEN_STRIDE}, the grid of local features"
            )
        grid = size // TOKEN_STRIDE
        centres = (torch.arange(grid) + 0.5) * TOKEN_STRIDE / size * 2 - 1
        places = torch.stack((centres.repeat(grid), centres.repeat_interleave(grid)), dim=1)
        self.register_buffer("places", places[None])
        self.register_buffer("usual", torch.zeros(1, grid, grid) if usual is None else usual)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        # Cast first: TensorRT takes uint8 as an input, and for nothing in between.
        pixels = images.float().permute(0, 3, 1, 2)
        encoded = self.network(pixels)
        contrast, chosen = detail(pixels).flatten(1).topk(PATCHES, dim=1)
        centred = functional.normalize(encoded.tokens - self.usual, dim=1)
        tokens = centred.flatten(2).transpose(1, 2)
        descriptors = tokens.gather(1, chosen[:, :, None].expand(-1, -1, tokens.shape[2]))
        descriptors = descriptors * DESCRIPTOR_SCALE * (contrast > MIN_DETAIL).float()[:, :, None]
        places = self.places.expand(images.shape[0], -1, -1).gather(1, chosen[:, :, None].expand(-1, -1, 2))
        return encoded.embeddings, torch.cat((descriptors, places), dim=2)


@torch.inference_mode()
def usual_tokens(network: Network, paths: list[Path], size: int) -> Tensor:
    """Average the local features at each place of the grid over pictures: [T, size/16, size/16].

    Convolutions see the picture's edge, so that features tell where they are, and features of two pictures match where
    they should not: at the same place. Subtracting the mean at a place takes most of that away; on an early checkpoint
    it brought the median error of the reported zoom of strong crops from 0.12 to 0.06.
    """
    total, count = torch.zeros(()), torch.zeros(())
    for start in range(0, len(paths), 32):
        pixels = torch.from_numpy(squares([open_picture(path) for path in paths[start : start + 32]], size))
        pixels = pixels.permute(0, 3, 1, 2).float()
        has_detail = (detail(pixels) > MIN_DETAIL)[:, None]
        total = total + (network(pixels).tokens * has_detail).sum(0)
        count = count + has_detail.sum(0)
    return total / count.clamp(min=1)


def to_onnx(network: Network, size: int, metadata: dict[str, str], target: Path, usual: Tensor | None = None) -> None:
    """Write the served graph for pictures of `size` x `size` to `target`; `usual` as in `Served`.

    Raises ValueError when ONNX Runtime and torch disagree.
    """
    served = Served(network, size, usual).eval()
    names = ["embeddings", "patches"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracing exporter announces its own end on each call
        torch.onnx.export(
            served,
            (torch.zeros(2, size, size, 3, dtype=torch.uint8),),
            str(target),
            dynamo=False,  # the newer exporter does not manage this network
            opset_version=OPSET,
            input_names=["images"],
            output_names=names,
            dynamic_axes={name: {0: "batch"} for name in ("images", *names)},
        )
    model = onnx.load(target)
    _quantise_output(model.graph, "patches", patches_shape(network))
    onnx.helper.set_model_props(model, metadata)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, target)
    for batch in (1, 3):
        cosine = agreement(served, target, batch, size)
        if cosine < MIN_COSINE:
            raise ValueError(f"{target}: embeddings differ from torch's at batch {batch}, cosine {cosine:.6f}")


def patches_shape(network: Network) -> tuple[int, int]:
    """Return the shape (P, C) of the served `patches`."""
    return PATCHES, network.token_projection.out_channels + 2


def _quantise_output(graph: onnx.GraphProto, name: str, shape: tuple[int, int]) -> None:
    """Quantise the output `name`, [N, *shape], to INT8 in steps of 1/128, by the operator that TensorRT has for it."""
    for node in graph.node:
        node.output[:] = [f"{name}_float" if output == name else output for output in node.output]
    graph.initializer.append(onnx.numpy_helper.from_array(np.array(1 / 128, np.float32), "step"))
    graph.initializer.append(onnx.numpy_helper.from_array(np.array(0, np.int8), "zero"))
    graph.node.append(onnx.helper.make_node("QuantizeLinear", [f"{name}_float", "step", "zero"], [name]))
    (output,) = (output for output in graph.output if output.name == name)
    output.type.tensor_type.elem_type = onnx.TensorProto.INT8
    for dimension, length in zip(output.type.tensor_type.shape.dim[1:], shape, strict=True):
        dimension.dim_value = length


def agreement(served: Served, target: Path, batch: int, size: int) -> float:
    """Return the least cosine between the embeddings of torch and of ONNX Runtime for smooth random pictures."""
    generator = torch.Generator().manual_seed(batch)
    coarse = torch.rand(batch, 3, 8, 8, generator=generator) * 255
    images = nn.functional.interpolate(coarse, (size, size), mode="bicubic").clamp(0, 255).permute(0, 2, 3, 1)
    images = images.to(torch.uint8).contiguous()
    session = onnxruntime.InferenceSession(str(target), providers=["CPUExecutionProvider"])
    actual = session.run(["embeddings"], {"images": images.numpy()})[0]
    with torch.inference_mode():
        expected = served(images)[0].numpy()
    return float(np.min(np.sum(actual * expected, axis=1)))


def load_checkpoint(path: Path) -> Network:
    """Load the averaged network of a training checkpoint."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    network = Network(dim=state["dim"], token_dim=state["token_dim"])
    network.load_state_dict(state["average"])
    return network.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, required=True, help="checkpoint of a training run")
    parser.add_argument("--size", type=int, default=192, help="side of the pictures served, in pixels")
    parser.add_argument("--model-version", required=True, help="embeddings of different versions are never compared")
    parser.add_argument("--threshold-l2", type=float, default=0.0, help="as calibrated; 0 only matches the same vector")
    parser.add_argument("--images", type=Path, help="the training's pictures, by which local features are centred")
    parser.add_argument("--output", type=Path, help="write only the ONNX file, here, and leave the served model alone")
    arguments = parser.parse_args()
    network = load_checkpoint(arguments.checkpoint)
    usual = None
    if arguments.images is not None:
        paths = [path for path in list_pictures(arguments.images) if not is_validation(path.name)]
        usual = usual_tokens(network, paths[:: max(1, len(paths) // USUAL_PICTURES)], arguments.size)
    parameters = {
        "model_version": arguments.model_version,
        "input_size": str(arguments.size),
        "embedding_dim": str(network.projection.out_features),
        "threshold_l2": f"{arguments.threshold_l2:.4f}",
        "turns": "",  # rotation maps of the model before are wrong for this one
    }
    with tempfile.TemporaryDirectory() as folder:
        exported = Path(folder) / "model.onnx"
        to_onnx(network, arguments.size, parameters, exported, usual)
        target = arguments.output or MODEL_FOLDER / "1" / "model.onnx"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(exported.read_bytes())
    if arguments.output is None:
        set_second_look(MODEL_FOLDER, MODEL_FOLDER, patches_shape(network), parameters)


if __name__ == "__main__":
    main()
