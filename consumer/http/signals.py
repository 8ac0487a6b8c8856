"""Signals as HMA's clients exchange them: texts that stand for a picture, of two types.

`seenit` is our own, and opaque: model, hash of the bytes, vector and local features. `pdq` is the hash of that name.
"""

import base64
import binascii
import struct
from typing import Literal, NamedTuple, get_args

import numpy as np

from consumer.encoder.contract import ModelInfo
from consumer.encoder.views import EncodedViews, PackedFeatures
from consumer.images.region import WHOLE_IMAGE
from consumer.moderation.matching import MAX_PDQ_DISTANCES

SignalType = Literal["seenit", "pdq"]
SIGNAL_TYPES: tuple[SignalType, ...] = get_args(SignalType)
_DIGEST_BYTES = 32
_LENGTHS = struct.Struct(">BI")  # of the model's version, and of the vector; 0 for a picture that shows too little
PDQ_BITS = 256


class Signal(NamedTuple):
    """What a `seenit` signal stands for."""

    digest: bytes
    views: EncodedViews | None


def encode_signal(model: ModelInfo, digest: bytes, views: EncodedViews | None) -> str:
    """Write the signal of a picture; only the whole of it counts, not the pictures within it."""
    version = model.version.encode()
    vector = b"" if views is None else views.embeddings[0].astype("<f4").tobytes()
    features = b"" if views is None or views.features is None else views.features[0].to_bytes()
    data = _LENGTHS.pack(len(version), len(vector)) + version + digest + vector + features
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode_signal(model: ModelInfo, text: str) -> Signal:
    """Read a signal. Raises ValueError for one that is none, or is of another model."""
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        version_bytes, vector_bytes = _LENGTHS.unpack_from(data)
    except (binascii.Error, struct.error, ValueError):
        raise ValueError("it is no signal of the type seenit") from None
    start = _LENGTHS.size + version_bytes
    if data[_LENGTHS.size : start] != model.version.encode():
        raise ValueError("it was made by another version of the encoder; hash the picture again")
    digest, rest = data[start : start + _DIGEST_BYTES], data[start + _DIGEST_BYTES :]
    if len(digest) != _DIGEST_BYTES or vector_bytes not in {0, 4 * model.dim} or len(rest) < vector_bytes:
        raise ValueError("it is cut short")
    if vector_bytes == 0:
        return Signal(digest, None)
    vector = np.frombuffer(rest[:vector_bytes], "<f4")
    if not abs(float(np.linalg.norm(vector)) - 1) < 0.01:
        raise ValueError("its vector has not the length 1")
    features = None if model.patches is None else PackedFeatures.of(rest[vector_bytes:], model.patches)
    views = EncodedViews([WHOLE_IMAGE], vector[np.newaxis], None if features is None else [features.unpacked()])
    return Signal(digest, views)


def check_pdq(text: str) -> str:
    """Return a PDQ hash as it is stored. Raises ValueError."""
    if len(text) != PDQ_BITS // 4 or not all(letter in "0123456789abcdef" for letter in text.lower()):
        raise ValueError(f"it is no PDQ hash, which has {PDQ_BITS // 4} hexadecimal digits")
    return text.lower()


def pdq_distance(one: str, other: str) -> int:
    """Count the bits in which two PDQ hashes differ."""
    return (int(one, 16) ^ int(other, 16)).bit_count()


def compare_pdq(one: str, other: str) -> tuple[bool, int]:
    """Tell whether two PDQ hashes match, as HMA would, and their distance. Raises ValueError."""
    distance = pdq_distance(check_pdq(one), check_pdq(other))
    return distance <= MAX_PDQ_DISTANCES["balanced"], distance
