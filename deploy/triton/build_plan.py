"""The ONNX encoder to a TensorRT plan, put where Triton's config.pbtxt looks for it.

Runs where the plan will run: in the very release of Triton's container and on the very GPU, since a plan is good for
no other. From the repository's root:

    docker run --rm --gpus all --volume "$PWD:/seenit" --workdir /seenit nvcr.io/nvidia/tritonserver:25.06-py3 \\
        sh -c 'pip install --quiet onnx && python3 deploy/triton/build_plan.py'

TensorRT 10 chooses half precision by itself (`--fp16`). TensorRT 11 has no such choice any more: it takes the types
that the graph names, so the graph is cast first, all but the first and last steps, where half precision would show.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

MODEL = Path(__file__).parents[2] / "triton_models" / "repository" / "image_encoder"
TRTEXEC = "/usr/src/tensorrt/bin/trtexec"
# The batch that the plan is tuned for; it takes every batch from 1 to the configuration's largest.
TUNED_BATCH = 16
# So many convolutions at the start stay in single precision: their weights, rounded, move the vectors of nearly empty
# pictures by cosines down to 0.991. They stay in float in the 8-bit graph as well.
FIRST_SINGLE = 3
# What stays in single precision, with all that comes after: sums over many values, and lengths.
PRECISE = {"ReduceMean", "Pow", "Gemm", "MatMul", "ReduceL2", "QuantizeLinear", "TopK", "Cast"}


def half_precision(model: onnx.ModelProto) -> onnx.ModelProto:
    """Cast a graph to float16 after its FIRST_SINGLE convolutions, up to the PRECISE steps; inputs and outputs stay."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    inferred = onnx.shape_inference.infer_shapes(model).graph
    floats = {
        each.name
        for each in (*inferred.input, *inferred.value_info, *inferred.output)
        if each.type.tensor_type.elem_type == TensorProto.FLOAT
    }
    nodes = _HalfPrecisionCast(graph, floats).nodes
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    initializers = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(initializers)
    del graph.value_info[:]  # still names the types before the cast
    onnx.checker.check_model(result, full_check=True)
    return result


class _HalfPrecisionCast:
    """Rewrites the nodes of a graph for float16, with casts wherever a value enters or leaves it.

    Constants in half precision are added to the graph's initializers. `floats` names the values of type float.
    """

    def __init__(self, graph: onnx.GraphProto, floats: set[str]) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self._graph = graph
        self._floats = floats
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._constants |= {node.output[0]: node.attribute[0].t for node in graph.node if node.op_type == "Constant"}
        self._halved: dict[str, str] = {}
        self._widened: dict[str, str] = {}
        to_halve = _half_precision_nodes(graph)
        ids = {id(node) for node in to_halve}
        self._half_values = {
            name for node in to_halve for name in node.output if node.op_type != "Constant" and name in floats
        }
        for node in graph.node:
            rename = self._half if id(node) in ids and node.op_type != "Constant" else self._single
            node.input[:] = [rename(name) for name in node.input]
            self.nodes.append(_copy(node))

    def _half(self, name: str) -> str:
        """Name a value in half precision, with a cast of it where none is there; indices and shapes stay."""
        if not name or name in self._half_values:
            return name
        if name not in self._halved:
            constant = self._constants.get(name)
            if constant.data_type != TensorProto.FLOAT if constant is not None else name not in self._floats:
                return name
            self._halved[name] = f"{name}_half"
            if constant is not None:
                values = numpy_helper.to_array(constant).astype(np.float16)
                self._graph.initializer.append(numpy_helper.from_array(values, self._halved[name]))
            else:
                self.nodes.append(helper.make_node("Cast", [name], [self._halved[name]], to=TensorProto.FLOAT16))
        return self._halved[name]

    def _single(self, name: str) -> str:
        """Name a value in single precision, with a cast of it where none is there."""
        if name not in self._half_values:
            return name
        if name not in self._widened:
            self._widened[name] = f"{name}_single"
            self.nodes.append(helper.make_node("Cast", [name], [self._widened[name]], to=TensorProto.FLOAT))
        return self._widened[name]


def _half_precision_nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """List the nodes after FIRST_SINGLE convolutions that neither are PRECISE nor depend on those that are."""
    nodes = list(graph.node)
    first = [index for index, node in enumerate(nodes) if node.op_type == "Conv"][FIRST_SINGLE]
    precise = {output.name for output in graph.output}
    to_halve = []
    for node in nodes[first:]:
        if node.op_type in PRECISE or not precise.isdisjoint([*node.input, *node.output]):
            precise.update(node.output)
        else:
            to_halve.append(node)
    return to_halve


def _copy(node: onnx.NodeProto) -> onnx.NodeProto:
    """Copy a node, which else belongs to its graph and is deleted with it."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    return copy


def command(trtexec: str, version: int, *, graph: Path, plan: Path, size: int, max_batch: int) -> list[str]:
    """Compose the call of trtexec in the dialect of TensorRT `version` (10, 11)."""
    shapes = {"min": 1, "opt": min(TUNED_BATCH, max_batch), "max": max_batch}
    return [
        trtexec,
        f"--onnx={graph}",
        f"--saveEngine={plan}",
        *(f"--{which}Shapes=images:{batch}x{size}x{size}x3" for which, batch in shapes.items()),
        *(["--fp16"] if version < 11 else []),
        "--skipInference",
    ]


def tensorrt_version(banner: str) -> int:
    """Read the major version that trtexec names: `[TensorRT v101000]` is 10.10.0. Raises ValueError."""
    match = re.search(r"TensorRT v(\d{5,6})\b", banner)
    if match is None:
        raise ValueError(f"trtexec does not say which TensorRT it is: {banner[:200]}")
    return int(match[1]) // 10_000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=MODEL, help="folder with config.pbtxt and 1/model.onnx")
    folder = parser.parse_args().model
    trtexec = shutil.which("trtexec") or (TRTEXEC if Path(TRTEXEC).exists() else None)
    if trtexec is None:
        print("There is no trtexec: run this in Triton's container, see the first lines of this file.", file=sys.stderr)
        return 1
    config = (folder / "config.pbtxt").read_text()
    size = int(re.search(r'"input_size" value \{ string_value: "(\d+)"', config)[1])  # type: ignore[index]
    max_batch = int(re.search(r"max_batch_size: (\d+)", config)[1])  # type: ignore[index]
    banner = subprocess.run([trtexec, "--help"], capture_output=True, text=True, check=False).stdout
    version = tensorrt_version(banner)
    with tempfile.TemporaryDirectory() as scratch:
        graph, plan = Path(scratch) / "model.onnx", Path(scratch) / "model.plan"
        model = onnx.load(folder / "1" / "model.onnx")
        onnx.save(model if version < 11 else half_precision(model), graph)
        done = subprocess.run(
            command(trtexec, version, graph=graph, plan=plan, size=size, max_batch=max_batch), check=False
        )
        if done.returncode:
            print(f"trtexec of TensorRT {version} failed: see above.", file=sys.stderr)
            return 1
        shutil.copy(plan, folder / "1" / "model.plan.new")
    (folder / "1" / "model.plan.new").rename(folder / "1" / "model.plan")
    print(f"wrote {folder}/1/model.plan: TensorRT {version}, batches of 1 to {max_batch}; verify it: deploy/README.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
