"""`seenit sizing`: what a load needs."""

import json
import sys
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.table import Table

from consumer.cli.console import err, out
from consumer.sizing.costs import load_costs, read_costs_file
from consumer.sizing.demand import Workload
from consumer.sizing.plan import INSTANCES, Limits, Plan, divide
from consumer.sizing.quantities import DURATION, MEMORY, NETWORK, PICTURE, RATE, in_words
from consumer.sizing.simulation import Outcome, simulate_plan

SIMULATED_S, SIMULATED_UPLOADS = 3.0, 10_000


def sizing(
    rate: Annotated[str, typer.Option(help="Uploads a second at the busiest time: 1000, 20k.")],
    window: Annotated[str, typer.Option(help="How long an upload is remembered: 90s, 45m, 24h, 7d.")] = "24h",
    picture: Annotated[str, typer.Option("--bytes", help="Bytes of a picture, on average: 300k, 2M.")] = "300k",
    tenants: Annotated[int, typer.Option(min=1, max=100_000, help="Tenants, of about equal size.")] = 1,
    gpu: Annotated[str | None, typer.Option(help="What the encoder runs on: h200. Without it: processors.")] = None,
    memory: Annotated[str, typer.Option(help="Bytes of memory of the largest machine.")] = "64G",
    network: Annotated[str, typer.Option(help="Bits a second of its network, in each direction.")] = "10G",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with where each cost was measured.")] = False,
) -> None:
    """How many processes, cores, bytes and Triton servers a load needs, and what will be too small first.

    Computed from measured costs, for a load of 70% on each part, and tried in a simulation. Exits with 1 when some part
    is too small, however many there are of the others.

    With GPUs:  seenit sizing --rate 20k --window 2h --bytes 150k --tenants 200 --gpu h200

    On larger machines, for a program:  seenit sizing --rate 100 --memory 256G --network 25G --json
    """
    workload = Workload(
        RATE.parse(rate, "--rate"),
        DURATION.parse(window, "--window"),
        PICTURE.parse(picture, "--bytes"),
        tenants,
        gpu,
    )
    limits = Limits(MEMORY.parse(memory, "--memory"), NETWORK.parse(network, "--network") / 8)
    costs = load_costs(gpu)
    groups, plan = divide(workload, costs, limits)
    uploads = int(min(SIMULATED_UPLOADS, plan.workload.rate * SIMULATED_S)) + plan.counts.processes
    with err.status("simulating"):
        outcome = simulate_plan(plan, costs, uploads) if plan.suffices else None
    if as_json:
        sys.stdout.write(json.dumps(_as_json(groups, plan, outcome)) + "\n")
    else:
        _show(groups, plan, outcome)
    raise typer.Exit(0 if plan.suffices else 1)


def _rows(plan: Plan) -> list[tuple[str, str]]:
    """What is needed, in words."""
    counts, workload = plan.counts, plan.workload
    encoder = "each with a GPU" if workload.gpu else f"{INSTANCES} instances and {INSTANCES} cores each"
    tenant_bytes = plan.redis_bytes / workload.tenants
    return [
        ("pictures remembered", f"{workload.rows:,.0f}"),
        ("consumer processes", f"{counts.processes:,}; at least as many partitions of image-uploads"),
        ("cores of the consumers", f"{counts.consumer_cores:,} ({counts.consumer_cores / counts.processes:.1f} each)"),
        (
            "memory of each consumer",
            f"{in_words(plan.process_bytes, 'B')} ({in_words(counts.processes * plan.process_bytes, 'B')} together)",
        ),
        ("Triton servers", f"{counts.triton_servers:,}, {encoder}"),
        ("Redis memory", f"{in_words(plan.redis_bytes, 'B')}; SEENIT_WINDOW_MAX_BYTES at least {tenant_bytes:.0f}"),
        ("Redis servers", f"{counts.redis_servers:,}, with {workload.tenants:,} slots: one for each tenant"),
        ("network, pictures", in_words(plan.pictures_bytes_per_s * 8, "bit/s")),
        ("network, to the encoder", in_words(plan.encoder_bytes_per_s * 8, "bit/s")),
        ("network, of Redis", in_words(plan.redis_bytes_per_s * 8, "bit/s")),
    ]


def _show(groups: int, plan: Plan, outcome: Outcome | None) -> None:
    """Print what is needed, and how far each part goes."""
    if groups > 1:
        out.print(
            f"{groups:,} groups of tenants, each with a topic, a Deployment and a Redis of its own. One of them:",
            highlight=False,
            soft_wrap=True,
        )
    table = Table("for each group" if groups > 1 else "for all", "needed")
    for row in _rows(plan):
        table.add_row(*row)
    out.print(table)
    table = Table("part", "used", "enough up to, uploads/s")
    for part in sorted(plan.parts, key=lambda part: part.carries):
        table.add_row(part.name, f"{part.load:.0%}", f"{part.carries:,.0f}")
    out.print(table)
    first, when = plan.bottleneck, "Too small first"
    if not plan.suffices:
        when = "[bold red]Too small[/]"
    out.print(f"{when}: {first.name}. Then: {first.remedy}.", highlight=False, soft_wrap=True)
    if outcome is not None:
        out.print(
            f"Simulated: from event to verdict p50 {outcome.p50_ms:.0f} ms, p99 {outcome.p99_ms:.0f} ms.",
            highlight=False,
            soft_wrap=True,
        )


def _as_json(groups: int, plan: Plan, outcome: Outcome | None) -> dict[str, Any]:
    """The same for programs, in bytes, bytes a second and milliseconds, with the costs and their measurements."""
    return {
        "groups": groups,
        "group": asdict(plan),
        "suffices": plan.suffices,
        "bottleneck": plan.bottleneck.name,
        "simulated": None if outcome is None else {"p50_ms": outcome.p50_ms, "p99_ms": outcome.p99_ms},
        **read_costs_file().model_dump(),
    }
