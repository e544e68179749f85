"""What the database answers about tasks, and what is written of ended attempts, as values."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple, Self

from dispatcher.tasks.leases import LockedTask, attempt_fence, fence
from dispatcher.tasks.state import TaskState


class TaskOwner(NamedTuple):
    """The job version of a task, and its stream where the job is ordered."""

    task_id: str
    job_version_id: str
    stream_key: str | None


@dataclass(frozen=True, slots=True)
class RunCandidate:
    """A task near the head of a stream; `ready` when watermarks and replays let it go, `late` when its turn is past.

    `repeats`: the stream has done this scope of this dataset last, by another event.
    """

    task_id: str
    state: str
    origin: str
    scope_first: bytes
    revision: int
    failed_attempts: int
    lost_leases: int
    late: bool
    repeats: bool
    ready: bool


@dataclass(frozen=True, slots=True)
class JobSettings:
    """How a job version runs now. `consumers`: tasks that an event of it makes, at most."""

    job_version_id: str
    dag_version_id: str
    max_run_tasks: int
    late_scopes: str
    paused: bool
    consumers: int


@dataclass(frozen=True, slots=True)
class InputHead:
    """What a job version's input is at."""

    job_version_id: str
    dataset_id: str
    dataset_version_id: str
    number: int


class ClaimedRow(NamedTuple):
    """A leased task with the event that caused it."""

    task_id: str
    attempt: int
    job_version_id: str
    stream_key: str | None
    stream_epoch: int | None
    claim_request_id: str | None
    lease_until: datetime | None
    scope_kind: int | None
    scope_first: bytes | None
    scope_last: bytes | None
    revision: int
    pins: str | None
    accepted_events: int
    run_emitted: bool
    origin: str
    event_id: str | None
    dataset_id: str | None
    dataset_version_id: str | None
    cursor_type: int | None
    producer_task_id: str | None
    producer_attempt: int | None
    artifact_id: str | None
    publication_number: int | None
    manifest: bytes | None
    event_time: datetime | None
    event_origin: str | None
    accepted_at: datetime | None


@dataclass(frozen=True, slots=True)
class StateRow:
    """Operator state of a stream."""

    job_version_id: str
    stream_key: str
    data: bytes
    version: int


class Emitted(NamedTuple):
    """What a task's emits add to its row: how many events were new, and whether a repeated one differed."""

    accepted: int = 0
    differs: bool = False


class Ended(NamedTuple):
    """An attempt's end as it is written: the transition on the task, and the row of the attempt."""

    task: LockedTask
    state: TaskState
    outcome: str
    failed: int = 0
    lost: int = 0
    wait: timedelta = timedelta()
    reason: str = ""
    error_class: str | None = None
    message: str = ""
    traceback: str = ""
    usage: bytes | None = None


class EndedAttempt(NamedTuple):
    """An attempt that ended before, with the state in which it left its task, for repeated calls."""

    task_id: str
    attempt: int
    lease_token_digest: bytes
    outcome: str
    state: str


class Extended(NamedTuple):
    """A lease that a heartbeat extended. `paused`: it is of a source's run, which its worker is to hand back."""

    until: datetime
    paused: bool = False


@dataclass(frozen=True, slots=True)
class Standing:
    """Why a lease was not extended."""

    task_id: str
    state: str
    attempt: int
    lease_token_digest: bytes | None
    run_epoch: int | None
    reason: str
    run_state: str
    job_epoch: int
    cancel_reason: str | None

    @classmethod
    def of_finished(cls, task: LockedTask) -> Self:
        """Of a task that was moved."""
        return cls(
            task.task_id,
            task.state.value,
            task.attempt,
            None,
            task.run_epoch,
            task.reason,
            task.run_state,
            task.job_epoch,
            None,
        )


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """An attempt; while it runs its outcome is `unspecified`."""

    attempt: int
    worker_id: str
    started_at: datetime
    ended_at: datetime | None
    outcome: str
    error_class: str | None
    message: str
    traceback: str
    usage: bytes | None


@dataclass(frozen=True, slots=True)
class TaskRow:
    """A task as people see it."""

    task_id: str
    dag: str
    job: str
    job_version_id: str
    origin: str
    event_id: str | None
    trigger_dataset_id: str | None
    cursor_type: int | None
    scope_kind: int | None
    scope_first: bytes | None
    scope_last: bytes | None
    revision: int
    state: str
    attempt: int
    worker_id: str | None
    created_at: datetime
    finished_at: datetime | None
    lease_until: datetime | None
    retry_at: datetime | None
    reason: str
    accepted_events: int
    failed_attempts: int
    lost_leases: int
    progress: bytes | None
    nondeterministic: bool
    run_state: str
    run_epoch: int | None
    job_epoch: int
    paused: bool
    cancel_reason: str | None
    pins: str | None

    @property
    def fence(self) -> str | None:
        """Why it may not run, or no longer; None where it may."""
        if self.state == TaskState.RUNNING:
            return attempt_fence(self.run_state, self.job_epoch, self.run_epoch)
        return fence(self.run_state)

    @property
    def shown_state(self) -> str:
        """For people: what may not run is cancelled, for as long as that is so."""
        waits = self.state in (TaskState.QUEUED, TaskState.RELEASED, TaskState.BACKOFF, TaskState.RUNNING)
        return TaskState.CANCELED if waits and fence(self.run_state) else self.state

    @property
    def shown_reason(self) -> str:
        """Why it is in that state."""
        return self.reason if self.shown_state == self.state else fence(self.run_state) or ""


@dataclass(frozen=True, slots=True)
class CountRow:
    """Tasks of a job version in a state."""

    dag: str
    job: str
    job_version_id: str
    state: str
    count: int


@dataclass(frozen=True, slots=True)
class TaskQuery:
    """Conditions joined by "and"; None is no condition. Pages: tasks made before this one, or after it."""

    dag: str | None = None
    job: str | None = None
    states: Sequence[TaskState] | None = None
    first: bytes | None = None
    last: bytes | None = None
    before: str | None = None
    after: str | None = None
    limit: int = 100

    def finds(self, row: TaskRow) -> bool:
        """Whether all conditions but those of pages hold of a task."""
        if self.dag not in (None, row.dag) or self.job not in (None, row.job):
            return False
        if self.states and row.shown_state not in self.states:
            return False
        if self.first is None or self.last is None:
            return True
        first, last = row.scope_first, row.scope_last
        return first is not None and last is not None and first <= self.last and last >= self.first
