"""The soak's judgement lets noise pass, and no growth."""

import numpy as np
import pytest

from tests.benchmarks.soak import SAMPLE_EVERY_S, Sample, judge

COUNT = 360  # half an hour


def samples(**growth_an_hour: float) -> list[Sample]:
    """Make a run that warms up for three minutes and has the noise of a real one; the named values grow in addition."""
    random = np.random.default_rng(0)
    made = []
    for number in range(COUNT):
        at_s = number * SAMPLE_EVERY_S
        grown = {name: rise * at_s / 3600 for name, rise in growth_an_hour.items()}
        made.append(
            Sample(
                at_s,
                300 - 80 * max(0.0, 1 - at_s / 180) + random.normal(0, 6) + grown.get("rss_mib", 0),
                round(43 + random.exponential(2) + grown.get("file_descriptors", 0)),
                round(52 + random.normal(0, 0.6) + grown.get("threads", 0)),
                20 + grown.get("redis_mib", 0),
                20_000,
                max(0.0, 100 + random.normal(0, 20) + grown.get("uploads_per_s", 0)),
            )
        )
    return made


def test_ups_and_downs_are_flat() -> None:
    assert judge(samples())


@pytest.mark.parametrize(("name", "an_hour"), [("rss_mib", 90), ("file_descriptors", 15), ("threads", 8)])
def test_what_grows_is_found(name: str, an_hour: float) -> None:
    assert not judge(samples(**{name: an_hour}))


def test_a_standstill_is_not_flat() -> None:
    assert not judge(samples(uploads_per_s=-250))
