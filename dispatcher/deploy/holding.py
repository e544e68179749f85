"""Holds of releases: while a build does the last scopes, no task is released of the jobs that it is about to replace.

A hold is a time in the DAG's row: whoever dies in it leaves nothing to be undone. Maps and never commits.
"""

from datetime import timedelta

from dispatcher.db.rows import Connection
from dispatcher.db.statements import Statements

_sql = Statements.load("dispatcher.deploy", "holding.sql")


async def hold_again(connection: Connection, dag_version_id: str, longest: timedelta) -> bool:
    """By itself. False where they were held not long ago, or it waits for a person or is not being built by now."""
    cursor = await connection.execute(_sql.hold_again, {"dag_version_id": dag_version_id, "longest": longest})
    return cursor.rowcount > 0


async def hold(connection: Connection, dag_version_id: str, longest: timedelta) -> None:
    """Also where they were held not long ago."""
    await connection.execute(_sql.hold, {"dag_version_id": dag_version_id, "longest": longest})


async def end_hold(connection: Connection, dag_version_id: str) -> None:
    """Before its time."""
    await connection.execute(_sql.end_hold, {"dag_version_id": dag_version_id})
