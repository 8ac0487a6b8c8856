"""The table of all `seenit` commands, and the entry point that runs one of them."""

import signal
import sys

import typer

from consumer.cli.console import err, plain
from consumer.cli.lazy_group import CommandEntry, LazyGroup
from consumer.errors import SeenitError
from consumer.threads import begin_no_helpers

COMMANDS = {
    "run": CommandEntry(
        "consumer.cli.service:run",
        "Run the service, configured by SEENIT_* variables and the file that SEENIT_CONFIG names.",
        "SEENIT_KAFKA_BOOTSTRAP_SERVERS=kafka:9092 SEENIT_TRITON_URL=triton:8001 seenit run",
    ),
    "serve": CommandEntry(
        "consumer.cli.http:serve",
        "Answer look-ups over HTTP, and show a page to review matches; configured as `run` is.",
        "SEENIT_SERVE_PORT=8080 seenit serve",
    ),
    "key": CommandEntry(
        "consumer.cli.http:key",
        "Make a key for `seenit serve`, and the lines that the file SEENIT_SERVE_KEYS_FILE needs to know it.",
        "seenit key shop --scope read --tenant shop >> keys.toml",
    ),
    "check": CommandEntry(
        "consumer.cli.operations:check",
        "Try Kafka, Redis, Triton and object stores as SEENIT_* and SEENIT_CONFIG name them; say how to mend what "
        "fails.",
        "SEENIT_CONFIG=seenit.toml seenit check",
    ),
    "sizing": CommandEntry(
        "consumer.cli.sizing:sizing",
        "How many processes, cores, bytes and Triton servers a load needs, and what will be too small first.",
        "seenit sizing --rate 1000 --window 2h --bytes 300k --tenants 20",
    ),
    "topics": CommandEntry(
        "consumer.cli.operations:topics",
        "Check the topics (input, output, dead letters, and embeddings if they are published), and say what "
        "differs from\nwhat they should be.",
        "seenit topics --create --partitions 48 --replicas 3",
    ),
    "rebuild": CommandEntry(
        "consumer.cli.operations:rebuild",
        "Fill an empty Redis with the window again, from the topic that SEENIT_KAFKA_EMBEDDINGS_TOPIC names.",
        "SEENIT_KAFKA_EMBEDDINGS_TOPIC=image-embeddings seenit rebuild",
    ),
    "up": CommandEntry(
        "consumer.cli.stack:up",
        "Start broker, Redis, Triton, a consumer and the page on this machine, and leave them running.",
        "seenit up --json | jq -r .kafka",
    ),
    "down": CommandEntry("consumer.cli.stack:down", "Stop what `seenit up` started.", "seenit down"),
    "status": CommandEntry(
        "consumer.cli.stack:status",
        "Show what `seenit up` left running. Exits with 1 when there is nothing, or not all of it.",
        "seenit status",
    ),
    "upload": CommandEntry(
        "consumer.cli.uploads:upload",
        "Send an upload event for each picture: files within the event, addresses as they are.",
        "seenit upload holiday.jpg https://example.org/cat.png",
    ),
    "watch": CommandEntry(
        "consumer.cli.uploads:watch",
        "Follow the verdicts until Ctrl-C.",
        "seenit watch --json | jq 'select(.verdict == \"duplicate\")'",
    ),
    "bank": CommandEntry(
        "consumer.cli.bank:app",
        "Banks of known pictures, to block, to review or to allow: create, fill, list, import, export, check.",
        "seenit bank create scams --kind block && seenit bank add scams scam.jpg",
    ),
    "campaigns": CommandEntry(
        "consumer.cli.moderation:campaigns",
        "List the campaigns of a tenant: what is uploaded again and again, the fastest first.",
        "seenit campaigns --tenant default --top 5",
    ),
    "feedback": CommandEntry(
        "consumer.cli.moderation:feedback",
        "Send what you decided about a match: a rejected pair is not matched again.",
        "seenit feedback cropped.jpg original.jpg --reject --by ann --note 'two twins'",
    ),
    "demo": CommandEntry(
        "consumer.cli.stack:demo",
        "Upload photographs, edited copies and unrelated pictures to a stack of its own; show each verdict.",
        "seenit demo --images ~/Pictures",
    ),
    "compare": CommandEntry(
        "consumer.cli.images:compare",
        "The distance of two image files, whether B is a copy of A, and by which edit. Exits with 1 when it is not.",
        "seenit compare original.jpg cropped.jpg --draw both.png",
    ),
    "embed": CommandEntry(
        "consumer.cli.images:embed",
        "The embedding of a picture, as JSON on standard output or as a .npy file.",
        "seenit embed photo.jpg --out photo.npy",
    ),
    "calibrate": CommandEntry(
        "triton_models.training.command:calibrate",
        "The least scores for your own pictures, from edited copies of them, and the configurations that set them.",
        "seenit calibrate --images ~/Pictures --accused-share 0.01",
    ),
}


class SeenitGroup(LazyGroup):
    entries = COMMANDS


app = typer.Typer(
    cls=SeenitGroup,
    callback=lambda: None,  # Typer takes an app without a command of its own for a group only if it has one
    help="Has this picture been uploaded before? Upload events in, one verdict for each out.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Run the command; what can go wrong ends as one readable message and status 1, not as a traceback."""
    begin_no_helpers()
    # A polite kill stops what the command has started, as Ctrl-C does. `run` has a handler of its own.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        app()
    except SeenitError as error:
        err.print(f"[bold red]seenit:[/] {plain(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(1)
