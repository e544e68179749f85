"""What there is of DAGs and their versions, and the steps of a version's life. Maps and never commits.

The rows that a version is made of are written by `writes`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from dispatcher.db.rows import Connection, one_row, rows
from dispatcher.db.statements import Statements
from dispatcher.deploy.versions import StoredJob
from kernel.errors import TraceError
from traceapi.types.v1.errors_pb2 import ErrorReason

_sql = Statements.load("dispatcher.deploy")

COLLECTED_AFTER = 5.0
"""Seconds after which a deploy may be repeated that meets what is being collected."""


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

    @property
    def being_built(self) -> bool:
        """Beside what is active."""
        return self.state in ("building", "held")


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


@dataclass(frozen=True, slots=True)
class OwnerRow:
    """Who owns a dataset, and how it is spelled."""

    dataset_id: str
    folded_id: str
    dag: str


async def own_dags(connection: Connection, lock_class: int, dags: Sequence[str]) -> None:
    """Until the end of the transaction no event of theirs is accepted."""
    await connection.execute(_sql.own_dags, {"class": lock_class, "dags": list(dags)})


async def own_dag(connection: Connection, dag: str) -> None:
    """Until the end of the transaction nobody else writes of its versions."""
    await connection.execute(_sql.own_dag, {"dag": dag})


async def insert_dag(connection: Connection, dag: str, actor: str) -> None:
    """Where it is not there."""
    await connection.execute(_sql.insert_dag, {"dag": dag, "actor": actor})


async def begin_version(
    connection: Connection,
    dag: str,
    dag_version_id: str,
    spec: bytes,
    spec_digest: bytes,
    *,
    actor: str,
    plan_id: str | None,
) -> None:
    """A version that is being built, under the DAG's next number; the caller owns the DAG."""
    await connection.execute(
        _sql.begin_version,
        {
            "dag": dag,
            "dag_version_id": dag_version_id,
            "spec": spec,
            "spec_digest": spec_digest,
            "actor": actor,
            "plan_id": plan_id,
        },
    )


async def still_building(connection: Connection, dag_version_id: str) -> bool:
    return bool((await one_row(connection, _sql.still_building, {"dag_version_id": dag_version_id}))[0])


async def stored_jobs(connection: Connection, dag: str, keys: Mapping[str, bytes]) -> dict[str, StoredJob]:
    """Job versions that are there, by job. `keys` by job. Raises UNAVAILABLE where one is being collected: it can
    neither be taken up again nor be built anew until it is gone."""
    cursor = await connection.execute(
        _sql.stored_jobs, {"dag": dag, "jobs": list(keys), "keys": [keys[job] for job in keys]}
    )
    found = await cursor.fetchall()
    if condemned := sorted(job for job, _, _, _, going in found if going):
        raise TraceError(
            ErrorReason.ERROR_REASON_UNAVAILABLE,
            f"what {', '.join(condemned[:10])} had built before in this form is being collected; deploy again when that"
            " has ended, which `tracectl gc --versions` hastens",
            retry_after=COLLECTED_AFTER,
        )
    return {job: StoredJob(job_version_id, outputs, orders) for job, job_version_id, outputs, orders, _ in found}


async def moved_datasets(connection: Connection, versions: Mapping[str, str]) -> list[str]:
    """The datasets that are not served by these versions; `versions` by dataset."""
    cursor = await connection.execute(
        _sql.moved_datasets, {"dataset_ids": list(versions), "version_ids": list(versions.values())}
    )
    return [row[0] for row in await cursor.fetchall()]


async def dataset_owners(connection: Connection, folded_ids: Sequence[str]) -> list[OwnerRow]:
    return await rows(connection, _sql.dataset_owners, OwnerRow, folded_ids=list(folded_ids))


async def activate(connection: Connection, dag: str, dag_version_id: str) -> VersionRow:
    """Moves all pointers of the DAG to this version, under the next deploy number; the caller holds the DAG's lock."""
    deploy_number = int((await one_row(connection, _sql.next_deploy_number, {}))[0])
    active = {"dag": dag, "dag_version_id": dag_version_id, "deploy_number": deploy_number}
    await connection.execute(_sql.activate_version, active)
    await connection.execute(_sql.end_activation, active)
    await connection.execute(_sql.record_activation, active)
    await connection.execute(_sql.activate_dag, active)
    return (await rows(connection, _sql.get_version, VersionRow, dag_version_id=dag_version_id))[0]


async def leftover(connection: Connection, dag: str) -> str | None:
    """A version that nobody can finish any more."""
    cursor = await connection.execute(_sql.leftover, {"dag": dag})
    row = await cursor.fetchone()
    return str(row[0]) if row else None


async def remove_composition(connection: Connection, dag_version_id: str, limit: int) -> int:
    """Removes what a version is made of; answers how many rows, at most `limit`."""
    removed = 0
    for statement in (_sql.remove_bindings, _sql.remove_settings, _sql.remove_served):
        cursor = await connection.execute(statement, {"dag_version_id": dag_version_id, "limit": limit - removed})
        removed += cursor.rowcount
    return removed


async def remove_version(connection: Connection, dag_version_id: str) -> None:
    await connection.execute(_sql.remove_version, {"dag_version_id": dag_version_id})


async def ended_rows(connection: Connection, of: str, but: str | None) -> int:
    """Rows that ending what `of` has and `but` lacks changes; a version that was never active is given up by it."""
    return int((await one_row(connection, _sql.ended_rows, {"of": of, "but": but}))[0])


async def active_version(connection: Connection, dag: str) -> VersionRow | None:
    found = await rows(connection, _sql.active_version, VersionRow, dag=dag)
    return found[0] if found else None


async def staged_version(connection: Connection, dag: str) -> VersionRow | None:
    """The version that is being built beside the active one."""
    found = await rows(connection, _sql.staged_version, VersionRow, dag=dag)
    return found[0] if found else None


async def get_version(connection: Connection, dag_version_id: str) -> VersionRow | None:
    found = await rows(connection, _sql.get_version, VersionRow, dag_version_id=dag_version_id)
    return found[0] if found else None


async def list_versions(
    connection: Connection, dag: str, before: int | None, limit: int, *, being_built: bool = False
) -> list[VersionRow]:
    values = {"dag": dag, "before": before, "limit": limit, "being_built": being_built}
    return await rows(connection, _sql.list_versions, VersionRow, **values)


async def list_dags(connection: Connection, *, dag: str | None, after: str | None, limit: int) -> list[DagRow]:
    return await rows(connection, _sql.list_dags, DagRow, dag=dag, after=after, limit=limit)


async def deployed_jobs(connection: Connection, dag_version_id: str) -> list[DeployedJobRow]:
    return await rows(connection, _sql.deployed_jobs, DeployedJobRow, dag_version_id=dag_version_id)


async def source_events(connection: Connection, dag: str) -> int:
    cursor = await connection.execute(_sql.source_events, {"dag": dag})
    row = await cursor.fetchone()
    return int(row[0]) if row else 0


async def unfinished(connection: Connection, dag_version_id: str) -> bool:
    cursor = await connection.execute(_sql.unfinished, {"dag_version_id": dag_version_id})
    row = await cursor.fetchone()
    return bool(row and row[0])


async def goes_on_level(connection: Connection, dag_version_id: str) -> bool:
    """Only what its sources go on to bring is left to do."""
    return bool((await one_row(connection, _sql.goes_on_level, {"dag_version_id": dag_version_id}))[0])


async def pause(connection: Connection, dag: str, jobs: Sequence[str], actor: str) -> None:
    """Pauses jobs; the DAG as a whole where none is named."""
    await connection.execute(_sql.pause, {"dag": dag, "jobs": list(jobs) or [""], "actor": actor})


async def resume(connection: Connection, dag: str, jobs: Sequence[str]) -> None:
    """Resumes jobs; the DAG as a whole and every job of it where none is named."""
    await connection.execute(_sql.resume, {"dag": dag, "jobs": list(jobs) or None})
