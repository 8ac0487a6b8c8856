"""Windows full of strangers, for measurements that need large ones."""

import time
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256

import numpy as np

from consumer.encoder.contract import ModelInfo
from consumer.encoder.image_encoder import ImageEncoder
from consumer.settings import DecodeSettings
from consumer.window.records import pack_record
from consumer.window.store import WindowStore
from tests.benchmarks.bench_window import Float32, made_up, mixed, unit

CHUNK_ROWS = 200


def encode_pictures(triton: str, images: Sequence[bytes]) -> tuple[ModelInfo, Float32, list[bytes]]:
    """Encode pictures as a whole: the model, their vectors, float32 [N, D], and their features."""
    with ImageEncoder(triton) as encoder:
        model = encoder.info
        views = [encoder.encode_views(data, DecodeSettings(), within=False) for data in images]
    features = [b"" if each.features is None else each.features[0].to_bytes() for each in views]
    return model, np.concatenate([each.embeddings for each in views]), features


def strangers(triton: str, images: Sequence[bytes], rows: int) -> tuple[ModelInfo, Float32, list[bytes]]:
    """Make vectors, float32 [rows, D], that lie around those of these pictures, and read the pictures' features."""
    model, vectors, features = encode_pictures(triton, images)
    rng = np.random.default_rng(0)
    return model, unit(mixed(rng, vectors, rows) + 2 * made_up(rng, rows, model.dim)), features


def fill_aged(store: WindowStore, tenant: str, vectors: Float32, features: Sequence[bytes]) -> None:
    """Fill a tenant's window as if these had come one after the other for as long as it remembers, until now."""
    ends_ms = time.time() * 1000
    epoch, uploaded_at = uuid.uuid4().hex, datetime.now(UTC)
    ms = np.linspace(ends_ms - store.retention_ms, ends_ms, len(vectors)).astype(np.int64).tolist()
    for start in range(0, len(vectors), CHUNK_ROWS):
        chunk = range(start, min(start + CHUNK_ROWS, len(vectors)))
        staged: list[bytes | str] = [""]
        restored: list[bytes | str | int] = ["1", start, 0, "1" if chunk.stop == len(vectors) else ""]
        for row in chunk:
            record = pack_record(f"row-{row}", sha256(b"%d" % row).digest(), uploaded_at, vectors[row])
            staged += (f"staged-{row}", record, features[row % len(features)])
            restored += (ms[row], f"staged-{row}", "", "")
        staged[0] = "1" if start else ""
        store.run("stage", [(tenant, staged)], epoch)
        store.run("restore", [(tenant, restored)], epoch)
