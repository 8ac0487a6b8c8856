"""The jars of Apache Kafka that `pom.xml` names, fetched once through Maven and kept under `.stack/kafka`."""

import fcntl
import functools
import hashlib
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

POM = Path(__file__).with_name("pom.xml")
STORE = Path(__file__).parents[2] / ".stack" / "kafka"
FETCH_TIMEOUT_S = 300
OLDEST_JAVA = 17


class KafkaMissing(Exception):
    """Apache Kafka cannot be run on this machine; the message is one sentence that says what is missing."""


@functools.cache
def fetch() -> Path:
    """Fetch the jars unless they are there, and return their folder. Raises KafkaMissing where that cannot be done."""
    _check_java()
    folder = STORE / hashlib.sha256(POM.read_bytes()).hexdigest()[:12]
    if folder.is_dir():
        return folder
    if shutil.which("mvn") is None:
        raise KafkaMissing("Apache Kafka is not fetched: there is no `mvn` on the PATH.")
    STORE.mkdir(parents=True, exist_ok=True)
    with (STORE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of two test runs at once, the second uses what the first fetched
        if not folder.is_dir():
            _copy_dependencies(folder)
    return folder


def _check_java() -> None:
    if shutil.which("java") is None:
        raise KafkaMissing(f"Apache Kafka needs Java {OLDEST_JAVA} or newer, and there is no `java` on the PATH.")
    banner = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False).stderr  # noqa: S607
    version = re.search(r'version "(\d+)', banner)
    if version is None or int(version[1]) < OLDEST_JAVA:
        raise KafkaMissing(
            f"Apache Kafka needs Java {OLDEST_JAVA} or newer; `java` here is {banner.partition(chr(10))[0]}."
        )


def _copy_dependencies(folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=STORE) as scratch:
        jars = Path(scratch) / "jars"
        command = ["mvn", "--batch-mode", "--quiet", "--strict-checksums", f"--file={POM}"]
        command += ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={jars}"]
        try:
            fetched = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired:
            raise KafkaMissing(f"Apache Kafka is not fetched: Maven took more than {FETCH_TIMEOUT_S} s.") from None
        if fetched.returncode:
            reason = next((line for line in fetched.stdout.splitlines() if "ERROR" in line), "no reason given")
            raise KafkaMissing(f"Apache Kafka is not fetched: Maven says {reason[:300]}")
        jars.rename(folder)
