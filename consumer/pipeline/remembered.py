"""Remembers what was encoded of the last pictures, by their bytes.

An exact copy takes no inference, unless it has to be compared with banks. Of a flood of copies only the first does.
"""

import threading
from collections import OrderedDict
from typing import NamedTuple

from consumer.encoder.views import EncodedViews

# Some 20 MB.
MAX_PICTURES = 4096


class RememberedViews(NamedTuple):
    """What was encoded of a picture, None if it shows too little; and its PDQ hash, where that was asked for."""

    views: EncodedViews | None
    pdq: str | None


class RecentViews:
    """The last pictures that were encoded. Thread-safe."""

    def __init__(self) -> None:
        self._by_digest: OrderedDict[bytes, RememberedViews] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, digest: bytes) -> RememberedViews | None:
        """Return what was encoded of the picture of these bytes, if that is remembered."""
        with self._lock:
            remembered = self._by_digest.get(digest)
            if remembered is not None:
                self._by_digest.move_to_end(digest)
            return remembered

    def put(self, digest: bytes, views: RememberedViews) -> None:
        """Remember what was encoded of a picture."""
        with self._lock:
            self._by_digest[digest] = views
            self._by_digest.move_to_end(digest)
            if len(self._by_digest) > MAX_PICTURES:
                self._by_digest.popitem(last=False)
