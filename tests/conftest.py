"""What every test may ask for, and which tests go together where several processes share them (`-n 2`)."""

import pytest

pytest_plugins = ["tests.kafka_fixtures", "tests.service_fixtures", "tests.stack_fixtures"]

# What takes minutes goes first, so that no process is left alone with it at the end.
LONGEST_FIRST = ("tests/kafka/test_late_requests.py", "tests/model/", "tests/http/", "tests/window/")

# Folders whose tests fetch the same programs, or share a browser.
TOGETHER = ("tests/deploy", "tests/http/page")


@pytest.hookimpl(tryfirst=True)  # before the plugin that reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests of a file in one process, and those of some folders."""
    if not hasattr(config, "workerinput"):
        return
    ranks = {prefix: rank for rank, prefix in enumerate(LONGEST_FIRST)}
    items.sort(
        key=lambda item: next((ranks[each] for each in LONGEST_FIRST if item.nodeid.startswith(each)), len(ranks))
    )
    for item in items:
        file = item.nodeid.partition("::")[0]
        folder = file.rpartition("/")[0]
        item.add_marker(pytest.mark.xdist_group(folder if folder in TOGETHER else file))
