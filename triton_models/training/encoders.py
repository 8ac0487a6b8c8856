"""Encoders to compare, all as functions from pictures to unit vectors.

Hashes are vectors too: bits as plus and minus one, so that the L2 distance grows with the Hamming distance.
"""

import base64
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from consumer.encoder.contract import Encoded
from consumer.encoder.patches import decode_rotation_maps
from consumer.encoder.triton import TritonEncoder
from consumer.images.decode import Picture, detail, prepare
from consumer.settings import TritonSettings

Floats = NDArray[np.float32]


class Encoder(Protocol):
    """Makes float32 [N, D] unit vectors of N RGB pictures of any size. `name` is for tables."""

    name: str

    def __call__(self, pictures: list[Image.Image]) -> Floats: ...


def squares(pictures: list[Image.Image], size: int) -> NDArray[np.uint8]:
    """Resize pictures to uint8 [N, size, size, 3], as the service does when it decodes."""
    resized = (picture.resize((size, size), Image.Resampling.BILINEAR, reducing_gap=2.0) for picture in pictures)
    return np.stack([np.asarray(picture) for picture in resized])


def prepared(picture: Image.Image, size: int) -> Picture:
    """Prepare an RGB picture for an encoder of this `size`, as the service does when it decodes a file."""
    pixels, thumbnail = prepare(picture, size, picture.width / picture.height)
    return Picture(pixels, thumbnail, detail(pixels), *picture.size, picture.format or "")


class OnnxEncoder:
    """A model file with the encoder's contract, in ONNX Runtime.

    `version` is that of the model, or empty, and `patches_shape` (P, C) that of its local features, or None from a
    model that gives none.
    """

    def __init__(self, path: Path, name: str = "", threads: int = 1) -> None:
        import onnxruntime  # noqa: PLC0415 (the hashes do without)

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.size = int(self.session.get_inputs()[0].shape[1])
        self.name = name or path.stem
        metadata = self.session.get_modelmeta().custom_metadata_map
        self.rotation_maps = decode_rotation_maps(base64.b64decode(metadata.get("turns", "")))
        self.version = metadata.get("model_version", "")
        shapes = {output.name: output.shape for output in self.session.get_outputs()}
        self.outputs = [name for name in shapes if name in ("embeddings", "patches")]
        self.patches_shape = (shapes["patches"][1], shapes["patches"][2]) if "patches" in shapes else None

    def __call__(self, pictures: list[Image.Image]) -> Floats:
        vectors: Floats = self.session.run(["embeddings"], {"images": squares(pictures, self.size)})[0]
        return vectors

    def features(self, pictures: list[Image.Image]) -> tuple[Floats, NDArray[np.int8] | None]:
        """Make the vectors and the local features int8 [N, P, C], or None from a model that gives none."""
        encoded = self.encode(squares(pictures, self.size))
        return encoded.embeddings, encoded.patches

    def encode(self, pixels: NDArray[np.uint8]) -> Encoded:
        """Encode uint8 [N, S, S, 3]."""
        tensors = self.session.run(self.outputs, {"images": pixels})
        by_name = dict(zip(self.outputs, tensors, strict=True))
        return Encoded(by_name["embeddings"], by_name.get("patches"))


class ServedEncoder:
    """The model that a Triton serves, through the service's own client."""

    def __init__(self, settings: TritonSettings) -> None:
        self.client = TritonEncoder(settings)
        self.size, self.name = self.client.info.size, f"{self.client.info.name} {self.client.info.version}"

    def __call__(self, pictures: list[Image.Image]) -> Floats:
        return self.encode(squares(pictures, self.size)).embeddings

    def encode(self, pixels: NDArray[np.uint8]) -> Encoded:
        """Encode uint8 [N, S, S, 3]."""
        step = self.client.info.max_batch_size
        starts = range(0, len(pixels), step)
        return Encoded.concatenate([self.client.submit(pixels[i : i + step]).result() for i in starts])


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
