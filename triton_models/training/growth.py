"""How the share of different pictures that are called duplicates grows with the window, and where that leads.

The share is measured with windows of several sizes, drawn from the pictures there are. Beyond the largest it is
extrapolated in two ways. The growth goes on as measured: a power of the size, fitted by least squares to the
logarithms. Or the share grows in proportion to the size, which is the most that it can do: with each picture added to a
window, the chance that it is the first to be taken for an upload can only fall. Both are for pictures of the same
mixture.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from triton_models.training.uploads import Floats, Uploads
from triton_models.training.verdicts import Judge, judge_uploads

SMALLEST = 250
LARGEST_SHARE = 0.8  # of the pictures, so that some are left as uploads
MOST_SIZES = 5
WINDOWS, UPLOADS = 6, 1500  # random windows of each size, and pictures outside that are compared with each
RESAMPLES = 500
FAR_SIZES = (100_000, 1_000_000)


class Windows(NamedTuple):
    """Of pictures compared with random windows of S sizes: which `picture` [M], of which size, and its best score."""

    sizes: tuple[int, ...]
    size_number: NDArray[np.int64]
    picture: NDArray[np.int64]
    score: Floats

    def shares(self, min_score: float, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Compute the share of pictures that is called duplicates by size, [S], each counted by its weight."""
        weight = weights[self.picture]
        called = np.bincount(self.size_number, weight * (self.score >= min_score), len(self.sizes))
        return called / np.maximum(np.bincount(self.size_number, weight, len(self.sizes)), 1e-9)


class Estimate(NamedTuple):
    """A share with the interval that holds it in 95% of resamplings by picture."""

    share: float
    low: float
    high: float


class Growth(NamedTuple):
    """Shares by size of the window, and at the sizes beyond: as measured growth goes on, and at most."""

    measured: dict[int, Estimate]
    exponent: Estimate
    continued: dict[int, Estimate]
    at_most: dict[int, Estimate]


def window_sizes(pictures: int) -> tuple[int, ...]:
    """List the sizes that so many pictures allow, each twice the one before."""
    sizes = [SMALLEST * 2**power for power in range(12) if SMALLEST * 2**power <= LARGEST_SHARE * pictures]
    return tuple(sizes[-MOST_SIZES:]) or (max(1, int(LARGEST_SHARE * pictures)),)


def judge_windows(stream: Uploads, judge: Judge, seed: int) -> Windows:
    """Compare pictures of a stream with random windows of other pictures of it."""
    rng, count = np.random.default_rng(seed), len(stream.wholes.vectors)
    sizes = window_sizes(count)
    parts = []
    for number, size in enumerate(sizes):
        for _ in range(WINDOWS):
            order = rng.permutation(count)
            uploads = np.sort(order[size : size + UPLOADS])
            looked = judge_uploads(stream.take(uploads), stream.wholes.take(np.sort(order[:size])), judge)
            parts.append((np.full(len(uploads), number), uploads, looked.best(len(uploads))[0]))
    return Windows(sizes, *(np.concatenate(column) for column in zip(*parts, strict=True)))


def estimate_growth(windows: Windows, min_score: float, pictures: int, seed: int = 0) -> Growth:
    """Estimate how the share at a least score grows, with intervals resampled over the pictures."""
    rng = np.random.default_rng(seed)
    weights = [
        np.ones(pictures),
        *(rng.multinomial(pictures, np.full(pictures, 1 / pictures)) for _ in range(RESAMPLES)),
    ]
    shares = np.stack([windows.shares(min_score, weight.astype(float)) for weight in weights])
    # Half a picture where there was none, so that there is a logarithm.
    least = 0.5 / np.bincount(windows.size_number, minlength=len(windows.sizes))
    logs, log_sizes = np.log(np.maximum(shares, least)), np.log(windows.sizes)
    if len(windows.sizes) > 1:
        slope, start = np.polyfit(log_sizes, logs.T, 1)
    else:
        slope, start = np.ones(len(logs)), logs[:, 0] - log_sizes[0]
    held = np.clip(slope, 0, 1)
    middle = log_sizes.mean()
    level = start + slope * middle  # in the middle of what was measured, whatever the slope is held to
    largest = np.maximum(shares[:, -1], least[-1])
    at_most = {size: np.minimum(1, largest * size / windows.sizes[-1]) for size in FAR_SIZES}
    continued = {size: np.exp(level + held * (np.log(size) - middle)) for size in FAR_SIZES}
    return Growth(
        {size: _measured(windows, number, shares[:, number]) for number, size in enumerate(windows.sizes)},
        _estimate(slope),
        {size: _estimate(np.minimum(continued[size], at_most[size])) for size in FAR_SIZES},
        {size: _estimate(at_most[size]) for size in FAR_SIZES},
    )


def _measured(windows: Windows, number: int, shares: NDArray[np.float64]) -> Estimate:
    """Estimate the share at a measured size. Where no picture was called a duplicate, resampling says nothing."""
    estimate = _estimate(shares)
    pictures = len(np.unique(windows.picture[windows.size_number == number]))
    return estimate if shares[0] > 0 else Estimate(0.0, 0.0, wilson_interval(0, pictures)[1])


def _estimate(values: NDArray[np.float64]) -> Estimate:
    """Take the first value, of all pictures, and the interval of the others."""
    low, high = np.quantile(values[1:], (0.025, 0.975))
    return Estimate(float(values[0]), float(low), float(high))


def wilson_interval(count: int, total: int) -> tuple[float, float]:
    """Compute the 95% interval of a share, `count` of `total` (Wilson, 1927)."""
    z, share = 1.96, count / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * np.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))
