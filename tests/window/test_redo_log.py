"""The writes of batches to a window that may be lost are logged, and not without end."""

from typing import Any, cast
from unittest.mock import MagicMock

import pytest

from consumer.errors import Unavailable
from consumer.window import redo_log
from consumer.window.loss_guard import MarkerReading
from consumer.window.redo_log import BatchWrites, RedoLog


def test_a_recovery_that_does_not_come_stops_the_flow_before_it_fills_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(redo_log, "MAX_BATCHES", 3)
    window = MagicMock()
    window.loss_guard.recovers, window.loss_guard.last_reading = True, MarkerReading(None, 0.0)
    log = RedoLog(cast(Any, window))
    for _ in range(3):
        log.replay()
        log.record(BatchWrites(), lambda: None)
    with pytest.raises(Unavailable, match="being rebuilt"):
        log.replay()
    window.loss_guard.last_reading = MarkerReading(b"rebuilt", 1.0)
    log.replay()
