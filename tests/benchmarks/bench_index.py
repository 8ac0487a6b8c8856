"""The index of a large window beside others: time for a batch of 32, copies found, memory.

    python -m tests.benchmarks.bench_index pictures.npy copies.npz --rows 1000000

`pictures.npy` has the encoder's vectors of pictures that the code books were not fitted to, float [N, D]; `copies.npz`
the vectors of copies of some of them, `vectors` [C, D], and which `originals` [C] they are copies of. Strangers are
mixed of the other pictures until there are enough rows. A copy counts as found when its original is among the eight
nearest rows reported, which are those that the second look considers. All on one thread, in processor time.
"""

import argparse
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")

import numpy as np
from numpy.typing import NDArray

from consumer.window.backends import EFFORTS, MAX_NEAREST_TO_LOOK_AT
from consumer.window.index import Hit, Query, SearchParams, VectorIndex
from consumer.window.inverted_lists import Effort
from consumer.window.large_index import LargeIndex
from consumer.window.records import IndexRow, IndexRows, Position
from triton_models.training.codebooks import mixtures
from triton_models.training.parameters import CONFIGS, MODEL_FOLDER, model_of

Float32 = NDArray[np.float32]
# Finds the rows near each query, nearest first; and the time that does not count.
Search = Callable[[NDArray[np.float16]], tuple[list[list[int]], float]]

BATCH, SEEN, NEAREST, RETENTION_MS = 32, 8, MAX_NEAREST_TO_LOOK_AT, 10**9
MODEL = model_of(MODEL_FOLDER / CONFIGS[0])
# What was not chosen.
OTHER_EFFORTS = {
    f"{share} of the lists, best {best}": Effort(share, best) for share, best in ((0.8, 500), (0.4, 500), (0.3, 300))
}
PARAMS = SearchParams(MODEL.match_radius_l2, MODEL.threshold_l2, NEAREST)


def strangers_and_originals(pictures: Float32, originals: NDArray[np.intp], count: int) -> NDArray[np.float16]:
    """Mix strangers of all pictures but the originals, and put the originals among them, at every so many rows."""
    rng = np.random.default_rng(1)
    others = np.delete(pictures, originals, axis=0)
    rows = np.empty((count, pictures.shape[1]), np.float16)
    for start in range(0, count, 250_000):
        rows[start : start + 250_000] = mixtures(rng, others, min(250_000, count - start))
    rows[np.linspace(0, count - 1, len(originals), dtype=int)] = pictures[originals]
    return rows


def index_rows(rows: NDArray[np.float16], start: int, end: int) -> list[IndexRow]:
    return [IndexRow(Position(0, n + 1), b"%d" % n, 0, rows[n]) for n in range(start, min(end, len(rows)))]


def by_window_index(index: VectorIndex | LargeIndex, rows: NDArray[np.float16]) -> Search:
    """Search an index of ours. What Redis would answer is not timed."""
    spent_s = 0.0

    def read(positions: Sequence[Position]) -> list[IndexRow | None]:
        nonlocal spent_s
        start = time.thread_time()
        found: list[IndexRow | None] = [
            IndexRow(position, b"%d" % (position.serial - 1), 0, rows[position.serial - 1]) for position in positions
        ]
        spent_s += time.thread_time() - start
        return found

    def nearest(hits: list[Hit]) -> list[int]:
        return [hit.position.serial - 1 for hit in sorted(hits, key=lambda hit: (hit.l2, hit.position))]

    def search(batch: NDArray[np.float16]) -> tuple[list[list[int]], float]:
        nonlocal spent_s
        spent_s = 0.0
        queries = [Query(Position(0, 10**9 + n), b"query", vector) for n, vector in enumerate(batch)]
        hits = index.search(queries) if isinstance(index, VectorIndex) else index.search(queries, read)
        return [nearest(each) for each in hits], spent_s

    return search


def by_faiss(factory: str, rows: NDArray[np.float16], trained_on: Float32, best: int, probes: int = 0) -> Search:
    """Search an index of faiss for the best rows, and sort these by their exact distances."""
    import faiss  # noqa: PLC0415

    faiss.omp_set_num_threads(1)
    index = faiss.index_factory(rows.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    index.train(trained_on)
    for start in range(0, len(rows), 10_000):
        index.add(rows[start : start + 10_000].astype(np.float32))
    if probes:
        index.nprobe = probes

    def search(batch: NDArray[np.float16]) -> tuple[list[list[int]], float]:
        _, found = index.search(batch.astype(np.float32), best)
        reports = []
        for query, some in zip(batch, found, strict=True):
            products = rows[some].astype(np.float32) @ query.astype(np.float32)
            reports.append(some[np.argsort(-products)[:NEAREST]].tolist())
        return reports, 0.0

    return search


def by_product(rows: NDArray[np.float16]) -> Search:
    """Multiply with all rows, in float32, block by block, and find the nearest: what is exact."""

    def search(batch: NDArray[np.float16]) -> tuple[list[list[int]], float]:
        queries, conversion_s = batch.astype(np.float32), 0.0
        products = np.empty((len(batch), len(rows)), np.float32)
        for start in range(0, len(rows), 10_000):
            before = time.thread_time()
            block = rows[start : start + 10_000].astype(np.float32)
            conversion_s += time.thread_time() - before
            products[:, start : start + 10_000] = queries @ block.T
        before = time.thread_time()
        best = np.argpartition(-products, SEEN, axis=1)[:, :SEEN]
        reports = [
            some[(products[query, some] >= 1 - PARAMS.radius_l2**2 / 2)].tolist() for query, some in enumerate(best)
        ]
        return reports, conversion_s + time.thread_time() - before

    return search


def measure(search: Search, batches: Sequence[NDArray[np.float16]]) -> tuple[list[float], list[list[int]]]:
    """Search for each batch: milliseconds, and what was found for each query."""
    taken_ms, found = [], []
    for batch in batches:
        start = time.thread_time()
        reports, not_counted_s = search(batch)
        taken_ms.append(1e3 * (time.thread_time() - start - not_counted_s))
        found += [report[:SEEN] for report in reports]
    return taken_ms, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("copies", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--batches", type=int, default=60)
    parser.add_argument(
        "--trained-on", type=Path, help=".npy of vectors for faiss's own indexes; without, these are left"
    )
    arguments = parser.parse_args()
    pictures, copies = np.load(arguments.pictures).astype(np.float32), np.load(arguments.copies)
    originals, which = np.unique(copies["originals"], return_inverse=True)
    rows = strangers_and_originals(pictures, originals, arguments.rows)
    place = np.linspace(0, len(rows) - 1, len(originals), dtype=int)[which]
    chosen = np.random.default_rng(0).permutation(len(which))[: BATCH * arguments.batches]
    vectors = copies["vectors"][chosen].astype(np.float16)
    batches = np.split(vectors, range(BATCH, len(vectors), BATCH))

    def report(name: str, search: Search, note: str = "") -> list[list[int]]:
        taken_ms, found = measure(search, batches)
        median = float(np.median(taken_ms))
        hits = sum(
            row in some and row in every for row, some, every in zip(place[chosen], found, exact or found, strict=True)
        )
        of = sum(row in every for row, every in zip(place[chosen], exact or found, strict=True))
        ninety = np.percentile(taken_ms, 90)
        print(f"| {name} | {median:.1f} | {ninety:.1f} | {median / (base or median):.3f} | {hits / of:.4f} | {note} |")
        return found

    print(f"{len(rows)} rows, {len(vectors)} copies")
    print(
        "| index | ms, median | 90th percentile | over the product | copies found | bytes a row |\n" + "|---" * 6 + "|"
    )
    exact: list[list[int]] = []
    base = 0.0
    product = by_product(rows)
    base = float(np.median(measure(product, batches[:8])[0]))
    exact = report("float32 product", product, "1024")
    assert MODEL.codebooks is not None
    for name, effort in (EFFORTS | OTHER_EFFORTS).items():
        index = LargeIndex(MODEL.codebooks, PARAMS, RETENTION_MS, effort)
        fill(index, rows)
        report(f"large index, {name}", by_window_index(index, rows), f"{index.nbytes / len(rows):.0f}")
        del index
    if arguments.trained_on:
        trained_on = np.load(arguments.trained_on).astype(np.float32)
        for factory, best, probes in (("PQ64x4fs", 200, 0), ("PQ64x4fs", 500, 0), ("IVF1024,SQ8", 32, 128)):
            report(
                f"faiss {factory}, best {best}, {probes or 'all'} lists",
                by_faiss(factory, rows, trained_on, best, probes),
            )
    small = VectorIndex(MODEL.dim, PARAMS, RETENTION_MS)
    fill(small, rows)
    batches = batches[:8]
    chosen, exact = chosen[: BATCH * 8], exact[: BATCH * 8]
    report("exact index", by_window_index(small, rows), f"{small.nbytes / len(rows):.0f}")


def fill(index: VectorIndex | LargeIndex, rows: NDArray[np.float16]) -> None:
    start = time.thread_time()
    for first in range(0, len(rows), 500):
        index.extend(IndexRows.stack(index_rows(rows, first, first + 500)))
    print(f"filled in {time.thread_time() - start:.1f} s of processor time, pages of 500 rows")


if __name__ == "__main__":
    main()
