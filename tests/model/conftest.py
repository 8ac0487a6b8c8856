"""What the tests of this folder may ask for."""

import os

import pytest

from tests.model import tlc


@pytest.fixture(scope="session")
def model_checker() -> None:
    """Skip the test, or with `CI=true` fail it, where TLC cannot be run."""
    try:
        tlc.fetch()
    except tlc.TlcMissing as missing:
        if os.environ.get("CI") == "true":
            pytest.fail(str(missing))
        pytest.skip(str(missing))
