"""Check the contents of the topics and of Redis against what the service guarantees.

The checker shares no code with the service. It relies on nothing but the messages themselves, what the workload
planted, and the times at which the nemesis destroyed data.
"""

import json
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

import redis
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from tests.torture.nemesis import Harm
from tests.torture.workload import BANKS, Destination, Planted, PlantedEntry, Workload

READ_TIMEOUT_S = 60.0
FLOOD_BOUND = 3  # uploads an hour


class StoredMessage(NamedTuple):
    """A message as it stands on a topic."""

    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Mapping[str, bytes]


@dataclass(frozen=True)
class Verdict:
    """A message of the output topic, read by its published form; `committed` unless its transaction was aborted."""

    message: StoredMessage
    id: str
    data: Mapping[str, Any]
    committed: bool

    @property
    def image_id(self) -> str:
        return str(self.data["image_id"])

    @property
    def batch(self) -> str:
        """The moment at which the batch was polled, to the microsecond: a name for it."""
        return str(self.data["received_at"])

    @property
    def match(self) -> str | None:
        """The image id of the named original, if the upload is a duplicate."""
        match = self.data["match"]
        return None if match is None else str(match["image_id"])

    @property
    def decision(self) -> tuple[object, ...]:
        """The parts that have to stay the same whenever this upload is decided again."""
        others = [other["image_id"] for other in self.data["others"]]
        return self.id, self.data["verdict"], self.data["kind"], self.match, *others


@dataclass
class Report:
    """The violations, each with the id of the image concerned, and counts of what was checked."""

    violations: list[tuple[str, str]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def fail(self, image_id: str, what: str) -> None:
        """Add a violation; `what` is the rest of a sentence that begins with the image's id."""
        self.violations.append((image_id, what))


class Topics(NamedTuple):
    """The names of a seed's topics."""

    uploads: str
    verdicts: str
    dead_letters: str
    rematches: str = ""  # these three where there is feedback
    feedback: str = ""
    decisions: str = ""
    banks: str = ""  # where there are banks

    def destinations(self) -> dict[Destination, str]:
        """Where the messages of a workload go."""
        return {"uploads": self.uploads, "feedback": self.feedback, "banks": self.banks}


class Checker:
    """Reads what one seed left behind, and judges it."""

    def __init__(
        self, bootstrap_servers: str, topics: Topics, group: str, workload: Workload, harm: Sequence[Harm]
    ) -> None:
        self._servers = bootstrap_servers
        self._topics = topics
        self._group = group
        self._planted = workload.planted
        self._entries = workload.entries
        self._sent_at_s = workload.sent_at_s
        self._harm = harm
        self._report = Report()
        self._floods_expected: dict[tuple[str, str], bool] = {}
        self._uploads: list[StoredMessage] = []
        self._sent_to: dict[str, set[int]] = defaultdict(set)
        self._verdicts: dict[str, list[Verdict]] = defaultdict(list)

    def lag(self) -> int:
        """Count the messages of the input topics that no committed offset covers."""
        topics = {self._topics.uploads: self._group}
        if self._topics.feedback:
            topics[self._topics.feedback] = f"{self._group}-feedback"
        if self._topics.banks:
            topics[self._topics.banks] = f"{self._group}-rematches"
        lag = 0
        for topic, group in topics.items():
            offsets = self._committed_offsets(topic, group)
            lag += sum(end - offsets.get(partition, 0) for partition, end in self._ends(topic).items())
        return lag

    def decided(self) -> int:
        """Count the messages of the input topic that committed offsets cover."""
        return sum(self._committed_offsets(self._topics.uploads, self._group).values())

    def check(self, window: redis.Redis, key_prefix: str) -> Report:
        """Read everything, and check every guarantee of the service on it."""
        self._uploads = self._read(self._topics.uploads, "read_committed")
        for message in self._uploads:
            self._sent_to[_text(message.key)].add(message.partition)
        committed_messages = self._read(self._topics.verdicts, "read_committed")
        all_messages = self._read(self._topics.verdicts, "read_uncommitted")
        letters = self._read(self._topics.dead_letters, "read_committed")
        committed = {(message.partition, message.offset) for message in committed_messages}
        for message in all_messages:
            verdict = Verdict(
                message,
                message.headers["ce_id"].decode(),
                json.loads(message.value or b""),
                (message.partition, message.offset) in committed,
            )
            self._verdicts[verdict.image_id].append(verdict)
        self._report.counts["verdicts committed"] = len(committed_messages)
        self._report.counts["verdicts aborted"] = len(all_messages) - len(committed_messages)
        self._check_offsets()
        self._check_one_verdict_each()
        self._check_transactions()
        self._check_replays()
        self._check_matches()
        about: dict[str, list[StoredMessage]] = defaultdict(list)
        for letter in letters:
            about[letter.headers["seenit-topic"].decode()].append(letter)
        self._check_dead_letters(about[self._topics.uploads])
        if self._topics.feedback:
            self._check_feedback(about[self._topics.feedback])
        self._check_copies(_positions(window, key_prefix))
        told = self._read(self._topics.rematches, "read_committed") if self._topics.rematches else []
        if self._topics.feedback:
            self._check_floods([each for each in told if each.headers["ce_type"] == b"image.flood"])
        if self._topics.banks:
            rematches = [each for each in told if each.headers["ce_type"] == b"image.rematched"]
            self._check_banks(rematches, about[self._topics.banks])
        return self._report

    def verdicts(self) -> list[Verdict]:
        """Return the verdicts that `check` has read."""
        return [verdict for verdicts in self._verdicts.values() for verdict in verdicts]

    def partition(self, image_id: str) -> int | None:
        """Return the partition that an image was sent to; None if it was sent to several."""
        partitions = self._sent_to[image_id]
        return next(iter(partitions)) if len(partitions) == 1 else None

    def history(self, image_id: str) -> str:
        """Describe all that is known of an image and its copies, a line for each event, in the order of time."""
        family = self._family(image_id)
        lines: list[tuple[float, str]] = []
        for message in self._uploads:
            name = _text(message.key)
            if name in family:
                known = self._planted[name]
                what = "deleted" if message.headers.get("ce_type") == b"image.deleted" else "sent   "
                about = f"tenant {known.tenant}, content {known.content[:6]}"
                where = f"{message.partition}/{message.offset}"
                lines.append((message.timestamp_ms / 1000, f"{what} {name} at {where} {about}"))
        for name in family:
            for verdict in self._verdicts.get(name, []):
                fate = "verdict" if verdict.committed else "ABORTED"
                where = f"{verdict.message.partition}/{verdict.message.offset}"
                judgement = f"{verdict.data['verdict']} {verdict.data['kind']} of {verdict.match}"
                when = f"decided {verdict.data['decided_at']}"
                lines.append((verdict.message.timestamp_ms / 1000, f"{fate} {name} at {where}: {judgement}, {when}"))
        if lines:
            first, last = min(lines)[0] - 15, max(lines)[0] + 1
            for harm in self._harm:
                if harm.began_s <= last and (harm.ended_s or last) >= first:
                    took = (harm.ended_s or last) - harm.began_s
                    lines.append((harm.began_s, f"harm    {harm.name} for {took:.1f} s"))
        return "\n".join(f"  {_clock(time_s)} {what}" for time_s, what in sorted(lines))

    def _family(self, image_id: str) -> set[str]:
        """The image with all its copies."""
        planted = self._planted.get(image_id)
        if planted is None or planted.picture < 0:
            return {image_id}
        return {each.image_id for each in self._planted.values() if each.picture == planted.picture}

    # The guarantees.

    def _check_offsets(self) -> None:
        offsets = self._committed_offsets(self._topics.uploads, self._group)
        for partition, end in self._ends(self._topics.uploads).items():
            if offsets.get(partition, 0) != end:
                self._report.fail(
                    "", f"partition {partition} ends at {end}, and the committed offset is {offsets.get(partition)}"
                )

    def _check_one_verdict_each(self) -> None:
        sent = Counter(
            _text(message.key) for message in self._uploads if message.headers.get("ce_type") != b"image.deleted"
        )
        for name, times in sent.items():
            given = sum(verdict.committed for verdict in self._verdicts.get(name, []))
            self._report.counts["uploads"] += times
            if given != times:
                self._report.fail(name, f"sent {times} times, and has {given} verdicts")
        for name in self._verdicts.keys() - sent.keys():
            self._report.fail(name, "has a verdict, and was never uploaded")
            del self._verdicts[name]

    def _check_transactions(self) -> None:
        """Check that of a batch either all is visible or nothing, as far as it came from one partition.

        A batch is published in one transaction, less the partitions that went to another process meanwhile; if that is
        aborted, in a second one.
        """
        written: dict[tuple[str, int], dict[str, bool]] = defaultdict(dict)
        for name, verdicts in self._verdicts.items():
            partition = self.partition(name)
            if partition is not None:
                for verdict in verdicts:
                    visible = written[verdict.batch, partition]
                    visible[name] = visible.get(name, False) or verdict.committed
        for (batch, partition), visible in written.items():
            self._report.counts["transactions of one partition"] += any(visible.values())
            if any(visible.values()) and not all(visible.values()):
                torn = [name for name, is_visible in visible.items() if not is_visible]
                self._report.fail(
                    torn[0],
                    f"is one of {len(torn)} verdicts that cannot be seen, of {len(visible)} which the batch of {batch} "
                    f"gave for partition {partition}",
                )

    def _check_replays(self) -> None:
        for name, verdicts in self._verdicts.items():
            if len(verdicts) < 2 or self._disturbed([name]) or self._planted[name].judged:
                continue
            self._report.counts["uploads decided again"] += 1
            decisions = {
                verdict.decision
                for verdict in verdicts
                if verdict.committed or not self._wiped_between(verdict, verdicts)
            }
            if len(decisions) > 1 and not self._planted[name].deleted:
                self._report.fail(name, f"was decided in different ways: {sorted(map(str, decisions))}")

    def _check_matches(self) -> None:
        for name, verdicts in self._verdicts.items():
            planted = self._planted[name]
            for verdict in verdicts:
                if not verdict.committed:
                    continue
                self._report.counts[f"{verdict.data['verdict']} {verdict.data['kind'] or ''}".strip()] += 1
                if (verdict.data["verdict"] == "unprocessable") != (planted.outcome == "unprocessable"):
                    self._report.fail(name, f"was judged {verdict.data['verdict']} for {verdict.data['reason']}")
                if (verdict.match is None) != (verdict.data["verdict"] != "duplicate"):
                    self._report.fail(name, f"is {verdict.data['verdict']} with match {verdict.match}")
                named = [verdict.data["match"]] if verdict.match is not None else []
                for other in [*named, *verdict.data["others"]]:
                    self._check_match(planted, other, verdict.data["threshold_l2"])

    def _check_match(self, planted: Planted, match: Mapping[str, Any], threshold_l2: float) -> None:
        name = planted.image_id
        other = self._planted.get(match["image_id"])
        if other is None:
            self._report.fail(name, f"matches {match['image_id']}, which was never uploaded")
        elif other.image_id == name:
            self._report.fail(name, "matches itself")
        elif (other.tenant, other.picture) != (planted.tenant, planted.picture):
            self._report.fail(name, f"matches {other.image_id} of tenant {other.tenant}, which is no copy")
        elif match["l2"] > threshold_l2:
            self._report.fail(name, f"matches {other.image_id} at {match['l2']}, beyond {threshold_l2}")
        elif other.uploaded_at is not None:
            uploaded_at = datetime.fromisoformat(match["uploaded_at"])
            if abs((uploaded_at - other.uploaded_at).total_seconds()) > 0.001:
                self._report.fail(name, f"says {other.image_id} was uploaded at {uploaded_at}, not {other.uploaded_at}")

    def _check_dead_letters(self, letters: Iterable[StoredMessage]) -> None:
        sent = {(message.partition, message.offset): message for message in self._uploads}
        count: Counter[str] = Counter()
        for letter in letters:
            origin = (int(letter.headers["seenit-partition"]), int(letter.headers["seenit-offset"]))
            original = sent[origin]
            name = _text(original.key)
            count[name] += 1
            own_headers = {
                header: value for header, value in letter.headers.items() if not header.startswith("seenit-")
            }
            if (letter.key, letter.value, own_headers) != (original.key, original.value, original.headers):
                self._report.fail(name, "is not the same as its dead letter")
        for name, planted in self._planted.items():
            expected = int(planted.outcome == "unprocessable" and name in self._verdicts)
            if count[name] != expected:
                self._report.fail(name, f"has {count[name]} dead letters, not {expected}")

    def _check_copies(self, positions: Mapping[str, int]) -> None:
        families: dict[tuple[str, int], list[Planted]] = defaultdict(list)
        for planted in self._planted.values():
            if planted.outcome == "decided" and planted.image_id in self._verdicts:
                families[planted.tenant, planted.picture].append(planted)
        for family in families.values():
            if self._disturbed([copy.image_id for copy in family]):
                self._report.counts["families disturbed by loss of data"] += 1
            elif any(copy.judged for copy in family):
                self._report.counts["pairs that people decided about"] += 1
            elif any(copy.deleted for copy in family):
                self._check_deletion(family)
            elif len(family) > 1:
                self._report.counts["families of copies"] += 1
                self._check_family({copy.image_id: copy for copy in family}, positions)

    def _check_family(self, family: Mapping[str, Planted], positions: Mapping[str, int]) -> None:
        committed = {name: next((v for v in self._verdicts[name] if v.committed), None) for name in family}
        unique = [name for name, verdict in committed.items() if verdict is not None and verdict.match is None]
        if len(unique) != 1:
            self._report.fail(min(family), f"of its {len(family)} copies, {unique} are unique")
            return
        if not self._lost_since(family):
            first = min(positions.keys() & family.keys(), key=lambda name: positions[name], default=None)
            if first != unique[0]:
                self._report.fail(unique[0], f"is the unique one, and {first} stands first in the stream")
        if not self._wiped_since(family):
            self._check_campaign(unique[0], [v for v in committed.values() if v is not None and v.match is not None])
        for name, verdict in committed.items():
            if verdict is None or verdict.match is None:
                continue
            if verdict.data["kind"] == "near" and verdict.match != unique[0]:
                self._report.fail(name, f"is near, and names {verdict.match} instead of the first, {unique[0]}")
            if verdict.data["kind"] == "exact":
                holder = family.get(verdict.match)
                if holder is None or holder.content != family[name].content:
                    self._report.fail(name, f"is no exact copy of {verdict.match}")
                elif (original := committed[verdict.match]) is not None and original.data["kind"] == "exact":
                    self._report.fail(name, f"names {verdict.match}, which is an exact copy itself")

    def _check_campaign(self, first: str, duplicates: Sequence[Verdict]) -> None:
        """Check that all copies are in the campaign of the first, and that each was counted once.

        A copy may be decided while its match still is, by another process: that one's campaign begins with the match.
        """
        of_all = {verdict.image_id: verdict.data["campaign"] for verdict in duplicates}
        campaigns = [
            each
            for each in of_all.values()
            if each["last_seen"] > of_all.get(each["id"], {"last_seen": ""})["last_seen"]
        ]
        self._report.counts["copies decided before their match"] += len(of_all) - len(campaigns)
        if {campaign["id"] for campaign in campaigns} != {first}:
            self._report.fail(first, f"has copies in the campaigns {campaigns}")
        elif sorted(campaign["size"] for campaign in campaigns) != list(range(2, len(campaigns) + 2)):
            self._report.fail(first, f"has a campaign whose sizes are {[each['size'] for each in campaigns]}")
        elif self._topics.feedback:
            self._floods_expected[duplicates[0].data["tenant"], first] = len(campaigns) + 1 > FLOOD_BOUND

    def _check_floods(self, messages: Sequence[StoredMessage]) -> None:
        """Check that each campaign beyond the bound told so once, and no other."""
        told: dict[tuple[str, str], set[bytes]] = defaultdict(set)
        for message in messages:
            flood = json.loads(message.value or b"")
            told[flood["tenant"], flood["campaign"]].add(message.headers["ce_id"])
            if flood["state"] != "began" or flood["uploads_per_hour"] <= FLOOD_BOUND:
                self._report.fail(flood["campaign"], f"told of a flood: {flood}")
        for campaign, expected in self._floods_expected.items():
            self._report.counts["floods told"] += expected
            if len(told[campaign]) != expected:
                self._report.fail(campaign[1], f"told of {len(told[campaign])} floods, not of {int(expected)}")

    def _check_banks(self, rematches: Sequence[StoredMessage], letters: Sequence[StoredMessage]) -> None:
        """Check that uploads are told what they show, in their verdicts or as rematches, and of no more.

        An entry may be refused where what it takes to make one is away for too long.
        """
        refused = {_text(letter.key) for letter in letters}
        entries = [
            each for each in self._entries if json.dumps(["entry", None, each.bank, each.entry_id]) not in refused
        ]
        self._report.counts["entries"] += len(entries)
        self._report.counts["entries refused"] += len(letters)
        for reason in {letter.headers["seenit-reason"] for letter in letters} - {b"unreachable"}:
            self._report.fail("", f"an entry was refused for {reason!r}")
        told: dict[tuple[str, str, str], list[bytes]] = defaultdict(list)
        for message in rematches:
            hit = json.loads(message.value or b"")
            told[hit["image_id"], hit["bank"], hit["entry_id"]].append(message.headers["ce_id"])
        self._report.counts["rematches"] += len(rematches)
        for (name, bank, entry_id), ids in told.items():
            if len(ids) > 1:
                self._report.fail(
                    name, f"was told {len(ids)} times that it shows {entry_id} of {bank}, before that came"
                )
        by_picture: dict[int, list[PlantedEntry]] = defaultdict(list)
        for entry in entries:
            by_picture[entry.picture].append(entry)
        for name, verdicts in self._verdicts.items():
            committed = sorted((v for v in verdicts if v.committed), key=lambda v: v.message.timestamp_ms)
            planted, of_picture = self._planted[name], by_picture[self._planted[name].picture]
            shown = [{(hit["bank"], hit["entry_id"]) for hit in v.data["banks"]} for v in committed]
            shown.append({(bank, entry_id) for image_id, bank, entry_id in told if image_id == name})
            for bank, entry_id in set().union(*shown) - {(each.bank, each.entry_id) for each in of_picture}:
                self._report.fail(name, f"shows {entry_id} of {bank}, which is no copy of it")
            if committed and planted.outcome == "decided" and planted.banked:
                self._check_entries(name, of_picture, shown, committed[-1])

    def _check_entries(
        self, name: str, entries: Sequence[PlantedEntry], shown: Sequence[set[tuple[str, str]]], last: Verdict
    ) -> None:
        """Check what an upload was told: `shown` in each verdict, of which the last is late, then after these."""
        counting = [each for each in entries if not each.removed and BANKS[each.bank].get("enabled", True)]
        allowed = any(each.bank == "allowed" for each in counting)
        expected = {
            (each.bank, each.entry_id)
            for each in counting
            if each.bank != "allowed" and not (allowed and each.bank == "banned")
        }
        self._report.counts["uploads that show entries"] += bool(expected)
        if shown[-2] != expected:
            self._report.fail(name, f"shows {sorted(shown[-2])} at last, not {sorted(expected)}")
        if [each["bank"] for each in last.data["silenced_by"]] != ["allowed"] * allowed:
            self._report.fail(name, f"is silenced by {last.data['silenced_by']} at last")
        # An exact copy does not stand in the window, where earlier uploads are looked for.
        if last.data["kind"] != "exact" and not self._wiped_since([name]):
            silenced = {("banned", each.entry_id) for each in entries if each.bank == "allowed"}  # for a while
            for bank, entry_id in expected - silenced - set().union(*shown[:-2], shown[-1]):
                self._report.fail(name, f"was told that it shows {entry_id} of {bank} only when it was sent again")

    def _check_feedback(self, letters: Sequence[StoredMessage]) -> None:
        """Check that feedback was taken in or refused, once, and that rejected pairs do not match at last."""
        sent = self._read(self._topics.feedback, "read_committed")
        decided = self._read(self._topics.decisions, "read_committed")
        self._report.counts["feedback"] += len(sent)
        self._report.counts["feedback refused"] += len(letters)
        if len(decided) + len(letters) != len(sent):
            self._report.fail("", f"{len(sent)} feedbacks made {len(decided)} decisions and {len(letters)} letters")
        for letter in letters:
            pair = json.loads(letter.value or b"")["data"]
            known = [
                any(v.committed and v.message.timestamp_ms < letter.timestamp_ms for v in self._verdicts.get(name, []))
                for name in (pair["image_id"], pair["match_id"])
            ]
            if any(known) and not any(harm.wipes for harm in self._harm):
                self._report.fail(pair["image_id"], "had its verdict when feedback on it was refused")
        for reason in {letter.headers["seenit-reason"] for letter in letters} - {b"unknown-picture"}:
            self._report.fail("", f"feedback was refused for {reason!r}")
        for value in {message.key: message.value for message in decided}.values():
            decision = json.loads(value or b"")
            pair = decision["image_id"], decision["match_id"]
            if decision["decision"] == "reject" and all(name in self._verdicts for name in pair):
                self._report.counts["rejected pairs"] += 1
                for name, other in (pair, pair[::-1]):
                    last = max((v for v in self._verdicts[name] if v.committed), key=lambda v: v.message.timestamp_ms)
                    if other in (last.match, *(each["image_id"] for each in last.data["others"])):
                        self._report.fail(name, f"matches {other} at last, and people had said that it does not")

    def _check_deletion(self, family: Sequence[Planted]) -> None:
        """Check a picture, its deletion and a copy, sent in this order on one partition: the copy must not match.

        There is no copy where the uploads were stopped before it.
        """
        [gone] = [copy for copy in family if copy.deleted]
        for later in (copy for copy in family if not copy.deleted):
            self._report.counts["deletions"] += 1
            for verdict in self._verdicts[later.image_id]:
                if verdict.committed and verdict.match is not None:
                    self._report.fail(
                        later.image_id, f"matches {verdict.match}, and {gone.image_id} was deleted before"
                    )

    def _disturbed(self, names: Iterable[str]) -> bool:
        """Tell whether data was lost between the first of these uploads and the last of their verdicts."""
        names = list(names)
        began = min(self._sent_at_s[name] for name in names)
        ended = max(
            (v.message.timestamp_ms / 1000 for name in names for v in self._verdicts[name]), default=time.time()
        )
        return any(
            harm.loses_data and harm.began_s <= ended and (harm.ended_s or ended) >= began for harm in self._harm
        )

    def _wiped_between(self, aborted: Verdict, verdicts: Sequence[Verdict]) -> bool:
        """Tell whether Redis lost its data between an aborted decision and the next, which then need not repeat it.

        The service's clock, which dates decisions, may be wrong: one is taken after its upload was sent, and before the
        brokers date its verdict.
        """
        sent_s, written_ms = self._sent_at_s[aborted.image_id], aborted.message.timestamp_ms
        later_ms = [each.message.timestamp_ms for each in verdicts if each.message.timestamp_ms > written_ms]
        next_s = min(later_ms) / 1000 if later_ms else None
        return next_s is not None and any(
            harm.wipes and harm.began_s <= next_s and (harm.ended_s or next_s) >= sent_s for harm in self._harm
        )

    def _lost_since(self, names: Iterable[str]) -> bool:
        """Tell whether Redis lost its data after the first of these uploads, so that it no longer has their order."""
        began = min(self._sent_at_s[name] for name in names)
        return any(harm.loses_data and (harm.ended_s or harm.began_s) >= began for harm in self._harm)

    def _wiped_since(self, names: Iterable[str]) -> bool:
        """Tell whether Redis lost its data after the first of these uploads: campaigns do not come back."""
        began = min(self._sent_at_s[name] for name in names)
        return any(harm.wipes and (harm.ended_s or harm.began_s) >= began for harm in self._harm)

    # Reading.

    def _read(self, topic: str, isolation: str) -> list[StoredMessage]:
        """Read every message of a topic.

        Raises TimeoutError when a transaction stays open, which keeps every committed reader from going on.
        """
        consumer = Consumer(
            {
                "bootstrap.servers": self._servers,
                "group.id": f"checker-{uuid.uuid4()}",
                "isolation.level": isolation,
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 10,  # an end is told by a fetch that brings nothing
                "auto.offset.reset": "error",
                "log_level": 0,
            }
        )
        messages: list[StoredMessage] = []
        try:
            # The end that a committed reader is shown is before the end of the log while a transaction is open.
            ends = self._ends(topic)
            unread = set(ends)
            consumer.assign([TopicPartition(topic, partition, 0) for partition in ends])
            deadline = time.monotonic() + READ_TIMEOUT_S
            while unread:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{topic} cannot be read to its end: partitions {sorted(unread)} stay open")
                for polled in consumer.consume(500, 0.05):
                    error = polled.error()
                    partition, offset = polled.partition() or 0, polled.offset() or 0
                    if error is None:
                        headers = {str(name): _bytes(value) for name, value in polled.headers() or ()}
                        messages.append(
                            StoredMessage(
                                partition, offset, polled.timestamp()[1], polled.key(), polled.value(), headers
                            )
                        )
                    elif error.code() != KafkaError._PARTITION_EOF:
                        raise KafkaException(error)
                    elif offset >= ends[partition]:
                        unread.discard(partition)
        finally:
            consumer.close()
        return messages

    def _ends(self, topic: str) -> dict[int, int]:
        """Map each partition of a topic to the offset of its end."""

        def ends(client: Consumer, partitions: list[TopicPartition]) -> dict[int, int]:
            return {each.partition: client.get_watermark_offsets(each, READ_TIMEOUT_S)[1] for each in partitions}

        return self._query_offsets(topic, ends)

    def _committed_offsets(self, topic: str, group: str) -> dict[int, int]:
        """Map each partition of a topic to the offset that a group has committed, if it has."""

        def committed(client: Consumer, partitions: list[TopicPartition]) -> dict[int, int]:
            offsets = client.committed(partitions, READ_TIMEOUT_S)
            return {each.partition: each.offset for each in offsets if each.offset >= 0}

        return self._query_offsets(topic, committed, group)

    def _query_offsets(
        self, topic: str, query: Callable[[Consumer, list[TopicPartition]], dict[int, int]], group: str = ""
    ) -> dict[int, int]:
        """Query as a client of the group that does not join it; try again while brokers are only just coming back."""
        deadline = time.monotonic() + READ_TIMEOUT_S
        client = Consumer(
            {
                "bootstrap.servers": self._servers,
                "group.id": group or self._group,
                "isolation.level": "read_uncommitted",
                "log_level": 0,
            }
        )
        try:
            while True:
                try:
                    partitions = client.list_topics(topic, READ_TIMEOUT_S).topics[topic].partitions
                    return query(client, [TopicPartition(topic, partition) for partition in partitions])
                except KafkaException:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.2)
        finally:
            client.close()


def _positions(window: redis.Redis, key_prefix: str) -> dict[str, int]:
    """Map each image id to its position in its tenant's stream, as the `ids` maps in Redis have it."""
    positions: dict[str, int] = {}
    for key in window.scan_iter(f"{key_prefix}:*:ids", count=1000):
        for name, places in window.hgetall(key).items():
            positions[_text(_bytes(name))] = int(_bytes(places).split()[0].rpartition(b"-")[2])
    return positions


def _bytes(value: str | bytes | None) -> bytes:
    return value.encode() if isinstance(value, str) else value or b""


def _text(key: bytes | None) -> str:
    return (key or b"").decode()


def _clock(time_s: float) -> str:
    """Write a time in seconds since the epoch as local time with milliseconds."""
    return f"{time.strftime('%H:%M:%S', time.localtime(time_s))}.{int(time_s * 1000) % 1000:03d}"
