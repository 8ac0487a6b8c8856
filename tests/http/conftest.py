"""A consumer and `seenit serve` on the embedded servers, shared by the tests of this folder."""

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.http_fixtures import http_server
from tests.service_fixtures import Service, new_service
from tests.stack_fixtures import serving


@contextmanager
def serve(environment: Mapping[str, str], folder: Path, **more: str) -> Iterator[httpx.Client]:
    """Run `seenit serve` until the block is left; a client of it, once it is ready."""
    server = http_server({**environment, **more}, folder)
    with serving(server), httpx.Client(base_url=f"http://127.0.0.1:{server.ports[0]}", timeout=30.0) as client:
        yield client


@pytest.fixture(scope="module")
def uploads(broker: str, redis_server: str, triton: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with a consumer at work."""
    name, folder = uuid.uuid4().hex[:8], tmp_path_factory.mktemp("consumer")
    topics = {f"SEENIT_KAFKA_{kind.upper()}_TOPIC": f"{kind}-{name}" for kind in ("feedback", "decisions")}
    with new_service(broker, redis_server, triton, folder, banks=True, **topics) as service:
        service.consumer()
        yield service


@pytest.fixture(scope="module")
def http(uploads: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of a `seenit serve` beside that consumer, without keys."""
    with serve(uploads.environment, tmp_path_factory.mktemp("serve")) as client:
        yield client
