"""Programs that the tests of deploy/ need: those on the PATH, or fetched once into `.stack/` at pinned versions."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

HERE = Path(__file__).parent
STACK = HERE.parent.parent / ".stack"
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


def _packages(name: str, lock: Path) -> Path:
    folder = _folder(name, lock)
    if not folder.exists():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes"]
        _fetch([*pip, "--target", str(_fresh(folder)), "--requirement", str(lock)], folder)
    return folder


def custom_resources() -> Path:
    """Return the folder with the Node packages that know the schemas of Strimzi, KEDA and the Prometheus operator."""
    lock = HERE / "package-lock.json"
    folder = _folder("crds", lock)
    if not folder.exists():
        npm = needed("npm", "npm")
        fresh = _fresh(folder)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, fresh)
        _fetch([npm, "ci", "--silent", "--ignore-scripts", "--prefix", str(fresh)], folder)
    return folder


def kustomize() -> str:
    """Return the path of kustomize: the one on the PATH, or one that Go builds once, in a minute or two."""
    installed = shutil.which("kustomize")
    if installed:
        return installed
    folder = STACK / "deploy" / KUSTOMIZE.rpartition("@")[2]
    if not folder.exists():
        go = _packages("go", HERE / "go.lock") / "go" / "bin" / "go"  # Debian's is too old for it
        _fetch([str(go), "install", KUSTOMIZE], folder, GOBIN=str(_fresh(folder)), GOROOT="", CGO_ENABLED="0")
    return str(folder / "kustomize")


def _folder(name: str, lock: Path) -> Path:
    return STACK / "deploy" / f"{name}-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}"


def _fresh(folder: Path) -> Path:
    """Make the folder to fetch into; it is renamed to the final `folder` once it is complete."""
    fresh = folder.with_name(f"{folder.name}.{os.getpid()}")
    fresh.mkdir(parents=True)
    return fresh


def _fetch(command: list[str], folder: Path, **variables: str) -> None:
    fresh = folder.with_name(f"{folder.name}.{os.getpid()}")
    done = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, check=False)
    if done.returncode:
        shutil.rmtree(fresh, ignore_errors=True)
        missing(f"{command[0]} cannot fetch what the test needs: {done.stderr.strip()[-300:]}")
    fresh.rename(folder)
