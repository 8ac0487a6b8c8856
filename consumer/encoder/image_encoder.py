"""The encoder for users in Python, in one call: a picture in, its vector out."""

import io
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from consumer.encoder.contract import Encoded, ModelInfo
from consumer.encoder.triton import TritonEncoder
from consumer.encoder.views import EncodedViews
from consumer.images.decode import decode
from consumer.images.regions import make_views
from consumer.settings import DecodeSettings, TritonSettings


class ImageEncoder:
    """Encodes one picture at a time: `ImageEncoder("localhost:8001")("photo.jpg")` is its vector.

    Pictures are decoded as in the service, so that the vectors compare with the service's by Euclidean distance.
    """

    def __init__(self, url: str = "localhost:8001", settings: TritonSettings | None = None) -> None:
        self._encoder = TritonEncoder(settings or TritonSettings(url=url))

    @property
    def info(self) -> ModelInfo:
        """The served model. Raises Unavailable, Misconfigured."""
        return self._encoder.info

    def __call__(self, image: str | Path | bytes | Image.Image) -> NDArray[np.float32]:
        """Return the unit vector, float32 [D], of a file, of a file's bytes or of a PIL image.

        Raises OSError, Unprocessable for what is not a picture, Unavailable, Misconfigured.
        """
        picture = decode(_bytes(image), self.info.size, DecodeSettings())
        vector: NDArray[np.float32] = self._encoder.submit(picture.pixels[np.newaxis]).result().embeddings[0]
        return vector

    def encode_views(
        self, image: str | Path | bytes | Image.Image, settings: DecodeSettings, *, within: bool = True
    ) -> EncodedViews:
        """Encode the whole picture and the pictures within it, as of a collage; the whole comes first.

        As in the service, it is the only view if the settings say so, or if the model has no verification rule. Unless
        `within`, it is too. Raises what calling the encoder raises.
        """
        picture = decode(_bytes(image), self.info.size, settings)
        within = within and settings.frames and self.info.verification_rule is not None
        [views] = make_views([picture], settings.min_detail, within)
        parts = [self._encoder.submit(view.pixels[np.newaxis]) for view in views]
        encoded = Encoded.concatenate([part.result() for part in parts])
        return EncodedViews.of([view.region for view in views], [view.thumbnail for view in views], encoded)

    def close(self) -> None:
        """Disconnect."""
        self._encoder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _bytes(image: str | Path | bytes | Image.Image) -> bytes:
    """Return the bytes of an image file that holds the picture."""
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
