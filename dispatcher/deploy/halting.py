"""Halts of releases: while a build does the last scopes, no task is released of the jobs that it is about to replace.

A halt is a time in the DAG's row: whoever dies in it leaves nothing to be undone. Several may want one at once, each
until a time of its own: calls, of any dispatchers, and the build itself. Maps and never commits.
"""

from datetime import timedelta

from dispatcher.db.rows import Connection
from dispatcher.db.statements import Statements

_sql = Statements.load("dispatcher.deploy", "halting.sql")


async def halt(connection: Connection, dag_version_id: str, halter: str, longest: timedelta) -> bool:
    """Also where they are halted by others, or were not long ago. Repeated, it counts from then on. False where the
    version is not being built any more."""
    values = {"dag_version_id": dag_version_id, "halter": halter, "longest": longest}
    return (await connection.execute(_sql.halt, values)).rowcount > 0


async def end_halt(connection: Connection, dag_version_id: str, halter: str) -> None:
    """Before its time. They are halted on where others want it."""
    await connection.execute(_sql.end_halt, {"dag_version_id": dag_version_id, "halter": halter})
