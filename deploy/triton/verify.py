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
from consumer.verification.features import verify

ONNX = Path(__file__).parents[2] / "triton_models" / "repository" / "image_encoder" / "1" / "model.onnx"
MIN_COSINE = 0.999
# Half precision moves a distance by about so much; a verdict that it turns was a toss-up.
TOSS_UP_L2 = 0.005
MAX_SCORE_LOSS = 0.05  # by local features that are rounded otherwise
IN_FLIGHT = 4
Float32 = NDArray[np.float32]
Pixels = NDArray[np.uint8]


def load(folder: Path, size: int) -> Pixels:
    """All pictures of a folder as uint8 [N, S, S, 3]; what is no picture is left out."""
    pictures = []
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            pictures.append(decode(file.read_bytes(), size, DecodeSettings()).pixels)
        except Unprocessable as error:
            print(f"{file}: {error}")
    return np.stack(pictures)


def served(encoder: TritonEncoder, pixels: Pixels, batch: int) -> Encoded:
    """What Triton makes of the pictures."""
    return Encoded.concatenate(
        [encoder.submit(pixels[at : at + batch]).result() for at in range(0, len(pixels), batch)]
    )


def reference(onnx: Path, pixels: Pixels, batch: int) -> Encoded:
    """What ONNX Runtime makes of them, in single precision on the CPU."""
    session = onnxruntime.InferenceSession(str(onnx), providers=["CPUExecutionProvider"])
    names = ["embeddings", *(each.name for each in session.get_outputs() if each.name == "patches")]
    found = (session.run(names, {"images": pixels[at : at + batch]}) for at in range(0, len(pixels), batch))
    return Encoded.concatenate([Encoded(embeddings, *patches or [None]) for embeddings, *patches in found])


def distances(vectors: Float32) -> Float32:
    """Euclidean distances [N * (N - 1) / 2] of all pairs."""
    rows, columns = np.triu_indices(len(vectors), 1)
    apart: Float32 = np.linalg.norm(vectors[rows] - vectors[columns], axis=1)
    return apart


def turned(expected: Float32, found: Float32, threshold_l2: float) -> int:
    """Pairs whose verdict differs although they do not lie on the threshold."""
    before, after = distances(expected), distances(found)
    return int(
        np.sum(((before <= threshold_l2) != (after <= threshold_l2)) & (abs(before - threshold_l2) > TOSS_UP_L2))
    )


def score_loss(expected: Encoded, found: Encoded, look: VerificationRule | None) -> float:
    """The most that a second look at any picture, as both see it, scores below one at what is expected alone."""
    if look is None or expected.patches is None or found.patches is None:
        return 0.0
    alone, both = (
        np.array([seen.score for seen in verify(patches, expected.patches, look.rotation_maps, look.thumbnail_side)])
        for patches in (expected.patches, found.patches)
    )
    return float((alone - both).max())


def images_per_second(encoder: TritonEncoder, pixels: Pixels, batch: int, seconds: float) -> float:
    """Through the client, with IN_FLIGHT requests under way, as the service sends them."""
    sent = pixels[np.arange(batch) % len(pixels)]
    encoder.submit(sent).result()
    under_way = deque(encoder.submit(sent) for _ in range(IN_FLIGHT - 1))
    done, began_s = 0, time.perf_counter()
    while (elapsed_s := time.perf_counter() - began_s) < seconds:
        under_way.append(encoder.submit(sent))
        under_way.popleft().result()
        done += batch
    for each in under_way:
        each.result()
    return done / elapsed_s


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
            found = served(encoder, pixels, batch)
            cosine = float(np.sum(expected.embeddings * found.embeddings, axis=1).min())
            flips = turned(expected.embeddings, found.embeddings, info.threshold_l2)
            loss = score_loss(expected, found, info.verification_rule)
            good &= cosine >= MIN_COSINE and flips == 0 and loss <= MAX_SCORE_LOSS
            print(
                f"batch {batch}: {len(pixels)} pictures, least cosine {cosine:.6f}, verdicts turned {flips}, "
                f"most lost of a second look's score {loss:.4f}"
            )
        for batch in sorted({1, 8, info.max_batch_size}):
            rate = images_per_second(encoder, pixels, batch, arguments.seconds)
            print(f"batch {batch}: {rate:.0f} images a second")
    print("verified" if good else "NOT the same encoder")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
