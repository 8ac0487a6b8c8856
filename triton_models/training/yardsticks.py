"""Perceptual hashes on the same pictures and copies, as a yardstick for the measure of innocence."""

from collections.abc import Mapping, Sequence
from multiprocessing import get_context

import numpy as np

from triton_models.training.encoders import Pdq, PerceptualHash
from triton_models.training.innocence_report import Yardstick
from triton_models.training.uploads import Copies, Floats, Originals, Set, in_batches, with_progress

PDQ_SAME_BITS = 31  # of 256, by the recommendation of its authors
PHASH_SAME_BITS = 10  # of 64, as is common


def judge_hashes(data: Set, aspects: Mapping[str, float] | None, workers: int) -> list[Yardstick]:
    """Decide by PDQ and by pHash which pictures are duplicates of one before, and which copies of their originals."""
    batches = in_batches(data.paths, aspects or {})
    of_stream, of_copies = _hash_all(batches, "pictures", workers), _hash_all(data.made_of, "copies", workers)
    result = []
    for number, (name, bits) in enumerate((("PDQ", PDQ_SAME_BITS), ("pHash", PHASH_SAME_BITS))):
        stream, copied = (np.concatenate([part[number] for part in parts]) for parts in (of_stream, of_copies))
        least = 1 - 2 * bits / stream.shape[1] - 1e-6  # of the cosine
        accused = np.array([bool((stream[:row] @ stream[row] >= least).any()) for row in range(len(stream))])
        found = np.einsum("nd,nd->n", copied, stream[data.owners]) >= least
        result.append(Yardstick(f"{name}, {bits} bits", accused, found.reshape(data.mixed_in.shape)))
    return result


def _hash_all(jobs: Sequence[Originals | Copies], what: str, workers: int) -> list[tuple[Floats, Floats]]:
    if workers < 2:
        return list(with_progress(map(hashes, jobs), f"hashes of {what}", len(jobs)))
    with get_context("spawn").Pool(workers) as pool:
        return list(with_progress(pool.imap(hashes, jobs), f"hashes of {what}", len(jobs)))


def hashes(job: Originals | Copies) -> tuple[Floats, Floats]:
    """Make the PDQ and pHash of the pictures of a job."""
    pictures = job.pictures()
    return Pdq()(pictures), PerceptualHash()(pictures)
