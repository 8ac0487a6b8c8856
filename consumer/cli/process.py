"""What a service does as a process: it shows its settings when it begins, and ends in time."""

import os
import threading

from consumer.cli.console import err
from consumer.settings import Settings
from consumer.telemetry import logs

# Of the process, once the service has ended: for what its threads still do.
EXIT_TIMEOUT_S = 1.0


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
