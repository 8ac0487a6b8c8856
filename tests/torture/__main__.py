"""Run seeds of the torture test: `python -m tests.torture --seeds 20 --start 1`.

Prints a line for each seed, and for each violation the history of the image concerned.
"""

import argparse
import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tests.torture.seed import Result, run_seed
from tests.torture.world import World

console = Console(highlight=False, soft_wrap=True)


def main() -> int:
    """Run the seeds; return 0 if there was no violation, else 1."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leaves the `with` below as Ctrl-C does
    total: Counter[str] = Counter()
    failed: list[int] = []
    columns = (TextColumn("seed"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with World(options.brokers, options.exact_rows) as world, Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=options.seeds)
        for seed in range(options.start, options.start + options.seeds):
            result = run_seed(world, seed, options.uploads, options.rate, options.results)
            total.update(result.counts)
            if result.violations:
                failed.append(seed)
            _print_result(result)
            if options.results:
                options.results.mkdir(parents=True, exist_ok=True)
                with (options.results / "seeds.jsonl").open("a") as file:
                    file.write(json.dumps(result.as_dict()) + "\n")
            progress.advance(task)
            if failed and options.stop:
                break
        seeds = int(progress.tasks[0].completed)
    console.print(f"[bold]{seeds} seeds on commit {_commit()}, {total['violations']} violations")
    for name, count in sorted(total.items()):
        console.print(f"  {count:8,}  {name}")
    if failed:
        console.print(f"[red]seeds with violations: {failed}")
    return 1 if failed else 0


def _print_result(result: Result) -> None:
    colour = "red" if result.violations else "green"
    console.print(
        f"[{colour}]seed {result.seed}[/]: {result.counts['uploads']} uploads, {result.consumers} consumers, "
        f"{result.counts['verdicts aborted']} verdicts aborted, {result.took_s:.0f} s; {', '.join(result.harm)}"
    )
    for what, history in result.violations[:10]:
        console.print(f"  [red]{what}[/]")
        if history:
            console.print(history, markup=False)


def _commit() -> str:
    describe = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)  # noqa: S607
    return describe.stdout.strip() or "unknown"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="how many seeds to run")
    parser.add_argument("--start", type=int, default=1, help="the first one")
    parser.add_argument("--uploads", type=int, default=2000, help="uploads a seed")
    parser.add_argument("--rate", type=float, default=100.0, help="uploads a second")
    parser.add_argument("--brokers", type=int, choices=(1, 3), default=3)
    parser.add_argument("--exact-rows", type=int, help="rows after which windows outgrow the exact index")
    parser.add_argument("--results", type=Path, help="folder for seeds.jsonl, and the logs of seeds with violations")
    parser.add_argument("--stop", action="store_true", help="end with the first seed that has a violation")
    return parser.parse_args()


sys.exit(main())
