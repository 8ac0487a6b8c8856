"""Reads on a replica that is far behind its window, as in a process that has begun: pages ahead of their indexing."""

import logging
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from typing import NamedTuple

from consumer.window.replica import Page, Replica, join, page_after
from consumer.window.store import WindowRecovering, WindowStore

log = logging.getLogger(__name__)

# A replica is far behind when more entries of the log than these are left.
FAR_ENTRIES = 10_000
# Pages that are indexed at once, which takes less time.
PAGES_AT_ONCE = 8
# It is told of one that has been read for this long, and in the log every so often.
TELL_AFTER_S, TELL_EVERY_S = 1.0, 5.0


class Reading(NamedTuple):
    """How far a tenant's window has been read; `rows_left` counts those that were deleted too."""

    tenant: str
    rows: int
    rows_left: int

    def __str__(self) -> str:
        total = self.rows + self.rows_left
        return f"the window of tenant {self.tenant!r} is being read: {self.rows} of {total} rows"


class CatchUp:
    """Reads replicas on, one after the other. For one thread at a time, but for `reading`."""

    def __init__(self, store: WindowStore, on_page: Callable[[str, int], None] | None) -> None:
        """`on_page` is that of `Replicas`."""
        self.reading: Reading | None = None
        self._store = store
        self._on_page = on_page

    def run(self, tenant: str, replica: Replica) -> None:
        """Read a replica that is far behind on, to where its log ends.

        Stops where the log is another one by now: whoever reads the replica next finds that out. Raises Unavailable.
        """
        if not replica.reads_ahead or replica.entries_left <= FAR_ENTRIES:
            return
        began_s = time.monotonic()
        tell_at_s = began_s + TELL_AFTER_S
        try:
            with closing(self._read_ahead(tenant, replica.epoch, replica.cursor)) as read:
                for pages in read:
                    replica.apply(join(pages))
                    if pages[-1].more and self._on_page is not None:
                        self._on_page(tenant, len(replica.index))
                    if (now_s := time.monotonic()) >= began_s + TELL_AFTER_S:
                        self.reading = Reading(tenant, len(replica.index), replica.entries_left)
                        if now_s >= tell_at_s:
                            log.info("%s", self.reading)
                            tell_at_s = now_s + TELL_EVERY_S
        finally:
            if self.reading is not None:
                log.info("read %d rows of tenant %r in %.1f s", len(replica.index), tenant, time.monotonic() - began_s)
            self.reading = None

    def _read_ahead(self, tenant: str, epoch: bytes, cursor: bytes) -> Generator[list[Page]]:
        """Read the pages after a cursor, some at a time: the next ones are on their way while these are used."""
        with ThreadPoolExecutor(1, "read-ahead") as reader:
            pages = self._read_pages(tenant, epoch, cursor)
            while pages:
                ahead = reader.submit(self._read_pages, tenant, epoch, pages[-1].cursor) if pages[-1].more else None
                yield pages
                pages = [] if ahead is None else ahead.result()

    def _read_pages(self, tenant: str, epoch: bytes, cursor: bytes) -> list[Page]:
        """Read up to PAGES_AT_ONCE pages; none where the log is not that of the epoch."""
        pages: list[Page] = []
        with suppress(WindowRecovering):
            while len(pages) < PAGES_AT_ONCE and (not pages or pages[-1].more):
                [reply] = self._store.run("read", [(tenant, ["", *page_after(cursor)])])
                page = Page(*reply)
                if not page.follows(epoch, cursor):
                    break
                pages.append(page)
                cursor = page.cursor
        return pages
