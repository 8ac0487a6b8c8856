"""`seenit serve` as a process: it does not go on when a part of it has ended."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from redis import Redis

from consumer.cli.preflight.redis import TRIAL_MODEL
from consumer.http import server
from consumer.http.server import HttpService
from consumer.http.verdicts import is_gone
from consumer.settings import Settings, WindowSettings
from consumer.telemetry.metrics import HttpMetrics
from consumer.window.window import RedisWindow
from tests.http.pictures import PHOTO, jpeg
from tests.service_fixtures import Service


@pytest.mark.parametrize("work", ["_connect", "_observe"])
def test_a_thread_that_fails_ends_the_process(uploads: Service, monkeypatch: pytest.MonkeyPatch, work: str) -> None:
    def fail(_: HttpService) -> None:
        raise RuntimeError("nobody expected this")

    monkeypatch.setattr(HttpService, work, fail)
    monkeypatch.setattr(server, "HttpMetrics", lambda: HttpMetrics(CollectorRegistry()))
    for name, value in uploads.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SEENIT_SERVE_PORT", "0")
    monkeypatch.setenv("SEENIT_HTTP_PORT", "0")
    with pytest.raises(RuntimeError, match="nobody expected this"):
        HttpService(Settings.load()).run()


def test_what_nobody_can_tell_to_be_deleted_is_gone(uploads: Service, redis_server: str, tmp_path: Path) -> None:
    """The window remembers deletions for as long as it reaches."""
    uploads.picture("kept", jpeg(PHOTO))
    new = uploads.await_verdict("kept")
    old = new.model_copy(update={"decided_at": datetime.now(UTC) - timedelta(seconds=3601)})
    with Redis.from_url(redis_server) as client:
        window = RedisWindow(client, TRIAL_MODEL, WindowSettings(retention_s=3600), tmp_path.name)
        assert is_gone(window, old)
        assert not is_gone(window, new)
