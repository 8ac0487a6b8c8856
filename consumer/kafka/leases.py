"""Leases: who may commit a partition, and until when.

A partition is held on a *lease*: a number drawn when the partition is assigned and withdrawn when it is revoked or
lost. Work carries the lease it was polled under and is published only while that lease holds, so nothing is ever
committed for a partition that has gone to another process meanwhile.
"""

from dataclasses import dataclass

from consumer.events import Record


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to commit one partition, from its assignment to its revocation."""

    partition: int
    number: int


Leased = tuple[Record, Lease]
