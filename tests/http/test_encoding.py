"""Pictures are decoded by so many threads and no more, whatever is made of them."""

import threading
import time
from concurrent.futures import wait
from typing import Any, cast
from unittest.mock import Mock

import pytest

from consumer.encoder.contract import Encoder
from consumer.http import encoding
from consumer.http.encoding import PictureEncoder
from consumer.settings import DecodeSettings


def test_so_many_pictures_are_decoded_at_once_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    busy, most, lock = 0, 0, threading.Lock()

    def work(*_: Any) -> None:
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
        time.sleep(0.02)
        with lock:
            busy -= 1

    monkeypatch.setattr(encoding, "decode", work)
    monkeypatch.setattr(encoding, "pdq_hash", work)
    encoder = PictureEncoder(DecodeSettings(threads=2), cast(Encoder, Mock()))
    asked = [each for _ in range(5) for each in (encoder.decode(b"", None), encoder.hash_pdq(b""))]
    assert not wait(asked, 10).not_done
    encoder.close()
    assert most == 2
