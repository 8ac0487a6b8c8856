"""Encoders to compare, all as functions from pictures to unit vectors.

Hashes are vectors too: bits as plus and minus one, so that the L2 distance grows with the Hamming distance.
"""

import base64
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from consumer.encoder.patches import decode_rotation_maps
from consumer.encoder.triton import TritonEncoder
from consumer.settings import TritonSettings
from consumer.verification.features import candidate_scores, verify
from consumer.verification.result import Verification

Floats = NDArray[np.float32]


class Encoder(Protocol):
    """Makes float32 [N, D] unit vectors of N RGB pictures of any size. `name` is for tables."""

    name: str

    def __call__(self, pictures: list[Image.Image]) -> Floats: ...


def squares(pictures: list[Image.Image], size: int) -> NDArray[np.uint8]:
    """Resize pictures to uint8 [N, size, size, 3], as the service does when it decodes."""
    resized = (picture.resize((size, size), Image.Resampling.BILINEAR, reducing_gap=2.0) for picture in pictures)
    return np.stack([np.asarray(picture) for picture in resized])


class OnnxEncoder:
    """A model file with the encoder's contract, in ONNX Runtime."""

    def __init__(self, path: Path, name: str = "", threads: int = 1) -> None:
        import onnxruntime  # noqa: PLC0415 (the hashes do without)

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.size = int(self.session.get_inputs()[0].shape[1])
        self.name = name or path.stem
        metadata = self.session.get_modelmeta().custom_metadata_map
        self.rotation_maps = decode_rotation_maps(base64.b64decode(metadata.get("turns", "")))
        self.thumbnail_side = int(metadata.get("thumbnail_side", 0))
        self.outputs = [
            output.name for output in self.session.get_outputs() if output.name in ("embeddings", "patches")
        ]

    def __call__(self, pictures: list[Image.Image]) -> Floats:
        vectors: Floats = self.session.run(["embeddings"], {"images": squares(pictures, self.size)})[0]
        return vectors

    def features(self, pictures: list[Image.Image]) -> tuple[Floats, NDArray[np.int8] | None]:
        """Make the vectors and the local features int8 [N, P, C], or None from a model that gives none."""
        tensors = self.session.run(self.outputs, {"images": squares(pictures, self.size)})
        by_name = dict(zip(self.outputs, tensors, strict=True))
        return by_name["embeddings"], by_name.get("patches")

    def candidate_scores(self, uploads: NDArray[np.int8], candidates: NDArray[np.int8], l2: Floats) -> Floats:
        """Score how likely each candidate shows its upload, see `consumer.verification.features`."""
        return candidate_scores(uploads, candidates, l2, self.thumbnail_side)

    def verify(self, uploads: NDArray[np.int8], candidates: NDArray[np.int8]) -> list[Verification]:
        """Verify each upload against the candidate beside it, by their local features, int8 [M, P, C]."""
        return verify(uploads, candidates, self.rotation_maps, self.thumbnail_side)


class ServedEncoder:
    """The model that a Triton serves, through the service's own client."""

    def __init__(self, settings: TritonSettings) -> None:
        self.client = TritonEncoder(settings)
        self.size, self.name = self.client.info.size, f"{self.client.info.name} {self.client.info.version}"

    def __call__(self, pictures: list[Image.Image]) -> Floats:
        step = self.client.info.max_batch_size
        pixels = squares(pictures, self.size)
        starts = range(0, len(pixels), step)
        return np.concatenate([self.client.submit(pixels[i : i + step]).result().embeddings for i in starts])


class PerceptualHash:
    """pHash (Zauner, 2010) of the package ImageHash: the low frequencies of the picture, 64 bits."""

    name = "pHash"

    def __call__(self, pictures: list[Image.Image]) -> Floats:
        import imagehash  # noqa: PLC0415 (a yardstick, no dependency)

        return _from_bits(np.stack([imagehash.phash(picture).hash.ravel() for picture in pictures]))


class Pdq:
    """PDQ (Facebook, 2019) of the package pdqhash: 256 bits."""

    name = "PDQ"

    def __call__(self, pictures: list[Image.Image]) -> Floats:
        import pdqhash  # noqa: PLC0415 (a yardstick, no dependency)

        return _from_bits(np.stack([pdqhash.compute(np.asarray(picture))[0] for picture in pictures]))


def _from_bits(bits: NDArray[np.generic]) -> Floats:
    return ((bits.astype(np.float32) * 2 - 1) / np.sqrt(bits.shape[1])).astype(np.float32)


def make_encoder(spec: str) -> Encoder:
    """Make the encoder of a spec: `phash`, `pdq`, `triton:HOST:PORT`, or `[NAME=]PATH` of an ONNX file.

    Raises ValueError for any other spec.
    """
    if spec == "phash":
        return PerceptualHash()
    if spec == "pdq":
        return Pdq()
    if spec.startswith("triton:"):
        return ServedEncoder(TritonSettings(url=spec.removeprefix("triton:")))
    name, _, path = spec.rpartition("=")
    if not Path(path).is_file():
        raise ValueError(f"{spec!r} is neither phash, pdq, triton:HOST:PORT nor an ONNX file")
    return OnnxEncoder(Path(path), name)
