"""The encoder as one call, for users in Python: a picture in, its vector out."""

import io
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from consumer.encoder.contract import Encoded, ModelInfo
from consumer.encoder.triton import TritonEncoder
from consumer.images.decode import decode
from consumer.images.regions import Region, make_views
from consumer.settings import DecodeSettings, TritonSettings


class ImageEncoder:
    """Turns one picture into its vector: `ImageEncoder("localhost:8001")("photo.jpg")`.

    Decoding is the service's own, so that vectors compare with those in the window by Euclidean distance.
    """

    def __init__(self, url: str = "localhost:8001", settings: TritonSettings | None = None) -> None:
        self._encoder = TritonEncoder(settings or TritonSettings(url=url))

    @property
    def info(self) -> ModelInfo:
        return self._encoder.info

    def __call__(self, image: str | Path | bytes | Image.Image) -> NDArray[np.float32]:
        """The unit vector, float32 [D], of a file, of a file's bytes or of a PIL image.

        Raises OSError, Unprocessable for what is not a picture, Unavailable, Misconfigured.
        """
        vector: NDArray[np.float32] = self.encode(image).embeddings[0]
        return vector

    def encode(self, image: str | Path | bytes | Image.Image) -> Encoded:
        """The same with the local features, for `consumer.verification.features`: [1, D] and [1, P, C]."""
        picture = decode(_bytes(image), self.info.size, DecodeSettings())
        return self._encoder.submit(picture.pixels[np.newaxis]).result()

    def encode_within(
        self, image: str | Path | bytes | Image.Image, settings: DecodeSettings
    ) -> tuple[list[Region], Encoded]:
        """The same of the picture and of those within it: [N, D] and [N, P, C], the whole first, and where they are.

        As in the service, there are none within it if the settings say so, or if the encoder has no second look.
        """
        picture = decode(_bytes(image), self.info.size, settings)
        within = settings.frames and self.info.verification_rule is not None
        [seen] = make_views([picture.pixels], settings.min_detail, within)
        parts = [self._encoder.submit(view.pixels[np.newaxis]) for view in seen]
        return [view.region for view in seen], Encoded.concatenate([part.result() for part in parts])

    def close(self) -> None:
        self._encoder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _bytes(image: str | Path | bytes | Image.Image) -> bytes:
    if isinstance(image, bytes):
        return image
    if isinstance(image, Image.Image):
        upright = ImageOps.exif_transpose(image)
        file = io.BytesIO()
        # Both without loss; TIFF also holds the modes that PNG does not know, such as CMYK.
        if upright.mode in {"1", "L", "LA", "P", "RGB", "RGBA"}:
            upright.save(file, "PNG", compress_level=1)
        else:
            upright.save(file, "TIFF")
        return file.getvalue()
    return Path(image).read_bytes()
