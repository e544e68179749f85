"""Jobs of other DAGs that read what a DAG serves: who they are, and how they follow its pointers.

Maps and never commits. What changes something is called by the owner of the DAG (`stages.own`).
"""

from dataclasses import dataclass

from dispatcher.db.rows import Connection, rows
from dispatcher.db.statements import Statements
from kernel.errors import TraceError
from traceapi.types.v1.errors_pb2 import ErrorReason

_sql = Statements.load("dispatcher.deploy", "following.sql")


@dataclass(frozen=True, slots=True)
class ReaderRow:
    """A DAG that reads a dataset of another one."""

    dag: str
    dataset_id: str


async def readers(connection: Connection, dag: str) -> list[ReaderRow]:
    """By DAG and dataset."""
    return await rows(connection, _sql.readers, ReaderRow, dag=dag)


async def require_read(connection: Connection, dag: str, dag_version_id: str) -> None:
    """The version serves whatever other DAGs read of this one. Raises DATASETS_READ."""
    found = await rows(connection, _sql.lost_readers, ReaderRow, dag=dag, dag_version_id=dag_version_id)
    if found:
        raise TraceError(
            ErrorReason.ERROR_REASON_DATASETS_READ,
            f"that version has no {found[0].dataset_id}, which DAG {found[0].dag} reads",
            metadata={"readers": ",".join(sorted({reader.dag for reader in found}))},
        )


async def follow_pointers(connection: Connection, dag: str) -> None:
    """Jobs of other DAGs that read this one's datasets read what it serves now."""
    if not await readers(connection, dag):
        return
    await connection.execute(_sql.follow_pointers, {"dag": dag})
    await connection.execute(_sql.reopen_barriers, {"dag": dag})
    await connection.execute(_sql.bind_readers, {"dag": dag})


async def bind_version(connection: Connection, dag: str, dag_version_id: str) -> None:
    """A version that comes back reads what other DAGs serve now."""
    await connection.execute(_sql.bind_version, {"dag": dag, "dag_version_id": dag_version_id})
