"""Calls that can be repeated: what each was answered with, by its id. Maps and never commits."""

from dispatcher.db.rows import Connection, rows
from dispatcher.db.statements import Statements
from dispatcher.deploy.store import VersionRow

_sql = Statements.load("dispatcher.deploy", "answers.sql")


async def answered_deploy(connection: Connection, request_id: str) -> VersionRow | None:
    """The version that a deploy call with this id was answered with."""
    found = await rows(connection, _sql.answered_deploy, VersionRow, request_id=request_id)
    return found[0] if found else None


async def answer_deploy(connection: Connection, request_id: str, dag_version_id: str, actor: str) -> bool:
    """So that the call can be repeated; False where the id was taken meanwhile."""
    cursor = await connection.execute(
        _sql.answer_deploy, {"request_id": request_id, "dag_version_id": dag_version_id, "actor": actor}
    )
    return await cursor.fetchone() is not None


async def answered_rollback(connection: Connection, request_id: str) -> VersionRow | None:
    """The version that a rollback with this id restored."""
    found = await rows(connection, _sql.answered_rollback, VersionRow, request_id=request_id)
    return found[0] if found else None


async def answer_rollback(connection: Connection, request_id: str, restored: str, rolled_back: str, actor: str) -> bool:
    """So that the call can be repeated; False where the id was taken meanwhile."""
    cursor = await connection.execute(
        _sql.answer_rollback,
        {
            "request_id": request_id,
            "dag_version_id": restored,
            "rolled_back_version_id": rolled_back,
            "actor": actor,
        },
    )
    return await cursor.fetchone() is not None
