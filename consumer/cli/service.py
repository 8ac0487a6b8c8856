"""`seenit run`: the service."""

import sys

from consumer.cli.process import EXIT_TIMEOUT_S, begin, exit_within
from consumer.service import Service


def run() -> None:
    """Run the service, configured by SEENIT_* variables and the file that SEENIT_CONFIG names.

    SIGTERM stops it gracefully; SIGUSR1 switches the log to debug, and back.
    """
    settings = begin()
    service = Service(settings)
    service.stop_on_signals()
    try:
        service.run()
    finally:
        exit_within(EXIT_TIMEOUT_S, 0 if sys.exception() is None else 1)
