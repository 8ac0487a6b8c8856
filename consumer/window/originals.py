"""The records of originals, for the changelog, as long as it may lack them.

A record is published with the verdict on its upload. A copy may have its verdict first, from another process. If Redis
is emptied then, only the copy would be recovered, and the original, decided again, would be called a copy of its copy.
So the first copy that names an original publishes its record as well.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence

from consumer.window.contract import Window
from consumer.window.records import Position, StoredRecord

# A tenant, and a position in its window.
Place = tuple[str, Position]

# Places that this process remembers to have published: some 20 MB.
MAX_PUBLISHED = 100_000


class Originals:
    """Reads the records that verdicts name, unless this process has published them. For one thread."""

    def __init__(self, window: Window) -> None:
        self._window = window
        self._published: OrderedDict[Place, None] = OrderedDict()

    def unpublished(self, named: Iterable[Place]) -> dict[Place, StoredRecord]:
        """Read the named records that may not be on the changelog; those that are deleted by now are left out.

        Raises Unavailable("redis", ...).
        """
        places: Sequence[Place] = [place for place in named if place not in self._published]
        if not places:
            return {}
        records, patches = self._window.read_records(places), self._window.read_patches(places)
        return {
            place: StoredRecord(place[1], record, features or b"")
            for place, record, features in zip(places, records, patches, strict=True)
            if record is not None
        }

    def note(self, places: Iterable[Place]) -> None:
        """Note that the records at these places were published, by a transaction that was committed."""
        for place in places:
            self._published[place] = None
            self._published.move_to_end(place)
        while len(self._published) > MAX_PUBLISHED:
            self._published.popitem(last=False)
