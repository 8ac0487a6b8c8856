"""Entries whose pictures are slow to come."""

import socket
from unittest.mock import Mock

import pytest

from consumer.errors import Unavailable, Unprocessable
from consumer.moderation import entries
from consumer.moderation.banks import BankEntry, encode_key
from consumer.moderation.entries import EntryEncoder, NewEntry
from consumer.settings import Settings
from tests.fakes.encoder import FakeEncoder


def test_the_lease_is_kept_while_a_picture_does_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries, "KEEP_LEASE_EVERY_S", 0.1)
    fetch = {"timeout_s": 1.0, "schemes": ["http"], "hosts": ["127.0.0.1"], "networks": ["127.0.0.0/8"]}
    renewals: list[None] = []

    def lose_lease() -> None:
        raise Unavailable("redis", "lost")

    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and never answers
        entry = BankEntry(bank="b", entry_id="e", url=f"http://127.0.0.1:{silent.getsockname()[1]}/a.png")
        new = NewEntry(encode_key(entry.key), (0, 0), entry)
        encoder = EntryEncoder(Settings(fetch=fetch), FakeEncoder(), Mock())
        try:
            [made] = encoder.encode([new], lambda: renewals.append(None))
            assert isinstance(made, Unprocessable)
            assert made.reason == "unreachable"
            assert len(renewals) > 5
            with pytest.raises(Unavailable, match="lost"):
                encoder.encode([new] * 50, lose_lease)
        finally:
            encoder.close()
            encoder._threads.shutdown()  # children that are busy are left alone: each waits for the picture
            encoder.rest()
