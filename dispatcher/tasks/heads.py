"""What stands at the head of an ordered stream: which tasks may run now, and which have come too late for it.

A scope before one that was done is late, and so is one that was done already and comes again in a higher revision or of
another version of its dataset: nothing takes out of a stream's state what it has folded in. What becomes of a late one
the job declares (`late_scopes`), unless nobody but the owner of a dataset made it late: a version that takes another
one's place catches up on scopes that jobs of other DAGs have had of that other one. Those are passed by, on record, and
counted: a rollback makes no task DEAD in another's DAG.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dispatcher.tasks.rows import RunCandidate

LATE = "its scope lies before one that its ordered stream has done"
AGAIN = "its ordered stream has done its scope, and cannot do it again"
_PASSED = "its stream had this scope of a version of {dataset} that was served before, and cannot go back"
_WAITING = ("queued", "released")


@dataclass(slots=True)
class Head:
    """Tasks by what becomes of them. `late` and `passed` by reason; `members` may run now, in scope order."""

    late: dict[str, list[str]] = field(default_factory=dict)
    passed: dict[str, list[str]] = field(default_factory=dict)
    members: list[str] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """Tasks that are written."""
        return sum(len(ids) for of in (self.late, self.passed) for ids in of.values()) + len(self.members)


def doubtful(candidates: Sequence[RunCandidate]) -> list[str]:
    """Tasks of which it has to be asked why they come only now."""
    return [task.task_id for task in candidates if (task.late or task.repeats) and task.state in _WAITING]


def head_of(candidates: Sequence[RunCandidate], followed: Mapping[str, str], *, skip_late: bool) -> Head:
    """`followed`: tasks that are there because another DAG serves another version of a dataset, with the dataset."""
    head = Head()
    previous: RunCandidate | None = None
    for task in candidates:
        if task.state not in _WAITING or not task.ready:
            break  # what runs, waits (for a retry, a watermark, a replay) or is dead holds all that comes after it
        if task.task_id in followed and (task.late or task.repeats):
            _note(head.passed, _PASSED.format(dataset=followed[task.task_id]), task)
            continue
        if task.late:
            _note(head.late, AGAIN if task.repeats else LATE, task)
            if skip_late:
                continue
            break  # refused, it is dead, and holds what comes after it
        charged = task.failed_attempts > 0 or task.lost_leases > 0
        if head.members and (charged or (previous is not None and _doubles(previous, task))):
            break
        head.members.append(task.task_id)
        previous = task
        if charged:
            break  # alone, so that the next failure is certainly its own
    return head


def _doubles(one: RunCandidate, other: RunCandidate) -> bool:
    """It may be the same scope once more: that is judged when the first is done."""
    return one.scope_first == other.scope_first and (one.origin, one.revision) != (other.origin, other.revision)


def _note(by_reason: dict[str, list[str]], reason: str, task: RunCandidate) -> None:
    by_reason.setdefault(reason, []).append(task.task_id)
