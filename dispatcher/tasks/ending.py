"""Ending attempts: completed by their workers, or taken back when a lease expires. Owns its transaction's steps, not
its commit.

A run fails as a whole, but one task is to blame. The worker cannot say which; so the first one of the run that is
left is charged with the failure, the others go back in line uncharged, and a charged head is handed out alone the
next time.
"""

from collections.abc import Callable, Collection, Hashable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple, Protocol

from dispatcher.db.rows import Connection
from dispatcher.tasks import store
from dispatcher.tasks.leases import LeaseRef, LockedStream, LockedTask, Refusal, StreamRef, lease_refusal
from dispatcher.tasks.retries import ErrorClass, Failures, RetryPolicy, after_failure, after_lost_lease
from dispatcher.tasks.rows import Emitted, Ended
from dispatcher.tasks.state import TaskEvent, TaskState, after_running
from kernel.crash import crash
from traceapi.types.v1.errors_pb2 import ErrorReason


class Succeeded(NamedTuple):
    """`emitted_events`: the distinct events that the task emitted."""

    emitted_events: int


@dataclass(frozen=True, slots=True)
class Failed:
    """The work failed."""

    error_class: ErrorClass
    message: str
    traceback: str


@dataclass(frozen=True, slots=True)
class CancelConfirmed:
    """The worker stopped because it was told to."""

    message: str


@dataclass(frozen=True, slots=True)
class Returned:
    """The worker hands the attempt back, for no fault of the task."""

    message: str


Outcome = Succeeded | Failed | CancelConfirmed | Returned


class Completion(NamedTuple):
    """How one attempt ended, as its worker says."""

    worker_id: str
    lease: LeaseRef
    stream: StreamRef | None
    outcome: Outcome
    usage: bytes | None = None

    @property
    def cost(self) -> int:
        """Rows that it writes: the task and the attempt; of a run, the stream's position and its end."""
        return 2 if self.stream is None else 4

    @property
    def key(self) -> Hashable:
        """Emits and completions of one key keep their order: a run's stream, else the task."""
        return self.stream.key if self.stream is not None else self.lease.task_id


CompletionResult = TaskState | Refusal


class Attempts(Protocol):
    """What the transaction of ends has locked, by their keys, and what is not written yet of the tasks' emits."""

    @property
    def connection(self) -> Connection: ...
    @property
    def streams(self) -> Mapping[tuple[str, str], LockedStream]: ...
    @property
    def tasks(self) -> Mapping[str, LockedTask]: ...
    @property
    def emitted(self) -> MutableMapping[str, Emitted]:
        """Ends write it, and take it out of here."""
        ...


class AttemptEnder:
    """Completions as operations of the batcher."""

    def __init__(self, jitter: Callable[[], float]) -> None:
        self._jitter = jitter

    async def complete(self, attempts: Attempts, ops: Sequence[Completion]) -> list[CompletionResult]:
        """One verdict per completion, in order."""
        connection, tasks, emitted = attempts.connection, attempts.tasks, attempts.emitted
        failing = {
            op.lease.task_id: op.outcome.error_class
            for op in ops
            if isinstance(op.outcome, Failed) and op.lease.task_id in tasks
        }
        policies = await store.retry_policies(connection, {tasks[task_id].job_version_id for task_id in failing})
        before = await store.failures_of_class(
            connection, [(tasks[task_id], error_class) for task_id, error_class in failing.items()]
        )
        ends: list[Ended] = []
        results: list[CompletionResult] = []
        stale: list[LeaseRef] = []
        seen: set[str] = set()
        blamed: set[Hashable] = set()
        for op in ops:
            refusal = _refusal(op, attempts, seen)
            if refusal is not None:
                stale.append(op.lease)
                results.append(refusal)
                continue
            task = tasks[op.lease.task_id]
            seen.add(task.task_id)
            # Of a run only the first failing task bears the failure; tasks of their own are keys of their own.
            failures = Failures(task.failed_attempts + 1, before.get(task.task_id, 0) + 1)
            end = self._end(task, op, policies.get(task.job_version_id), failures if op.key not in blamed else None)
            if isinstance(op.outcome, Failed):
                blamed.add(op.key)
            ends.append(end)
            results.append(end.state)
        await store.record_ends(connection, ends, emitted)
        for end in ends:
            emitted.pop(end.task.task_id, None)
        done = [end.task for end in ends if end.state is TaskState.SUCCEEDED]
        await store.advance_streams(connection, [task.task_id for task in done if task.stream_key is not None])
        await store.free_streams(connection, {op.stream.key for op in ops if op.stream is not None})
        crash("settle.written")
        return await _first_answers(connection, ops, results, stale)

    def _end(self, task: LockedTask, op: Completion, policy: RetryPolicy | None, failures: Failures | None) -> Ended:
        """`policy` is None where the job version is in no active DAG version, `failures` where another task of the run
        is to blame: nobody is charged then."""
        if task.cancel_reason is not None:
            return _canceled(task, task.cancel_reason, _message(op.outcome), op.usage)
        match op.outcome:
            case Succeeded():
                return Ended(task, after_running(TaskEvent.SUCCEED), "succeeded", usage=op.usage)
            case CancelConfirmed(message):
                # Not the task was cancelled: its job version was taken back, or its run stopped because of another one.
                return Ended(task, after_running(TaskEvent.RETURN), "canceled", message=message, usage=op.usage)
            case Returned(message):
                return Ended(task, after_running(TaskEvent.RETURN), "returned", message=message, usage=op.usage)
            case Failed(error_class, message, traceback) if failures is not None and policy is not None:
                after = after_failure(error_class, failures, policy, self._jitter())
                return Ended(
                    task,
                    after_running(after.event),
                    "failed",
                    failed=1,
                    wait=after.wait,
                    reason=f"{after.reason}; the last: {message}" if after.reason else "",
                    error_class=error_class.value,
                    message=message,
                    traceback=traceback,
                    usage=op.usage,
                )
            case Failed(error_class, message, traceback):
                return Ended(
                    task,
                    after_running(TaskEvent.YIELD),
                    "failed",
                    error_class=error_class.value,
                    message=f"its run failed: {message}",
                )


def _refusal(op: Completion, attempts: Attempts, seen: Collection[str]) -> Refusal | None:
    """Why the completion is refused; None where it stands. `seen` are the tasks that the batch has ended already."""
    task_id, tasks = op.lease.task_id, attempts.tasks
    refusal = lease_refusal(op.lease, op.stream, tasks, attempts.streams)
    if refusal is not None and not _has_stopped(tasks.get(task_id), op):
        return refusal
    if task_id in seen:
        return Refusal(ErrorReason.ERROR_REASON_STALE_LEASE, "the same batch completes this attempt twice")
    return _success_refusal(tasks[task_id], op.outcome, attempts.emitted.get(task_id))


def _has_stopped(task: LockedTask | None, op: Completion) -> bool:
    """An attempt that is fenced or cancelled may still say that it has stopped: so its lease need not run out."""
    if task is None or not task.held_by(op.lease):
        return False
    if task.cancel_reason is not None:
        return not isinstance(op.outcome, Succeeded)
    return task.fence is not None and isinstance(op.outcome, CancelConfirmed | Returned)


def _canceled(task: LockedTask, reason: str, message: str, usage: bytes | None = None) -> Ended:
    """However a cancelled attempt ended, it never counts as anything else."""
    after = after_running(TaskEvent.CONFIRM_CANCEL)
    return Ended(task, after, "canceled", reason=reason, message=message, usage=usage)


def _message(outcome: Outcome) -> str:
    return "" if isinstance(outcome, Succeeded) else outcome.message


def _success_refusal(task: LockedTask, outcome: Outcome, emitted: Emitted | None) -> Refusal | None:
    """A success must not pass while an emit of the same attempt was refused or is missing."""
    if not isinstance(outcome, Succeeded):
        return None
    if task.refused_attempt == task.attempt:
        return Refusal(ErrorReason.ERROR_REASON_EMIT_REFUSED, "an emit of this attempt was refused")
    accepted = task.accepted_events + (emitted.accepted if emitted is not None else 0)
    if accepted < outcome.emitted_events:
        return Refusal(
            ErrorReason.ERROR_REASON_EVENTS_MISSING,
            f"{accepted} of {outcome.emitted_events} events are accepted",
        )
    return None


async def _first_answers(
    connection: Connection,
    ops: Sequence[Completion],
    results: Sequence[CompletionResult],
    stale: Sequence[LeaseRef],
) -> list[CompletionResult]:
    """A completion that was recorded before gets its first answer again, known by attempt and token."""
    ended = await store.ended_attempts(connection, stale)
    answers: list[CompletionResult] = []
    for op, result in zip(ops, results, strict=True):
        first = ended.get((op.lease.task_id, op.lease.attempt)) if isinstance(result, Refusal) else None
        if (
            first is None
            or first.lease_token_digest != op.lease.token_digest
            or first.outcome not in _outcomes(op.outcome)
        ):
            answers.append(result)
        else:
            answers.append(TaskState(first.state))
    return answers


def _outcomes(outcome: Outcome) -> frozenset[str]:
    """As what the attempt may have been recorded: of a cancelled task every end is a cancelled one."""
    match outcome:
        case Succeeded():
            return frozenset({"succeeded"})
        case Failed():
            return frozenset({"failed", "canceled"})
        case CancelConfirmed():
            return frozenset({"canceled"})
        case Returned():
            return frozenset({"returned", "canceled"})


EXPIRED_RUNS = 1
"""Runs that one transaction takes back at most: each has up to a thousand tasks, of two rows."""


async def expire_leases(connection: Connection, limit: int) -> int:
    """Takes tasks back whose lease has run out; of a run, the whole remainder. Answers how many tasks."""
    streams = await store.expired_streams(connection, EXPIRED_RUNS)
    members = {stream.key: await store.run_members(connection, stream) for stream in streams}
    own = await store.expired_tasks(connection, limit)
    run_ids = [task_id for ids in members.values() for task_id in ids]
    tasks = await store.lock_tasks(connection, own | set(run_ids))
    policies = await store.retry_policies(connection, {task.job_version_id for task in tasks.values()})
    # A run that was told to stop is nobody's fault.
    heads = {members[stream.key][0] for stream in streams if members[stream.key] and stream.cancel_reason is None}
    ends = [
        _lost(task, policies.get(task.job_version_id), task.task_id in own or task.task_id in heads)
        for task in tasks.values()
        if task.state is TaskState.RUNNING
    ]
    await store.record_ends(connection, ends, {})
    await store.free_streams(connection, set(members))
    crash("expire.written")
    return len(ends)


def _lost(task: LockedTask, policy: RetryPolicy | None, charged: bool) -> Ended:
    message = "the lease expired: its worker died or was cut off"
    if task.cancel_reason is not None:
        return _canceled(task, task.cancel_reason, message)
    if not charged or policy is None or task.fence is not None:
        return Ended(task, after_running(TaskEvent.YIELD), "lease_lost", message=message)
    after = after_lost_lease(task.lost_leases + 1, policy)
    return Ended(
        task,
        after_running(after.event),
        "lease_lost",
        lost=1,
        wait=timedelta(),
        reason=f"{after.reason}; {message}" if after.reason else "",
        message=message,
    )
