"""Write the `parameters` and tensors of the served model into both its Triton configurations, and its ONNX metadata."""

import re
from collections.abc import Iterable
from pathlib import Path

import onnx

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
    for path in sorted(folder.glob("*.onnx")):
        model = onnx.load(path)
        metadata = {each.key: each.value for each in model.metadata_props}
        onnx.helper.set_model_props(model, metadata | parameters)
        onnx.save(model, path)


def set_parameters(source: Path, target: Path, parameters: dict[str, str]) -> None:
    """Write both configurations of the model folder `source` with `parameters` to `target`, which may be `source`."""
    texts = {name: with_parameters((source / name).read_text(), parameters) for name in CONFIGS}
    if "input_size" in parameters:
        texts = {name: with_size(text, int(parameters["input_size"])) for name, text in texts.items()}
    for name, text in texts.items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_text(text)
