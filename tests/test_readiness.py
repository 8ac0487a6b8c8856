"""What `/readyz` says of both services while a window is read."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from consumer.http.server import HttpService
from consumer.service import Service

READING = {"window": "the window of tenant 't' is being read: 1 of 2 rows"}


def consumer(window: object) -> Service:
    """The consumer with this window, where all else is well."""
    service = Service.__new__(Service)
    well = SimpleNamespace(check=lambda: None, progress=SimpleNamespace(waiting_for={}), problems={})
    service._parts = cast(
        Any, SimpleNamespace(pipeline=well, consumer=well, encoder=well, moderation=well, window=window)
    )
    service._redis = cast(Any, SimpleNamespace(ping=lambda: None))
    return service


def http(window: object) -> HttpService:
    """`seenit serve` with this window, where all else is well."""
    service = HttpService.__new__(HttpService)
    service._parts = cast(Any, SimpleNamespace(backends=SimpleNamespace(window=window)))
    service._triton = cast(Any, SimpleNamespace(check=lambda: None))
    service._redis = cast(Any, SimpleNamespace(ping=lambda: None))
    return service


@pytest.mark.parametrize("service_with", [consumer, http])
@pytest.mark.parametrize("problems", [{}, READING])
def test_a_service_that_reads_a_window_is_not_ready(service_with: Any, problems: dict[str, str]) -> None:
    window = SimpleNamespace(problems=problems, loss_guard=SimpleNamespace(recovers=False))
    assert service_with(window)._ready() == problems
