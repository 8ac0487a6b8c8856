"""Search the model's larger worlds whole: `python -m tests.model`. Prints a line for each; ends with 1 if one fails."""

import subprocess
import sys
import time

from tests.model import tlc
from tests.model.instances import DEEP

TIMEOUT_S = 3600


def main() -> int:
    """Search each world; return the exit status."""
    failed = False
    print(f"{'world':44} {'states':>10} {'depth':>6} {'seconds':>8}")
    for name, instance in DEEP.items():
        began_s = time.monotonic()
        try:
            outcome = tlc.check(instance, TIMEOUT_S, tlc.DEEP_JVM)
        except subprocess.TimeoutExpired:
            failed = True
            print(f"{name:44} not searched whole within {TIMEOUT_S} s")
            continue
        took_s = time.monotonic() - began_s
        print(f"{name:44} {outcome.states:10,} {outcome.depth:6} {took_s:8.0f}", flush=True)
        if outcome.violated:
            failed = True
            print(f"{outcome.violated} is violated after:", *outcome.actions, sep="\n  ")
    return failed


if __name__ == "__main__":
    sys.exit(main())
