"""What an upload shows of banks, and how it is told: allowed entries silence others."""

from collections.abc import Sequence
from typing import NamedTuple

from consumer.moderation.banks import BankKey, EntryKey
from consumer.moderation.shelf import Entry
from consumer.moderation.store import BankRow
from consumer.verdicts import BankHit, Evidence, SilencedBy


class BankResult(NamedTuple):
    """The hits that are reported of an upload, and the allowed entries that it shows."""

    hits: tuple[BankHit, ...] = ()
    silenced_by: tuple[SilencedBy, ...] = ()


NO_HITS = BankResult()


class Hit(NamedTuple):
    """An entry that a view of an upload shows; view 0 is the whole."""

    view: int
    entry: Entry
    bank: BankRow
    exact: bool
    l2: float | None
    evidence: Evidence | None = None

    def silences(self, entry: EntryKey) -> bool:
        """Whether an allowed entry silences another: each of a bank of the same tenant, or both of all tenants'."""
        return BankKey(self.entry.key.tenant, entry.bank) == entry.of_bank and entry.bank in self.bank.silences

    def told(self) -> BankHit:
        """Put it in the words of verdicts."""
        return bank_hit(self.entry, self.bank, self.l2, self.evidence, exact=self.exact)


def result_of(hits: Sequence[Hit]) -> BankResult:
    """Take out what allowed entries silence, and report each other entry once: exact, or by the nearest view.

    A picture within an upload cannot silence what is in the rest of it: an allowed entry silences hits of the view that
    shows it.
    """
    allowed = [hit for hit in hits if hit.bank.kind == "allow"]
    reported: dict[bytes, Hit] = {}
    silencing = {hit.entry.key for hit in allowed if hit.view == 0}
    for hit in sorted(hits, key=lambda each: (not each.exact, each.l2 or 0.0, each.entry.name)):
        if hit.bank.kind == "allow":
            continue
        silencers = [each for each in allowed if each.view == hit.view and each.silences(hit.entry.key)]
        silencing |= {each.entry.key for each in silencers}
        if not silencers:
            reported.setdefault(hit.entry.name, hit)
    return BankResult(
        tuple(hit.told() for hit in reported.values()),
        tuple(SilencedBy(bank=key.bank, entry_id=key.entry_id) for key in sorted(silencing, key=str)),
    )


def bank_hit(entry: Entry, bank: BankRow, l2: float | None, evidence: Evidence | None, *, exact: bool) -> BankHit:
    """Put in the words of verdicts that a picture shows an entry."""
    return BankHit(
        bank=entry.key.bank,
        kind=bank.kind,
        entry_id=entry.key.entry_id,
        action=bank.action,
        exact=exact,
        l2=l2,
        labels=entry.row.labels,
        evidence=evidence,
    )
