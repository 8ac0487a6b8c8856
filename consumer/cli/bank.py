"""The commands of `seenit bank`."""

import typer

from consumer.cli.lazy_group import CommandEntry, LazyGroup


class BankGroup(LazyGroup):
    entries = {  # noqa: RUF012  # as of the base class
        "create": CommandEntry(
            "consumer.cli.bank_changes:create",
            "Create a bank of known pictures, or change what it is.",
            "seenit bank create scams --kind block --action remove",
        ),
        "add": CommandEntry(
            "consumer.cli.bank_changes:add",
            "Add pictures to a bank: files, folders, addresses, or uploads that the window holds.",
            "seenit bank add scams scam.jpg https://example.org/scam.png --label policy=fraud",
        ),
        "remove": CommandEntry(
            "consumer.cli.bank_changes:remove",
            "Remove entries of a bank, or the bank with all its entries.",
            "seenit bank remove scams scam.jpg",
        ),
        "list": CommandEntry(
            "consumer.cli.bank_lists:list_banks",
            "List the banks, or the entries of one.",
            "seenit bank list scams --json | jq -r .entry_id",
        ),
        "import": CommandEntry(
            "consumer.cli.bank_files:import_list",
            "Add the PDQ hashes of a list: CSV or JSON of python-threatexchange and StopNCII, or a hash a line.",
            "threatexchange dataset -P --csv | seenit bank import ncii -",
        ),
        "export": CommandEntry(
            "consumer.cli.bank_files:export_list",
            "Write a bank to standard output: its PDQ hashes as CSV, or all of it as JSON lines.",
            "seenit bank export ncii > ncii.csv",
        ),
        "check": CommandEntry(
            "consumer.cli.bank_lists:check_picture",
            "Whether a picture file shows an entry of a bank. Exits with 1 when it shows none.",
            "seenit bank check suspicious.jpg --json",
        ),
    }


app = typer.Typer(
    name="bank",
    cls=BankGroup,
    callback=lambda: None,
    help="Banks of known pictures, to block, to review or to allow: create, fill, list, import, export, check.",
    epilog="Example:  seenit bank create scams --kind block && seenit bank add scams scam.jpg",
    no_args_is_help=True,
    rich_markup_mode="rich",
    add_completion=False,
)
