"""Names that are not there: each is an error with the one that was probably meant."""

from collections.abc import Sequence
from datetime import datetime

from dispatcher.audit import store as audit
from dispatcher.db.rows import Connection
from dispatcher.db.statements import Statements
from kernel.errors import TraceError
from kernel.likeness import nearest
from traceapi.types.v1.errors_pb2 import ErrorReason

_sql = Statements.load("dispatcher.datasets")

_SHOWN = 20


async def no_dag(connection: Connection, dag: str) -> TraceError:
    """DAG_NOT_FOUND, or DAG_NOT_ACTIVE of one that was deployed."""
    cursor = await connection.execute(_sql.inactive_dag, {"dag": dag})
    if (found := await cursor.fetchone()) is not None:
        return await _not_active(connection, dag, *found)
    known = await _like(connection, _sql.dags_like, name=dag)
    message = f"no DAG is called {dag}{nearest(dag, known)}"
    return TraceError(ErrorReason.ERROR_REASON_DAG_NOT_FOUND, message, metadata={"dag": dag})


async def _not_active(connection: Connection, dag: str, removed_at: datetime | None, building: bool) -> TraceError:
    if removed_at is None:
        message = f"nothing of {dag} is active, and its versions were given up; deploy it again"
        if building:
            message = f"nothing of {dag} is active yet: its first version is being built"
    else:
        who = await audit.remover(connection, dag)
        message = f"{dag} was removed on {removed_at:%Y-%m-%d %H:%M:%S} UTC" + (f" by {who}" if who else "")
        message += (
            ", and a version of it is being built" if building else "; deploy it again, and it goes on where it was"
        )
    return TraceError(ErrorReason.ERROR_REASON_DAG_NOT_ACTIVE, message, metadata={"dag": dag})


async def no_job(connection: Connection, dag: str, job: str) -> TraceError:
    """JOB_NOT_FOUND; of any DAG where none is named."""
    known = await _like(connection, _sql.jobs_like, name=job, dag=dag or None)
    message = f"{dag} has no job called {job}" if dag else f"no job is called {job}"
    metadata = {"job": job, **({"dag": dag} if dag else {})}
    return TraceError(ErrorReason.ERROR_REASON_JOB_NOT_FOUND, message + nearest(job, known), metadata=metadata)


def no_jobs(dag: str, jobs: Sequence[str], known: Sequence[str]) -> TraceError:
    """JOB_NOT_FOUND, for jobs of a list that is at hand."""
    others = f"; it has {', '.join(known[:_SHOWN])}" + (" and others" if len(known) > _SHOWN else "")
    message = f"{dag} has no job {', '.join(jobs)}" + (nearest(jobs[0], known) or others)
    metadata = {"dag": dag, "jobs": ",".join(jobs)}
    return TraceError(ErrorReason.ERROR_REASON_JOB_NOT_FOUND, message, metadata=metadata)


async def no_dataset(connection: Connection, name: str) -> TraceError:
    """DATASET_NOT_FOUND."""
    known = await _like(connection, _sql.datasets_like, name=name)
    message = f"no dataset is called {name}{nearest(name, known)}"
    return TraceError(ErrorReason.ERROR_REASON_DATASET_NOT_FOUND, message, metadata={"name": name})


async def _like(connection: Connection, statement: str, **values: str | None) -> list[str]:
    cursor = await connection.execute(statement, values)
    return [row[0] for row in await cursor.fetchall()]
