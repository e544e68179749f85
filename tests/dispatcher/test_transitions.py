"""The transition table, the SQL and the contract say the same of every state and every event."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Protocol

import psycopg
import pytest
from google.protobuf.descriptor import EnumDescriptor

from dispatcher.db.pool import Pool, transaction
from dispatcher.db.rows import Connection
from dispatcher.db.statements import Statements
from dispatcher.tasks import changes, claim_rows, store
from dispatcher.tasks.leases import LockedTask
from dispatcher.tasks.retries import ErrorClass
from dispatcher.tasks.rows import (
    Ended,
)
from dispatcher.tasks.state import FINAL, OPEN, TRANSITIONS, TaskEvent, TaskState, transition
from dispatcher.wakeups.release import release, withdraw
from tests.dispatcher.builders import CHAIN
from tests.dispatcher.in_process import InProcess
from traceapi.types.v1 import dag_pb2, task_pb2

_sql = Statements.load("dispatcher.tasks", "changes.sql")

_SET_STATE = """
update task set state = %(state)s::task_state,
    lease_token_digest = case when %(state)s = 'running' then '\\x01'::bytea end,
    claim_request_id = case when %(state)s = 'running' then uuidv7() end,
    lease_until = case when %(state)s = 'running' then clock_timestamp() end,
    run_epoch = case when %(state)s = 'running' then 1 end,
    worker_id = case when %(state)s = 'running' then 'w' end,
    started_at = case when %(state)s = 'running' then clock_timestamp() end,
    released_at = case when %(state)s = 'released' then clock_timestamp() end,
    retry_at = case when %(state)s = 'backoff' then clock_timestamp() end,
    finished_at = case when %(state)s in ('succeeded', 'dead', 'canceled', 'skipped') then clock_timestamp() end,
    attempt = attempt + 1, reason = 'why', cancel_reason = null
where task_id = %(task_id)s
"""

Step = Callable[[Connection, str], Awaitable[object]]


async def _releases(connection: Connection, task_id: str) -> None:
    await release(connection, "default", 10)


async def _withdraws(connection: Connection, task_id: str) -> None:
    (owner,) = (await store.job_versions_of(connection, [task_id])).values()
    await withdraw(connection, [owner.job_version_id])


async def _claims(connection: Connection, task_id: str) -> None:
    request = "00000000-0000-7000-8000-000000000000"
    await claim_rows.mark_claimed(connection, {task_id: None}, {}, "w", request, b"token", timedelta(seconds=1))


async def _backoff_ends(connection: Connection, task_id: str) -> None:
    await store.end_backoffs(connection, 10)


async def _retries(connection: Connection, task_id: str) -> None:
    await connection.execute(_sql.retry, {"task_ids": [task_id]})


async def _skips(connection: Connection, task_id: str) -> None:
    await connection.execute(_sql.skip, {"task_ids": [task_id], "reason": "why"})


def _passes_late(after: TaskState) -> Step:
    async def step(connection: Connection, task_id: str) -> None:
        await claim_rows.pass_late(connection, [task_id], after, "why")

    return step


def _ends(event: TaskEvent) -> Step:
    after = transition(event, TaskState.RUNNING)
    assert after is not None

    async def step(connection: Connection, task_id: str) -> None:
        locked: LockedTask = (await store.lock_tasks(connection, {task_id}))[task_id]
        await store.record_ends(connection, [Ended(locked, after, "canceled", reason="why")], {})

    return step


async def _cancels(connection: Connection, task_id: str) -> None:
    await changes.cancel(connection, [task_id], "why")


async def _requests_cancel(connection: Connection, task_id: str) -> None:
    await changes.request_cancel(connection, [task_id], "why")


STEPS: dict[TaskEvent, Step] = {
    TaskEvent.RELEASE: _releases,
    TaskEvent.WITHDRAW: _withdraws,
    TaskEvent.CLAIM: _claims,
    TaskEvent.CANCEL: _cancels,
    TaskEvent.REQUEST_CANCEL: _requests_cancel,
    TaskEvent.BACKOFF_ENDS: _backoff_ends,
    TaskEvent.RETRY: _retries,
    TaskEvent.SKIP: _skips,
    TaskEvent.REFUSE_LATE: _passes_late(TaskState.DEAD),
    TaskEvent.SKIP_LATE: _passes_late(TaskState.SKIPPED),
    **{
        row.event: _ends(row.event)
        for row in TRANSITIONS
        if row.before == {TaskState.RUNNING} and row.event is not TaskEvent.REQUEST_CANCEL
    },
}


def test_every_event_of_the_table_is_tried() -> None:
    assert STEPS.keys() == set(TaskEvent)
    assert {row.event for row in TRANSITIONS} == set(TaskEvent)


def test_final_states_are_left_by_nothing() -> None:
    assert all(transition(event, state) is None for event in TaskEvent for state in FINAL)
    assert set(TaskState) == OPEN | FINAL


@pytest.mark.parametrize("event", sorted(STEPS))
async def test_the_sql_moves_what_the_table_says_and_nothing_else(dispatcher: InProcess, event: TaskEvent) -> None:
    await dispatcher.deploy(CHAIN)
    task_id = str(await dispatcher.value("select task_id::text from task"))
    found = {}
    for state in TaskState:
        await _set_state(dispatcher.pool, task_id, state)
        async with transaction(dispatcher.pool) as connection:
            await STEPS[event](connection, task_id)
        found[state] = TaskState(await dispatcher.value("select state::text from task"))
    assert found == {state: transition(event, state) or state for state in TaskState}


async def _set_state(pool: Pool, task_id: str, state: TaskState) -> None:
    async with transaction(pool) as connection:
        await connection.execute(_SET_STATE, {"state": state.value, "task_id": task_id})


async def test_states_are_those_of_the_schema_and_of_the_contract(pool: Pool) -> None:
    async with transaction(pool) as connection:
        cursor = await connection.execute(
            "select t.typname, array_agg(e.enumlabel::text order by e.enumsortorder)"
            " from pg_enum e join pg_type t on t.oid = e.enumtypid group by 1"
        )
        schema = dict(await cursor.fetchall())
    assert schema["task_state"] == [state.value for state in TaskState] == _contract(task_pb2.TaskState, "TASK_STATE_")
    assert schema["task_origin"] == _contract(task_pb2.TaskOrigin, "TASK_ORIGIN_")
    assert (
        schema["error_class"] == [item.value for item in ErrorClass] == _contract(task_pb2.ErrorClass, "ERROR_CLASS_")
    )
    assert schema["attempt_outcome"] == _contract(task_pb2.AttemptOutcome, "ATTEMPT_OUTCOME_")
    assert schema["run_state"] == _contract(task_pb2.RunState, "RUN_STATE_")
    assert schema["late_scopes"] == _contract(dag_pb2.LateScopes, "LATE_SCOPES_")


class _Enum(Protocol):
    """An enum of the contract."""

    DESCRIPTOR: EnumDescriptor


def _contract(enum: _Enum, prefix: str) -> list[str]:
    return [value.name.removeprefix(prefix).lower() for value in enum.DESCRIPTOR.values[1:]]


@pytest.mark.parametrize(
    ("state", "change", "constraint"),
    [
        ("queued", "lease_token_digest = '\\x01'", "running_has_lease"),
        ("running", "lease_token_digest = null", "running_has_lease"),
        ("running", "lease_until = null", "one_lease"),
        ("running", "stream_epoch = 1", "one_lease"),
        ("running", "run_epoch = null", "running_has_epoch"),
        ("queued", "cancel_reason = 'why'", "only_running_stops"),
        ("released", "released_at = null", "released_has_time"),
        ("backoff", "retry_at = null", "backoff_has_time"),
        ("queued", "retry_at = clock_timestamp()", "backoff_has_time"),
        ("succeeded", "finished_at = null", "final_has_time"),
        ("queued", "finished_at = clock_timestamp()", "final_has_time"),
        ("dead", "reason = ''", "unhappy_has_reason"),
        ("canceled", "reason = ''", "unhappy_has_reason"),
        ("skipped", "reason = ''", "unhappy_has_reason"),
    ],
)
async def test_constraints_tie_states_to_what_they_need(
    dispatcher: InProcess, state: str, change: str, constraint: str
) -> None:
    await dispatcher.deploy(CHAIN)
    task_id = str(await dispatcher.value("select task_id::text from task"))
    await _set_state(dispatcher.pool, task_id, TaskState(state))
    with pytest.raises(psycopg.errors.CheckViolation, match=constraint):
        await dispatcher.run(f"update task set {change}")  # noqa: S608  the changes stand above
