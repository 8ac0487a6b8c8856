"""Reads banks and entries from their topic, for tools."""

import time
from dataclasses import dataclass, field

from consumer.errors import Unavailable, Unprocessable
from consumer.kafka.topic_reader import TopicReader
from consumer.moderation.banks import BankDefined, BankEntry, BankKey, EntryKey, parse_change
from consumer.settings import KafkaSettings

# How long the topic may say nothing before its end.
PATIENCE_S = 15.0
READ_MESSAGES, READ_S = 500, 0.5


@dataclass
class KnownBanks:
    """What stands on the topic, whether or not the service could use it."""

    banks: dict[BankKey, BankDefined] = field(default_factory=dict)
    entries: dict[EntryKey, BankEntry] = field(default_factory=dict)


def read_banks(settings: KafkaSettings) -> KnownBanks:
    """Read the topic to where it ends now. Raises Unavailable."""
    known = KnownBanks()
    with TopicReader(settings, settings.banks_topic, {}) as reader:
        ends = reader.end_offsets()
        heard_s = time.monotonic()
        while any(reader.next_offsets[partition] < end for partition, end in ends.items()):
            records = reader.read(READ_MESSAGES, READ_S)
            for record in records:
                try:
                    change = parse_change(record)
                except Unprocessable:
                    continue
                key, body = change.key, change.body
                if isinstance(key, EntryKey):
                    known.entries.pop(key, None)
                    if isinstance(body, BankEntry):
                        known.entries[key] = body
                elif isinstance(key, BankKey):
                    known.banks.pop(key, None)
                    if isinstance(body, BankDefined):
                        known.banks[key] = body
            if records:
                heard_s = time.monotonic()
            elif time.monotonic() - heard_s > PATIENCE_S:
                raise Unavailable("kafka", f"topic {settings.banks_topic!r} cannot be read to its end")
    return known
