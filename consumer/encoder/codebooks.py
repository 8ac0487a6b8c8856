"""The code books of a model's vectors, by which large windows are searched. They travel with the model, as data.

Vectors are sorted into lists, by the centre with the greatest product (Sivic and Zisserman, Video Google, 2003), and
coded in words of four numbers (product quantisation: Jegou, Douze and Schmid, 2011). Both were fitted once and are
frozen: where a vector belongs does not depend on which others there are, or on which came first.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

WORDS, WORD_LENGTH = 16, 4  # a word is coded in four bits
# Codes of one byte reach this many times as far as a unit vector's coordinates are long on average.
CODE_REACH = 4.0
MAX_CODE = 127


@dataclass(frozen=True, eq=False, slots=True)
class Codebooks:
    """Centres of lists, int8 [L, D], and the words of each part of a vector, int8 [D / 4, 16, 4], scaled as codes."""

    centres: NDArray[np.int8]
    words: NDArray[np.int8]

    def __eq__(self, other: object) -> bool:
        """Tell whether both are the same, so that a model served anew can be told from the one before."""
        return (
            isinstance(other, Codebooks)
            and np.array_equal(self.centres, other.centres)
            and np.array_equal(self.words, other.words)
        )

    def __hash__(self) -> int:
        return hash((self.centres.tobytes(), self.words.tobytes()))

    def to_bytes(self) -> bytes:
        """Pack the words, then the centres."""
        return self.words.tobytes() + self.centres.tobytes()

    @classmethod
    def from_bytes(cls, data: bytes, dim: int) -> Self:
        """Unpack what `to_bytes` packed, for vectors of `dim` numbers. Raises ValueError for anything else."""
        numbers = np.frombuffer(data, np.int8)
        if dim % WORD_LENGTH or len(numbers) % dim or len(numbers) <= WORDS * dim:
            raise ValueError(f"{len(numbers)} bytes are no code books of {dim} numbers")
        words = numbers[: WORDS * dim].reshape(dim // WORD_LENGTH, WORDS, WORD_LENGTH)
        return cls(numbers[WORDS * dim :].reshape(-1, dim), words)


def code_scale(dim: int) -> float:
    """Return what a unit vector's coordinates are multiplied with to be codes."""
    return float(MAX_CODE * np.sqrt(dim) / CODE_REACH)


def round_scaled(scaled: NDArray[np.float32], out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """Round vectors [N, D] that are scaled by `code_scale` to the whole numbers of codes; into `out`, if given."""
    rounded: NDArray[np.float32] = np.clip(np.rint(scaled, out=out), -MAX_CODE, MAX_CODE, out=out)
    return rounded


def to_codes(vectors: NDArray[np.floating]) -> NDArray[np.int8]:
    """Round unit vectors [N, D] to int8."""
    return round_scaled(vectors.astype(np.float32) * np.float32(code_scale(vectors.shape[1]))).astype(np.int8)
