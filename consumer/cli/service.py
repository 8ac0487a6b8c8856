"""`seenit run`: the service."""

import os
import sys
import threading

from consumer.cli.console import err
from consumer.service import Service
from consumer.settings import Settings
from consumer.telemetry import logs

# Of the process, once the service has ended: for what its threads still do.
EXIT_TIMEOUT_S = 1.0


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


def begin() -> Settings:
    """Read the settings, show them, and log as they say."""
    settings = Settings.load()
    logs.configure(settings.log)
    logs.switch_on_signal(settings.log)
    err.print_json(settings.model_dump_json())
    return settings


def exit_within(timeout_s: float, status: int) -> None:
    """End the process after `timeout_s` if it has not ended by then.

    Python waits for the threads of all pools when it ends, and nothing interrupts one that fetches.
    """
    timer = threading.Timer(timeout_s, os._exit, (status,))
    timer.daemon = True
    timer.start()
