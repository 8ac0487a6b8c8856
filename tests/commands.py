"""The `seenit` command, run as a user would."""

import os
import subprocess
import sys


def seenit(*arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command; SEENIT_* variables come from the arguments alone, not from this process's environment."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SEENIT_")}
    return subprocess.run(
        [sys.executable, "-m", "consumer", *arguments],
        env={**inherited, "COLUMNS": "160", **environment},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
