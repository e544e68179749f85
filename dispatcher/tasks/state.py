"""The life of a task as a table of data: states, events, and what an event does in a state.

Every transition of the product is a row here. The SQL beside it repeats each row's `before` as its guard, CHECK
constraints tie states to their timestamps, the proto enum names the states, and one test holds all of them equal. Two
ideas carry the table:

* **Only `running` holds a lease.** Who holds no lease can change nothing, so every row that leaves `running` clears it.
* **Final states have no row that leaves them**, but `dead`, which a person may retry or skip: accepted events are
  facts, and a task that ended well is never run again.

Superseding and rolling back are no rows: they change one row per job version (`job_version_run`), which every guard
joins.
"""

from dataclasses import dataclass
from enum import StrEnum


class TaskState(StrEnum):
    """As TASK_STATE_* of the contract and `task_state` of the schema."""

    QUEUED = "queued"
    RELEASED = "released"
    RUNNING = "running"
    BACKOFF = "backoff"
    SUCCEEDED = "succeeded"
    DEAD = "dead"
    CANCELED = "canceled"
    SKIPPED = "skipped"


class TaskEvent(StrEnum):
    """What happens to a task."""

    RELEASE = "release"  # its wake-up is handed out
    WITHDRAW = "withdraw"  # its wake-up stands for nothing any more: its job was paused, or restored after a rollback
    CLAIM = "claim"  # a worker takes a lease, alone or in a run
    SUCCEED = "succeed"
    FAIL = "fail"  # and another attempt follows
    FAIL_FINALLY = "fail_finally"
    LOSE_LEASE = "lose_lease"  # and another attempt follows
    LOSE_LEASE_FINALLY = "lose_lease_finally"
    YIELD = "yield"  # its run failed at another task: it goes back in line
    RETURN = "return"  # its worker gives it back, or stopped because its job version was taken back
    BACKOFF_ENDS = "backoff_ends"
    CANCEL = "cancel"  # by a person, before it runs
    REQUEST_CANCEL = "request_cancel"  # by a person, while it runs: from now on it can only end as cancelled
    CONFIRM_CANCEL = "confirm_cancel"  # it has stopped: its worker says so, or its lease has run out
    RETRY = "retry"  # by a person
    SKIP = "skip"  # by a person
    REFUSE_LATE = "refuse_late"  # its scope lies before what its ordered stream has done
    SKIP_LATE = "skip_late"  # the same, where the job says so, or where it follows another DAG's pointer


@dataclass(frozen=True, slots=True)
class Transition:
    """`event` in a state of `before` leads to `after`."""

    event: TaskEvent
    before: frozenset[TaskState]
    after: TaskState


def _row(event: TaskEvent, before: set[TaskState], after: TaskState) -> Transition:
    return Transition(event, frozenset(before), after)


_S, _E = TaskState, TaskEvent

TRANSITIONS: tuple[Transition, ...] = (
    _row(_E.RELEASE, {_S.QUEUED}, _S.RELEASED),
    _row(_E.WITHDRAW, {_S.RELEASED}, _S.QUEUED),
    _row(_E.CLAIM, {_S.QUEUED, _S.RELEASED}, _S.RUNNING),
    _row(_E.SUCCEED, {_S.RUNNING}, _S.SUCCEEDED),
    _row(_E.FAIL, {_S.RUNNING}, _S.BACKOFF),
    _row(_E.FAIL_FINALLY, {_S.RUNNING}, _S.DEAD),
    _row(_E.LOSE_LEASE, {_S.RUNNING}, _S.QUEUED),
    _row(_E.LOSE_LEASE_FINALLY, {_S.RUNNING}, _S.DEAD),
    _row(_E.YIELD, {_S.RUNNING}, _S.QUEUED),
    _row(_E.RETURN, {_S.RUNNING}, _S.QUEUED),
    _row(_E.BACKOFF_ENDS, {_S.BACKOFF}, _S.QUEUED),
    _row(_E.CANCEL, {_S.QUEUED, _S.RELEASED, _S.BACKOFF}, _S.CANCELED),
    _row(_E.REQUEST_CANCEL, {_S.RUNNING}, _S.RUNNING),
    _row(_E.CONFIRM_CANCEL, {_S.RUNNING}, _S.CANCELED),
    _row(_E.RETRY, {_S.DEAD}, _S.QUEUED),
    _row(_E.SKIP, {_S.DEAD}, _S.SKIPPED),
    _row(_E.REFUSE_LATE, {_S.QUEUED, _S.RELEASED}, _S.DEAD),
    _row(_E.SKIP_LATE, {_S.QUEUED, _S.RELEASED}, _S.SKIPPED),
)

FINAL = frozenset({TaskState.SUCCEEDED, TaskState.CANCELED, TaskState.SKIPPED})
OPEN = frozenset(TaskState) - FINAL


def after_running(event: TaskEvent) -> TaskState:
    """Where a running task goes. Raises ValueError for an event that the table does not have there."""
    state = transition(event, TaskState.RUNNING)
    if state is None:
        raise ValueError(f"{event} means nothing to a running task")
    return state


def transition(event: TaskEvent, state: TaskState) -> TaskState | None:
    """The state that follows, or None where the event means nothing in that state."""
    return next((row.after for row in TRANSITIONS if row.event is event and state in row.before), None)
