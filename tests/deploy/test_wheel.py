"""The contents of the image: a wheel built from the tree, and its locked dependencies, in a fresh environment."""

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from consumer.local.process import Server, answers
from tests.service_fixtures import Service
from tests.stack_fixtures import serving

# Installing is mostly waiting for the disk.
pytestmark = pytest.mark.timeout(600)

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "deploy" / "docker" / "requirements.lock"
# What the Dockerfile copies, and the models, which the wheel contains unlike the image.
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "consumer", "triton_models")


def run(*command: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command without the variables and the packages of this environment."""
    return subprocess.run(command, env=variables, cwd="/", capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder)
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation")
    built = run(*pip, "--wheel-dir", folder / "dist", folder, PATH=os.environ["PATH"])
    assert built.returncode == 0, built.stderr
    [file] = (folder / "dist").glob("*.whl")
    return file


@pytest.fixture(scope="module")
def seenit(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The command in an environment of its own, installed by this environment's pip with its settings and cache."""
    folder = tmp_path_factory.mktemp("empty")
    venv.create(folder, with_pip=False)
    pip = (sys.executable, "-m", "pip", "--python", str(folder), "install", "--quiet", "--no-compile")
    for arguments in (("--require-hashes", "--requirement", str(LOCK)), ("--no-deps", str(wheel))):
        done = subprocess.run([*pip, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    yield folder / "bin" / "seenit"
    shutil.rmtree(folder)


def test_the_wheel_brings_its_data_and_no_tests(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"consumer/window/lua/window.lua", "consumer/local/stack.lock", "consumer/py.typed"} <= names
    assert "triton_models/repository/image_encoder/config.pbtxt" in names
    assert "triton_models/repository/image_encoder/1/model.onnx" in names
    assert not [name for name in names if name.startswith(("tests", "deploy"))]


def test_it_checks_and_runs_with_the_locked_dependencies_alone(seenit: Path, service: Service, tmp_path: Path) -> None:
    help_text = run(seenit, "--help")
    assert help_text.returncode == 0, help_text.stderr
    checked = run(seenit, "check", **service.environment, COLUMNS="200")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "failed" not in checked.stdout
    consumer = Server(
        "wheel",
        lambda _: [str(seenit), "run"],
        lambda ports: answers(ports[0], "/readyz"),
        log=tmp_path / "consumer.log",
        environment=lambda ports: {
            **service.environment,
            "SEENIT_HTTP_PORT": str(ports[0]),
            "SEENIT_TRACING_ENABLED": "true",  # what it needs is in the image too
        },
    )
    with serving(consumer):
        service.picture("junk", b"no picture")
        assert service.await_verdict("junk").verdict == "unprocessable"
