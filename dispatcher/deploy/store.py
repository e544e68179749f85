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


async def set_run_states(
    connection: Connection, dag: str, jobs: Sequence[str], before: str, after: str, actor: str
) -> None:
    """Moves the DAG's jobs (all, where none is named) from one run state to another."""
    await connection.execute(
        sql.set_run_states,
        {"dag": dag, "jobs": list(jobs) or None, "from": before, "to": after, "actor": actor},
    )
