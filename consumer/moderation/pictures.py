"""Finds out what the window and its campaigns know of pictures, such as those that feedback is about."""

from collections.abc import Sequence
from typing import NamedTuple

from consumer.errors import Unavailable, Unprocessable
from consumer.events import MatchFeedback
from consumer.moderation.campaigns import MatchDetails
from consumer.window.loss_guard import RECOVERY_PENDING
from consumer.window.records import decode_name, decode_record, encode_name
from consumer.window.store import Call, WindowRecovering
from consumer.window.window import RedisWindow


class KnownPicture(NamedTuple):
    """What is known of a picture: its digest, if it is known at all; and of a duplicate its match."""

    image_id: str
    digest: bytes = b""
    was_deleted: bool = False
    is_stored: bool = False  # in the window, where exact copies are not
    match: MatchDetails | None = None

    @property
    def is_deleted(self) -> bool:
        """Whether it was deleted lately, and is not there again."""
        return self.was_deleted and not self.digest


class Pair(NamedTuple):
    """Both pictures of a match, and the match as a verdict named it, if one did; or what is wrong with the feedback."""

    image: KnownPicture
    match: KnownPicture
    named: MatchDetails | None
    problem: Unprocessable | None = None

    @property
    def is_deleted(self) -> bool:
        """Whether one of them is deleted."""
        return self.image.is_deleted or self.match.is_deleted


def for_bank(image: KnownPicture, match: KnownPicture) -> KnownPicture | None:
    """The picture that a bank gets of a match: the upload, or its original where the upload is not stored."""
    return next((each for each in (image, match) if each.is_stored), None)


class KnownPictures:
    """Looks pictures up. Raises Unavailable("redis", ...), also while a window is being recovered."""

    def __init__(self, window: RedisWindow) -> None:
        self._window = window

    def find(self, tenant: str, image_id: str) -> KnownPicture:
        """Find a picture by its image id."""
        self._require_all()
        [known] = self._ask([(tenant, "@" + image_id)])
        return known

    def look_up(self, feedback: Sequence[MatchFeedback]) -> list[Pair]:
        """Find both pictures of each match."""
        self._require_all()
        images = self._ask([(each.tenant, _name(each)) for each in feedback])
        named = {
            (each.tenant, image.match.position): ""
            for each, image in zip(feedback, images, strict=True)
            if image.match is not None
        }
        for where, record in zip(list(named), self._window.read_records(list(named)), strict=True):
            named[where] = "" if record is None else decode_name(decode_record(record).image_id)
        match_ids = [
            each.match_id or ("" if image.match is None else named[each.tenant, image.match.position])
            for each, image in zip(feedback, images, strict=True)
        ]
        wanted = [(each.tenant, "@" + match_id) for each, match_id in zip(feedback, match_ids, strict=True)]
        pairs = []
        for each, image, match in zip(feedback, images, self._ask(wanted), strict=True):
            of_verdict = image.match is not None and named[each.tenant, image.match.position] == match.image_id
            pair = Pair(image, match, image.match if of_verdict else None)
            pairs.append(pair._replace(problem=_problem(each, pair)))
        return pairs

    def _require_all(self) -> None:
        guard = self._window.loss_guard
        if guard.recovers and guard.marker() is None:
            raise Unavailable("redis", RECOVERY_PENDING)  # what is not known now may be known again

    def _ask(self, names: Sequence[tuple[str, str]]) -> list[KnownPicture]:
        """Ask `lua/member.lua` about (tenant, name)."""
        by_tenant: dict[str, list[bytes | str | int]] = {}
        for tenant, name in names:
            by_tenant.setdefault(tenant, [""]).append(encode_name(name))
        calls: list[Call] = list(by_tenant.items())
        while True:
            try:
                replies = dict(zip(by_tenant, map(iter, self._window.store.run("member", calls)), strict=True))
                return [_known(*next(replies[tenant])) for tenant, _ in names]
            except WindowRecovering as half:
                self._window.loss_guard.handle_half_recovered(half.tenants)


def _name(feedback: MatchFeedback) -> str:
    return f"!{feedback.verdict_id}" if feedback.image_id is None else f"@{feedback.image_id}"


def _known(image_id: bytes, digest: bytes, was_deleted: int, details: bytes, is_stored: int) -> KnownPicture:
    match = MatchDetails.from_json(details) if details else None
    return KnownPicture(decode_name(image_id), digest, bool(was_deleted), bool(is_stored), match)


def _problem(feedback: MatchFeedback, pair: Pair) -> Unprocessable | None:
    """What is wrong with the feedback, if anything is."""
    image, match, tenant = pair.image, pair.match, feedback.tenant
    remedy = "give image_id and match_id"
    if feedback.image_id is None and not image.image_id:
        text = f"verdict_id: no verdict on a duplicate of tenant {tenant!r} with this id is remembered; {remedy}"
    elif not match.image_id:
        text = f"verdict_id: the match that the verdict named is not in the window any more; {remedy}"
    elif feedback.decision == "withdraw":
        return None  # decisions outlive what is known of their pictures
    elif image.is_deleted or match.is_deleted:
        gone = image if image.is_deleted else match
        text = f"the picture {gone.image_id[:200]!r} of tenant {tenant!r} was deleted"
    elif not image.digest and not match.digest:
        text = f"neither {image.image_id[:200]!r} nor {match.image_id[:200]!r} is known as a picture of {tenant!r}"
    else:
        return None
    return Unprocessable("unknown-picture", text)
