"""Slices on a cluster of three Redis 8: spread over its slots, and filled again where a node was lost."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from consumer.window.window import RedisWindow
from tests.window.examples import NAMES, near, upload
from tests.window.node_loss import Node, cluster, empty, open_window, run_seed, short_slices


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Node]]:
    with cluster(Path(tmp_path_factory.mktemp("cluster"))) as nodes:
        yield nodes


@pytest.fixture(autouse=True)
def _many_slices(nodes: list[Node]) -> Iterator[None]:
    empty(nodes)
    with short_slices():
        yield


def test_slices_of_all_tenants_spread_over_the_nodes(nodes: list[Node]) -> None:
    one: RedisWindow = open_window(nodes, timeout_s=20)
    other: RedisWindow = open_window(nodes, timeout_s=20)
    one.append([upload(f"{n}", n, tenant=name) for name in NAMES for n in range(3)])
    copies = other.append([upload(f"copy-{n}", n, 1, name) for name in NAMES for n in range(3)])
    assert [near(result) for result in copies] == [[f"{n}"] for _ in NAMES for n in range(3)]
    assert all(node.has_slices() for node in nodes)
    assert [other.delete(name, "1").records for name in NAMES] == [1] * len(NAMES)
    again = one.append([upload(f"again-{n}", n, 2, name) for name in NAMES for n in range(2)])
    assert [near(result) for result in again] == [[f"{n}", f"copy-{n}"][n:] for _ in NAMES for n in range(2)]


@pytest.mark.parametrize("seed", [1])
def test_no_copy_is_missed_while_nodes_are_killed(nodes: list[Node], seed: int) -> None:
    assert run_seed(seed, nodes) >= 1
