------------------------------- MODULE Seenit -------------------------------
(* How the processes of a group give each upload one verdict: partitions and leases, the window in Redis and the       *)
(* replica that each process reads of it, the transaction that publishes, and the rebuild of a window that was lost.   *)
(*                                                                                                                     *)
(* A batch is one upload. Above each action that Seenit carries out stands, after @, the function that does it. Each   *)
(* action is what happens between two round trips, so that a process may die or be overtaken between any two actions.  *)
(* `Without` takes away things that the protocol rests on, to see that an invariant notices.                           *)
EXTENDS Naturals, Sequences, FiniteSets, TLC

CONSTANTS
    Procs,        \* processes of the group; each publishes under a name of its own
    Topic,        \* the uploads in each partition of the input topic: a sequence of sequences
    Picture,      \* upload -> the picture that it shows; uploads of the same picture are copies
    Content,      \* upload -> its bytes; the same bytes show the same picture
    PageEntries,  \* entries of the window's log that one round trip returns
    Rebuilds,     \* whether a window that Redis lost is rebuilt
    Rebalances, Crashes, Losses, Repeats,  \* how many there may be of each
    Without       \* a set of strings

VARIABLES
    broker,   \* the group, the transactions, what is visible, and requests that the network holds back
    store,    \* Redis
    proc,     \* each process
    left,     \* how many more faults there may be
    fresh,    \* the next number of a window, a marker or a position
    decided,  \* upload -> the decisions on it so far, each with the window that it rests on
    last      \* the action that led here; no part of the state

vars == <<broker, store, proc, left, fresh, decided, last>>
View == <<broker, store, proc, left, fresh, decided>>

None == "none"
Partitions == DOMAIN Topic
Range(sequence) == {sequence[i] : i \in DOMAIN sequence}
Uploads == UNION {Range(Topic[part]) : part \in Partitions}
PartitionOf(u) == CHOOSE part \in Partitions : u \in Range(Topic[part])
OffsetOf(u) == CHOOSE i \in DOMAIN Topic[PartitionOf(u)] : Topic[PartitionOf(u)][i] = u
Earliest(entries) == CHOOSE e \in entries : \A other \in entries : e.at <= other.at
InOrder(entries) == CHOOSE s \in [1..Cardinality(entries) -> entries] : \A i, j \in DOMAIN s : i < j => s[i].at < s[j].at
First(n, sequence) == SubSeq(sequence, 1, IF n < Len(sequence) THEN n ELSE Len(sequence))

NoTransaction == [open |-> FALSE, verdicts |-> <<>>, upserts |-> {}, offsets |-> {}]
NoReplica == [window |-> 0, rows |-> <<>>]
NoWindow == [window |-> 0, entries |-> <<>>, half |-> FALSE, leave |-> 0]
\* leave: the marker by which it was begun, until that is known to have been there all the time
Undecided == [kind |-> None, match |-> None, window |-> 0]
NoOriginal == [u |-> None, at |-> 0]
NoRecovery == [step |-> None, cut |-> {}, read |-> {}, window |-> 0]

Started == [
    stage |-> "idle", upload |-> None, lease |-> 0, looked |-> FALSE, own |-> 0, exact |-> NoOriginal, decision |-> Undecided,
    original |-> NoOriginal, \* the match as it stands in the window
    leases |-> [part \in Partitions |-> 0], next |-> [part \in Partitions |-> 0], generation |-> 0,
    producer |-> None, unconfirmed |-> FALSE, repeated |-> FALSE,
    replica |-> NoReplica, leave |-> 0, reading |-> 0, marker |-> 0, redo |-> {}, recovery |-> NoRecovery]

Init ==
    /\ broker = [
        generation |-> 0, owner |-> [part \in Partitions |-> None], committed |-> [part \in Partitions |-> 0],
        transactions |-> [p \in Procs |-> NoTransaction],
        ends |-> [p \in Procs |-> None], awaited |-> [p \in Procs |-> {}],
        held |-> {}, visible |-> [u \in Uploads |-> <<>>], changelog |-> {}]
    /\ store = NoWindow @@ [marker |-> 0, lock |-> None]
    /\ proc = [p \in Procs |-> Started]
    /\ left = [rebalances |-> Rebalances, crashes |-> Crashes, losses |-> Losses, repeats |-> Repeats]
    /\ fresh = 1
    /\ decided = [u \in Uploads |-> {}]
    /\ last = <<"Init">>

-----------------------------------------------------------------------------
Step(name, p, changes) == proc' = [proc EXCEPT ![p] = changes @@ @] /\ last' = <<name, p>>
Fault(name) == left[name] > 0 /\ left' = [left EXCEPT ![name] = @ - 1]
NoFault == UNCHANGED left
At(p, stage) == proc[p].stage = stage
Holds(p) == proc[p].leases[PartitionOf(proc[p].upload)] = proc[p].lease

Same(p) == UNCHANGED <<store, left, fresh, decided>>          \* only the broker and p change
Alone(p) == UNCHANGED <<broker, store, left, fresh, decided>> \* only p changes

-----------------------------------------------------------------------------
(* The group. *)

Rebalance == \* the coordinator distributes the partitions anew: a member came, went, or was silent for too long
    /\ Fault("rebalances")
    /\ \E owner \in [Partitions -> Procs] :
        /\ owner # broker.owner
        /\ broker' = [broker EXCEPT !.generation = @ + 1, !.owner = owner]
        /\ last' = <<"Rebalance", owner>>
    /\ UNCHANGED <<store, proc, fresh, decided>>

(* @ consumer.kafka.consumer.UploadsConsumer._withdraw *)
Withdraw(p) == \* a publish that hangs is not waited for: the brokers refuse it
    /\ proc[p].generation # broker.generation
    /\ \E part \in Partitions : proc[p].leases[part] # 0
    /\ Step("Withdraw", p, [leases |-> [part \in Partitions |-> 0]])
    /\ Alone(p)

(* @ consumer.kafka.consumer.UploadsConsumer._assigned *)
Assign(p) ==
    LET mine == {part \in Partitions : broker.owner[part] = p}
        pending == UNION {broker.transactions[q].offsets : q \in Procs}
    IN
    /\ proc[p].generation # broker.generation
    /\ \A part \in Partitions : proc[p].leases[part] = 0
    /\ proc[p].stage \notin {"publish", "dropped", "produced", "sure", "offered", "failed"} \* these hold the commit lock
    \* The coordinator does not tell offsets over which a transaction is open.
    /\ "stable offsets" \in Without \/ \A o \in pending : o.part \notin mine
    /\ Step("Assign", p, [
        generation |-> broker.generation,
        leases |-> [part \in Partitions |-> IF part \in mine THEN broker.generation ELSE 0],
        next |-> [part \in Partitions |-> IF part \in mine THEN broker.committed[part] ELSE 0]])
    /\ Alone(p)

(* @ consumer.kafka.consumer.UploadsConsumer.poll *)
Poll(p) ==
    /\ At(p, "idle")
    /\ \E part \in Partitions :
        /\ proc[p].leases[part] # 0
        /\ proc[p].next[part] < Len(Topic[part])
        /\ LET u == Topic[part][proc[p].next[part] + 1] IN
           /\ proc' = [proc EXCEPT ![p] = [
                stage |-> "polled", upload |-> u, lease |-> @.leases[part],
                next |-> [@.next EXCEPT ![part] = @ + 1]] @@ @]
           /\ last' = <<"Poll", p, u>>
    /\ Alone(p)

-----------------------------------------------------------------------------
(* The window. *)

Usable == store.window # 0 /\ ~store.half
(* A window that was begun, but is not confirmed, counts as none. *)
IsThere == store.window # 0 /\ store.leave = 0
OwnAt(u) == {e.at : e \in {e \in Range(store.entries) : e.u = u}}
(* The same bytes under another id before an upload, or anywhere if it has no record of its own. *)
ExactCopies(u) == {e \in Range(store.entries) :
    e.u # u /\ Content[e.u] = Content[u] /\ \A at \in OwnAt(u) : e.at < at}
Kept(redo, reading) == \* a reading after the commit shows whether the writes of a batch are safe
    {e \in redo : ~(e.done /\ e.marker = reading)}

(* What p decides on its upload in a window; `at` is the position of its own record, or 0 if it has none. *)
Decide(name, p, original, window, at) ==
    LET u == proc[p].upload
        match == original.u
        decision == [kind |-> IF match = None THEN "unique" ELSE "duplicate", match |-> match, window |-> window]
        write == IF Rebuilds /\ at # 0
            THEN {[u |-> u, at |-> at, marker |-> proc[p].marker, done |-> FALSE]} ELSE {}
    IN
    /\ Step(name, p, [
        stage |-> "decided", decision |-> decision, own |-> at, exact |-> NoOriginal, looked |-> FALSE, original |-> original,
        redo |-> proc[p].redo \cup write])
    /\ decided' = [decided EXCEPT ![u] = @ \cup {decision}]

(* @ consumer.window.window.RedisWindow.find_exact *)
LookUp(p) ==
    /\ At(p, "polled")
    /\ ~store.half
    /\ Step("LookUp", p, [
        stage |-> "looked", looked |-> ExactCopies(proc[p].upload) # {},
        replica |-> IF "append first" \in Without
            THEN [window |-> store.window, rows |-> store.entries] ELSE proc[p].replica])
    /\ Alone(p)

(* @ consumer.window.redo_log.RedoLog.record *)
Record(p) ==
    /\ At(p, "looked")
    /\ \A e \in proc[p].redo : proc[p].reading # 0 => e.marker = proc[p].reading \* else Replay comes first
    /\ Step("Record", p, [stage |-> IF proc[p].looked THEN "found" ELSE "new", marker |-> proc[p].reading])
    /\ Alone(p)

(* @ consumer.pipeline.match.Match._confirm_exact_matches *)
Confirm(p) ==
    LET copies == ExactCopies(proc[p].upload) IN
    /\ At(p, "found")
    /\ ~store.half
    /\ IF copies = {}
       THEN Step("Confirm", p, [stage |-> "new", looked |-> FALSE]) /\ UNCHANGED decided
       ELSE LET own == OwnAt(proc[p].upload)
            IN  Decide("Confirm", p, Earliest(copies), store.window, IF own = {} THEN 0 ELSE CHOOSE at \in own : TRUE)
    /\ UNCHANGED <<broker, store, left, fresh>>

(* @ consumer.window.replicas.Replicas._let_begin *)
LetBegin(p) == \* the window is not there, and the marker says that it was not lost
    /\ At(p, "new")
    /\ Rebuilds /\ ~IsThere /\ ~store.half /\ store.marker # 0 /\ proc[p].leave = 0
    /\ Step("LetBegin", p, [
        leave |-> store.marker, reading |-> store.marker, redo |-> Kept(proc[p].redo, store.marker), replica |-> NoReplica])
    /\ Alone(p)

(* @ consumer.window.replicas.Replicas._read_pages *)
AppendUpload(p) == \* the script appends, and returns a page of the log; a replica of another window is read from the start
    LET u == proc[p].upload
        begins == store.window = 0
        window == IF begins THEN fresh ELSE store.window
        copies == ExactCopies(u)
        known == OwnAt(u) # {}
        stores == ~known /\ copies = {}
        at == IF known THEN CHOOSE each \in OwnAt(u) : TRUE ELSE fresh
        entries == IF stores THEN Append(store.entries, [u |-> u, at |-> at]) ELSE store.entries
        replica == proc[p].replica
        goes_on == replica.rows = <<>> \/ replica.window = window
        seen == IF goes_on THEN Len(replica.rows) ELSE 0
        rows == First(seen + PageEntries, entries)
        stage == IF ~goes_on THEN "new" ELSE IF proc[p].leave # 0 THEN "begun"
            ELSE IF "append first" \in Without \/ Len(rows) < seen + PageEntries THEN "read" ELSE "reading"
    IN
    /\ At(p, "new")
    /\ ~store.half
    /\ ~IsThere /\ Rebuilds => proc[p].leave # 0
    /\ store' = [store EXCEPT
        !.window = window, !.entries = entries,
        !.leave = IF ~IsThere /\ "confirmation" \notin Without THEN proc[p].leave ELSE @]
    /\ fresh' = IF stores \/ begins THEN fresh + 1 ELSE fresh
    /\ Step("AppendUpload", p, [
        stage |-> stage, own |-> IF known \/ stores THEN at ELSE 0,
        exact |-> IF copies = {} THEN NoOriginal ELSE Earliest(copies),
        replica |-> IF "append first" \in Without THEN replica
            ELSE IF goes_on THEN [window |-> window, rows |-> rows] ELSE NoReplica])
    /\ UNCHANGED <<broker, left, decided>>

(* @ consumer.window.loss_guard.LossGuard.check_begun *)
CheckBegun(p) == \* whether the marker that gave leave was still there when the window was
    LET lost == IF "confirmation" \in Without THEN store.marker = 0 ELSE store.marker # proc[p].leave IN
    /\ At(p, "begun")
    /\ Step("CheckBegun", p, [
        reading |-> store.marker, redo |-> IF store.marker = 0 THEN proc[p].redo ELSE Kept(proc[p].redo, store.marker)]
        @@ IF lost THEN [stage |-> "new", leave |-> 0, replica |-> NoReplica] ELSE [stage |-> "checked"])
    /\ Alone(p)

(* @ consumer.window.loss_guard.LossGuard.confirm *)
ConfirmBegun(p) == \* with a script, which compares
    LET replica == proc[p].replica
        stage == IF Len(replica.rows) < PageEntries THEN "read" ELSE "reading"
    IN
    /\ At(p, "checked")
    /\ Step("ConfirmBegun", p, [stage |-> stage, leave |-> 0])
    /\ store' = IF store.leave = proc[p].leave THEN [store EXCEPT !.leave = 0] ELSE store
    /\ UNCHANGED <<broker, left, fresh, decided>>

(* @ consumer.window.replica.Replica.precedes *)
ReadPage(p) ==
    LET replica == proc[p].replica
        rows == First(Len(replica.rows) + PageEntries, store.entries)
    IN
    /\ At(p, "reading")
    /\ ~store.half
    /\ IF replica.window # store.window
       THEN Step("ReadPage", p, [stage |-> "new", own |-> 0, exact |-> NoOriginal, replica |-> NoReplica])
       ELSE Step("ReadPage", p, [
                stage |-> IF Len(rows) < Len(replica.rows) + PageEntries THEN "read" ELSE "reading",
                replica |-> [window |-> store.window, rows |-> rows]])
    /\ Alone(p)

(* @ consumer.decide.decide *)
Compare(p) == \* with what stands before the upload in the replica, unless the same bytes settle it
    LET u == proc[p].upload
        earlier == {e \in Range(proc[p].replica.rows) :
            e.u # u /\ Picture[e.u] = Picture[u] /\ ("append first" \in Without \/ e.at < proc[p].own)}
        original == IF proc[p].exact # NoOriginal THEN proc[p].exact ELSE IF earlier = {} THEN NoOriginal ELSE Earliest(earlier)
    IN
    /\ At(p, "read")
    /\ Decide("Compare", p, original, proc[p].replica.window, proc[p].own)
    /\ UNCHANGED <<broker, store, left, fresh>>

-----------------------------------------------------------------------------
(* The verdict, and the offset behind its upload, in one transaction. *)

IsCurrent(p) == proc[p].producer = "current"
Finished(p) == [
    stage |-> "idle", upload |-> None, lease |-> 0, own |-> 0, decision |-> Undecided, marker |-> 0,
    redo |-> {IF e.u = proc[p].upload THEN [e EXCEPT !.done = TRUE] ELSE e : e \in proc[p].redo}]
(* A producer is dropped when one of its requests may still be on its way: the epoch of the next one outdates it. *)
Producer(p, repeated) == [producer |-> IF repeated /\ "new epoch" \notin Without THEN None ELSE proc[p].producer]
Refused(p) == [stage |-> "decided", producer |-> None] \* fenced, or out of step: the next try has a new producer

(* The transaction of p ends: all that it holds becomes visible together, or never. *)
Ended(b, p, commits) ==
    LET t == b.transactions[p]
        next(part) == {o.next : o \in {o \in t.offsets : o.part = part}}
        ended == [b EXCEPT
            !.transactions[p] = NoTransaction,
            !.ends[p] = IF commits THEN "commit" ELSE "abort",
            !.awaited = [q \in Procs |-> @[q] \ {p}]]
    IN  IF ~commits THEN ended ELSE [ended EXCEPT
            !.visible = [u \in Uploads |-> @[u] \o SelectSeq(t.verdicts, LAMBDA v : v.u = u)],
            !.changelog = @ \cup t.upserts,
            !.committed = [part \in Partitions |->
                IF next(part) = {} THEN @[part] ELSE CHOOSE offset \in next(part) : TRUE]]

(* A new epoch of p's name: an open transaction is aborted, and requests of the last epoch have no effect any more. *)
NewEpoch(p) ==
    LET aborted == IF broker.transactions[p].open THEN Ended(broker, p, FALSE) ELSE broker
    IN  [aborted EXCEPT !.ends[p] = None, !.held = {request \in @ : request.p # p}]

(* @ consumer.pipeline.publish.Publish.run *)
CheckLease(p) ==
    /\ At(p, "decided")
    /\ Step("CheckLease", p,
        IF Holds(p) \/ "lease" \in Without THEN [stage |-> "publish"]
        \* What was begun for it may be open still, and keeps the offsets from whoever has the partition now.
        ELSE IF proc[p].producer = None THEN [stage |-> "dropped"] ELSE Finished(p))
    /\ Alone(p)

(* @ consumer.kafka.publisher.Publisher._ready_producer *)
TakeProducer(p) == \* the coordinator gives the name a new epoch, and aborts what the last one left open
    /\ proc[p].stage \in {"publish", "dropped"}
    /\ proc[p].producer = None
    /\ broker' = NewEpoch(p)
    /\ Step("TakeProducer", p, [producer |-> "current"] @@ IF At(p, "dropped") THEN Finished(p) ELSE <<>>)
    /\ Same(p)

(* @ consumer.kafka.publisher.Publisher._are_committed *)
AskOutcome(p) == \* of a commit that was never answered
    LET u == proc[p].upload IN
    /\ At(p, "publish")
    /\ proc[p].producer # None /\ proc[p].unconfirmed
    /\ Step("AskOutcome", p,
        [unconfirmed |-> FALSE] @@
        IF broker.committed[PartitionOf(u)] >= OffsetOf(u) THEN Finished(p) ELSE <<>>)
    /\ Alone(p)

(* @ consumer.kafka.publisher.Publisher._deliver *)
Produce(p) ==
    LET u == proc[p].upload
        own == proc[p].own
        own_record == IF own = 0 THEN {} ELSE {[u |-> u, at |-> own]}
        original == IF "originals" \in Without THEN {} ELSE {proc[p].original} \cap Range(store.entries) \* is read again
        upserts == IF Rebuilds THEN own_record \cup original ELSE {}
    IN
    /\ At(p, "publish")
    /\ proc[p].producer # None /\ ~proc[p].unconfirmed
    /\ IF IsCurrent(p)
       THEN /\ broker' = [broker EXCEPT !.transactions[p] = [
                    open |-> TRUE, verdicts |-> <<[u |-> u] @@ proc[p].decision>>, upserts |-> upserts,
                    offsets |-> {}]]
            /\ Step("Produce", p, [stage |-> "produced"])
       ELSE Step("Produce", p, Refused(p)) /\ UNCHANGED broker
    /\ Same(p)

(* @ consumer.window.redo_log.BatchWrites.check *)
CheckWindow(p) == \* before the end: a recovery that begins later waits for it
    LET lost == store.marker = 0 \/ store.marker # proc[p].marker IN
    /\ Rebuilds
    /\ At(p, "produced")
    /\ Step("CheckWindow", p, [
        stage |-> IF lost /\ "window check" \notin Without THEN "failed" ELSE "sure", reading |-> store.marker,
        redo |-> IF store.marker = 0 THEN proc[p].redo ELSE Kept(proc[p].redo, store.marker)])
    /\ Alone(p)

(* @ consumer.pipeline.match.Match._match_again *)
MatchAgain(p) == \* in a window that was recovered since
    LET u == proc[p].upload
        others == {e \in proc[p].redo : e.u # u}
    IN
    /\ Rebuilds /\ "window check" \notin Without
    /\ At(p, "decided")
    /\ proc[p].reading # 0 /\ proc[p].marker # proc[p].reading
    /\ \A e \in others : e.marker = proc[p].reading \* else Replay comes first
    /\ Step("MatchAgain", p, [
        stage |-> "new", decision |-> Undecided, own |-> 0, original |-> NoOriginal,
        marker |-> proc[p].reading, redo |-> others])
    /\ Alone(p)

(* The group takes offsets from members of its generation alone; whether the member holds the partition it cannot see. *)
WithOffset(b, p, offset) == [b EXCEPT
    !.transactions[p].open = TRUE,
    !.transactions[p].offsets = {o \in @ : o.part # offset.part} \cup {offset}]

(* @ consumer.kafka.publisher.Publisher._publish_in_transaction *)
SendOffsets(p) ==
    LET part == PartitionOf(proc[p].upload)
        offset == [part |-> part, next |-> OffsetOf(proc[p].upload), owned |-> broker.owner[part] = p]
        taken == IsCurrent(p) /\ ("generation" \in Without \/ proc[p].generation = broker.generation)
        request == [kind |-> "offsets", p |-> p, offset |-> offset, generation |-> proc[p].generation]
    IN
    /\ At(p, IF Rebuilds THEN "sure" ELSE "produced")
    /\ \/ /\ ~taken
          /\ Step("SendOffsets", p, [stage |-> "failed"])
          /\ UNCHANGED <<broker, left>>
       \/ /\ taken
          /\ Step("SendOffsets", p, [stage |-> "offered"])
          /\ broker' = WithOffset(broker, p, offset)
          /\ UNCHANGED left
       \/ /\ taken /\ "late offsets" \notin Without
          /\ Fault("repeats") \* the connection dies, the client sends it again, and the first one comes later
          /\ Step("SendOffsetsTwice", p, [stage |-> "offered", repeated |-> "new epoch after offsets" \notin Without])
          /\ broker' = [WithOffset(broker, p, offset) EXCEPT !.held = @ \cup {request}]
    /\ UNCHANGED <<store, fresh, decided>>

(* How a transaction coordinator answers the end of a transaction that is not open: as it answered the last time. *)
Accepts(p, end) == IsCurrent(p) /\ (broker.transactions[p].open \/ broker.ends[p] = end)
AfterEnd(p, end) ==
    IF IsCurrent(p) /\ broker.transactions[p].open THEN Ended(broker, p, end = "commit") ELSE broker
EndRequest(p, end) == [kind |-> end, p |-> p]

(* @ consumer.kafka.publisher.Publisher._publish_in_transaction *)
Commit(p) ==
    LET published(repeated) == Finished(p) @@ [repeated |-> FALSE] @@ Producer(p, repeated)
        unanswered == [stage |-> "failed", unconfirmed |-> TRUE]
        holding(b) == [b EXCEPT !.held = @ \cup {EndRequest(p, "commit")}]
    IN
    /\ At(p, "offered")
    /\ \/ /\ broker' = AfterEnd(p, "commit")
          /\ Step("Commit", p, IF Accepts(p, "commit") THEN published(proc[p].repeated) ELSE unanswered)
          /\ NoFault
       \/ /\ Fault("repeats") /\ Accepts(p, "commit")
          /\ broker' = holding(AfterEnd(p, "commit"))
          /\ Step("CommitTwice", p, published(TRUE))
       \/ /\ Fault("repeats") /\ Accepts(p, "commit") \* the broker has it, and its answer is lost
          /\ broker' = AfterEnd(p, "commit")
          /\ Step("CommitUnanswered", p, unanswered)
       \/ /\ Fault("repeats") \* nobody has it yet
          /\ broker' = holding(broker)
          /\ Step("CommitHeld", p, unanswered)
    /\ UNCHANGED <<store, fresh, decided>>

(* @ consumer.kafka.publisher.Publisher._abort *)
Abort(p) ==
    LET aborted == [stage |-> "decided", repeated |-> FALSE] @@ Producer(p, TRUE) IN
    /\ At(p, "failed")
    /\ \/ /\ broker' = AfterEnd(p, "abort")
          /\ Step("Abort", p, IF Accepts(p, "abort") THEN aborted ELSE Refused(p))
          /\ NoFault
       \/ /\ Fault("repeats") /\ Accepts(p, "abort")
          /\ broker' = [AfterEnd(p, "abort") EXCEPT !.held = @ \cup {EndRequest(p, "abort")}]
          /\ Step("AbortTwice", p, aborted)
    /\ UNCHANGED <<store, fresh, decided>>

Deliver == \* a request that was held back; within an epoch nothing tells the broker that it is late
    \E request \in broker.held :
        LET p == request.p
            released == [broker EXCEPT !.held = @ \ {request}]
        IN
        /\ broker' =
            IF ~broker.transactions[p].open THEN released
            ELSE IF request.kind # "offsets" THEN Ended(released, p, request.kind = "commit")
            \* The group has to be part of it already, and takes offsets of its generation alone.
            ELSE IF broker.transactions[p].offsets = {} \/ request.generation # broker.generation THEN released
            ELSE WithOffset(released, p, request.offset)
        /\ last' = <<"Deliver", p, request.kind>>
        /\ UNCHANGED <<store, proc, left, fresh, decided>>

-----------------------------------------------------------------------------
(* The loss of Redis, and the rebuild. *)

Lose ==
    /\ Fault("losses")
    /\ store' = NoWindow @@ [marker |-> 0, lock |-> None]
    /\ last' = <<"Lose">>
    /\ UNCHANGED <<broker, proc, fresh, decided>>

(* @ consumer.window.loss_guard.LossGuard.marker *)
ReadMarker(p) == \* a thread of its own asks for it every second
    /\ Rebuilds
    /\ proc[p].reading # store.marker \/ Kept(proc[p].redo, store.marker) # proc[p].redo
    /\ Step("ReadMarker", p, [
        reading |-> store.marker,
        redo |-> IF store.marker = 0 THEN proc[p].redo ELSE Kept(proc[p].redo, store.marker)])
    /\ Alone(p)

(* @ consumer.window.redo_log.RedoLog.replay *)
Replay(p) ==
    LET reading == proc[p].reading
        again == {e \in proc[p].redo : e.marker # reading /\ e.u # proc[p].upload}
        missing == {e \in again : OwnAt(e.u) = {} /\ ExactCopies(e.u) = {}}
        order == InOrder(missing)
        appended == [i \in DOMAIN order |-> [u |-> order[i].u, at |-> fresh + i - 1]]
    IN
    /\ proc[p].stage \in {"idle", "looked", "decided"}
    /\ reading # 0 /\ again # {} /\ Usable /\ IsThere
    /\ store' = [store EXCEPT !.entries = @ \o appended]
    /\ fresh' = fresh + Len(appended)
    /\ Step("Replay", p, [redo |-> (proc[p].redo \ again) \cup {[e EXCEPT !.marker = reading] : e \in again}])
    /\ UNCHANGED <<broker, left, decided>>

(* @ consumer.window.loss_guard.LossGuard.lock *)
BeginRecovery(p) == \* and find where the changelog ends: transactions open now may yet commit what stands before it
    LET open == {q \in Procs : broker.transactions[q].open} IN
    /\ Rebuilds
    /\ proc[p].recovery.step = None
    /\ store.marker = 0 /\ store.lock = None
    /\ store' = [store EXCEPT !.lock = p]
    /\ broker' = [broker EXCEPT !.awaited[p] = IF "open transactions" \in Without THEN {} ELSE open]
    /\ Step("BeginRecovery", p, [recovery |-> [
        step |-> "read", window |-> 0, read |-> {},
        cut |-> broker.changelog \cup UNION {broker.transactions[q].upserts : q \in open}]])
    /\ UNCHANGED <<left, fresh, decided>>

(* @ consumer.window.recovery._Recovery._take *)
Stage(p) == \* the records go to Redis, where the window is half recovered until they are all in order
    LET read == proc[p].recovery.cut \cap broker.changelog
        deletes == store.half /\ store.lock = p \* of a recovery that came to no end
        stages == read # {} /\ (~IsThere \/ deletes)
    IN
    /\ proc[p].recovery.step = "read"
    /\ broker.awaited[p] = {}
    /\ ~store.half \/ deletes
    /\ store' = IF stages THEN [store EXCEPT !.window = fresh, !.entries = <<>>, !.half = TRUE, !.leave = 0]
        ELSE IF deletes THEN NoWindow @@ store ELSE store
    /\ fresh' = IF stages THEN fresh + 1 ELSE fresh
    /\ Step("Stage", p, [recovery |-> [
        step |-> IF stages THEN "staged" ELSE "restored", cut |-> proc[p].recovery.cut, read |-> read,
        window |-> IF stages THEN fresh ELSE 0]])
    /\ UNCHANGED <<broker, left, decided>>

(* @ consumer.window.recovery._Recovery._restore *)
Restore(p) ==
    LET recovery == proc[p].recovery
        \* A repeat was published again: the first position counts.
        firsts == {e \in recovery.read : \A other \in recovery.read : other.u = e.u => e.at <= other.at}
        is_there == store.window = recovery.window /\ store.half
    IN
    /\ recovery.step = "staged"
    /\ store' = IF is_there THEN [store EXCEPT !.entries = InOrder(firsts), !.half = FALSE] ELSE store
    /\ Step("Restore", p, [recovery |-> IF is_there THEN [recovery EXCEPT !.step = "restored"] ELSE NoRecovery])
    /\ UNCHANGED <<broker, left, fresh, decided>>

(* @ consumer.window.loss_guard.LossGuard.mark *)
Mark(p) ==
    /\ proc[p].recovery.step = "restored"
    /\ store' = IF store.lock = p \/ "marked under the lock" \in Without
        THEN [store EXCEPT !.marker = fresh, !.lock = IF @ = p THEN None ELSE @] ELSE store
    /\ fresh' = fresh + 1
    /\ Step("Mark", p, [recovery |-> NoRecovery])
    /\ UNCHANGED <<broker, left, decided>>

LockExpires == \* that of a process that died
    /\ store.lock # None /\ proc[store.lock].recovery.step = None
    /\ store' = [store EXCEPT !.lock = None]
    /\ last' = <<"LockExpires">>
    /\ UNCHANGED <<broker, proc, left, fresh, decided>>

-----------------------------------------------------------------------------
Crash(p) == \* its transaction stays open until the name has a new producer
    /\ Fault("crashes")
    /\ proc' = [proc EXCEPT ![p] = Started]
    /\ last' = <<"Crash", p>>
    /\ broker' = [broker EXCEPT !.awaited[p] = {}]
    /\ UNCHANGED <<store, fresh, decided>>

TimeOut(p) == \* the coordinator ends a transaction that nobody goes on with
    /\ broker.transactions[p].open
    /\ IF proc[p].producer = "current" THEN Fault("crashes") ELSE NoFault \* it stands still, or is gone
    /\ broker' = NewEpoch(p)
    /\ Step("TimeOut", p, [producer |-> IF IsCurrent(p) THEN "fenced" ELSE proc[p].producer])
    /\ UNCHANGED <<store, fresh, decided>>

(* What a process does by itself, with what nobody else sees, is done at once: no other order of it means anything. *)
Next == IF \E p \in Procs : At(p, "read") THEN \E p \in Procs : Compare(p) ELSE
    \/ Rebalance \/ Deliver \/ Lose \/ LockExpires
    \/ \E p \in Procs :
        \/ Withdraw(p) \/ Assign(p) \/ Poll(p)
        \/ LookUp(p) \/ Record(p) \/ Confirm(p) \/ LetBegin(p) \/ AppendUpload(p) \/ CheckBegun(p) \/ ConfirmBegun(p) \/ ReadPage(p)
        \/ CheckLease(p) \/ TakeProducer(p) \/ AskOutcome(p) \/ Produce(p) \/ CheckWindow(p) \/ MatchAgain(p) \/ SendOffsets(p) \/ Commit(p) \/ Abort(p)
        \/ ReadMarker(p) \/ Replay(p) \/ BeginRecovery(p) \/ Stage(p) \/ Restore(p) \/ Mark(p)
        \/ Crash(p) \/ TimeOut(p)

Spec == Init /\ [][Next]_vars

-----------------------------------------------------------------------------
(* What has to hold. *)

OneVerdict == \A u \in Uploads : Len(broker.visible[u]) <= 1

NothingLost == \* an offset is committed only together with the verdicts on what stands before it
    \A part \in Partitions : \A i \in 1..broker.committed[part] : Len(broker.visible[Topic[part][i]]) >= 1

NothingCommittedUnowned ==
    \A p \in Procs : \A o \in broker.transactions[p].offsets : o.owned

Verdicts == UNION {Range(broker.visible[u]) : u \in Uploads}
OneUnique == \* of the copies; and there is one, once all are answered; if Redis is not rebuilt, unless it was emptied
    \A picture \in {Picture[u] : u \in Uploads} :
        LET copies == {v \in Verdicts : Picture[v.u] = picture}
            uniques == {v \in copies : v.kind = "unique"}
        IN  /\ \A v, w \in uniques : v.window = w.window \/ Rebuilds => v.u = w.u
            /\ (\A u \in Uploads : Picture[u] = picture => broker.visible[u] # <<>>) /\ (Rebuilds \/ left.losses = Losses)
                => uniques # {}

NoSelfMatch == \A u \in Uploads : \A decision \in decided[u] : decision.match # u

ReplaysEqual == \* whoever decides on an upload again, in the same window, decides the same
    \A u \in Uploads : \A d, e \in decided[u] : d.window = e.window => d = e

Remembered == \* what is published is in the window, as soon as the marker says that it is whole
    Rebuilds /\ store.marker # 0 => \A change \in broker.changelog :
        \/ OwnAt(change.u) # {} \/ ExactCopies(change.u) # {}
=============================================================================
