"""Taking leases: of tasks of their own, and of runs of ordered streams. Owns its transaction's steps, not its commit.

A claim is repeated with the same request id when its answer was lost; the rows say who has them, so the same attempts
are answered.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from dispatcher.db.pipeline import plan_each, together
from dispatcher.db.rows import Connection
from dispatcher.tasks import claim_rows, store
from dispatcher.tasks.heads import doubtful, head_of
from dispatcher.tasks.leases import LockedStream, LockedTask, Refusal, claim_refusal
from dispatcher.tasks.rows import ClaimedRow, InputHead, JobSettings, StateRow, TaskOwner
from dispatcher.tasks.state import TaskState
from traceapi.types.v1.errors_pb2 import ErrorReason

MAX_ROWS = 4_500
"""Rows that one claim writes: a run may have a thousand tasks, and a claim may name a thousand streams."""
_STREAM_ROWS = 2  # made, and leased
_INACTIVE = "its job is in no active version of its DAG"
_ENDED = frozenset({ErrorReason.ERROR_REASON_TASK_CANCELED, ErrorReason.ERROR_REASON_TASK_FINISHED})


@dataclass(frozen=True, slots=True)
class Claim:
    """A worker's wish. `max_run_tasks` 0 is the job's own limit."""

    request_id: str
    worker_id: str
    token_digest: bytes
    task_ids: Sequence[str]
    lease: timedelta
    max_run_tasks: int


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive tasks of a stream, leased in an epoch."""

    stream: tuple[str, str]
    epoch: int
    tasks: list[ClaimedRow]
    state: StateRow | None


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a claim answers: by task a row, the index of a run, or a refusal."""

    outcomes: dict[str, ClaimedRow | int | Refusal]
    runs: list[Run]
    states: dict[tuple[str, str], StateRow]
    settings: dict[str, JobSettings] = field(default_factory=dict)
    """Of the job versions that something was claimed of."""


@dataclass(slots=True)
class _Budget:
    """Rows that this transaction may still write; `exceeded` are the streams that found no room."""

    rows: int
    exceeded: set[tuple[str, str]] = field(default_factory=set)


async def claim_tasks(connection: Connection, claim: Claim) -> Claimed:
    """Locks streams, then tasks; judges the locked rows; leases what may be had."""
    owners = await store.job_versions_of(connection, claim.task_ids)
    job_version_ids = {owner.job_version_id for owner in owners.values()}
    stream_keys = {_stream(owner) for owner in owners.values() if owner.stream_key is not None}
    own = {task_id for task_id, owner in owners.items() if owner.stream_key is None}
    # Where there are streams these are locked first, and with the tasks of their own the members of their runs. What
    # inputs are at is read behind the last lock: a task is not pinned to before what caused it, or what it waited for.
    alone = own if not stream_keys else set[str]()
    settings, streams, locked, heads = await together(
        claim_rows.job_settings(connection, job_version_ids),
        store.lock_streams(connection, stream_keys, ensure=True),
        store.lock_tasks(connection, alone),
        claim_rows.input_heads(connection, job_version_ids if alone else set()),
    )
    if streams:  # the head of a stream is looked for by conditions, not by keys
        await plan_each(connection)
    budget = _Budget(MAX_ROWS - len(own) - len(streams))
    members = {
        key: await _run_members(connection, stream, settings.get(stream.job_version_id), claim, budget)
        for key, stream in streams.items()
    }
    if streams:
        locked, heads = await together(
            store.lock_tasks(connection, own | {t for ids in members.values() for t in ids}),
            claim_rows.input_heads(connection, job_version_ids),
        )
    spent = await claim_rows.spent_claims(connection, locked.values(), claim.request_id)
    members = {key: [] if spent.intersection(ids) else ids for key, ids in members.items()}
    refusals = {task_id: _refusal_of_own(locked[task_id], settings, claim, spent) for task_id in own}
    epochs: dict[str, int | None] = {t: None for t in own if refusals[t] is None and not _repeats(locked[t], claim)}
    for key, ids in members.items():
        epoch = await _lease_run(connection, streams[key], [locked[task_id] for task_id in ids], claim)
        epochs |= {task_id: epoch for task_id in ids if epoch is not None}
    if epochs:
        pins = _pins(heads, {locked[task_id].job_version_id for task_id in epochs})
        await claim_rows.mark_claimed(
            connection, epochs, pins, claim.worker_id, claim.request_id, claim.token_digest, claim.lease
        )
    return await _answer(connection, claim, owners, settings, refusals, members, streams, budget)


def _stream(owner: TaskOwner) -> tuple[str, str]:
    return owner.job_version_id, owner.stream_key or ""


def _repeats(task: LockedTask, claim: Claim) -> bool:
    """The same claim has this task already: its answer was lost."""
    return (
        task.state is TaskState.RUNNING
        and task.claim_request_id == claim.request_id
        and task.lease_token_digest == claim.token_digest
        and task.worker_id == claim.worker_id
    )


def _refusal_of_own(
    task: LockedTask, settings: dict[str, JobSettings], claim: Claim, spent: Collection[str]
) -> Refusal | None:
    if _repeats(task, claim):
        return None
    if task.claim_request_id == claim.request_id:
        return Refusal(ErrorReason.ERROR_REASON_REQUEST_ID_REUSED, "another worker or token used this request id")
    if task.task_id in spent:  # it arrived late, once more: a further attempt would be nobody's
        return Refusal(ErrorReason.ERROR_REASON_STALE_LEASE, "the attempt that this claim made has ended")
    return claim_refusal(task, paused=_paused(settings.get(task.job_version_id)))


def _refusal_of_run(
    task: LockedTask | None, stream: LockedStream, settings: JobSettings | None, budget: _Budget
) -> Refusal:
    """Why there is no run for a task of an ordered stream. The task's row is not locked: this only explains."""
    refusal = claim_refusal(task, paused=_paused(settings)) if task is not None else None
    if refusal is not None and refusal.reason in _ENDED:
        return refusal
    if stream.key in budget.exceeded:
        return Refusal(ErrorReason.ERROR_REASON_OVERLOADED, "this claim has as many tasks as fit one transaction")
    if stream.leased:
        return Refusal(ErrorReason.ERROR_REASON_STREAM_BUSY, "another worker has its stream")
    return refusal or Refusal(ErrorReason.ERROR_REASON_TASK_NOT_READY, "the head of its stream is not ready")


def _paused(settings: JobSettings | None) -> bool:
    """A job that no active DAG version has is not run either."""
    return settings is None or settings.paused


async def _run_members(
    connection: Connection, stream: LockedStream, settings: JobSettings | None, claim: Claim, budget: _Budget
) -> list[str]:
    """The tasks that this claim gets of a stream: those that it has already, or the head of a free stream."""
    if stream.leased:
        mine = stream.claim_request_id == claim.request_id and stream.lease_token_digest == claim.token_digest
        return await store.run_members(connection, stream) if mine else []
    if settings is None or settings.paused:
        return []
    if budget.rows <= _STREAM_ROWS:
        budget.exceeded.add(stream.key)
        return []
    limit = min(settings.max_run_tasks, claim.max_run_tasks or settings.max_run_tasks, budget.rows - _STREAM_ROWS)
    candidates = await claim_rows.run_candidates(connection, *stream.key, limit)
    followed = await claim_rows.followed_tasks(connection, doubtful(candidates))
    head = head_of(candidates, followed, skip_late=settings.late_scopes == "skip")
    late_state = TaskState.SKIPPED if settings.late_scopes == "skip" else TaskState.DEAD
    for reason, task_ids in head.late.items():
        await claim_rows.pass_late(connection, task_ids, late_state, reason)
    for reason, task_ids in head.passed.items():
        await claim_rows.pass_late(connection, task_ids, TaskState.SKIPPED, reason)
        await claim_rows.count_passed(connection, task_ids)
    budget.rows -= _STREAM_ROWS + head.rows
    return head.members


async def _lease_run(connection: Connection, stream: LockedStream, tasks: list[LockedTask], claim: Claim) -> int | None:
    """The epoch of a new lease; None where there is nothing to lease or this claim has it already."""
    takeable = all(task.state in (TaskState.QUEUED, TaskState.RELEASED) for task in tasks)
    if not tasks or stream.leased or not takeable or tasks[0].fence is not None:
        return None
    return await claim_rows.lease_stream(
        connection, stream.key, claim.worker_id, claim.request_id, claim.token_digest, claim.lease
    )


def _pins(heads: Sequence[InputHead], job_version_ids: set[str]) -> dict[str, list[dict[str, Any]]]:
    """By job version, what its inputs are at: kept from a task's first claim on, so that all attempts read the same."""
    by_job: dict[str, list[dict[str, Any]]] = {}
    for head in heads:
        if head.job_version_id in job_version_ids:
            by_job.setdefault(head.job_version_id, []).append(
                {"dataset_id": head.dataset_id, "version": head.dataset_version_id, "number": head.number}
            )
    return by_job


async def _answer(
    connection: Connection,
    claim: Claim,
    owners: dict[str, TaskOwner],
    settings: dict[str, JobSettings],
    refusals: dict[str, Refusal | None],
    members: dict[tuple[str, str], list[str]],
    streams: dict[tuple[str, str], LockedStream],
    budget: _Budget,
) -> Claimed:
    """Reads what was written, once, for new and repeated claims alike."""
    wanted = [task_id for task_id, refusal in refusals.items() if refusal is None]
    found = await claim_rows.claimed(connection, wanted + [task_id for ids in members.values() for task_id in ids])
    by_id = {row.task_id: row for row in found if row.claim_request_id == claim.request_id}
    unserved = {t for t, owner in owners.items() if owner.stream_key is not None and not members[_stream(owner)]}
    standing = await store.read_tasks(connection, unserved)
    state_keys = {key for key, ids in members.items() if ids}
    state_keys |= {(row.job_version_id, "") for row in by_id.values() if row.origin == "source_run"}
    states = await store.operator_states(connection, state_keys)
    runs: list[Run] = []
    indexes: dict[tuple[str, str], int] = {}
    for key in members:
        tasks = [row for row in found if row.task_id in by_id and (row.job_version_id, row.stream_key) == key]
        if tasks and tasks[0].stream_epoch is not None and key[0] in settings:
            indexes[key] = len(runs)
            runs.append(Run(key, tasks[0].stream_epoch, tasks, states.get(key)))
    outcomes: dict[str, ClaimedRow | int | Refusal] = {}
    for task_id in claim.task_ids:
        owner = owners.get(task_id)
        if owner is None:
            outcomes[task_id] = Refusal(ErrorReason.ERROR_REASON_TASK_NOT_FOUND, f"task {task_id} does not exist")
        elif owner.job_version_id not in settings:
            outcomes[task_id] = refusals.get(task_id) or Refusal(ErrorReason.ERROR_REASON_TASK_CANCELED, _INACTIVE)
        elif owner.stream_key is None:
            outcomes[task_id] = refusals[task_id] or by_id[task_id]
        elif (index := indexes.get(_stream(owner))) is not None:
            outcomes[task_id] = index
        else:
            stream = streams[_stream(owner)]
            outcomes[task_id] = _refusal_of_run(
                standing.get(task_id), stream, settings.get(stream.job_version_id), budget
            )
    claimed = {row.job_version_id for row in by_id.values()}
    return Claimed(outcomes, runs, states, {id_: row for id_, row in settings.items() if id_ in claimed})
