"""`seenit run`: the service."""

import logging
import signal
import sys
from types import FrameType

from consumer.cli.process import EXIT_TIMEOUT_S, begin, exit_within
from consumer.service import Service

log = logging.getLogger(__name__)


def run() -> None:
    """Run the service, configured by SEENIT_* variables and the file that SEENIT_CONFIG names.

    SIGTERM stops it gracefully; SIGUSR1 switches the log to debug, and back.
    """
    settings = begin()
    service = Service(settings)
    _stop_on_signals(service)
    try:
        service.run()
    finally:
        exit_within(EXIT_TIMEOUT_S, 0 if sys.exception() is None else 1)


def _stop_on_signals(service: Service) -> None:
    def handle(number: int, _: FrameType | None) -> None:
        log.info("%s: stopping", signal.Signals(number).name)
        service.stop()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
