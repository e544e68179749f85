"""Rows of the audit. Maps and never commits, but for a refusal: what was refused was rolled back, so its entry is a
transaction of its own."""

import psycopg
import structlog
from psycopg.types.json import Jsonb
from psycopg_pool import PoolTimeout, TooManyRequests

from dispatcher.audit.entries import METHODS, Entry, EntryRow, Refusal
from dispatcher.db.errors import DatabaseError
from dispatcher.db.pool import Pool, transaction
from dispatcher.db.rows import Connection, rows
from dispatcher.db.statements import Statements

_sql = Statements.load("dispatcher.audit")
_log = structlog.get_logger(__name__)

MOST_REFUSALS = 100
"""Entries of refusals that a minute has room for, of all actors."""
_MESSAGE_LETTERS = 500


async def record(connection: Connection, entry: Entry) -> None:
    """In the transaction that does it: there is both, or neither."""
    await connection.execute(
        _sql.record,
        {
            "actor": entry.actor,
            "method": METHODS[entry.action],
            "action": entry.action.value,
            "subject": entry.subject,
            "dags": list(entry.dags),
            "details": Jsonb(dict(entry.details)),
            "plan_id": entry.plan_id,
            "from_version_id": entry.from_version_id,
            "to_version_id": entry.to_version_id,
        },
    )


async def record_refusal(pool: Pool, refusal: Refusal) -> None:
    """The same again within a minute is not recorded. Never fails: the caller has the refusal to answer."""
    values = {
        "actor": refusal.actor,
        "method": METHODS[refusal.action],
        "action": refusal.action.value,
        "reason": refusal.reason,
        "details": Jsonb({"message": refusal.message[:_MESSAGE_LETTERS], "by_itself": refusal.by_itself}),
        "dag": refusal.dag,
        "plan_id": refusal.plan_id,
        "to_version_id": refusal.to_version_id,
        "to_version": refusal.to_version,
        "most": MOST_REFUSALS,
    }
    try:
        async with transaction(pool) as connection:
            await connection.execute(_sql.record_refusal, values)
    except (psycopg.Error, DatabaseError, PoolTimeout, TooManyRequests) as error:
        _log.warning("a refusal was not recorded", action=refusal.action.value, error=str(error))


async def entries_of_dag(connection: Connection, dag: str, before: int | None, limit: int) -> list[EntryRow]:
    """Newest first, below `before`."""
    return await rows(connection, _sql.entries_of_dag, EntryRow, dag=dag, before=before, limit=limit)


async def remover(connection: Connection, dag: str) -> str | None:
    """Who removed the DAG last; None where that is not on record."""
    cursor = await connection.execute(_sql.removal, {"dag": dag})
    row = await cursor.fetchone()
    return str(row[0]) if row else None
