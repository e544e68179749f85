"""The steps by which DAG versions take each other's place, as statements. Maps and never commits.

What changes something is called by the owner of the DAG (`own`).
"""

from dataclasses import dataclass

from dispatcher.dag.size import MAX_ROWS
from dispatcher.datasets.names import no_dag
from dispatcher.db.rows import Connection, one_row, rows
from dispatcher.db.statements import Statements
from dispatcher.deploy import store
from dispatcher.deploy.store import VersionRow
from dispatcher.events.store import DAG_LOCK_CLASS
from kernel.errors import TraceError
from traceapi.types.v1.errors_pb2 import ErrorReason

_sql = Statements.load("dispatcher.deploy", "stages.sql")

MOST_SWITCHED = MAX_ROWS - 10
"""Beside them a switch changes a few rows of the DAG, however large it is."""
RETRY_AFTER = 0.2
"""Seconds after which a call may be repeated that met another one."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What a DAG serves, and what is being built beside it; ids of DAG versions.

    `removed_version_id`: what a removed DAG served last, which can still be read. `ending`: its removal is not done.
    """

    dag: str
    active_version_id: str | None
    staged_version_id: str | None
    removed_version_id: str | None
    ending: bool


@dataclass(frozen=True, slots=True)
class StagedDagRow:
    """A build that is under way; `hold`: it cuts over only when told. `actor`: who deployed it."""

    dag: str
    dag_version_id: str
    state: str
    hold: bool
    actor: str


async def staged_dags(connection: Connection) -> list[StagedDagRow]:
    """DAGs with a build under way."""
    return await rows(connection, _sql.staged_dags, StagedDagRow)


async def own(connection: Connection, dag: str, other: str | None = None) -> Standing:
    """Until the end of the transaction nobody else writes of the DAG's versions, and no event is accepted that these
    make or are caused by, those of `other` among them. Raises DAG_NOT_FOUND, and UNAVAILABLE where it changed
    meanwhile."""
    standing = await own_versions(connection, dag)
    await stop_acceptance(connection, dag, other)
    return standing


async def own_versions(connection: Connection, dag: str) -> Standing:
    """Until the end of the transaction nobody else writes of the DAG's versions. Acceptance does not wait for it: what
    it need not wait for is written in between. Raises DAG_NOT_FOUND."""
    found = await rows(connection, _sql.standing, Standing, dag=dag)
    if not found:
        raise await no_dag(connection, dag)
    return found[0]


async def stop_acceptance(connection: Connection, dag: str, other: str | None = None) -> None:
    """The other half of `own`: after `own_versions`. Raises UNAVAILABLE."""
    dags = await _input_dags(connection, dag, other)
    await store.own_dags(connection, DAG_LOCK_CLASS, [dag, *dags])
    if not dags.issuperset(await _input_dags(connection, dag, other)):
        raise TraceError(ErrorReason.ERROR_REASON_UNAVAILABLE, f"{dag} changed meanwhile", retry_after=RETRY_AFTER)


async def _input_dags(connection: Connection, dag: str, other: str | None) -> set[str]:
    cursor = await connection.execute(_sql.input_dags, {"dag": dag, "other": other})
    return {row[0] for row in await cursor.fetchall()}


async def start_jobs(connection: Connection, of: str, but: str | None, run_state: str, actor: str) -> None:
    """What `of` has and `but` lacks may run."""
    await connection.execute(_sql.start_jobs, {"of": of, "but": but, "run_state": run_state, "actor": actor})


async def stop_jobs(connection: Connection, of: str, but: str | None, run_state: str, actor: str) -> None:
    """What `of` has and `but` lacks may not run any more, and is fenced."""
    await connection.execute(_sql.stop_jobs, {"of": of, "but": but, "run_state": run_state, "actor": actor})


async def unsubscribe(connection: Connection, of: str, but: str | None) -> None:
    """What `of` has and `but` lacks gets no further events. Acceptance is stopped."""
    await connection.execute(_sql.close_subscriptions, {"of": of, "but": but})


async def switched_rows(connection: Connection, of: str, but: str) -> tuple[int, int]:
    """Rows that going from one version to the other, or back, changes in one transaction: its own, and those of jobs of
    other DAGs that follow."""
    own_rows, reader_rows = await one_row(connection, _sql.switched_rows, {"of": of, "but": but})
    return int(own_rows), int(reader_rows)


async def own_jobs(connection: Connection, of: str, but: str | None) -> bool:
    """Whether `of` has a job that `but` lacks and that has something to do."""
    cursor = await connection.execute(_sql.own_jobs, {"of": of, "but": but})
    return await cursor.fetchone() is not None


async def subscribe(connection: Connection, of: str, but: str | None) -> None:
    """What `of` has and `but` lacks gets the events of its inputs from now on, and is owed those that it missed."""
    await connection.execute(_sql.open_subscriptions, {"of": of, "but": but})


async def start_sources(connection: Connection, of: str) -> None:
    """Each source of a version that is staged for the first time begins its one run."""
    await connection.execute(_sql.start_sources, {"of": of})


async def stage(connection: Connection, dag: str, dag_version_id: str, base: str | None, *, hold: bool) -> None:
    """The version is being built beside the active one."""
    staged = {"dag": dag, "dag_version_id": dag_version_id, "base": base, "hold": hold}
    await connection.execute(_sql.stage_version, staged)
    await connection.execute(_sql.stage_dag, staged)


async def unstage(connection: Connection, dag: str) -> None:
    """Nothing is being built any more."""
    await connection.execute(_sql.stage_dag, {"dag": dag, "dag_version_id": None})


async def set_state(connection: Connection, dag_version_id: str, state: str) -> None:
    """A state of deployment_state."""
    await connection.execute(_sql.set_state, {"dag_version_id": dag_version_id, "state": state})


async def hold_cutover(connection: Connection, dag_version_id: str) -> bool:
    """It waits for a person, whatever it was begun with; False where it did before. The caller owns its DAG."""
    cursor = await connection.execute(_sql.hold_cutover, {"dag_version_id": dag_version_id})
    return cursor.rowcount > 0


async def waits_for_person(connection: Connection, dag_version_id: str) -> bool:
    """Also where it was put on hold since it was looked at, if the caller owns its DAG."""
    cursor = await connection.execute(_sql.waits_for_person, {"dag_version_id": dag_version_id})
    return await cursor.fetchone() == (True,)


async def note_held(connection: Connection, dag_version_id: str) -> bool:
    """It is built, and waits for a person; False where it is not being built any more."""
    cursor = await connection.execute(_sql.note_held, {"dag_version_id": dag_version_id})
    return cursor.rowcount > 0


async def lock_watermarks(connection: Connection, dag: str) -> None:
    """Until the end of the transaction nobody moves a watermark that the DAG serves."""
    await connection.execute(_sql.lock_watermarks, {"dag": dag})


async def require_switchable(connection: Connection, of: str, but: str, *, given_up: str | None = None) -> None:
    """Going from one version to the other, and back, fits one transaction, with what is being built and given up by it.
    Raises TOO_MANY_ROWS."""
    own_rows, reader_rows = await switched_rows(connection, of, but)
    given_up_rows = await store.ended_rows(connection, given_up, but) if given_up is not None else 0
    rows_ = own_rows + reader_rows + given_up_rows
    if rows_ > MOST_SWITCHED:
        readers_ = f", {reader_rows:,} of them for jobs of other DAGs that read what it serves" if reader_rows else ""
        if given_up_rows:
            readers_ += f", {given_up_rows:,} of them to give up what is being built, which `dag abort` does before"
        raise TraceError(
            ErrorReason.ERROR_REASON_TOO_MANY_ROWS,
            f"switching takes {rows_:,} rows in one transaction{readers_}, and {MOST_SWITCHED:,} are allowed: one for"
            " each job that only one of the versions has, and one for each input that triggers it; three for each"
            " input of others that follows. Change fewer at once",
            metadata={"rows": str(rows_), "limit": str(MOST_SWITCHED)},
        )


async def require_takeover(connection: Connection, dag: str, dag_version_id: str) -> None:
    """What is being built can take the active one's place: others may read more of that than when it was staged. Not
    asked while the acceptance of events waits. Raises TOO_MANY_ROWS."""
    if (active := await store.active_version(connection, dag)) is not None:
        await require_switchable(connection, dag_version_id, active.dag_version_id)


async def free_datasets(connection: Connection, dag: str, dag_version_id: str) -> None:
    """What only this version claimed, which was never active, others may claim."""
    await connection.execute(_sql.free_datasets, {"dag": dag, "dag_version_id": dag_version_id})


async def previous_version(connection: Connection, dag: str, active: str) -> str | None:
    """The version that was active before the active one."""
    cursor = await connection.execute(_sql.previous_version, {"dag": dag, "active": active})
    row = await cursor.fetchone()
    return str(row[0]) if row else None


async def collected(connection: Connection, dag_version_id: str) -> bool:
    """Whether the collector has taken, or is taking, something that the version served."""
    return bool((await one_row(connection, _sql.collected, {"dag_version_id": dag_version_id}))[0])


async def version_by_number(connection: Connection, dag: str, version: int) -> VersionRow | None:
    found = await rows(connection, _sql.version_by_number, VersionRow, dag=dag, version=version)
    return found[0] if found else None
