"""An encoder without a model."""

from concurrent.futures import Future
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from consumer.encoder.contract import Encoded, ModelInfo
from tests.fakes.rule import make_rule


class FakeEncoder:
    """Gives each picture of a request another unit vector. `faults` has the error of each request to come, or None."""

    info = ModelInfo(name="m", version="1", size=32, dim=4, threshold_l2=0.5, max_batch_size=4, patches=None)

    def __init__(self) -> None:
        self.faults: list[Exception | None] = []
        self.sizes: list[int] = []

    def submit(self, pixels: NDArray[np.uint8]) -> Future[Encoded]:
        self.sizes.append(len(pixels))
        future: Future[Encoded] = Future()
        fault = self.faults.pop(0) if self.faults else None
        if len(pixels) > self.info.max_batch_size:
            fault = ValueError("too many at once")
        if fault is not None:
            future.set_exception(fault)
        else:
            future.set_result(Encoded(np.eye(4, dtype=np.float32)[np.arange(len(pixels)) % 4], None))
        return future


class FakeEncoderWithFeatures(FakeEncoder):
    """Gives the mean colour of each picture as its vector, and local features, so that regions are encoded too."""

    info = replace(FakeEncoder.info, patches=(2, 3), verification_rule=make_rule(1.0))

    def submit(self, pixels: NDArray[np.uint8]) -> Future[Encoded]:
        future = super().submit(pixels)
        if future.exception() is None:
            future = Future()
            future.set_result(Encoded(colours(pixels), np.ones((len(pixels), 2, 3), np.int8)))
        return future


def colours(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Compute the mean colours of pictures, uint8 [N, side, side, 3], as unit vectors, float32 [N, 4]."""
    means = np.concatenate([pixels.mean(axis=(1, 2)), np.full((len(pixels), 1), 40.0)], axis=1)
    return (means / np.linalg.norm(means, axis=1, keepdims=True)).astype(np.float32)
