"""Invariants of the artifact store and of the collector: what is needed is there and as it was, what is not goes."""

from collections import defaultdict
from collections.abc import Iterator

from tests.chaos.evidence import Evidence
from tests.chaos.evidence_of_changes import ChangesSeen
from tests.chaos.switches_over_time import SwitchesOverTime


def files_never_change(evidence: Evidence) -> Iterator[str]:
    """S21"""
    marks: dict[str, set[str]] = defaultdict(set)
    for seen in evidence.changes.files:
        marks[seen.key].add(seen.mark)
    for key, found in marks.items():
        if len(found) > 1:
            yield f"{key} was seen as {sorted(found)}"
    for artifact in evidence.artifacts:
        if marks[artifact.object_key] - {artifact.sha256.hex()}:
            yield f"{artifact.object_key} was seen other than it was accepted"


def nothing_needed_is_collected(evidence: Evidence) -> Iterator[str]:
    """S22: what is given up is in no pointer, build, rollback window or living pin; a file goes with its version, or
    because nobody ever named it, after the grace."""
    changes = evidence.changes
    yield from _given_up_while_needed(evidence)
    condemned = {item.version_id: item.at for item in changes.condemned}
    named = {row.name for row in evidence.written if row.kind == "artifact"}
    for deleted in changes.deleted:
        version = deleted.key.removeprefix("data/").partition("/")[0]
        if version in condemned and condemned[version] <= deleted.at:
            continue
        if deleted.key in named:
            yield f"{deleted.key} was deleted, and is part of a dataset version"
        elif deleted.age < evidence.bounds.orphan_grace:
            yield f"{deleted.key} was deleted {deleted.age:.1f} s after it was stored"
    for read in changes.reads:
        for what in read.lost:
            yield f"a pin that lived did not hold {what}"


def _given_up_while_needed(evidence: Evidence) -> Iterator[str]:
    changes = evidence.changes
    of_dags = SwitchesOverTime(changes).of_dags()
    for item in changes.condemned:
        for dag in of_dags:
            move = next((move for move in reversed(changes.moves) if move.dag == dag and move.seq < item.seq), None)
            if move is None:
                continue
            earlier = [switch.dag_version_id for switch in reversed(of_dags[dag]) if switch.seq < item.seq]
            former = list(dict.fromkeys(version for version in earlier if version != move.active_version_id))
            for version, why in (
                (move.active_version_id, "served"),
                (move.staged_version_id, "being built"),
                *((version, "in the rollback window") for version in former[: evidence.bounds.rollback_versions]),
            ):
                if item.version_id in changes.datasets.get(version, {}).values():
                    yield f"dataset version {item.version_id} was given up while it was {why}"
        for pin_id in _living_pins(changes, item.version_id, item.seq, item.at):
            yield f"dataset version {item.version_id} was given up while pin {pin_id} held it"


def _living_pins(changes: ChangesSeen, version_id: str, seq: int, at: float) -> Iterator[str]:
    for pinned_seq, pin_id, version in changes.pinned:
        if version == version_id and pinned_seq < seq:
            until = [change.until for change in changes.pins if change.pin_id == pin_id and change.seq < seq]
            if until and until[-1] is not None and until[-1] > at:
                yield pin_id


def what_nobody_needs_goes(evidence: Evidence) -> Iterator[str]:
    """L4: orphans after the grace and two rounds of the collector, versions that were given up, pins that expired."""
    changes = evidence.changes
    if not evidence.drained or not changes.activated:
        return
    oldest = evidence.bounds.orphan_grace + evidence.bounds.collecting
    named = {artifact.object_key for artifact in evidence.artifacts}
    for key, age in changes.stored.items():
        if key not in named and age > oldest:
            yield f"{key} is named by nobody, and lies there for {age:.1f} s"
    if changes.left:
        yield f"{changes.left} dataset versions were given up and are still there"
    last = {change.pin_id: change.until for change in changes.pins}
    for pin_id, until in last.items():
        if until is not None and until < evidence.now - evidence.bounds.collecting:
            yield f"pin {pin_id} expired {evidence.now - until:.1f} s ago and is still there"
