"""What people ask about tasks: by id, by filter, in numbers. Maps and never commits."""

from collections.abc import Sequence

from dispatcher.db.rows import Connection, one_row, rows
from dispatcher.db.statements import Statements
from dispatcher.tasks.rows import AttemptRow, CountRow, TaskQuery, TaskRow
from dispatcher.tasks.state import FINAL

_sql = Statements.load("dispatcher.tasks", "listing.sql")


async def get_tasks(connection: Connection, task_ids: Sequence[str]) -> dict[str, TaskRow]:
    if not task_ids:
        return {}
    found = await rows(connection, _sql.get_tasks, TaskRow, task_ids=list(task_ids))
    return {row.task_id: row for row in found}


async def find_tasks(connection: Connection, query: TaskQuery) -> list[str]:
    cursor = await connection.execute(
        _sql.find_tasks,
        {
            "dag": query.dag,
            "job": query.job,
            "states": [str(state) for state in query.states] if query.states else None,
            "finished": not query.states or not FINAL.isdisjoint(query.states),
            "first": query.first,
            "last": query.last,
            "before": query.before,
            "limit": query.limit,
        },
    )
    return [row[0] for row in await cursor.fetchall()]


async def attempts_of(connection: Connection, task_id: str, limit: int) -> list[AttemptRow]:
    """The last so many, oldest first."""
    return await rows(connection, _sql.attempts_of, AttemptRow, task_id=task_id, limit=limit)


async def unknown_names(connection: Connection, dag: str | None, job: str | None) -> tuple[bool, bool]:
    """Whether nothing was ever deployed under the name of the DAG, or of the job in it; None is no name."""
    unknown_dag, unknown_job = await one_row(connection, _sql.unknown_names, {"dag": dag, "job": job})
    return bool(unknown_dag), bool(unknown_job)


async def count_tasks(connection: Connection, dag: str | None, origin: str | None = None) -> list[CountRow]:
    """Of all DAGs, and of all origins, where none is named."""
    return await rows(connection, _sql.count_tasks, CountRow, dag=dag, origin=origin)
