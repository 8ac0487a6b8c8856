"""Fixtures with the embedded servers, each started once, for the first test that uses it; see `tests/conftest.py`.

All tests share them: name topics, groups and keys of your own, and leave the servers running.
"""

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import pytest

from consumer.local.binaries import Binaries, find_binaries
from consumer.local.process import Server, wait_until_ready
from consumer.local.servers import MODEL, REPOSITORY, TritonServer, tansu, valkey

_AnyServer = TypeVar("_AnyServer", bound=Server)


def model_code() -> ModuleType:
    """Load the Python model of the CPU configuration; an empty module stands in for the one that only Triton has."""
    path = REPOSITORY / MODEL / "1" / "model.py"
    spec = importlib.util.spec_from_file_location("served_model", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["triton_python_backend_utils"] = ModuleType("triton_python_backend_utils")
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules["triton_python_backend_utils"]
    return module


def served_graph() -> Path:
    """Return the ONNX file that Triton serves on this machine."""
    return Path(model_code().graph(REPOSITORY / MODEL / "1"))


@contextmanager
def serving(server: _AnyServer) -> Iterator[_AnyServer]:
    """Run a server until the block is left; it is ready when the block begins."""
    try:
        server.start()
        wait_until_ready([server])
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def binaries() -> Binaries:
    return find_binaries()


@pytest.fixture(scope="session")
def log_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("servers")


@pytest.fixture(scope="session")
def broker(binaries: Binaries, log_dir: Path) -> Iterator[str]:
    """The `bootstrap.servers` of a Tansu broker."""
    with serving(tansu(binaries, log_dir)) as server:
        yield f"127.0.0.1:{server.ports[0]}"


@pytest.fixture(scope="session")
def redis_server(binaries: Binaries, log_dir: Path) -> Iterator[str]:
    """The `redis://` address of a Valkey server."""
    with serving(valkey(binaries, log_dir)) as server:
        yield f"redis://127.0.0.1:{server.ports[0]}/0"


@pytest.fixture(scope="session")
def triton(binaries: Binaries, log_dir: Path) -> Iterator[str]:
    """The gRPC address of a Triton that serves the encoder."""
    with serving(TritonServer(binaries, log_dir)) as server:
        yield f"127.0.0.1:{server.ports[0]}"


@pytest.fixture
def own_triton(binaries: Binaries, tmp_path: Path) -> Iterator[TritonServer]:
    """A Triton that serves the encoder, for one test, which may hurt it."""
    with serving(TritonServer(binaries, tmp_path)) as server:
        yield server
