"""Is what Triton serves the encoder of the ONNX file? On real pictures: vectors, verdicts, second looks, and how fast.

    python deploy/triton/verify.py --url localhost:8001 --pictures folder

Needs `pip install '.[local]'`. Ends with 0 when every cosine is at least 0.999, every pair of pictures gets the same
verdict at the model's threshold, but for pairs that lie on it, and each picture's second look at itself finds as much.
"""

import argparse
import sys
import time
from collections import deque
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from consumer.encoder.contract import Encoded, VerificationRule
from consumer.encoder.triton import TritonEncoder
from consumer.errors import Unprocessable
from consumer.images.decode import decode
from consumer.settings import DecodeSettings, TritonSettings
from consumer.verification.features import match_features

ONNX = Path(__file__).parents[2] / "triton_models" / "repository" / "image_encoder" / "1" / "model.onnx"
MIN_COSINE = 0.999
# Half precision moves a distance by about so much: a verdict on a pair this close to the threshold is a toss-up.
TOSS_UP_L2 = 0.005
MAX_FEATURE_LOSS = 0.05  # since local features are rounded differently
IN_FLIGHT = 4
Float32 = NDArray[np.float32]
Pixels = NDArray[np.uint8]


def load(folder: Path, size: int) -> Pixels:
    """Decode all pictures of a folder as uint8 [N, S, S, 3]. Print and leave out files that are no pictures."""
    pictures = []
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            pictures.append(decode(file.read_bytes(), size, DecodeSettings()).pixels)
        except Unprocessable as error:
            print(f"{file}: {error}")
    return np.stack(pictures)


def served(encoder: TritonEncoder, pixels: Pixels, batch: int) -> Encoded:
    """Encode the pictures by Triton."""
    starts = range(0, len(pixels), batch)
    return Encoded.concatenate([encoder.submit(pixels[start : start + batch]).result() for start in starts])


def reference(onnx: Path, pixels: Pixels, batch: int) -> Encoded:
    """Encode the pictures by ONNX Runtime, in single precision on the CPU."""
    session = onnxruntime.InferenceSession(str(onnx), providers=["CPUExecutionProvider"])
    names = ["embeddings", *(each.name for each in session.get_outputs() if each.name == "patches")]
    starts = range(0, len(pixels), batch)
    outputs = (session.run(names, {"images": pixels[start : start + batch]}) for start in starts)
    return Encoded.concatenate([Encoded(embeddings, *patches or [None]) for embeddings, *patches in outputs])


def distances(vectors: Float32) -> Float32:
    """Compute the Euclidean distances [N * (N - 1) / 2] of all pairs."""
    first, second = np.triu_indices(len(vectors), 1)
    all_l2: Float32 = np.linalg.norm(vectors[first] - vectors[second], axis=1)
    return all_l2


def changed_verdicts(expected: Float32, actual: Float32, threshold_l2: float) -> int:
    """Count the pairs whose verdict differs although they do not lie on the threshold."""
    before, after = distances(expected), distances(actual)
    return int(
        np.sum(((before <= threshold_l2) != (after <= threshold_l2)) & (abs(before - threshold_l2) > TOSS_UP_L2))
    )


def feature_loss(expected: Encoded, actual: Encoded, rule: VerificationRule | None) -> float:
    """Match the expected local features of each picture with the actual ones, and with themselves.

    Return by how much less they agree at most, 0 to 1: what the second look at a picture loses.
    """
    if rule is None or expected.patches is None or actual.patches is None:
        return 0.0
    with_itself, with_actual = (
        match_features(patches, expected.patches, rule.rotation_maps) for patches in (expected.patches, actual.patches)
    )
    return float((with_itself.similarity * with_itself.trust - with_actual.similarity * with_actual.trust).max())


def images_per_second(encoder: TritonEncoder, pixels: Pixels, batch: int, seconds: float) -> float:
    """Measure the rate through the client, with IN_FLIGHT requests under way, as the service sends them."""
    request = pixels[np.arange(batch) % len(pixels)]
    encoder.submit(request).result()
    under_way = deque(encoder.submit(request) for _ in range(IN_FLIGHT - 1))
    encoded, started_s = 0, time.perf_counter()
    while (elapsed_s := time.perf_counter() - started_s) < seconds:
        under_way.append(encoder.submit(request))
        under_way.popleft().result()
        encoded += batch
    for future in under_way:
        future.result()
    return encoded / elapsed_s


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="localhost:8001", help="gRPC address of Triton")
    parser.add_argument("--pictures", type=Path, required=True, help="folder of real pictures: some hundreds")
    parser.add_argument("--onnx", type=Path, default=ONNX)
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each batch size is measured")
    arguments = parser.parse_args()
    with TritonEncoder(TritonSettings(url=arguments.url, timeout_s=60.0, max_in_flight=IN_FLIGHT)) as encoder:
        info = encoder.info
        pixels = load(arguments.pictures, info.size)
        expected = reference(arguments.onnx, pixels, info.max_batch_size)
        good = True
        for batch in sorted({1, info.max_batch_size}):
            actual = served(encoder, pixels, batch)
            cosine = float(np.sum(expected.embeddings * actual.embeddings, axis=1).min())
            changed = changed_verdicts(expected.embeddings, actual.embeddings, info.threshold_l2)
            loss = feature_loss(expected, actual, info.verification_rule)
            good &= cosine >= MIN_COSINE and changed == 0 and loss <= MAX_FEATURE_LOSS
            print(
                f"batch {batch}: {len(pixels)} pictures, least cosine {cosine:.6f}, verdicts turned {changed}, "
                f"most lost of what a second look matches {loss:.4f}"
            )
        for batch in sorted({1, 8, info.max_batch_size}):
            rate = images_per_second(encoder, pixels, batch, arguments.seconds)
            print(f"batch {batch}: {rate:.0f} images a second")
    print("verified" if good else "NOT the same encoder")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
