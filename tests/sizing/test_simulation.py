"""The simulation agrees with what can be computed, and with plans up to 100,000 uploads a second."""

import math
from dataclasses import replace

import numpy as np
import pytest

from consumer.sizing.costs import load_costs
from consumer.sizing.demand import Workload
from consumer.sizing.plan import Limits, Plan, divide
from consumer.sizing.simulation import Setup, independent_arrivals, setup_of, simulate, simulate_plan

COSTS = load_costs()
ONE = Setup(processes=1, cores=64, instances=64, redis_servers=1, picture_bytes=109e3)
ALL_AT_ONCE = [np.zeros(3200)]
UPLOADS_EACH = 640  # 20 batches


def test_a_process_with_everything_in_plenty_is_bound_by_the_lock_of_python() -> None:
    costs = COSTS._replace(commit_ms=0, append_us=0, picture_us=0, clients_us_per_kb=0, decode_us=0, decode_us_per_kb=0)
    outcome = simulate(replace(ONE, batches_in_flight=16), costs, ALL_AT_ONCE)
    assert outcome.rate == pytest.approx(1e6 / costs.python_us(), rel=0.05)


def test_one_batch_in_flight_takes_as_long_as_its_steps_together() -> None:
    costs = COSTS._replace(clients_us_per_kb=0)
    one_instance = replace(ONE, cores=1, batches_in_flight=1)
    us = 32 * (costs.python_us() + costs.decoding_us(109e3) + costs.views * costs.picture_us + costs.append_us)
    outcome = simulate(one_instance, costs, ALL_AT_ONCE)
    assert outcome.rate == pytest.approx(32e6 / (us + 1e3 * costs.commit_ms), rel=0.001)


def test_shared_cores_are_bound_by_what_all_parts_take_of_them() -> None:
    shared = replace(ONE, cores=2, instances=2, shared_cores=True, beside_us=500)
    outcome = simulate(shared, COSTS, ALL_AT_ONCE)
    us = COSTS.python_us() + COSTS.decoding_us(109e3) + COSTS.clients_us(109e3) + 500
    us += COSTS.views * COSTS.picture_us + COSTS.append_us
    assert outcome.rate == pytest.approx(2e6 / us, rel=0.1)
    assert simulate(replace(shared, speed=0.5), COSTS, ALL_AT_ONCE).rate == pytest.approx(outcome.rate / 2, rel=0.02)


def test_at_a_low_rate_an_upload_waits_for_nobody() -> None:
    outcome = simulate(ONE, COSTS, independent_arrivals(1, 1, 200))
    us = COSTS.python_us() + COSTS.decoding_us(109e3) + COSTS.clients_us(109e3)
    assert COSTS.views * COSTS.picture_us < outcome.p50_ms * 1e3 < us + COSTS.views * COSTS.picture_us + 10_000


@pytest.mark.parametrize("gpu", [None, "h200"])
@pytest.mark.parametrize("rate", [1_000, 6_000])
def test_what_is_planned_takes_the_load_and_half_of_it_does_not(rate: float, gpu: str | None) -> None:
    costs = load_costs(gpu)
    _, plan = divide(Workload(rate, 600, 150e3, 1_000, gpu), costs, Limits())
    assert plan.suffices

    def most(plan: Plan) -> float:
        processes = plan.counts.processes
        return simulate(setup_of(plan, costs), costs, [np.zeros(UPLOADS_EACH)] * processes).rate

    assert most(plan) > plan.workload.rate
    counts = plan.counts
    half = replace(
        counts,
        processes=counts.processes // 2,
        consumer_cores=counts.consumer_cores / 2,
        triton_servers=math.ceil(counts.triton_servers / 2),
    )
    assert most(replace(plan, counts=half)) < plan.workload.rate


def test_a_plan_for_100_000_uploads_a_second_takes_them() -> None:
    costs = load_costs("h200")
    groups, plan = divide(Workload(100_000, 600, 150e3, 1_000, "h200"), costs, Limits())
    processes = plan.counts.processes
    outcome = simulate(setup_of(plan, costs), costs, [np.zeros(UPLOADS_EACH // 2)] * processes)
    assert groups * outcome.rate > 100_000


def test_waiting_grows_with_the_load() -> None:
    costs = load_costs("h200")
    _, plan = divide(Workload(2_000, 600, 150e3, 100, "h200"), costs, Limits())
    rates = (500, 2_000, 2_600)
    waits_ms = [
        simulate_plan(replace(plan, workload=replace(plan.workload, rate=rate)), costs, 4_000).p99_ms for rate in rates
    ]
    assert waits_ms == sorted(waits_ms)


@pytest.mark.parametrize(("match_us", "measured"), [(844, 257), (371, 284)], ids=["second look", "no second look"])
def test_what_a_machine_of_two_cores_was_measured_to_do_is_predicted(match_us: float, measured: float) -> None:
    """The two rows of version 7 in tests/benchmarks/README.md, an idle machine; what brokers took there is not known.

    `bench_sizing` measures all costs and both rates in one run.
    """
    machine = replace(ONE, cores=2, instances=2, shared_cores=True)
    outcome = simulate(machine, COSTS._replace(match_us=match_us), [np.zeros(800)])
    assert outcome.rate == pytest.approx(measured, rel=0.15)
