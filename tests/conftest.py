"""What every test may ask for, and which tests go together where several processes share them (`-n 2`)."""

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

pytest_plugins = ["tests.kafka_fixtures", "tests.service_fixtures", "tests.stack_fixtures"]

# What takes minutes goes first, so that no process is left alone with it at the end.
LONGEST_FIRST = (
    *("tests/faults/test_away.py", "tests/torture/", "tests/faults/test_links.py"),
    *("tests/kafka/test_late_requests.py", "tests/model/", "tests/http/", "tests/window/"),
)

# Folders whose tests fetch the same programs, or share a browser.
TOGETHER = ("tests/deploy", "tests/http/page")


class FileScheduling(LoadScopeScheduling):
    """Keep the tests of a file in one process, which makes its fixtures once, and those of some folders."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        folder = file.rpartition("/")[0]
        return folder if folder in TOGETHER else file


@pytest.hookimpl(optionalhook=True)  # xdist may be switched off
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """Share the tests out by file. Groups of xdist 3.8 (`--dist loadgroup`) are lost on pytest 9.2, without a word."""
    return FileScheduling(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the longest where several processes share the tests."""
    if not hasattr(config, "workerinput"):
        return
    ranks = {prefix: rank for rank, prefix in enumerate(LONGEST_FIRST)}
    items.sort(
        key=lambda item: next((ranks[each] for each in LONGEST_FIRST if item.nodeid.startswith(each)), len(ranks))
    )
