"""What the recent window costs: searching the index, appending to Redis, reading it all back, and bytes a picture.

    python -m tests.benchmarks.bench_window [--rows 10000,100000] [--vectors embeddings.npy] [--radius 1.2]

Vectors are made up with neighbourhoods as an encoder's have, or mixed from those of a file (float32 [N, D]). Everything
runs on one thread, side by side: the index, a plain matrix product, and faiss where it happens to be installed.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import numpy as np  # noqa: E402
from numpy.typing import NDArray  # noqa: E402
from redis import Redis  # noqa: E402

from consumer.encoder.contract import ModelInfo  # noqa: E402
from consumer.local.binaries import find_binaries  # noqa: E402
from consumer.settings import WindowSettings  # noqa: E402
from consumer.window.index import Query, SearchParams, VectorIndex  # noqa: E402
from consumer.window.records import IndexRow, IndexRows, NewRecord, Position  # noqa: E402
from consumer.window.window import RedisWindow  # noqa: E402
from tests.redis_servers import KINDS, redis_like  # noqa: E402
from tests.stack_fixtures import serving  # noqa: E402

BATCH = 32
Float32 = NDArray[np.float32]


def made_up(rng: np.random.Generator, count: int, dim: int) -> Float32:
    """Draw unit vectors around a few hundred centres: most pairs nearly at right angles, some at a distance of 1."""
    centres = rng.standard_normal((300, dim), dtype=np.float32)
    return unit(centres[rng.integers(0, 300, count)] + 1.2 * rng.standard_normal((count, dim), dtype=np.float32))


def mixed(rng: np.random.Generator, real: Float32, count: int) -> Float32:
    """Draw real vectors, and mixtures of two when `count` is more than there are."""
    one, other = rng.integers(0, len(real), (2, count))
    share = rng.uniform(0.4, 0.9, (count, 1)).astype(np.float32)
    share[: len(real)], one[: len(real)] = 0, np.arange(min(len(real), count))
    return unit(real[one] + share * real[other])


def unit(vectors: Float32) -> Float32:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def copies(rng: np.random.Generator, vectors: Float32, radius_l2: float) -> Float32:
    """Draw for each vector one at a distance of up to the radius."""
    aside = rng.standard_normal(vectors.shape, dtype=np.float32)
    aside -= np.sum(aside * vectors, axis=1, keepdims=True) * vectors
    angle = 2 * np.arcsin(rng.uniform(0, radius_l2, (len(vectors), 1)).astype(np.float32) / 2)
    return unit(np.cos(angle) * vectors + np.sin(angle) * unit(aside))


def milliseconds(call: Callable[[], object], times: int) -> tuple[float, float]:
    """Time calls; median and 99th percentile in milliseconds."""
    taken_ms = []
    for _ in range(times):
        start = time.perf_counter()
        call()
        taken_ms.append(1e3 * (time.perf_counter() - start))
    return float(np.median(taken_ms)), float(np.percentile(taken_ms, 99))


def brute_force(stored: Float32, queries: Float32, radius_l2: float) -> list[set[int]]:
    products = queries @ stored.T
    return [set(np.flatnonzero(row >= 1 - radius_l2**2 / 2).tolist()) for row in products]


def faiss_search(vectors: Float32, queries: Float32) -> Callable[[], object] | None:
    """Search a binary index for the 50 best and compute their exact distances: the fastest of faiss on one thread."""
    try:
        import faiss  # type: ignore[import-not-found]  # noqa: PLC0415
    except ImportError:
        return None
    faiss.omp_set_num_threads(1)
    planes = np.random.default_rng(1).standard_normal((vectors.shape[1], 256), dtype=np.float32)
    index = faiss.IndexBinaryFlat(256)
    index.add(np.packbits(vectors @ planes > 0, axis=1))
    stored = vectors.astype(np.float16)

    def search() -> object:
        _, best = index.search(np.packbits(queries @ planes > 0, axis=1), 50)
        return [
            np.linalg.norm(stored[rows].astype(np.float32) - query, axis=1)
            for rows, query in zip(best, queries, strict=True)
        ]

    return search


def bench_search(rng: np.random.Generator, vectors: Float32, radius_l2: float) -> None:
    stored = vectors.astype(np.float16)
    index = VectorIndex(vectors.shape[1], SearchParams(radius_l2, radius_l2, 32), 10**9)
    rows = [IndexRow(Position(0, n + 1), b"%032d" % n, 0, vector) for n, vector in enumerate(stored)]
    start = time.perf_counter()
    for first in range(0, len(rows), 500):
        index.extend(IndexRows.stack(rows[first : first + 500]))
    built_s = time.perf_counter() - start
    targets = rng.integers(0, len(vectors), (12, BATCH))
    batches = [copies(rng, vectors[chosen], radius_l2) for chosen in targets]
    query_batches = [
        [Query(Position(0, 10**9), b"query", vector) for vector in batch.astype(np.float16)] for batch in batches
    ]
    expected_count = found_count = 0
    as_stored = stored.astype(np.float32)
    for batch, queries in zip(batches, query_batches, strict=True):
        truth = brute_force(as_stored, batch.astype(np.float16).astype(np.float32), radius_l2 - 1e-3)
        for hits, near in zip(index.search(queries), truth, strict=True):
            serials = {hit.position.serial - 1 for hit in hits}
            expected_count += min(len(near), 32)
            found_count += len(near & serials)

    def each(search: Callable[[int], object]) -> tuple[float, float]:
        numbers: Iterator[int] = iter(range(10**6))
        return milliseconds(lambda: search(next(numbers) % len(query_batches)), 24)

    results = {
        "index": each(lambda n: index.search(query_batches[n])),
        "float32 product": each(lambda n: brute_force(vectors, batches[n], radius_l2)),
    }
    faiss = faiss_search(vectors, batches[0])
    if faiss is not None:
        results["faiss binary + rerank"] = milliseconds(faiss, 24)
    times = ", ".join(f"{name} {median:.1f} ({worst:.1f})" for name, (median, worst) in results.items())
    print(
        f"search {len(rows):>7} rows, batch of {BATCH}, ms median (p99): {times}; "
        f"recall {found_count}/{expected_count}; {index.nbytes / len(rows):.0f} bytes a row; "
        f"filled at {len(rows) / built_s:,.0f} rows/s",
        flush=True,
    )


def bench_redis(kind: str, vectors: Float32, radius_l2: float, id_length: int) -> None:
    dim = vectors.shape[1]
    model = ModelInfo("encoder", "1", 160, dim, radius_l2, BATCH, None)
    with tempfile.TemporaryDirectory() as folder, serving(redis_like(kind, find_binaries(), Path(folder))) as server:
        redis = Redis(port=server.ports[0])
        window = RedisWindow(redis, model, WindowSettings(), "seenit")
        uploaded_at = datetime.now(UTC)
        before = int(redis.info("memory")["used_memory"])
        window.append([])
        taken_ms = []
        for first in range(0, len(vectors), BATCH):
            records = [
                NewRecord("t", f"{n:0{id_length}d}", sha256(b"%d" % n).digest(), vector, uploaded_at)
                for n, vector in enumerate(vectors[first : first + BATCH], first)
            ]
            start = time.perf_counter()
            window.append(records)
            taken_ms.append(1e3 * (time.perf_counter() - start))
        stored = int(redis.hlen(f"seenit:{{t}}:encoder@1x{dim}:rows"))
        used = int(redis.info("memory")["used_memory"]) - before
        accounted = int(redis.hget(f"seenit:{{t}}:encoder@1x{dim}:meta", "bytes") or 0)
        empty = RedisWindow(redis, model, WindowSettings(), "seenit")
        start = time.perf_counter()
        one = NewRecord("t", "x", b"x" * 32, vectors[0], uploaded_at)
        empty.append([one])
        warm_s = time.perf_counter() - start
        first_ms = np.median(taken_ms[2:50])
        print(
            f"{kind} {stored} rows, D={dim}, image ids of {id_length}: {used / stored:.0f} bytes a picture in Redis "
            f"(accounted {accounted / stored:.0f}); add a batch of {BATCH}, ms: {first_ms:.1f} while small, "
            f"{np.median(taken_ms[-50:]):.1f} at the end (p99 {np.percentile(taken_ms, 99):.1f}); "
            f"warm start {stored / warm_s:,.0f} rows/s",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="10000,100000", help="window sizes, comma-separated")
    parser.add_argument("--vectors", type=Path, help=".npy of real embeddings")
    parser.add_argument("--radius", type=float, default=1.2, help="distance up to which rows are reported")
    parser.add_argument("--dim", type=int, default=256, help="D of made-up vectors")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    sizes = [int(size) for size in arguments.rows.split(",")]
    if arguments.vectors:
        vectors = mixed(rng, np.load(arguments.vectors), max(sizes))
    else:
        vectors = made_up(rng, max(sizes), arguments.dim)
    for size in sizes:
        bench_search(rng, vectors[:size], arguments.radius)
    for kind in KINDS:
        for id_length in (12, 36, 100):
            bench_redis(kind, vectors[:20_000], arguments.radius, id_length)


if __name__ == "__main__":
    main()
