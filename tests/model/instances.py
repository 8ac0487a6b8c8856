"""Small worlds in which the model is searched: what is uploaded where, which faults there are, and what must hold."""

from dataclasses import dataclass, replace

INVARIANTS = (
    "OneVerdict",
    "NothingLost",
    "NothingCommittedUnowned",
    "OneUnique",
    "NoSelfMatch",
    "ReplaysEqual",
    "Remembered",
)


@dataclass(frozen=True, slots=True)
class Instance:
    """A world of two processes. `topic` and `content` are names in Instances.tla; the numbers say how many faults."""

    topic: str
    content: str = "OtherBytes"
    rebuilds: bool = False
    rebalances: int = 1  # the first of them only brings the two into the group
    crashes: int = 0
    losses: int = 0
    repeats: int = 0
    without: tuple[str, ...] = ()
    invariants: tuple[str, ...] = INVARIANTS

    def lacking(self, *without: str, noticed_by: str) -> "Instance":
        """The same world without a thing that the protocol rests on; the invariant is the one that must notice."""
        return replace(self, without=without, invariants=(noticed_by,))

    def configuration(self) -> str:
        """What TLC reads."""
        names = "".join(f"  {name} = {name}\n" for name in "pqabc")
        without = ", ".join(f'"{each}"' for each in self.without)
        return (
            f"SPECIFICATION Spec\nVIEW View\nSYMMETRY Symmetric\nCHECK_DEADLOCK FALSE\n"
            f"INVARIANTS {' '.join(self.invariants)}\n"
            f"CONSTANTS\n{names}  Procs = {{p, q}}\n  Topic <- {self.topic}\n  Picture <- SamePicture\n"
            f"  Content <- {self.content}\n  PageEntries = 1\n  Rebuilds = {str(self.rebuilds).upper()}\n"
            f"  Rebalances = {self.rebalances}\n  Crashes = {self.crashes}\n  Losses = {self.losses}\n"
            f"  Repeats = {self.repeats}\n  Without = {{{without}}}\n"
        )


# A late end needs two transactions of one producer, copies at one moment need two partitions, and a rebuild anything.
ONE_UPLOAD, IN_TURN, AT_ONCE, THREE = "OneUpload", "OnePartition", "TwoPartitions", "ThreeCopies"

# What stands in Instances.tla.
TOPICS = {ONE_UPLOAD: ["a"], IN_TURN: ["ab"], AT_ONCE: ["a", "b"], THREE: ["ab", "c"]}
CONTENT = {
    "SameBytes": {"a": 1, "b": 1, "c": 1},
    "OtherBytes": {"a": 1, "b": 2, "c": 3},
    "SomeBytes": {"a": 1, "b": 2, "c": 1},
}

# Searched with every change, within a minute.
QUICK = {
    "a connection that dies": Instance(IN_TURN, rebalances=2, repeats=1),
    "partitions that move": Instance(AT_ONCE, rebalances=2),
    "a process that dies": Instance(AT_ONCE, crashes=1),
    "the same bytes": Instance(AT_ONCE, "SameBytes", crashes=1),
    "a window that is forgotten": Instance(AT_ONCE, losses=1),
    "a window that is rebuilt": Instance(ONE_UPLOAD, rebuilds=True, crashes=1, losses=1),
    "a window that is rebuilt twice": Instance(ONE_UPLOAD, rebuilds=True, losses=2),
}

# Those of them whose walks are replayed on the code: Redis is real there, and the changelog is not played.
REPLAYED = [name for name, world in QUICK.items() if not world.rebuilds]

# Searched by `make model`.
DEEP = QUICK | {
    "a connection that dies, partitions that move on": Instance(IN_TURN, rebalances=3, repeats=1),
    "two connections that die": Instance(IN_TURN, rebalances=2, repeats=2),
    "a connection and a process": Instance(IN_TURN, rebalances=2, crashes=1, repeats=1),
    "partitions and a process": Instance(AT_ONCE, rebalances=2, crashes=1),
    "partitions and a connection": Instance(AT_ONCE, rebalances=2, repeats=1),
    "three copies": Instance(THREE, "SomeBytes", crashes=1, repeats=1),
    "copies, a window that is rebuilt": Instance(AT_ONCE, rebuilds=True, losses=1),
    "uploads in turn, a window that is rebuilt": Instance(IN_TURN, rebuilds=True, rebalances=2, losses=1),
    "uploads in turn, a window that is rebuilt twice": Instance(IN_TURN, rebuilds=True, losses=2),
}

# Each lacks one thing.
MUTANTS = {
    "compare, then append": Instance(AT_ONCE).lacking("append first", noticed_by="OneUnique"),
    "commit without a lease": Instance(AT_ONCE, rebalances=2).lacking("lease", noticed_by="NothingCommittedUnowned"),
    "two verdicts without a lease": Instance(AT_ONCE, rebalances=2).lacking("lease", noticed_by="OneVerdict"),
    "offsets of an old generation": Instance(IN_TURN, rebalances=2).lacking("generation", noticed_by="OneVerdict"),
    "offsets while they are changed": Instance(IN_TURN, rebalances=2).lacking(
        "stable offsets", noticed_by="OneVerdict"
    ),
    "a late end doubles": Instance(IN_TURN, rebalances=2, repeats=1).lacking(
        "new epoch", "late offsets", noticed_by="OneVerdict"
    ),
    "a late end loses": Instance(IN_TURN, rebalances=3, repeats=1).lacking(
        "new epoch", "late offsets", noticed_by="NothingLost"
    ),
    "late offsets": Instance(IN_TURN, rebalances=2, repeats=1).lacking(
        "new epoch after offsets", noticed_by="OneVerdict"
    ),
    "a commit when the window is lost": Instance(AT_ONCE, rebuilds=True, losses=1).lacking(
        "window check", noticed_by="OneUnique"
    ),
    "a commit when the window is lost, and a process that dies": Instance(
        ONE_UPLOAD, rebuilds=True, crashes=1, losses=1
    ).lacking("window check", noticed_by="Remembered"),
    "a rebuild that awaits nobody": Instance(ONE_UPLOAD, rebuilds=True, crashes=1, losses=1).lacking(
        "open transactions", noticed_by="Remembered"
    ),
    "a marker set in any case": Instance(ONE_UPLOAD, rebuilds=True, losses=2).lacking(
        "marked under the lock", noticed_by="Remembered"
    ),
    "an original that is lost before its verdict": Instance(AT_ONCE, rebuilds=True, losses=1).lacking(
        "originals", noticed_by="OneUnique"
    ),
    "a window begun in any case": Instance(AT_ONCE, rebuilds=True, losses=1).lacking(
        "confirmation", noticed_by="Remembered"
    ),
}
