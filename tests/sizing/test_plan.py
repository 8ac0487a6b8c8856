"""What a load needs: more of everything for more uploads, and the part that is too small is named."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.errors import Misconfigured
from consumer.sizing.costs import Costs, load_costs, read_costs_file
from consumer.sizing.demand import Workload
from consumer.sizing.plan import PLANNED_LOAD, Counts, Limits, Plan, divide, make_plan

COSTS = load_costs()
FREE_SEARCH = COSTS._replace(exact_search_us_per_kilorow=0, large_search_us_per_kilorow=0, picture_us=100)
LARGE = Limits(memory_bytes=1e13, network_bytes_per_s=1e12)
WORKLOADS = st.builds(
    Workload,
    rate=st.floats(0.1, 100_000),
    window_s=st.floats(60, 90 * 86_400),
    picture_bytes=st.floats(1e3, 5e6),
    tenants=st.integers(1, 10_000),
    gpu=st.sampled_from([None, "h200"]),
)


def needs(plan: Plan) -> dict[str, float]:
    """Everything that the plan asks for."""
    counts = plan.counts
    return {
        "processes": counts.processes,
        "consumer cores": counts.consumer_cores,
        "triton servers": counts.triton_servers,
        "redis servers": counts.redis_servers,
        "memory of all processes": counts.processes * plan.process_bytes,
        "redis memory": plan.redis_bytes,
        "network of pictures": plan.pictures_bytes_per_s,
        "network of the encoder": plan.encoder_bytes_per_s,
        "network of redis": plan.redis_bytes_per_s,
    }


@given(WORKLOADS, st.sampled_from(["rate", "window_s", "picture_bytes"]))
@settings(max_examples=100, deadline=None)
def test_twice_as_much_never_needs_less(workload: Workload, what: str) -> None:
    twice = replace(workload, **{what: 2 * getattr(workload, what)})
    less, more = (needs(make_plan(each, load_costs(each.gpu), Limits())) for each in (workload, twice))
    assert {name for name in less if more[name] < less[name] * (1 - 1e-9)} == set()


@given(WORKLOADS)
@settings(max_examples=50, deadline=None)
def test_a_plan_that_suffices_leaves_room_in_all_that_can_be_multiplied(workload: Workload) -> None:
    plan = make_plan(workload, load_costs(workload.gpu), Limits())
    if plan.suffices:
        multiplied = [part for part in plan.parts if part.name in ("cores of consumers", "encoder")]
        assert all(part.load <= PLANNED_LOAD + 1e-9 for part in multiplied)
        assert plan.bottleneck.carries >= workload.rate * (1 - 1e-6)


@pytest.mark.parametrize("gpu", [None, "h200"])
def test_each_part_is_full_at_the_rate_that_it_is_said_to_carry(gpu: str | None) -> None:
    workload, costs = Workload(5_000, 3600, 150e3, 50, gpu), load_costs(gpu)
    plan = make_plan(workload, costs, Limits())
    for part in plan.parts:
        there = make_plan(replace(workload, rate=part.carries), costs, Limits(), plan.counts)
        assert next(each.load for each in there.parts if each.name == part.name) == pytest.approx(1, abs=1e-3)


AMPLE = Counts(processes=20, consumer_cores=100, triton_servers=100, redis_servers=20)
LOAD = Workload(1_000, 7200, 300e3, 20)


@pytest.mark.parametrize(
    ("name", "counts", "costs", "limits"),
    [
        ("cores of consumers", replace(AMPLE, consumer_cores=3), COSTS, LARGE),
        ("Python in a consumer", replace(AMPLE, processes=1), FREE_SEARCH, LARGE),
        ("matching in a consumer", AMPLE, COSTS._replace(large_search_us_per_kilorow=100), LARGE),
        ("memory of a consumer", AMPLE, COSTS, replace(LARGE, memory_bytes=2e9)),
        ("network of a consumer", replace(AMPLE, processes=2), COSTS, replace(LARGE, network_bytes_per_s=1e8)),
        ("batches in flight of a consumer", replace(AMPLE, processes=4), COSTS._replace(commit_ms=1000), LARGE),
        ("encoder", replace(AMPLE, triton_servers=1), COSTS, LARGE),
        (
            "network of the encoder",
            replace(AMPLE, triton_servers=1),
            COSTS._replace(picture_us=1, view_bytes=3e6),
            replace(LARGE, network_bytes_per_s=1e9),
        ),
        ("processor of Redis", replace(AMPLE, redis_servers=1), COSTS._replace(append_us=2000), LARGE),
        ("memory of Redis", replace(AMPLE, redis_servers=1), COSTS, replace(LARGE, memory_bytes=1e10)),
        (
            "network of Redis",
            replace(AMPLE, redis_servers=1),
            COSTS._replace(append_bytes=1e6),
            replace(LARGE, network_bytes_per_s=5e8),
        ),
    ],
)
def test_the_part_that_was_made_small_is_the_bottleneck(
    name: str, counts: Counts, costs: Costs, limits: Limits
) -> None:
    assert make_plan(LOAD, COSTS, LARGE, AMPLE).suffices
    plan = make_plan(LOAD, costs, limits, counts)
    assert (plan.bottleneck.name, plan.suffices) == (name, False)
    assert plan.bottleneck.load > 1


def test_tenants_are_divided_into_as_few_groups_as_it_takes() -> None:
    workload = Workload(100_000, 3600, 150e3, 2_000, "h200")
    costs = load_costs("h200")
    assert not make_plan(workload, costs, Limits()).suffices
    groups, plan = divide(workload, costs, Limits())
    assert groups > 1
    assert plan.suffices
    assert plan.workload.rate * groups == pytest.approx(100_000)
    fewer = replace(workload, rate=100_000 / (groups - 1), tenants=-(-2_000 // (groups - 1)))
    assert max(part.load for part in make_plan(fewer, costs, Limits()).parts) > PLANNED_LOAD


def test_where_no_division_helps_there_is_one_group_which_does_not_suffice() -> None:
    groups, plan = divide(Workload(100_000, 86_400, 150e3, 1), COSTS, Limits())
    assert (groups, plan.suffices) == (1, False)


def test_every_cost_names_a_measurement_that_says_commit_and_machine() -> None:
    file = read_costs_file()
    costs = [*file.costs.values(), *(cost for encoder in file.encoders.values() for cost in encoder.values())]
    assert {cost.measured for cost in costs} == set(file.measurements)
    assert all(each.how and each.commit and each.machine for each in file.measurements.values())
    assert all(cost.value >= 0 for cost in costs)


@pytest.mark.parametrize("gpu", ["", "cpu", "a100", "../h200"])
def test_a_gpu_of_which_nothing_was_measured_is_refused(gpu: str) -> None:
    with pytest.raises(Misconfigured, match="known: h200"):
        load_costs(gpu)
