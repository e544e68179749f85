"""Rows of re-runs. Maps and never commits; each method is the statement of its name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

from dispatcher.db.rows import Connection, one_row, rows
from dispatcher.db.statements import Statements
from dispatcher.tasks.rows import TaskQuery

_sql = Statements.load("dispatcher.deploy", "reruns.sql")

COUNTED = 5_000
"""Tasks that one statement reads of those that are counted."""
KEPT = timedelta(days=30)
"""For how long a page is answered again as it was."""
_REMOVED_AT_ONCE = 100
_BEFORE_ALL = "00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True, slots=True)
class NamedJob:
    """A job version of an active DAG version."""

    job_version_id: str
    dag: str
    job: str


@dataclass(frozen=True, slots=True)
class RerunJob:
    """What decides whether a job version can be run again. `output_specs` are those of outputs that have files."""

    job_version_id: str
    dag: str
    job: str
    kind: str
    ordered: bool
    active: bool
    catching_up: bool
    output_specs: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Follower:
    """A job whose events follow from a re-run. `output_specs` are those of outputs that have files."""

    dag: str
    job: str
    output_specs: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class TriggerCursor:
    """A dataset that triggers a job."""

    dataset_id: str
    cursor_type: int


class ScopePlace(NamedTuple):
    """An event to run a job for again, and its place in scope order."""

    job_version_id: str
    event_id: str
    scope_first: bytes


class EndedTask(NamedTuple):
    """A task that ended, and the event that it is of; whether it is the last one of it, and its job version active."""

    job_version_id: str
    event_id: str | None
    task_id: str
    last_one: bool


@dataclass(frozen=True, slots=True)
class Bounds:
    """Scopes of a job within two keys."""

    job_version_id: str
    first: bytes
    last: bytes


@dataclass(frozen=True, slots=True)
class AnsweredPage:
    """What a page was answered with."""

    request_digest: bytes
    task_count: int
    next_page_token: str


@dataclass(frozen=True, slots=True)
class ReaderRow:
    """A job that reads what is run again; `effect` as RERUN_EFFECT_* of the contract."""

    dag: str
    job: str
    effect: str


async def jobs_called(connection: Connection, job: str, dag: str | None) -> list[NamedJob]:
    return await rows(connection, _sql.jobs_called, NamedJob, job=job, dag=dag)


async def dags_around(connection: Connection, job_version_ids: Sequence[str]) -> set[str]:
    cursor = await connection.execute(_sql.dags_around, {"job_version_ids": list(job_version_ids)})
    return {row[0] for row in await cursor.fetchall()}


async def lock_subscriptions(connection: Connection, job_version_ids: Sequence[str]) -> None:
    """Until the end of the transaction nothing is replayed to these job versions."""
    await connection.execute(_sql.lock_subscriptions, {"job_version_ids": list(job_version_ids)})


async def rerun_jobs(connection: Connection, job_version_ids: Sequence[str]) -> list[RerunJob]:
    return await rows(connection, _sql.rerun_jobs, RerunJob, job_version_ids=list(job_version_ids))


async def trigger_cursors(connection: Connection, job_version_id: str) -> list[TriggerCursor]:
    return await rows(connection, _sql.trigger_cursors, TriggerCursor, job_version_id=job_version_id)


async def count_scopes(connection: Connection, bounds: Bounds) -> int:
    return int((await one_row(connection, _sql.count_scopes, _values(bounds)))[0])


async def page_of_scopes(
    connection: Connection, bounds: Bounds, after: tuple[bytes, str] | None, limit: int
) -> list[ScopePlace]:
    first, event_id = after or (bounds.first, _BEFORE_ALL)
    values = _values(bounds)
    return await rows(
        connection, _sql.page_of_scopes, ScopePlace, **values, after_first=first, after_id=event_id, limit=limit
    )


async def jobs_of_tasks(connection: Connection, query: TaskQuery, task_ids: Sequence[str]) -> set[str]:
    cursor = await connection.execute(_sql.jobs_of_tasks, _filter(query, task_ids))
    return {row[0] for row in await cursor.fetchall()}


async def count_ended(connection: Connection, query: TaskQuery, task_ids: Sequence[str]) -> int:
    """Page by page: no statement reads more than one, however many tasks there are."""
    tasks, after = 0, None
    while True:
        values = {**_filter(query, task_ids), "after": after, "limit": COUNTED}
        found, after, size = await one_row(connection, _sql.count_ended, values)
        tasks += int(found)
        if size < COUNTED:
            return tasks


async def page_of_ended(connection: Connection, query: TaskQuery, task_ids: Sequence[str]) -> list[EndedTask]:
    """`query.before` is the id that the request began with."""
    place = {"after": query.after, "before": query.before, "limit": query.limit}
    return await rows(connection, _sql.page_of_ended, EndedTask, **_filter(query, task_ids), **place)


async def next_task_id(connection: Connection) -> str:
    return str((await one_row(connection, _sql.next_task_id, {}))[0])


async def make_reruns(connection: Connection, causes: Sequence[tuple[str, str]], reason: str) -> int:
    """Of (job version, event): a new task each, where that can be. What is dead of them is skipped for the reason."""
    if not causes:
        return 0
    values = {"job_version_ids": [job for job, _ in causes], "event_ids": [event_id for _, event_id in causes]}
    await connection.execute(_sql.mark_rerun, {"job_version_ids": sorted({job for job, _ in causes})})
    cursor = await connection.execute(_sql.make_reruns, {**values, "reason": reason})
    return cursor.rowcount


async def answered_page(connection: Connection, request_id: str, page_token: str) -> AnsweredPage | None:
    values = {"request_id": request_id, "page_token": page_token}
    found = await rows(connection, _sql.answered_page, AnsweredPage, **values)
    return found[0] if found else None


async def request_digest_of(connection: Connection, request_id: str) -> bytes | None:
    cursor = await connection.execute(_sql.request_digest_of, {"request_id": request_id})
    row = await cursor.fetchone()
    return row[0] if row else None


async def answer_page(
    connection: Connection, request_id: str, page_token: str, answer: AnsweredPage, actor: str
) -> None:
    await connection.execute(
        _sql.answer_page,
        {
            "request_id": request_id,
            "page_token": page_token,
            "request_digest": answer.request_digest,
            "task_count": answer.task_count,
            "next_page_token": answer.next_page_token,
            "actor": actor,
        },
    )
    await connection.execute(_sql.remove_old_pages, {"kept": KEPT, "limit": _REMOVED_AT_ONCE})


async def followers(connection: Connection, job_version_ids: Sequence[str]) -> list[Follower]:
    """Those of the jobs themselves included."""
    return await rows(connection, _sql.followers, Follower, job_version_ids=list(job_version_ids))


async def readers(connection: Connection, job_version_ids: Sequence[str]) -> list[ReaderRow]:
    return await rows(connection, _sql.readers, ReaderRow, job_version_ids=list(job_version_ids))


def _values(bounds: Bounds) -> Mapping[str, object]:
    return {"job_version_id": bounds.job_version_id, "first": bounds.first, "last": bounds.last}


def _filter(query: TaskQuery, task_ids: Sequence[str]) -> dict[str, object]:
    states = [str(state) for state in query.states] if query.states else None
    return {
        "task_ids": list(task_ids) or None,
        "dag": query.dag,
        "job": query.job,
        "states": states,
        "first": query.first,
        "last": query.last,
    }
