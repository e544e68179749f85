"""Rows of DAG versions, job versions and what binds them. Maps and never commits."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from dispatcher.db.rows import Connection, rows
from dispatcher.db.statements import Statements

sql = Statements.load("dispatcher.deploy")


@dataclass(frozen=True, slots=True)
class VersionRow:
    """A DAG version. `spec` is a serialized DagSpec."""

    dag_version_id: str
    dag: str
    version: int
    state: str
    deploy_number: int
    actor: str
    created_at: datetime
    active_at: datetime | None
    spec: bytes
    spec_digest: bytes


@dataclass(frozen=True, slots=True)
class DagRow:
    """A DAG in a line."""

    dag: str
    version: int
    active_at: datetime | None
    job_count: int
    paused: bool


@dataclass(frozen=True, slots=True)
class DeployedJobRow:
    """A job of a DAG version."""

    job: str
    job_version_id: str
    kind: str
    run_state: str
    paused: bool


async def own_dags(connection: Connection, lock_class: int, dags: Sequence[str]) -> None:
    await connection.execute(sql.own_dags, {"class": lock_class, "dags": list(dags)})


async def active_version(connection: Connection, dag: str) -> VersionRow | None:
    found = await rows(connection, sql.active_version, VersionRow, dag=dag)
    return found[0] if found else None


async def get_version(connection: Connection, dag_version_id: str) -> VersionRow | None:
    found = await rows(connection, sql.get_version, VersionRow, dag_version_id=dag_version_id)
    return found[0] if found else None


async def written_version(connection: Connection, dag_version_id: str) -> VersionRow:
    """A version that this transaction wrote."""
    return (await rows(connection, sql.get_version, VersionRow, dag_version_id=dag_version_id))[0]


async def list_versions(connection: Connection, dag: str, before: int | None, limit: int) -> list[VersionRow]:
    return await rows(connection, sql.list_versions, VersionRow, dag=dag, before=before, limit=limit)


async def list_dags(connection: Connection, *, dag: str | None, after: str | None, limit: int) -> list[DagRow]:
    return await rows(connection, sql.list_dags, DagRow, dag=dag, after=after, limit=limit)


async def deployed_jobs(connection: Connection, dag_version_id: str) -> list[DeployedJobRow]:
    return await rows(connection, sql.deployed_jobs, DeployedJobRow, dag_version_id=dag_version_id)


async def source_events(connection: Connection, dag: str) -> int:
    cursor = await connection.execute(sql.source_events, {"dag": dag})
    row = await cursor.fetchone()
    return int(row[0]) if row else 0


async def unfinished(connection: Connection, dag_version_id: str) -> bool:
    cursor = await connection.execute(sql.unfinished, {"dag_version_id": dag_version_id})
    row = await cursor.fetchone()
    return bool(row and row[0])


async def pause(connection: Connection, dag: str, jobs: Sequence[str], actor: str) -> None:
    """Pauses jobs; the DAG as a whole where none is named."""
    await connection.execute(sql.pause, {"dag": dag, "jobs": list(jobs) or [""], "actor": actor})


async def resume(connection: Connection, dag: str, jobs: Sequence[str]) -> None:
    """Resumes jobs; the DAG as a whole and every job of it where none is named."""
    await connection.execute(sql.resume, {"dag": dag, "jobs": list(jobs) or None})


async def answered_deploy(connection: Connection, request_id: str) -> VersionRow | None:
    """The version that a deploy call with this id was answered with."""
    found = await rows(connection, sql.answered_deploy, VersionRow, request_id=request_id)
    return found[0] if found else None


async def answer_deploy(connection: Connection, request_id: str, dag_version_id: str, actor: str) -> bool:
    """So that the call can be repeated; False where the id was taken meanwhile."""
    cursor = await connection.execute(
        sql.answer_deploy, {"request_id": request_id, "dag_version_id": dag_version_id, "actor": actor}
    )
    return await cursor.fetchone() is not None
