"""The bytes of a picture to what is compared of it: decoded in a pool of threads, encoded together with others."""

import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import sha256

import numpy as np

from consumer.encoder.contract import Encoded, Encoder
from consumer.encoder.views import EncodedViews, choose_views
from consumer.http.batching import Batcher
from consumer.images.decode import Picture, decode
from consumer.images.pdq import pdq_hash
from consumer.settings import DecodeSettings

# Batches under way at once: one is at the encoder while the next is prepared.
BATCHES = 2


class PictureEncoder:
    """Decodes and encodes the pictures of many requests at once. Thread-safe."""

    def __init__(self, settings: DecodeSettings, encoder: Encoder) -> None:
        """Does not ask the encoder for its model before the first picture."""
        self._settings = settings
        self._encoder = encoder
        self._decoders = ThreadPoolExecutor(settings.threads or os.cpu_count() or 1, "decode")
        self._batcher = Batcher("encode", self._encode, 32, BATCHES)

    def decode(self, data: bytes, content_type: str | None) -> Future[Picture]:
        """Decode a picture as the consumer does. The future may fail with Unprocessable or Unavailable."""
        return self._decoders.submit(lambda: decode(data, self._encoder.info.size, self._settings, content_type))

    def hash_pdq(self, data: bytes) -> Future[str]:
        """The PDQ hash of a picture that was decoded before: made in the same threads, since it decodes once more."""
        return self._decoders.submit(pdq_hash, data)

    def encode(self, picture: Picture) -> Future[EncodedViews | None]:
        """Encode a picture, and the pictures within it. The future may fail with Unavailable."""
        return self._batcher.ask(picture)

    def close(self) -> None:
        """Answer what waits, and take on nothing more."""
        self._decoders.shutdown(cancel_futures=True)
        self._batcher.close()

    def _encode(self, pictures: Sequence[Picture]) -> list[EncodedViews | None]:
        model = self._encoder.info
        views_of = choose_views(pictures, self._settings, model)
        views = [view for of_picture in views_of for view in of_picture]
        requests = [
            self._encoder.submit(np.stack([view.pixels for view in views[start : start + model.max_batch_size]]))
            for start in range(0, len(views), model.max_batch_size)
        ]
        if not requests:
            return [None] * len(pictures)
        encoded, start = Encoded.concatenate([request.result() for request in requests]), 0
        results: list[EncodedViews | None] = []
        for of_picture in views_of:
            rows = encoded[start : start + len(of_picture)]
            start += len(of_picture)
            regions, thumbnails = [view.region for view in of_picture], [view.thumbnail for view in of_picture]
            results.append(EncodedViews.of(regions, thumbnails, rows) if of_picture else None)
        return results


def hash_content(data: bytes) -> bytes:
    """Hash the bytes of a picture, as the window does."""
    return sha256(data).digest()
