"""What has to have happened for a run to say anything: faults that hit work, and the rare answers that they lead to."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.collect import read_lines
from tests.chaos.evidence import Evidence
from tests.chaos.plan import Kind

_STALE = frozenset({"STALE_LEASE", "STALE_STREAM_EPOCH", "LEASE_LOST"})
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
}
"""What each run has to reach."""


@dataclass(frozen=True, slots=True)
class Injected:
    """A fault that came. `in_flight`: tasks under a living lease at that moment, of the victim where it has any."""

    kind: Kind
    victim: str
    in_flight: int
    detail: str = ""


def rarities_of(evidence: Evidence, history: Path, injected: Sequence[Injected]) -> Mapping[str, float]:
    """Counts by name."""
    wakeups: Counter[str] = Counter()
    for line in read_lines(history):
        for name in ("lost", "doubled", "garbage"):
            wakeups[name] += line.get(name, 0)
    late = [write for write in evidence.writes if write.process.startswith("late")]
    answered = [write for write in evidence.writes if write.verdict != "unknown"]
    hits = [fault for fault in injected if fault.in_flight > 0]
    return {
        "tasks": len(evidence.tasks),
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


def vacuous(rarities: Mapping[str, float]) -> list[str]:
    """What did not happen, though without it the run proves nothing; empty is what is wanted."""
    return [f"{name}: {rarities[name]:g} of {wanted}" for name, wanted in LEAST.items() if rarities[name] < wanted]
