"""Banks as the pipeline uses them: what is encoded for them, what uploads show of them, what deletions remove."""

from collections.abc import Callable
from contextlib import suppress

from consumer.errors import Unprocessable
from consumer.kafka.messages import OutgoingMessage
from consumer.moderation.banks import removal_message
from consumer.moderation.candidates import BankRequest, Holders
from consumer.moderation.hits import NO_HITS, BankResult
from consumer.moderation.matching import Banks, Found
from consumer.pipeline.batch import Item
from consumer.pipeline.remembered import RecentViews, RememberedViews
from consumer.verification.looks import Asked, Looked
from consumer.window.contract import Window

NOTHING_KNOWN = RememberedViews(None, None)


class BankStep:
    """Compares the uploads of a batch with banks; does nothing where there are none. `wants_views` from any thread."""

    def __init__(self, banks: Banks | None = None, topic: str = "") -> None:
        """`topic` has the banks."""
        self._banks = banks
        self._topic = topic
        self._recent_views = RecentViews()

    def wants_views(self, item: Item) -> bool:
        """Whether an exact copy has to be encoded all the same, to be compared with banks."""
        if self._banks is None or not self._banks.compares(item.event.tenant):
            return False
        remembered = self._recent_views.get(item.content.digest)
        if remembered is not None and (remembered.pdq is not None or not self.wants_pdq(item.event.tenant)):
            item.content.remembered = remembered
        return item.content.remembered is None

    def wants_pdq(self, tenant: str) -> bool:
        """Whether a bank of the tenant, or of all, holds PDQ hashes."""
        return self._banks is not None and self._banks.compares_pdq(tenant)

    def refresh(self) -> None:
        """Read what others wrote to the banks. For idle moments. Raises Unavailable."""
        if self._banks is not None:
            self._banks.sync()

    def search(self, items: list[Item], encode_again: Callable[[Item], None]) -> tuple[Found, Asked[Holders]] | None:
        """Find what uploads may show of banks, and what has to be looked at for it. Raises Unavailable.

        `encode_again` encodes an exact copy that was not encoded when it was read.
        """
        if self._banks is None:
            return None
        self._banks.sync()
        requests = []
        for item in items:
            is_compared = item.failure is None and self._banks.compares(item.event.tenant)
            views, pdq = self._views(item, encode_again) if is_compared else NOTHING_KNOWN
            requests.append(BankRequest(item.event.tenant, item.content.digest, views, pdq))
        return self._banks.search(requests)

    def results(self, items: list[Item], found: Found | None, looked: Looked[Holders]) -> list[BankResult]:
        """Tell which entries of banks each upload shows, after these looks."""
        if self._banks is None or found is None:
            return [NO_HITS] * len(items)
        return self._banks.results(found, looked)

    def removals(self, item: Item, window: Window) -> list[OutgoingMessage]:
        """Messages that remove the entries of a deleted upload, unless the window still holds one of its name."""
        tenant, image_id = item.event.tenant, item.event.image_id
        entries = [] if self._banks is None else self._banks.entries_of_image(tenant, image_id)
        if not entries or window.find_record(tenant, image_id) is not None:
            return []
        return [removal_message(self._topic, entry) for entry in entries]

    def _views(self, item: Item, encode_again: Callable[[Item], None]) -> RememberedViews:
        """What was encoded of an upload; of an exact copy perhaps earlier, or now if banks came only after it was read.

        Raises Unavailable.
        """
        content = item.content
        if content.takes_no_inference and content.remembered is None and self.wants_views(item):
            content.encode_copy = True
            with suppress(Unprocessable):  # the copy is answered all the same
                encode_again(item)
        if content.remembered is None:
            content.remembered = RememberedViews(item.encoding.views, content.pdq)
            if item.encoding.views is not None:  # what could not be had of one copy may be had of the next
                self._recent_views.put(content.digest, content.remembered)
        return content.remembered


NO_BANKS = BankStep()
