"""Reading the encoder's contract from the configuration of the served Triton model.

The encoder's constants (S, D, version, thresholds) stand in the model's `parameters` and nowhere else.
"""

import base64
import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar, get_args

from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig

from consumer.encoder.codebooks import Codebooks
from consumer.encoder.contract import ModelInfo, Strictness, VerificationRule
from consumer.encoder.patches import MIN_CHANNELS, MIN_FEATURES, ROTATIONS
from consumer.encoder.trees import BoostedTrees
from consumer.errors import Misconfigured

_Number = TypeVar("_Number", int, float)
STRICTNESSES: tuple[Strictness, ...] = get_args(Strictness)
INPUT, EMBEDDINGS, PATCHES = "images", "embeddings", "patches"


def read_model_info(config: ModelConfig) -> ModelInfo:
    """Read the encoder's contract from its Triton configuration. Raises Misconfigured, naming what does not fit."""
    inputs = {tensor.name: tensor for tensor in config.input}
    outputs = {tensor.name: tensor for tensor in config.output}
    size = _number(config, "input_size", int)
    dim = _number(config, "embedding_dim", int)
    patches = outputs.get(PATCHES)
    _check_tensor(config, INPUT, inputs.get(INPUT), "TYPE_UINT8", [size, size, 3])
    _check_tensor(config, EMBEDDINGS, outputs.get(EMBEDDINGS), "TYPE_FP32", [dim])
    if patches is not None:
        _check_tensor(config, PATCHES, patches, "TYPE_INT8", [*patches.dims, 0, 0][:2])
        if patches.dims[0] < MIN_FEATURES or patches.dims[1] < MIN_CHANNELS:
            raise Misconfigured(f"The local features of model {config.name!r} are too few: {list(patches.dims)}")
    if config.max_batch_size < 1:
        raise Misconfigured(f"Model {config.name!r} should take batches: its max_batch_size is 0")
    return ModelInfo(
        name=config.name,
        version=_parameter(config, "model_version"),
        size=size,
        dim=dim,
        threshold_l2=_number(config, "threshold_l2", float),
        max_batch_size=config.max_batch_size,
        patches=None if patches is None else (patches.dims[0], patches.dims[1]),
        verification_rule=None if patches is None else _verification_rule(config, patches.dims[1]),
        codebooks=_codebooks(config, dim),
    )


def _parameter(config: ModelConfig, name: str) -> str:
    value: str = config.parameters[name].string_value if name in config.parameters else ""
    if not value:
        raise Misconfigured(f"The configuration of model {config.name!r} lacks the parameter {name!r}")
    return value


def _codebooks(config: ModelConfig, dim: int) -> Codebooks | None:
    """Read the optional parameter `codebooks`."""
    if "codebooks" not in config.parameters:
        return None
    try:
        return Codebooks.from_bytes(base64.b64decode(_parameter(config, "codebooks"), validate=True), dim)
    except ValueError as error:
        raise Misconfigured(f"The parameter 'codebooks' of model {config.name!r} holds none: {error}") from None


def _verification_rule(config: ModelConfig, channels: int) -> VerificationRule | None:
    """Read the rule for `patches` of `channels`; None when the parameters have none."""
    if "rule_trees" not in config.parameters:
        return None
    candidate_l2, threshold_l2 = (_number(config, name, float) for name in ("candidate_l2", "threshold_l2"))
    if candidate_l2 < threshold_l2:
        raise Misconfigured(f"The parameter 'candidate_l2' of model {config.name!r} is below its 'threshold_l2'")
    measures = tuple(_parameter(config, "rule_measures").split(","))
    return VerificationRule(
        candidate_l2,
        measures,
        _trees(config, len(measures)),
        {name: _number(config, f"min_score_{name}", float) for name in STRICTNESSES},
        _rotation_map_bytes(config, channels),
    )


def _trees(config: ModelConfig, measure_count: int) -> BoostedTrees:
    try:
        return BoostedTrees.from_bytes(base64.b64decode(_parameter(config, "rule_trees"), validate=True), measure_count)
    except ValueError as error:
        raise Misconfigured(f"The parameter 'rule_trees' of model {config.name!r} holds no rule: {error}") from None


def _rotation_map_bytes(config: ModelConfig, channels: int) -> bytes:
    """Read the optional parameter `turns`; empty when the model has none."""
    encoded = config.parameters["turns"].string_value if "turns" in config.parameters else ""
    if not encoded:
        return b""
    try:
        maps = base64.b64decode(encoded, validate=True)
    except ValueError:
        maps = b""
    if len(maps) != ROTATIONS * (channels - 2) ** 2:
        raise Misconfigured(
            f"The parameter 'turns' of model {config.name!r} should be {ROTATIONS} x {channels - 2} x {channels - 2} "
            "bytes in base64"
        )
    return maps


def _number(config: ModelConfig, name: str, kind: Callable[[str], _Number]) -> _Number:
    """Read a parameter that is a finite number above 0."""
    value = _parameter(config, name)
    with suppress(ValueError):
        number = kind(value)
        if 0 < number < math.inf:
            return number
    raise Misconfigured(f"The parameter {name!r} of model {config.name!r} should be a number, not {value!r}")


def _check_tensor(config: ModelConfig, name: str, tensor: Any, kind: str, dims: list[int]) -> None:
    actual = None if tensor is None else (DataType.Name(tensor.data_type), list(tensor.dims))
    if actual != (kind, dims):
        raise Misconfigured(f"Model {config.name!r} should have a tensor {name!r} {kind} {dims}, and has {actual}")
