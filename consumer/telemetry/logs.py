"""Where log lines go and what they look like: text for a terminal, one JSON object a line for machines."""

import json
import logging
import signal
import sys
from datetime import UTC, datetime

from rich.console import Console
from rich.logging import RichHandler

from consumer.settings import LogSettings

# The attributes that every log record has; all others were given as `extra` and belong into the line.
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime"}


class JsonFormatter(logging.Formatter):
    """Formats a record as a JSON object: time, level, logger, message, then whatever the call gave as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line of JSON."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_extra(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class TextFormatter(logging.Formatter):
    """Formats a record as text: logger, message, then whatever the call gave as `extra` and is not None."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line, and the traceback of an exception below it."""
        # Values are shown as Python literals, so that text from strangers cannot control the terminal.
        extra = "".join(f" {name}={value!r}" for name, value in _extra(record).items() if value is not None)
        line = f"{record.name}: {record.getMessage()}{extra}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _extra(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in record.__dict__.items() if name not in _STANDARD}


def configure(settings: LogSettings) -> None:
    """Send the log to standard error, as the settings say."""
    as_json = settings.format == "json" or (settings.format == "auto" and not sys.stderr.isatty())
    handler: logging.Handler
    if as_json:
        handler = logging.StreamHandler()
        handler.setFormatter(JsonFormatter())
    else:
        handler = RichHandler(console=Console(stderr=True), show_path=False)
        handler.setFormatter(TextFormatter())
    logging.basicConfig(level=settings.level.upper(), handlers=[handler], force=True)
    # The HTTP client logs every request at level info.
    logging.getLogger("httpx").setLevel(logging.WARNING)


def switch_on_signal(settings: LogSettings) -> None:
    """Let SIGUSR1 switch to `debug`, and back to the level of the settings the next time.

    A signal, because whoever may send one may already stop the process: a port would need a guard of its own.
    """
    levels = {logging.DEBUG: settings.level.upper()}

    def switch(*_: object) -> None:
        root = logging.getLogger()
        root.setLevel(levels.get(root.level, logging.DEBUG))
        root.log(root.level, "log level: %s", logging.getLevelName(root.level).lower())

    signal.signal(signal.SIGUSR1, switch)
