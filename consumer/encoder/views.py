"""What was encoded of a picture, view by view: the whole first, then the pictures within it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from consumer.encoder.contract import Encoded, ModelInfo
from consumer.images.decode import Picture
from consumer.images.region import Region
from consumer.images.regions import View, make_views
from consumer.images.thumbnail import THUMBNAIL_BYTES, Thumbnail
from consumer.settings import DecodeSettings


class Features(NamedTuple):
    """What is compared of a picture: its local features, int8 [P, C], and its thumbnail."""

    patches: NDArray[np.int8]
    thumbnail: Thumbnail

    def to_bytes(self) -> bytes:
        """Pack the features as the window stores them."""
        return self.patches.tobytes() + self.thumbnail.to_bytes()

    def unpacked(self) -> "Features":
        """Return these features, which are unpacked."""
        return self


class PackedFeatures(NamedTuple):
    """Features as the window stores them, whose thumbnail is packed: of most candidates it is not needed."""

    patches: NDArray[np.int8]
    thumbnail_bytes: bytes

    @classmethod
    def of(cls, data: bytes, shape: tuple[int, int]) -> "PackedFeatures | None":
        """Read what `Features.to_bytes` made of local features of `shape` (P, C); None for data of another length."""
        count, channels = shape
        size = count * channels
        if len(data) != size + THUMBNAIL_BYTES:
            return None
        return cls(np.frombuffer(data, np.int8, size).reshape(shape), data[size:])

    def unpacked(self) -> Features:
        """Unpack the thumbnail."""
        return Features(self.patches, Thumbnail.from_bytes(self.thumbnail_bytes))


class EncodedViews(NamedTuple):
    """N views of a picture: where they are, their unit vectors, float32 [N, D], and what a second look compares.

    `features` is None for a model without local features.
    """

    regions: Sequence[Region]
    embeddings: NDArray[np.float32]
    features: Sequence[Features] | None

    @classmethod
    def of(cls, regions: Sequence[Region], thumbnails: Sequence[Thumbnail], encoded: Encoded) -> "EncodedViews":
        """Put together what is known of each view, in order."""
        patches = encoded.patches
        features = None if patches is None else [Features(*pair) for pair in zip(patches, thumbnails, strict=True)]
        return cls(regions, encoded.embeddings, features)


def choose_views(pictures: Sequence[Picture], settings: DecodeSettings, model: ModelInfo) -> list[list[View]]:
    """Choose what to encode of each picture: nothing if it shows too little, else all of it and the regions in it."""
    with_regions = settings.frames and model.verification_rule is not None
    detailed = [picture for picture in pictures if picture.detail >= settings.min_detail]
    views = iter(make_views(detailed, settings.min_detail, with_regions))
    return [next(views) if picture.detail >= settings.min_detail else [] for picture in pictures]
