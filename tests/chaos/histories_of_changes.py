"""A good history of changes, made by hand: `hop` is built anew beside its first version, cut over to, and rolled back;
then what it built is collected. A reader looks at all datasets after each switch.

Numbers of the sequence are above a hundred: what the good history of tasks has written down comes before.
"""

import dataclasses

from tests.chaos.evidence import Evidence, TaskChange, WatermarkChange, Write, Written
from tests.chaos.evidence_of_changes import (
    Activated,
    Activation,
    Call,
    ChangesSeen,
    Condemned,
    DagMove,
    Deleted,
    Head,
    Listened,
    PinChange,
    Read,
    Rerun,
    RunChange,
    Said,
    Seen,
)
from tests.chaos.histories import NUMBERS, SOURCE, good, replaced

FIRST_VERSION, SECOND_VERSION, THIRD_VERSION = "version 1", "version 2", "version 3"
OLD, NEW = "old hops", "new hops"
SOURCE_JOB, OLD_JOB, NEW_JOB = "source's job", "old hop", "new hop"
DAG = "dag"
READER, READERS_VERSION, READERS_JOB, FOLLOWED = "reader", "reader's version", "reader's job", "followed"
ZOMBIE = "task of the new hop"


def changed() -> Evidence:
    """Breaks no invariant."""
    evidence = good()
    evidence.changes = _changes()
    evidence.bounds = dataclasses.replace(evidence.bounds, rollback_versions=0)
    evidence.task_changes += [
        _change(130, "", "queued", 0, 13.0, 1030),
        _change(131, "queued", "running", 1, 13.5, 1031),
        _change(161, "running", "queued", 1, 16.0, 1061),
    ]
    of_file = {"version_id": NUMBERS, "task_id": SOURCE, "attempt": 1, "name": "data/file"}
    replaced(evidence.written, lambda row: row.kind == "artifact", **of_file)
    evidence.task_changes = [
        dataclasses.replace(change, job_version_id=SOURCE_JOB) if change.task_id == SOURCE else change
        for change in evidence.task_changes
    ]
    evidence.written += [
        Written(140, "event", "event of the new hop", 14.0, 1040, NEW, ZOMBIE, 1),
        Written(161, "attempt", ZOMBIE, 16.0, 1061, "", ZOMBIE, 1, "returned"),
    ]
    evidence.writes.append(Write("beat", ZOMBIE, 1, b"token n", 15.8, 15.9, "refused", "CANCEL"))
    evidence.watermark_changes += [WatermarkChange(141, NEW, b"1"), WatermarkChange(142, OLD, b"1")]
    evidence.gone_tasks = frozenset({ZOMBIE})
    evidence.gone_events = frozenset({"event of the new hop"})
    return evidence


def _changes() -> ChangesSeen:
    changes = ChangesSeen()
    changes.jobs = {FIRST_VERSION: frozenset({SOURCE_JOB, OLD_JOB}), SECOND_VERSION: frozenset({SOURCE_JOB, NEW_JOB})}
    changes.datasets = {
        FIRST_VERSION: {"numbers": NUMBERS, "hops": OLD},
        SECOND_VERSION: {"numbers": NUMBERS, "hops": NEW},
    }
    changes.outputs = {SOURCE_JOB: frozenset({NUMBERS}), OLD_JOB: frozenset({OLD}), NEW_JOB: frozenset({NEW})}
    changes.tags = {OLD: "A", NEW: "B"}
    changes.pointers = [("hops", OLD), ("numbers", NUMBERS)]
    changes.heads = [Head(NUMBERS, 1, 1, 1, 1), Head(OLD, 1, 1, 1, 1)]
    _switch(changes)
    _follow(changes)
    _call_and_read(changes)
    _collect(changes)
    return changes


def _switch(changes: ChangesSeen) -> None:
    """The second version is staged, cut over to, taken back and retired."""
    changes.runs = [
        RunChange(101, SOURCE_JOB, "running", 1, 10.0, 1001),
        RunChange(102, OLD_JOB, "running", 1, 10.0, 1001),
        RunChange(110, NEW_JOB, "running", 1, 11.0, 1010),
        RunChange(120, NEW_JOB, "staged", 1, 12.0, 1020),
        RunChange(150, OLD_JOB, "superseded", 2, 15.0, 1050),
        RunChange(151, NEW_JOB, "running", 1, 15.0, 1050),
        RunChange(155, NEW_JOB, "rolled_back", 2, 15.5, 1055),
        RunChange(156, OLD_JOB, "running", 2, 15.5, 1055),
        RunChange(180, NEW_JOB, "retired", 3, 18.0, 1080),
    ]
    changes.moves = [
        DagMove(103, DAG, FIRST_VERSION, "", 10.0, 1001),
        DagMove(121, DAG, FIRST_VERSION, SECOND_VERSION, 12.0, 1020),
        DagMove(152, DAG, FIRST_VERSION, "", 15.0, 1050),
        DagMove(153, DAG, SECOND_VERSION, "", 15.0, 1050),
        DagMove(157, DAG, FIRST_VERSION, "", 15.5, 1055),
    ]
    changes.activated = [
        Activated(104, DAG, FIRST_VERSION, 1, 10.0, 1001),
        Activated(154, DAG, SECOND_VERSION, 2, 15.0, 1050),
        Activated(158, DAG, FIRST_VERSION, 3, 15.5, 1055),
    ]
    changes.activations = [
        Activation(DAG, FIRST_VERSION, 1, 2),
        Activation(DAG, SECOND_VERSION, 2, 3),
        Activation(DAG, FIRST_VERSION, 3, None),
    ]
    changes.said = [
        Said(105, "DagService.DeployDag", 1001),
        Said(122, "DagService.DeployDag", 1020),
        Said(154, "DagService.CutOverDag", 1050),
        Said(159, "DagService.RollbackDag", 1055),
    ]


def _follow(changes: ChangesSeen) -> None:
    """A job of another DAG gets what is served; and something was run again, by a call that arrived twice."""
    changes.jobs[READERS_VERSION] = frozenset({READERS_JOB})
    changes.datasets[READERS_VERSION] = {"followed": FOLLOWED}
    changes.outputs[READERS_JOB] = frozenset({FOLLOWED})
    changes.activated.append(Activated(163, READER, READERS_VERSION, 4, 16.3, 1063))
    changes.activations.append(Activation(READER, READERS_VERSION, 4, None))
    changes.moves.append(DagMove(162, READER, READERS_VERSION, "", 16.3, 1063))
    changes.runs.append(RunChange(161, READERS_JOB, "running", 1, 16.3, 1063))
    changes.said += [Said(164, "DagService.DeployDag", 1063), Said(165, "SourceService.BackfillJob", 10)]
    changes.reruns = [Rerun("request", None), Rerun("request", 2)]
    changes.listened = [
        Listened(106, READERS_JOB, OLD, True, 1001),
        Listened(152, READERS_JOB, OLD, False, 1050),
        Listened(153, READERS_JOB, NEW, True, 1050),
        Listened(156, READERS_JOB, NEW, False, 1055),
        Listened(157, READERS_JOB, OLD, True, 1055),
    ]


def _call_and_read(changes: ChangesSeen) -> None:
    """What people called and were answered, and what a reader saw meanwhile."""
    changes.noticed = [(1, 10.1), (2, 15.1), (3, 15.6)]
    changes.calls = [
        Call("DeployDag", 9.9, 10.1, "ok"),
        Call("CutOverDag", 14.9, 15.1, "unknown"),
        Call("RollbackDag", 15.4, 15.6, "ok", deploy_number=3),
    ]
    of_old, of_new = {"numbers": NUMBERS, "hops": OLD}, {"numbers": NUMBERS, "hops": NEW}
    changes.reads = [
        Read("reader", 14.0, 14.1, 1, of_old, {OLD: frozenset({"A"})}),
        Read("reader", 15.2, 15.3, 2, of_new, {NEW: frozenset({"B"})}),
        Read("reader", 15.7, 15.8, 3, of_old, {OLD: frozenset({"A"})}),
    ]


def _collect(changes: ChangesSeen) -> None:
    """The version that was taken back is collected once no pin holds it."""
    changes.pinned = [(154, "pin", NEW)]
    changes.pins = [PinChange(154, "pin", 17.0), PinChange(185, "pin", None)]
    changes.condemned = [Condemned(181, NEW, 18.0)]
    changes.files = [Seen("data/file", b"sha".hex()), Seen("data/file", b"sha".hex()), Seen("listed:data/file", "7")]
    changes.deleted = [Deleted(f"data/{NEW}/file", 19.0, 5.0), Deleted("data/old/orphan", 19.0, 4.0)]
    changes.stored = {"data/file": 90.0}


def _change(seq: int, before: str, state: str, attempt: int, at: float, txid: int) -> TaskChange:
    return TaskChange(seq, ZOMBIE, before, state, attempt, b"", "", 20.0, None, at, at - 0.1, txid, NEW_JOB)
