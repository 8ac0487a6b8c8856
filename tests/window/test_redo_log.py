"""What batches did to a window that may be lost is kept, and not without end."""

from typing import Any, cast
from unittest.mock import MagicMock

import pytest

from consumer.errors import Unavailable
from consumer.window import redo_log as unsettled
from consumer.window.loss_guard import Seen
from consumer.window.redo_log import Account, Unsettled


def test_a_rebuild_that_does_not_come_stops_the_flow_before_it_fills_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(unsettled, "MOST", 3)
    window = MagicMock()
    window.guard.rebuilds, window.guard.seen = True, Seen(None, 0.0)
    kept = Unsettled(cast(Any, window))
    for _ in range(3):
        kept.settle()
        kept.open(Account())
    with pytest.raises(Unavailable, match="being rebuilt"):
        kept.settle()
    window.guard.seen = Seen(b"rebuilt", 1.0)
    kept.settle()
