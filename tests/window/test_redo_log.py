"""What batches did to a window that may be lost is kept, and not without end."""

from typing import Any, cast
from unittest.mock import MagicMock

import pytest

from consumer.errors import Unavailable
from consumer.window import redo_log as unsettled
from consumer.window.loss_guard import MarkerReading
from consumer.window.redo_log import BatchWrites, RedoLog


def test_a_rebuild_that_does_not_come_stops_the_flow_before_it_fills_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(unsettled, "MAX_BATCHES", 3)
    window = MagicMock()
    window.loss_guard.recovers, window.loss_guard.last_reading = True, MarkerReading(None, 0.0)
    kept = RedoLog(cast(Any, window))
    for _ in range(3):
        kept.replay()
        kept.record(BatchWrites())
    with pytest.raises(Unavailable, match="being rebuilt"):
        kept.replay()
    window.loss_guard.last_reading = MarkerReading(b"rebuilt", 1.0)
    kept.replay()
