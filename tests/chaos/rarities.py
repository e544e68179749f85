"""What has to have happened for a run to say anything: faults that hit work, and the rare answers that they lead to."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.evidence import Evidence
from tests.chaos.evidence_of_changes import ChangesSeen
from tests.chaos.plan import OF_CHANGES, Kind
from tests.chaos.recorder import read_lines
from tests.chaos.workload import READER_DAG

_STALE = frozenset({"STALE_LEASE", "STALE_STREAM_EPOCH", "LEASE_LOST"})
_CHANGES = frozenset({"DeployDag", "CutOverDag", "AbortDeployment", "RollbackDag", "BackfillJob", "CollectVersions"})
LEAST = {
    "tasks": 2_000,
    "faults that hit work": 5,
    "kinds of faults that hit": 3,
    "share of writes accepted": 0.3,
    "leases lost": 1,
    "stale writes refused": 1,
    "late calls answered as stale": 1,
    "late calls absorbed": 1,
    "outcomes unknown": 1,
    "cancelled": 1,
    "wake-ups doubled": 1,
    "tasks moved": 1,
    "switches": 2,
    "rollbacks": 1,
    "faults that hit a change": 1,
    "looks of readers": 20,
    "tasks run again": 1,
    "pointers followed": 1,
}
"""What each run has to reach."""


@dataclass(frozen=True, slots=True)
class Injected:
    """A fault that came. `in_flight`: tasks under a living lease at that moment, of the victim where it has any."""

    kind: Kind
    victim: str
    in_flight: int
    detail: str = ""
    changing: bool = False
    """A change was under way."""


def rarities_of(evidence: Evidence, history: Path, injected: Sequence[Injected]) -> Mapping[str, float]:
    """Counts by name."""
    wakeups: Counter[str] = Counter()
    for line in read_lines(history):
        for name in ("lost", "doubled", "garbage"):
            wakeups[name] += line.get(name, 0)
    late = [write for write in evidence.writes if write.process.startswith("late")]
    answered = [write for write in evidence.writes if write.verdict != "unknown"]
    hits = [fault for fault in injected if fault.in_flight > 0]
    changes = evidence.changes
    methods = Counter(entry.method for entry in changes.said)
    return {
        "switches": max(0, len(changes.activated) - 2),
        "rollbacks": methods["DagService.RollbackDag"],
        "builds aborted": methods["DagService.AbortDeployment"],
        "faults that hit a change": sum(map(_hits_a_change, injected)),
        "calls of changes with an unknown outcome": sum(
            call.verdict == "unknown" and call.method in _CHANGES for call in changes.calls
        ),
        "dataset versions collected": len(changes.condemned),
        "orphans collected": sum(item.key.startswith("data/") for item in changes.deleted),
        "tasks": len({task.task_id for task in evidence.tasks} | evidence.gone_tasks),
        "looks of readers": sum(bool(read.versions) for read in changes.reads),
        "tasks run again": sum(rerun.task_count or 0 for rerun in changes.reruns),
        "pointers followed": _followed(changes),
        "tasks moved": evidence.moved_tasks,
        "attempts": len(evidence.attempts),
        "events": len(evidence.events),
        "faults": len(injected),
        "faults that hit work": len(hits),
        "kinds of faults that hit": len({fault.kind for fault in hits}),
        "leases lost": sum(attempt.outcome == "lease_lost" for attempt in evidence.attempts),
        "stale writes refused": sum(write.reason in _STALE for write in evidence.writes),
        "late calls": len(late),
        "late calls answered as stale": sum(write.reason in _STALE for write in late),
        "late calls absorbed": sum(write.verdict == "ok" and write.kind != "beat" for write in late),
        "outcomes unknown": sum(write.verdict == "unknown" for write in evidence.writes),
        "cancelled": sum(cancel.verdict == "ok" for cancel in evidence.cancels),
        "wake-ups lost": wakeups["lost"],
        "wake-ups doubled": wakeups["doubled"],
        "wake-ups unknown": wakeups["garbage"],
        "share of writes accepted": sum(write.verdict == "ok" for write in answered) / max(1, len(answered)),
    }


def _followed(changes: ChangesSeen) -> int:
    """How often a job of the DAG that reads the chain began to get the events of another version."""
    versions = {item.dag_version_id for item in changes.activated if item.dag == READER_DAG}
    jobs = {job for version in versions for job in changes.jobs.get(version, ())}
    return sum(item.listens for item in changes.listened if item.job_version_id in jobs) - len(jobs)


def _hits_a_change(fault: Injected) -> bool:
    """It died at a step of one, or came while one was under way."""
    return fault.detail.startswith(OF_CHANGES) if fault.kind is Kind.CRASH else fault.changing and fault.in_flight > 0


def vacuous(rarities: Mapping[str, float]) -> list[str]:
    """What did not happen, though without it the run proves nothing; empty is what is wanted."""
    return [f"{name}: {rarities[name]:g} of {wanted}" for name, wanted in LEAST.items() if rarities[name] < wanted]
