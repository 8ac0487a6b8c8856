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
    }


app = typer.Typer(
    name="bank",
    cls=BankGroup,
    callback=lambda: None,
    help="Banks of known pictures: uploads that show one of them are told, to block or to review; or it is allowed.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    add_completion=False,
)
