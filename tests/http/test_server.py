"""`seenit serve` as a process: it does not go on when a part of it has ended."""

import json
import os
import subprocess
import sys
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

# Begins to serve, and is refused: anybody could reach that address.
BEGIN = """
import json, sys, threadpoolctl
from consumer.cli.http import serve
from consumer.errors import Misconfigured
try:
    serve()
except Misconfigured:
    print(json.dumps({each["prefix"]: each["num_threads"] for each in threadpoolctl.threadpool_info()}))
"""


def test_a_product_of_matrices_keeps_one_core_busy() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SEENIT_", "OPENBLAS_"))}
    environment["SEENIT_SERVE_HOST"] = "0.0.0.0"  # noqa: S104
    done = subprocess.run(
        [sys.executable, "-c", BEGIN], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    threads = json.loads(done.stdout)
    assert {name: count for name, count in threads.items() if "openblas" in name} == {"libscipy_openblas": 1}


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
