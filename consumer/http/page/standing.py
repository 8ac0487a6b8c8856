"""How far a campaign is decided: one definition for the order of review, its progress, Undo and the list."""

from typing import NamedTuple

from consumer.http.page.campaigns import Campaign, pair_of
from consumer.http.page.decisions import Decision, DecisionLog
from consumer.verdicts import Verdict


class Standing(NamedTuple):
    """What was decided about a campaign's copies: the latest decision, the copy it is about, and the copies left open.

    Copies that came after the latest decision are covered by it; those that were there already are not, nor those
    whose decision was taken back. A campaign is decided when no copy is open. `made` is the decision that stands about
    each copy, by image id.
    """

    campaign: Campaign
    decision: Decision | None
    about: Verdict | None
    open: list[Verdict]
    made: dict[str, Decision]

    @property
    def to_show(self) -> Verdict:
        """The copy to look at: one that is open, or else the one that was decided last."""
        return self.open[0] if self.open else self.about or self.campaign.listed[0]


def standing_of(campaign: Campaign, decisions: DecisionLog) -> Standing:
    """Tell how far a campaign is decided."""
    copies = campaign.listed
    decided = decisions.about(campaign.tenant, [pair_of(each) for each in copies])
    own = {copy.image_id: decision for copy, decision in zip(copies, decided, strict=True)}
    # Of what one act decided together, the copy that went into a bank tells the most.
    standing = [(each, copy) for copy, each in zip(copies, decided, strict=True) if each and each.stands]
    latest, about = max(standing, key=lambda each: (each[0].at, each[0].to_bank is not None), default=(None, None))

    def is_open(copy: Verdict) -> bool:
        decision = own[copy.image_id]
        if decision is None:
            return latest is None or copy.decided_at <= latest.at
        return not decision.stands

    left = [each for each in campaign.copies if is_open(each)]
    return Standing(campaign, latest, about, left, {copy.image_id: each for each, copy in standing})
