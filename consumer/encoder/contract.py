"""The interface of image encoders to the rest of the service; imports no client library.

`encoder.model_config` reads a served model's own contract (tensors, parameters) into a `ModelInfo`.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from consumer.encoder.codebooks import Codebooks
from consumer.encoder.patches import decode_rotation_maps
from consumer.encoder.trees import BoostedTrees

Strictness = Literal["strict", "balanced", "eager"]


@dataclass(frozen=True, slots=True)
class VerificationRule:
    """Decides which pairs of pictures whose vectors are at most `candidate_l2` apart are duplicates.

    The verification (the second look) compares local features and thumbnails of such a pair and puts what it finds
    into numbers. From those that `measures` names, `trees` make a score, 0 to 1, which must reach the least score of
    the chosen strictness. `rotation_map_bytes` are described in `encoder.patches`.
    """

    candidate_l2: float
    measures: tuple[str, ...]
    trees: BoostedTrees
    min_scores: Mapping[Strictness, float]
    rotation_map_bytes: bytes = b""

    @property
    def rotation_maps(self) -> NDArray[np.float32] | None:
        """The model's rotation maps, float32 [T, C - 2, C - 2]; None for a model without them."""
        return decode_rotation_maps(self.rotation_map_bytes)

    def accepts(self, l2: float, score: float, strictness: Strictness) -> bool:
        """Tell whether a pair of this distance and score is verified."""
        return l2 <= self.candidate_l2 and score >= self.min_scores[strictness]


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """The served encoder: its version, its shapes and the thresholds that go with its vectors."""

    name: str
    version: str
    size: int  # S: side of the square it takes, in pixels
    dim: int  # D: length of its vectors
    threshold_l2: float  # distance of unit vectors up to which two pictures are duplicates, where no rule says more
    max_batch_size: int
    patches: tuple[int, int] | None  # (P, C) of the local features and the thumbnail; None for a model without
    verification_rule: VerificationRule | None = None  # None: distance alone decides
    codebooks: Codebooks | None = None  # None: windows of any size are searched exactly

    @property
    def match_radius_l2(self) -> float:
        """The distance beyond which nothing is a duplicate."""
        return self.threshold_l2 if self.verification_rule is None else self.verification_rule.candidate_l2


@dataclass(frozen=True, slots=True)
class Encoded:
    """The encoder's outputs for N pictures. Slices like an array of pictures."""

    embeddings: NDArray[np.float32]  # [N, D] unit vectors
    patches: NDArray[np.int8] | None  # [N, P, C], laid out as `encoder.patches` says

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
        """The served model. Raises Unavailable while the server cannot be asked, Misconfigured if it does not fit."""
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
