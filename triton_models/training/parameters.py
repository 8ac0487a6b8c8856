"""Write the `parameters` and tensors of the served model into both its Triton configurations, and its ONNX metadata."""

import base64
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from google.protobuf import text_format  # type: ignore[import-untyped]
from tritonclient.grpc.model_config_pb2 import ModelConfig

from consumer.encoder.contract import ModelInfo, Strictness, VerificationRule
from consumer.encoder.model_config import STRICTNESSES, read_model_info

MODEL_FOLDER = Path(__file__).parents[1] / "repository" / "image_encoder"
CONFIGS = ("config.pbtxt", "configs/cpu.pbtxt")


def with_parameters(text: str, parameters: dict[str, str]) -> str:
    """Replace the values of `parameters` in the text of a Triton configuration.

    Raises ValueError for a key that does not stand there once: the configuration then has another form than expected.
    """
    for key, value in parameters.items():
        pattern = rf'(key:\s*"{re.escape(key)}"\s*,?\s*value:?\s*\{{\s*string_value:\s*")[^"]*(")'
        text, count = re.subn(pattern, rf"\g<1>{value}\g<2>", text)
        if count != 1:
            raise ValueError(f"parameter {key!r} stands {count} times in the configuration, expected once")
    return text


def with_size(text: str, size: int) -> str:
    """Replace the shape of all pictures in the text of a Triton configuration by `size` x `size`."""
    return re.sub(r"\[\s*\d+,\s*\d+,\s*3\s*\]", f"[ {size}, {size}, 3 ]", text)


def with_patches(text: str, shape: tuple[int, int], keys: Iterable[str]) -> str:
    """Add the output `patches` of this shape, and `keys` as parameters, to the text of a Triton configuration."""
    if '"patches"' not in text:
        text = re.sub(
            r"^output \[ (\{.*\}) \]$",
            r'output [\n  \1,\n  { name: "patches" data_type: TYPE_INT8 dims: [ 0, 0 ] }\n]',
            text,
            flags=re.MULTILINE,
        )
    text = re.sub(r'(name: "patches".*dims: )\[[^]]*\]', rf"\1[ {shape[0]}, {shape[1]} ]", text)
    return with_keys(text, keys)


def with_keys(text: str, keys: Iterable[str]) -> str:
    """Add `keys` as parameters without a value to the text of a Triton configuration, where they are not there."""
    for key in keys:
        if f'"{key}"' not in text:
            line = f'parameters {{ key: "{key}" value {{ string_value: "" }} }}\n'
            last = list(re.finditer(r"^parameters .*\n", text, flags=re.MULTILINE))[-1]
            text = text[: last.end()] + line + text[last.end() :]
    return text


def set_second_look(source: Path, target: Path, shape: tuple[int, int], parameters: dict[str, str]) -> None:
    """Write both configurations with the second look's rule, as `set_parameters` does without it.

    The model's `patches` are int8 `shape` (P, C).
    """
    for name in CONFIGS:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_text(with_patches((source / name).read_text(), shape, parameters))
    set_parameters(target, target, parameters)


def set_metadata(folder: Path, parameters: dict[str, str]) -> None:
    """Add `parameters` to the metadata of the ONNX files in `folder`, or replace the values there."""
    import onnx  # noqa: PLC0415 (calibration does without)

    for path in sorted(folder.glob("*.onnx")):
        model = onnx.load(path)
        metadata = {each.key: each.value for each in model.metadata_props}
        onnx.helper.set_model_props(model, metadata | parameters)
        onnx.save(model, path)


def model_of(config: Path) -> ModelInfo:
    """Read what a Triton configuration says of its model. Raises Misconfigured for one that does not fit."""
    return read_model_info(text_format.Parse(config.read_text(), ModelConfig()))


def rule_parameters(rule: VerificationRule) -> dict[str, str]:
    """Express a rule as parameters of the served model; its rotation maps are a parameter of their own."""
    return {
        "candidate_l2": f"{rule.candidate_l2:.4f}",
        "rule_measures": ",".join(rule.measures),
        "rule_trees": base64.b64encode(rule.trees.to_bytes()).decode(),
        **min_score_parameters(rule.min_scores),
    }


def min_score_parameters(min_scores: Mapping[Strictness, float]) -> dict[str, str]:
    """Express the least score of each strictness as parameters of the served model."""
    return {f"min_score_{name}": f"{min_scores[name]:.4f}" for name in STRICTNESSES}


def set_parameters(source: Path, target: Path, parameters: dict[str, str]) -> None:
    """Write both configurations of the model folder `source` with `parameters` to `target`, which may be `source`."""
    texts = {name: with_parameters((source / name).read_text(), parameters) for name in CONFIGS}
    if "input_size" in parameters:
        texts = {name: with_size(text, int(parameters["input_size"])) for name, text in texts.items()}
    for name, text in texts.items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_text(text)
