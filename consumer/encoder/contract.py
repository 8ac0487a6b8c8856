"""What any image encoder promises the rest of the service; no client library is imported here.

The contract of the served model itself (tensors, parameters) is read by `encoder.model_config`.
"""

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol, Self, overload

import numpy as np
from numpy.typing import NDArray

from consumer.encoder.patches import decode_rotation_maps


@dataclass(frozen=True, slots=True)
class VerificationRule:
    """Decides which pairs of pictures the second look verifies, from their distance and their score.

    Pairs up to `candidate_l2` apart are looked at. At that distance the score must reach `min_score`; for nearer pairs
    less is asked, by `score_per_l2` for each unit of distance. `rotation_map_bytes` and `thumbnail_side` tell how the
    encoder's `patches` are to be read: see `encoder.patches`.
    """

    candidate_l2: float
    min_score: float
    score_per_l2: float
    rotation_map_bytes: bytes = b""
    thumbnail_side: int = 0

    @property
    def rotation_maps(self) -> NDArray[np.float32] | None:
        """The rotation maps, float32 [T, C - 2, C - 2], or None for a model without them."""
        return decode_rotation_maps(self.rotation_map_bytes)

    @overload
    def accepts(self, l2: float, score: float) -> bool: ...
    @overload
    def accepts(self, l2: NDArray[np.float32], score: NDArray[np.float32]) -> NDArray[np.bool_]: ...
    def accepts(self, l2: Any, score: Any) -> Any:
        """Tell whether a pair is verified, by its distance and score; for arrays, of each pair."""
        required_score = self.min_score - self.score_per_l2 * (self.candidate_l2 - l2)
        return (l2 <= self.candidate_l2) & (score >= required_score)


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Describes the served encoder."""

    name: str
    version: str
    size: int  # S: side of the square it takes, in pixels
    dim: int  # D
    threshold_l2: float  # distance of unit vectors up to which two pictures are duplicates
    max_batch_size: int
    patches: tuple[int, int] | None  # (P, C) of the local features and the thumbnail, if the model gives any
    verification_rule: VerificationRule | None = None  # None: distance alone decides


@dataclass(frozen=True, slots=True)
class Encoded:
    """Holds what the encoder gave for N pictures."""

    embeddings: NDArray[np.float32]  # [N, D], unit length
    patches: NDArray[np.int8] | None  # [N, P, C]

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """Join the results of several requests, in order."""
        patches = [part.patches for part in parts if part.patches is not None]
        return cls(np.concatenate([part.embeddings for part in parts]), np.concatenate(patches) if patches else None)

    def __getitem__(self, rows: slice) -> "Encoded":
        return Encoded(self.embeddings[rows], None if self.patches is None else self.patches[rows])


class Encoder(Protocol):
    """Encodes pictures for the service. Thread-safe; several requests may be under way at once."""

    @property
    def info(self) -> ModelInfo:
        """The model behind it. Raises Unavailable while it cannot be asked, Misconfigured if it does not fit."""
        ...

    def submit(self, pixels: NDArray[np.uint8]) -> Future[Encoded]:
        """Encode uint8 [N, S, S, 3], N up to `info.max_batch_size`.

        The future fails with Unavailable when the same call may succeed later, with ValueError for pixels that do not
        fit the model, and with Misconfigured when the model breaks its contract.
        """
        ...

    def check(self) -> None:
        """Encode one picture to see whether the model works. Raises Unavailable or Misconfigured."""
        ...
