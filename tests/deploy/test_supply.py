"""What the image contains is listed whole, and a lock that nobody could ask about has not passed the audit."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from tests.deploy import tools

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text()
IMAGE_LOCK = ROOT / "deploy" / "docker" / "requirements.lock"


def recipe(target: str) -> list[str]:
    """Return the words of the command that a target runs from the environment of `make sbom` and `make audit`."""
    text = re.search(rf"^{target}: .*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    assert text
    command = re.search(r"\.venv-supply/bin/((?:.*\\\n)*.*)", text[1])
    assert command
    return command[1].replace("\\\n", " ").split()


def run(module: str, words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a program of that environment."""
    environment = {**os.environ, "PYTHONPATH": str(tools.supply()), "HOME": str(folder)}
    command = [sys.executable, "-m", module, *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)


def test_the_sbom_lists_every_package_of_the_image(tmp_path: Path) -> None:
    out = tmp_path / "sbom.json"
    words = [str(out) if word.startswith("out/") else word for word in recipe("sbom")[1:]]
    done = run("cyclonedx_py", words, tmp_path)
    assert done.returncode == 0, done.stderr
    sbom = json.loads(out.read_text())
    pinned = dict(re.findall(r"^([\w.-]+)==([^ ]+)", IMAGE_LOCK.read_text(), re.MULTILINE))
    assert sbom["bomFormat"] == "CycloneDX"
    assert sbom["metadata"]["component"]["name"] == "seenit"
    assert {each["name"]: each["version"] for each in sbom["components"]} == pinned
    assert all(each["externalReferences"][0]["hashes"] for each in sbom["components"])


def test_the_audit_takes_every_lock() -> None:
    tracked = subprocess.run(["git", "ls-files", "*.lock"], cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S607
    named = re.search(r"^LOCKS = ((?:.*\\\n)*.*)", MAKEFILE, re.MULTILINE)
    assert named
    assert set(named[1].replace("\\\n", " ").split()) == set(tracked.stdout.split())


def test_a_package_that_the_database_does_not_know_fails_the_audit(tmp_path: Path) -> None:
    """As every package is where the database cannot be asked: without `--strict` the audit passes then."""
    lock = tmp_path / "requirements.lock"
    lock.write_text(f"seenit-is-on-no-index==1.0 --hash=sha256:{'0' * 64}\n")
    words = recipe("audit")[1:]
    words = words[: words.index("--requirement")]
    done = run("pip_audit", [*words, "--requirement", str(lock)], tmp_path)
    assert done.returncode != 0
    # The name is not told where the database does not answer at all.
    assert re.search("seenit-is-on-no-index|Could not connect to PyPI's vulnerability feed|Read timed out", done.stderr)
