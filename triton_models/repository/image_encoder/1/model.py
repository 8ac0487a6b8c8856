"""The encoder on a CPU: Triton's Python backend around ONNX Runtime.

Arrays cross by DLPack, because with NumPy 2 the backend's own conversions are silently wrong: `as_numpy` gives
garbage, `Tensor(name, array)` sends nothing, and neither fails.
"""

import ctypes
import json
import os
import platform
from pathlib import Path

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils

USED = b"used_dltensor"  # here for good: a capsule does not keep its name alive


def graph(folder):
    """The file that is served: the 8-bit graph, if there is one, on processors whose sums of products do not overflow.

    On x86 these are the ones with VNNI; on others the vectors would be quite different ones.
    """
    quantised = folder / "model.int8.onnx"
    exact = platform.machine() != "x86_64" or "vnni" in Path("/proc/cpuinfo").read_text()
    return quantised if exact and quantised.exists() else folder / "model.onnx"


def tensor(name, array):
    """The array for Triton, by DLPack.

    The backend renames the capsule it takes to what NumPy does not know, which then complains on stderr for each that
    is done with; the name that the standard asks for keeps it quiet.
    """
    capsule = array.__dlpack__()
    taken = pb_utils.Tensor.from_dlpack(name, capsule)
    ctypes.pythonapi.PyCapsule_SetName(ctypes.py_object(capsule), USED)
    return taken


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        options = onnxruntime.SessionOptions()
        # Instances share the cores. Threads that spin while they wait take them from decoding, which shares them too.
        instances = sum(group["count"] for group in config["instance_group"])
        options.intra_op_num_threads = max(1, len(os.sched_getaffinity(0)) // instances)
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        path = graph(Path(args["model_repository"]) / args["model_version"])
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.outputs = [output["name"] for output in config["output"]]

    def execute(self, requests):
        """One run for all requests that the dynamic batcher put together."""
        images = [np.from_dlpack(pb_utils.get_input_tensor_by_name(request, "images")) for request in requests]
        results = self.session.run(self.outputs, {"images": images[0] if len(images) == 1 else np.concatenate(images)})
        responses, start = [], 0
        for each in images:
            end = start + len(each)
            tensors = [tensor(name, result[start:end]) for name, result in zip(self.outputs, results, strict=True)]
            responses.append(pb_utils.InferenceResponse(tensors))
            start = end
        return responses
