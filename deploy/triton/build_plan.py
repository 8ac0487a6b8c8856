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
# What stays in single precision, with all that comes after: sums over many values, and lengths.
PRECISE = {"ReduceMean", "Pow", "Gemm", "MatMul", "ReduceL2", "QuantizeLinear", "TopK", "Cast"}


def half_precision(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with float16 from its first convolution on, up to what is PRECISE; its ends keep their types."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    inferred = onnx.shape_inference.infer_shapes(model).graph
    floats = {
        each.name
        for each in (*inferred.input, *inferred.value_info, *inferred.output)
        if each.type.tensor_type.elem_type == TensorProto.FLOAT
    }
    first = next(index for index, node in enumerate(graph.node) if node.op_type == "Conv")
    precise = {output.name for output in graph.output}
    trunk = []
    for node in list(graph.node)[first:]:
        if node.op_type in PRECISE or not precise.isdisjoint([*node.input, *node.output]):
            precise.update(node.output)
        else:
            trunk.append(node)
    inside = {id(node) for node in trunk}
    made_inside = {name for node in trunk for name in node.output if node.op_type != "Constant" and name in floats}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    constants |= {node.output[0]: node.attribute[0].t for node in graph.node if node.op_type == "Constant"}
    nodes: list[onnx.NodeProto] = []
    halved: dict[str, str] = {}
    single: dict[str, str] = {}

    def half(name: str) -> str:
        if not name or name in made_inside:
            return name
        if name not in halved:
            constant = constants.get(name)
            if constant.data_type != TensorProto.FLOAT if constant is not None else name not in floats:
                return name  # indices and shapes
            halved[name] = f"{name}_half"
            if constant is not None:
                values = numpy_helper.to_array(constant).astype(np.float16)
                graph.initializer.append(numpy_helper.from_array(values, halved[name]))
            else:
                nodes.append(helper.make_node("Cast", [name], [halved[name]], to=TensorProto.FLOAT16))
        return halved[name]

    def whole(name: str) -> str:
        if name not in made_inside:
            return name
        if name not in single:
            single[name] = f"{name}_single"
            nodes.append(helper.make_node("Cast", [name], [single[name]], to=TensorProto.FLOAT))
        return single[name]

    for node in graph.node:
        rename = half if id(node) in inside and node.op_type != "Constant" else whole
        node.input[:] = [rename(name) for name in node.input]
        nodes.append(node)
    ordered = [_copy(node) for node in nodes]
    del graph.node[:]
    graph.node.extend(ordered)
    used = {name for node in ordered for name in node.input}
    initializers = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(initializers)
    del graph.value_info[:]  # named the types as they were
    onnx.checker.check_model(result, full_check=True)
    return result


def _copy(node: onnx.NodeProto) -> onnx.NodeProto:
    """A node of its own: those of a graph go with the graph."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    return copy


def command(trtexec: str, version: int, *, graph: Path, plan: Path, size: int, max_batch: int) -> list[str]:
    """trtexec in the dialect of TensorRT `version` (10, 11)."""
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
    """The major version that trtexec names: `[TensorRT v101000]` is 10.10.0. Raises ValueError."""
    named = re.search(r"TensorRT v(\d{5,6})\b", banner)
    if named is None:
        raise ValueError(f"trtexec does not say which TensorRT it is: {banner[:200]}")
    return int(named[1]) // 10_000


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
