"""What a client has to know of the served model, in the `parameters` and tensors of both its Triton configurations."""

import re
from collections.abc import Iterable
from pathlib import Path

import onnx

MODEL_FOLDER = Path(__file__).parents[1] / "repository" / "image_encoder"
CONFIGS = ("config.pbtxt", "configs/cpu.pbtxt")


def with_parameters(text: str, parameters: dict[str, str]) -> str:
    """A Triton configuration with `parameters` in place of those of the same keys.

    Raises ValueError when a key is not there to be set: the configuration then has another form than this expects.
    """
    for key, value in parameters.items():
        pattern = rf'(key:\s*"{re.escape(key)}"\s*,?\s*value:?\s*\{{\s*string_value:\s*")[^"]*(")'
        text, count = re.subn(pattern, rf"\g<1>{value}\g<2>", text)
        if count != 1:
            raise ValueError(f"parameter {key!r} stands {count} times in the configuration, expected once")
    return text


def with_size(text: str, size: int) -> str:
    """A Triton configuration with `size` x `size` in place of the shape of each picture that it speaks of."""
    return re.sub(r"\[\s*\d+,\s*\d+,\s*3\s*\]", f"[ {size}, {size}, 3 ]", text)


def with_patches(text: str, shape: tuple[int, int], keys: Iterable[str]) -> str:
    """A Triton configuration with the output `patches` of this shape, and with `keys` among its parameters."""
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
    """As `set_parameters`, with the second look's rule, for a model whose local features are int8 `shape` (P, C)."""
    for name in CONFIGS:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_text(with_patches((source / name).read_text(), shape, parameters))
    set_parameters(target, target, parameters)


def set_metadata(folder: Path, parameters: dict[str, str]) -> None:
    """Put `parameters` into the metadata of the ONNX files in `folder`, beside or in place of what is there."""
    for path in sorted(folder.glob("*.onnx")):
        model = onnx.load(path)
        known = {each.key: each.value for each in model.metadata_props}
        onnx.helper.set_model_props(model, known | parameters)
        onnx.save(model, path)


def set_parameters(source: Path, target: Path, parameters: dict[str, str]) -> None:
    """Write both configurations of the model folder `source` to `target`, which may be the same, with `parameters`."""
    texts = {name: with_parameters((source / name).read_text(), parameters) for name in CONFIGS}
    if "input_size" in parameters:
        texts = {name: with_size(text, int(parameters["input_size"])) for name, text in texts.items()}
    for name, text in texts.items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_text(text)
