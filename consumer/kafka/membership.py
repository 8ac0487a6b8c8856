"""Tells when a member of the group has to join it again, where librdkafka would give up or go on without partitions."""

import json
import time

from confluent_kafka import KafkaError

# How the client words that a static member of the same name still counts as alive: it does not hand on the error code.
NAME_IN_USE = KafkaError(KafkaError.UNRELEASED_INSTANCE_ID).str()
# A coordinator that stood still may afterwards take a member's requests before and after its time-out for those of two
# members, and fence it. A member that is fenced again this soon has a real twin, which is left to go on alone.
FENCED = KafkaError(KafkaError.FENCED_INSTANCE_ID).str()
TWIN_WITHIN_S = 60.0


class Membership:
    """Hears the client's errors and, of a member by KIP-848, its statistics. Used by one thread, which polls.

    Brokers say once which partitions a member by KIP-848 has. When that answer is lost, a client has to ask again;
    librdkafka (2.15) does so if the connection failed, but not if the request timed out, after the interval of its
    heartbeats. It goes on with the partitions that it had, and those that it was given have no owner, for good.
    """

    def __init__(self) -> None:
        self._fenced_at_s = -TWIN_WITHIN_S
        self.begin()

    def begin(self) -> None:
        """Forget the client of before."""
        self._timeouts = self._answers = 0
        self._may_have_missed_one = False
        self.may_lack_partitions = False

    def read(self, statistics: str) -> None:
        """Take statistics, as JSON; `may_lack_partitions` when answers come again after one that did not."""
        # All that goes over this connection is for the coordinator; other requests to it time out when heartbeats do.
        coordinators = [b for b in json.loads(statistics)["brokers"].values() if b["source"] == "logical"]
        timeouts = sum(broker["req_timeouts"] for broker in coordinators)
        answers = sum(broker["rx"] for broker in coordinators)
        if timeouts > self._timeouts:
            self._may_have_missed_one = True
        elif answers > self._answers:
            self.may_lack_partitions = self._may_have_missed_one
        self._timeouts, self._answers = timeouts, answers

    def ends_with(self, error: KafkaError) -> bool:
        """Tell whether the client gives up after this error, and another one can join in its place.

        In KIP-848 a successor has to wait until the session of its predecessor has ended.
        """
        return NAME_IN_USE in error.str() or (FENCED in error.str() and not self._is_fenced_again())

    def _is_fenced_again(self) -> bool:
        previously_s, self._fenced_at_s = self._fenced_at_s, time.monotonic()
        return self._fenced_at_s - previously_s < TWIN_WITHIN_S
