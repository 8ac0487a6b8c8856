"""Fit the code books by which large windows are searched, and write them into both Triton configurations.

    python -m triton_models.training.codebooks vectors.npy

`vectors.npy` has the model's vectors of some ten thousand pictures, float [N, D]. For pictures enough, vectors are
mixed of near ones. Code books belong to a model's version: two processes that search with different ones may find
different copies, so a version that is in use never gets others.
"""

import argparse
import base64
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from consumer.encoder.codebooks import WORD_LENGTH, WORDS, Codebooks, to_codes
from triton_models.training.parameters import CONFIGS, MODEL_FOLDER, set_parameters, with_keys

Float32 = NDArray[np.float32]

LISTS = 256
MIXED = 200_000
# Vectors are mixed with one of so many nearest, and moved by noise of this length. By these, the distances among mixed
# vectors, and between them and pictures, are distributed as those of pictures are.
NEIGHBOURS, NOISE_L2 = 40, 0.75


def mixtures(rng: np.random.Generator, vectors: Float32, count: int) -> Float32:
    """Mix each of `count` vectors of two that are near each other, at least a third of either."""
    neighbours = np.concatenate(
        [
            np.argpartition(-(vectors[start : start + 1000] @ vectors.T), NEIGHBOURS + 1, axis=1)[:, 1 : NEIGHBOURS + 1]
            for start in range(0, len(vectors), 1000)
        ]
    )
    one = rng.integers(0, len(vectors), count)
    other = neighbours[one, rng.integers(0, NEIGHBOURS, count)]
    share = rng.uniform(0.35, 0.65, (count, 1)).astype(np.float32)
    mixed = _unit(share * vectors[one] + (1 - share) * vectors[other])
    dim = vectors.shape[1]
    return _unit(mixed + rng.standard_normal(mixed.shape, dtype=np.float32) * np.float32(NOISE_L2 / np.sqrt(dim)))


def fit(vectors: Float32) -> Codebooks:
    """Fit code books to unit vectors."""
    import faiss  # noqa: PLC0415 (a benchmark mixes vectors without it)

    dim = vectors.shape[1]
    lists = faiss.Kmeans(dim, LISTS, niter=10, spherical=True, seed=1)
    lists.train(vectors)
    words = faiss.ProductQuantizer(dim, dim // WORD_LENGTH, 4)
    words.train(to_codes(vectors).astype(np.float32))
    rounded = np.rint(faiss.vector_to_array(words.centroids)).astype(np.int8)
    return Codebooks(to_codes(_unit(np.asarray(lists.centroids))), rounded.reshape(-1, WORDS, WORD_LENGTH))


def set_codebooks(source: Path, target: Path, codebooks: Codebooks) -> None:
    """Write both configurations of the model folder `source` with these code books to `target`."""
    parameters = {"codebooks": base64.b64encode(codebooks.to_bytes()).decode()}
    for name in CONFIGS:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_text(with_keys((source / name).read_text(), parameters))
    set_parameters(target, target, parameters)


def _unit(vectors: Float32) -> Float32:
    lengths: Float32 = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / lengths


def main() -> None:
    """Fit and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vectors", type=Path)
    vectors = _unit(np.load(parser.parse_args().vectors).astype(np.float32))
    more = mixtures(np.random.default_rng(2), vectors, MIXED)
    set_codebooks(MODEL_FOLDER, MODEL_FOLDER, fit(np.concatenate([vectors, more])))


if __name__ == "__main__":
    main()
