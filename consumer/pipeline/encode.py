"""The second stage: choose what to encode of each picture, and send it to the encoder."""

import time
from collections.abc import Callable
from concurrent.futures import Future

import numpy as np
from numpy.typing import NDArray

from consumer.encoder.contract import Encoded, Encoder
from consumer.encoder.views import choose_views
from consumer.errors import Unavailable, Unprocessable
from consumer.images.decode import Picture
from consumer.images.regions import View
from consumer.pipeline.batch import Batch, Item
from consumer.settings import DecodeSettings
from consumer.telemetry.metrics import Metrics


class Encode:
    """Encodes uploads: `run` sends the requests of a batch, `await_encoded` takes their results over."""

    def __init__(
        self, settings: DecodeSettings, encoder: Encoder, metrics: Metrics, read_picture: Callable[[Item], Picture]
    ) -> None:
        """`read_picture` gives the decoded picture of an upload whose exact match turned out to be gone."""
        self._settings = settings
        self._encoder = encoder
        self._metrics = metrics
        self._read_picture = read_picture

    def run(self, batch: Batch) -> None:
        """Await the decoded pictures and send them to the encoder, in requests of the size that the model takes."""
        decoded = self._await_decoded(batch)
        views: list[View] = []
        views_of = dict(zip(decoded, self._make_views(list(decoded.values())), strict=True))
        ranges: dict[Future[Picture], range] = {}
        for picture, picture_views in views_of.items():
            ranges[picture] = range(len(views), len(views) + len(picture_views))
            views += picture_views
        for item in batch.uploads():
            decoding = item.content.decoding
            if decoding is not None and decoding in views_of:
                item.content.pdq = decoded[decoding].pdq
                item.encoding.view_range = ranges[decoding]
                _note_views(item, views_of[decoding])
                item.content.decoding = None  # the pixels are in the views now, as long as they are needed
        batch.requests = self._split(views)
        batch.inferences = [self._infer(batch, number) for number in range(len(batch.requests))]

    def await_encoded(self, batch: Batch) -> None:
        """Give each item its results. Sends again what the encoder did not answer, and raises Unavailable then."""
        away: Unavailable | None = None
        results: list[Encoded] = []
        for number, inference in enumerate(batch.inferences):
            try:
                results.append(inference.result())
            except Unavailable as error:
                away = error
                batch.inferences[number] = self._infer(batch, number)
        if away is not None:
            raise away
        if results:
            encoded = Encoded.concatenate(results)
            for item in batch.uploads():
                if item.view_range:
                    item.encoding.encoded = encoded[item.view_range.start : item.view_range.stop]
            batch.requests, batch.inferences = [], []

    def encode_again(self, item: Item) -> None:
        """Decode and encode one upload by itself. Raises Unprocessable or Unavailable."""
        picture = self._read_picture(item)
        item.content.pdq = picture.pdq
        [views] = self._make_views([picture])
        if views:
            inferences = [self._encoder.submit(_stack(request)) for request in self._split(views)]
            item.encoding.encoded = Encoded.concatenate([inference.result() for inference in inferences])
        _note_views(item, views)

    def _await_decoded(self, batch: Batch) -> dict[Future[Picture], Picture]:
        """The pictures of the batch that have to be encoded; items whose picture cannot be decoded fail."""
        decoded: dict[Future[Picture], Picture] = {}
        for item in batch.uploads():
            content = item.content
            if content.decoding is None or content.takes_no_inference:
                continue
            try:
                decoded[content.decoding] = content.decoding.result()
            except Unprocessable as error:
                if content.exact_match is None:  # an exact copy is answered all the same
                    item.failure = error
            finally:
                content.data = b""
        return decoded

    def _make_views(self, pictures: list[Picture]) -> list[list[View]]:
        return choose_views(pictures, self._settings, self._encoder.info)

    def _split(self, views: list[View]) -> list[list[View]]:
        size = self._encoder.info.max_batch_size
        return [views[start : start + size] for start in range(0, len(views), size)]

    def _infer(self, batch: Batch, number: int) -> Future[Encoded]:
        began_s, size = time.perf_counter(), self._encoder.info.max_batch_size
        inference = self._encoder.submit(_stack(batch.requests[number]))
        batch.trace.follow("infer", inference, range(number * size, (number + 1) * size))
        seconds = self._metrics.step_seconds.labels("infer")
        inference.add_done_callback(lambda _: seconds.observe(time.perf_counter() - began_s))
        return inference


def _note_views(item: Item, views: list[View]) -> None:
    """Note what is encoded of an upload, and what a second look will need beside the encoder's results."""
    item.encoding.regions = [view.region for view in views]
    item.encoding.thumbnails = [view.thumbnail for view in views]


def _stack(views: list[View]) -> NDArray[np.uint8]:
    return np.stack([view.pixels for view in views])
