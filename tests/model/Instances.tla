---------------------------- MODULE Instances ----------------------------
(* Small worlds for Seenit.tla; `instances.py` says which go with which bounds. *)
EXTENDS Seenit
CONSTANTS p, q, a, b, c
TwoPartitions == <<<<a>>, <<b>>>>
ThreeCopies == <<<<a, b>>, <<c>>>>
OneUpload == <<<<a>>>>
OnePartition == <<<<a, b>>>>
SamePicture == [u \in {a, b, c} |-> 1]
SameBytes == [u \in {a, b, c} |-> 1]
OtherBytes == (a :> 1) @@ (b :> 2) @@ (c :> 3)
SomeBytes == (a :> 1) @@ (b :> 2) @@ (c :> 1)
Symmetric == Permutations(Procs)
==========================================================================
