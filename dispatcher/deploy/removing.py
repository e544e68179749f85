"""The end of a DAG: one row makes it true, and its jobs are retired with it.

Where these are more than a transaction may write, the others follow in pages, before the call is answered. Until then
nothing of them is released or claimed, because nothing of a removed DAG is scheduled; an attempt that runs may still
publish until its page comes. Who dies in between has removed the DAG: a duty goes on, and so does a deploy of it.
"""

from dataclasses import replace

from dispatcher.audit import store as audit
from dispatcher.audit.entries import Action, Entry
from dispatcher.datasets.names import no_dag
from dispatcher.db.pool import Pool, transaction
from dispatcher.db.rows import Connection, one_row
from dispatcher.db.statements import Statements
from dispatcher.deploy import following, stages, store
from dispatcher.events.store import DAG_LOCK_CLASS
from kernel.errors import TraceError
from traceapi.types.v1.errors_pb2 import ErrorReason

_sql = Statements.load("dispatcher.deploy", "removing.sql")

_NOBODY = "dispatcher"
"""Who goes on with what somebody began whom the audit does not name."""


async def remove(pool: Pool, dag: str, actor: str, *, despite_readers: bool) -> list[str]:
    """Answers the DAGs that read it. Its datasets can be read as they are until they are collected; a later deploy
    takes its jobs up again. Raises DAG_NOT_FOUND, DAG_NOT_ACTIVE, DATASETS_READ."""
    readers = await _decide(pool, dag, actor, despite_readers=despite_readers)
    await finish(pool, dag)
    return readers


async def finish(pool: Pool, dag: str) -> None:
    """What is left to do of a removal, by whoever comes first."""
    while await _page(pool, dag):
        pass


async def ending_dags(connection: Connection) -> list[str]:
    """Those whose removal was begun and is not done."""
    cursor = await connection.execute(_sql.ending_dags)
    return [str(row[0]) for row in await cursor.fetchall()]


async def _decide(pool: Pool, dag: str, actor: str, *, despite_readers: bool) -> list[str]:
    async with transaction(pool) as connection:
        standing = await stages.own(connection, dag)
        active, staged = standing.active_version_id, standing.staged_version_id
        if active is None and staged is None:
            raise await no_dag(connection, dag)
        readers = sorted({reader.dag for reader in await following.readers(connection, dag)})
        if readers and not despite_readers:
            raise TraceError(
                ErrorReason.ERROR_REASON_DATASETS_READ,
                f"{', '.join(readers[:10])} read{'s' if len(readers) == 1 else ''} datasets of {dag}",
                metadata={"readers": ",".join(readers)},
            )
        if staged is not None:
            await stages.set_state(connection, staged, "aborted")
        if active is not None:
            await stages.set_state(connection, active, "replaced")
        await connection.execute(_sql.remove_dag, {"dag": dag})
        details = {"readers": readers, "aborted_version_id": staged}
        entry = Entry(Action.REMOVE, actor, dag, [dag], details)
        await audit.record(connection, replace(entry, from_version_id=active or staged))
        await _end(connection, dag, actor)
    return readers


async def _page(pool: Pool, dag: str) -> bool:
    """Whether there may be another one."""
    async with transaction(pool) as connection:
        cursor = await connection.execute(_sql.is_ending, {"dag": dag})
        if not (row := await cursor.fetchone()) or not row[0]:
            return False
        if not row[1]:  # what was deployed since runs
            await connection.execute(_sql.end_dag, {"dag": dag})
            return False
        cursor = await connection.execute(_sql.feeding_dags, {"dag": dag})
        feeding = [str(row[0]) for row in await cursor.fetchall()]
        await store.own_dags(connection, DAG_LOCK_CLASS, [dag, *feeding])
        return not await _end(connection, dag, await audit.remover(connection, dag) or _NOBODY)


async def _end(connection: Connection, dag: str, actor: str) -> bool:
    """As much as a transaction may write; whether that was all. The caller owns the DAG."""
    more, rows_ = await one_row(connection, _sql.end_jobs, {"dag": dag, "actor": actor, "most": stages.MOST_SWITCHED})
    if more:
        return False
    room = max(stages.MOST_SWITCHED - int(rows_), 0)
    if (await connection.execute(_sql.free_claimed, {"dag": dag, "most": room})).rowcount == room:
        return False
    await connection.execute(_sql.end_dag, {"dag": dag})
    return True
