"""Who may write: the rules of leases, as functions of locked rows and the database's time.

The rows that these functions judge are locked by the transaction that writes afterwards; a verdict on an unlocked row
would be worthless, because the lease can expire, or the task be taken over, between the check and the commit.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from dispatcher.tasks.state import TaskState
from traceapi.types.v1.errors_pb2 import ErrorReason

_FENCED = {
    "superseded": "a deployment replaced its job version",
    "rolled_back": "a rollback took its job version back",
    "retired": "its job version is retired",
}
_RESTORED = "its job version was taken back and restored since: another attempt follows"


def fence(run_state: str) -> str | None:
    """Why nothing of a job version may run; None where it may."""
    return _FENCED.get(run_state)


def attempt_fence(run_state: str, job_epoch: int, run_epoch: int | None) -> str | None:
    """Why an attempt is fenced; None where it is not.

    `run_epoch` is its job version's epoch when it was claimed: who was claimed before the job version was taken back
    stays fenced when it is restored.
    """
    return fence(run_state) or (_RESTORED if run_epoch != job_epoch else None)


class LeaseRef(NamedTuple):
    """The lease that a caller names; the token by its SHA-256."""

    task_id: str
    attempt: int
    token_digest: bytes


class StreamRef(NamedTuple):
    """The ordered stream, with the epoch, that a caller names."""

    job_version_id: str
    stream_key: str
    epoch: int

    @property
    def key(self) -> tuple[str, str]:
        return self.job_version_id, self.stream_key


class LockedTask(NamedTuple):
    """A task's row under lock, with its job version's run state. `lease_lives` by the database's time: it is a task of
    its own, runs, and its lease has not run out. `before_change`: it was made before the run state was changed."""

    task_id: str
    state: TaskState
    job_version_id: str
    event_id: str | None
    origin: str
    stream_key: str | None
    revision: int
    attempt: int
    failed_attempts: int
    lost_leases: int
    claim_request_id: str | None
    lease_token_digest: bytes | None
    lease_lives: bool
    stream_epoch: int | None
    run_epoch: int | None
    worker_id: str | None
    accepted_events: int
    refused_attempt: int | None
    run_emitted: bool
    run_state: str
    job_epoch: int
    reason: str
    cancel_reason: str | None
    before_change: bool

    @property
    def caused_origin(self) -> str:
        """That of what it emits: what a replay or a backfill emits is replayed or backfilled all the way down; a source
        run is how live work begins. What was made before the barrier of the build that its job version is part of has
        to be done before the cutover, and so has what comes of it."""
        if self.origin in ("live", "backfill") and self.run_state == "staged" and self.before_change:
            return "replay"
        return "live" if self.origin == "source_run" else self.origin

    @property
    def fence(self) -> str | None:
        """Why what it may still be running is fenced; None where it is not."""
        if self.state is TaskState.RUNNING:
            return attempt_fence(self.run_state, self.job_epoch, self.run_epoch)
        return fence(self.run_state)

    def held_by(self, lease: LeaseRef) -> bool:
        """Whether the lease is of the attempt that runs; whether it still lives is another question."""
        return (
            self.state is TaskState.RUNNING
            and self.attempt == lease.attempt
            and self.lease_token_digest == lease.token_digest
        )


class LockedStream(NamedTuple):
    """An ordered stream's row under lock."""

    job_version_id: str
    stream_key: str
    epoch: int
    claim_request_id: str | None
    lease_token_digest: bytes | None
    lease_until: datetime | None
    cancel_reason: str | None
    now: datetime

    @property
    def key(self) -> tuple[str, str]:
        return self.job_version_id, self.stream_key

    @property
    def leased(self) -> bool:
        return self.lease_until is not None and self.lease_until > self.now


class Refusal(NamedTuple):
    """Why one item is refused: data for its caller, nobody else's business."""

    reason: ErrorReason.ValueType
    message: str


def lease_refusal(
    lease: LeaseRef,
    stream: StreamRef | None,
    tasks: Mapping[str, LockedTask],
    streams: Mapping[tuple[str, str], LockedStream],
) -> Refusal | None:
    """None when the lease is the current one and lives; else why not."""
    task = tasks.get(lease.task_id)
    if task is None:
        return Refusal(ErrorReason.ERROR_REASON_TASK_NOT_FOUND, f"task {lease.task_id} does not exist")
    if (fenced := task.fence) is not None:
        return Refusal(ErrorReason.ERROR_REASON_TASK_CANCELED, f"task {task.task_id}: {fenced}")
    if (reason := _cancellation(task)) is not None:
        return Refusal(ErrorReason.ERROR_REASON_TASK_CANCELED, f"task {task.task_id} was cancelled: {reason}")
    if not task.held_by(lease):
        return Refusal(
            ErrorReason.ERROR_REASON_STALE_LEASE,
            f"task {task.task_id} is {task.state}, attempt {task.attempt}; this lease is of attempt {lease.attempt}",
        )
    if task.stream_epoch is not None:
        return _stream_refusal(task, stream, streams)
    if stream is not None:
        return Refusal(ErrorReason.ERROR_REASON_STALE_STREAM_EPOCH, f"task {task.task_id} is not in a run")
    if not task.lease_lives:
        return Refusal(ErrorReason.ERROR_REASON_STALE_LEASE, f"the lease of task {task.task_id} has expired")
    return None


def _cancellation(task: LockedTask) -> str | None:
    """Why a person cancelled the task; None where nobody did."""
    return task.reason if task.state is TaskState.CANCELED else task.cancel_reason


def _stream_refusal(
    task: LockedTask, stream: StreamRef | None, streams: Mapping[tuple[str, str], LockedStream]
) -> Refusal | None:
    """A task of a run lives by its stream's lease, and only in the epoch that it was claimed in."""
    if stream is None or stream.key != (task.job_version_id, task.stream_key):
        return Refusal(ErrorReason.ERROR_REASON_STALE_STREAM_EPOCH, f"task {task.task_id} is in a run: name its stream")
    held = streams.get(stream.key)
    if held is None or held.epoch != stream.epoch or task.stream_epoch != stream.epoch or not held.leased:
        return Refusal(
            ErrorReason.ERROR_REASON_STALE_STREAM_EPOCH,
            f"the stream of task {task.task_id} is at epoch {held.epoch if held else 0} or its lease has expired",
        )
    return None


def claim_refusal(task: LockedTask, *, paused: bool) -> Refusal | None:
    """None when the task may be claimed for itself; else why not. Repeated claims are told apart before."""
    if (fenced := fence(task.run_state)) is not None:
        return Refusal(ErrorReason.ERROR_REASON_TASK_CANCELED, fenced)
    if (reason := _cancellation(task)) is not None:
        return Refusal(ErrorReason.ERROR_REASON_TASK_CANCELED, reason)
    if paused:
        return Refusal(ErrorReason.ERROR_REASON_TASK_NOT_READY, "its job or its DAG is paused")
    match task.state:
        case TaskState.RELEASED:
            return None
        case TaskState.RUNNING:
            return Refusal(ErrorReason.ERROR_REASON_TASK_TAKEN, f"worker {task.worker_id} has it")
        case TaskState.QUEUED | TaskState.BACKOFF:
            return Refusal(ErrorReason.ERROR_REASON_TASK_NOT_READY, f"it is {task.state}, not released")
        case _:
            return Refusal(ErrorReason.ERROR_REASON_TASK_FINISHED, f"it is {task.state} {task.reason}".rstrip())
