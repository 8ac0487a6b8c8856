"""What `bench_sizing` makes of its measurements."""

import pytest

from consumer.sizing.costs import load_costs
from tests.benchmarks.bench_sizing import Run, calibrated


def test_measured_costs_replace_the_shipped_ones() -> None:
    steps_us = {"poll": 10, "look_up": 20, "decode": 3000, "encode": 40, "match": 50, "publish": 60}
    parts_us = {"consumer": 4000, "triton": 2100, "redis": 70, "beside": 500}
    runs = [Run(100, {name: each * factor for name, each in (steps_us | parts_us).items()}, 0) for factor in (1, 1, 9)]
    costs, beside_us = calibrated(runs, 109e3)
    assert (costs.python_us(), costs.decoding_us(109e3), costs.append_us, beside_us) == (180, 3000, 70, 500)
    assert costs.clients_us(109e3) == pytest.approx(4000 - 180 - 3000)
    assert costs.views * costs.inference_us(1) == pytest.approx(2100)
    assert costs.commit_ms == load_costs().commit_ms
