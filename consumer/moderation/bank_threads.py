"""Opens the banks of a service, and starts the threads that keep them up to date."""

import logging
import threading
from collections.abc import Callable
from contextlib import ExitStack

from consumer.encoder.triton import TritonEncoder
from consumer.errors import Misconfigured
from consumer.kafka.sender import Sender
from consumer.kafka.topic_reader import TopicReader
from consumer.moderation.entries import EntryEncoder
from consumer.moderation.loader import BankLoader
from consumer.moderation.matching import Banks
from consumer.moderation.rematch import Rematcher
from consumer.moderation.store import BankStore
from consumer.moderation.upload_entries import UploadEntries
from consumer.settings import KafkaSettings, Settings
from consumer.telemetry.metrics import Metrics
from consumer.window.window import RedisWindow

log = logging.getLogger(__name__)

# How long a stop waits for the entry of a bank that is being fetched.
BANKS_STOP_S = 3.0


def open_banks(
    stack: ExitStack,
    settings: Settings,
    encoder: TritonEncoder,
    window: RedisWindow,
    metrics: Metrics,
    stop: threading.Event,
) -> Banks:
    """Open the banks; what has been started ends with `stop` and the stack."""
    kafka = settings.kafka
    store = BankStore(window.store)
    banks = Banks(store, encoder.info)
    entries = EntryEncoder(settings, encoder, window)
    stack.callback(entries.close)
    sender = Sender(kafka)
    stack.callback(sender.close)
    uploads = UploadEntries(kafka.banks_topic, store, window, encoder.info, sender)
    loader = BankLoader(kafka, store, entries, uploads)
    rematcher = Rematcher(kafka, encoder.info, window, store, banks, metrics)
    for name, run in (("banks", loader.run), ("rematches", rematcher.run)):
        thread = threading.Thread(target=_run, args=(run, stop), name=name, daemon=True)
        stack.callback(thread.join, BANKS_STOP_S)
        thread.start()
    return banks


def require_banks(settings: KafkaSettings, banks: Banks) -> None:
    """Let no upload be decided on before the banks are read to where their topic ends now. Raises Unavailable."""
    with TopicReader(settings, settings.banks_topic, {}) as reader:
        banks.require(reader.end_offsets())


def _run(run: Callable[[threading.Event], None], stop: threading.Event) -> None:
    try:
        run(stop)
    except Misconfigured as error:
        log.error("banks are no longer followed by this process: %s", error)
