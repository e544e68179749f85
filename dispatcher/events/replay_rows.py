"""Rows of replays. Maps and never commits; each method is the statement of its name in replay.sql."""

from dispatcher.db.errors import TransactionFailed
from dispatcher.db.rows import Connection, rows
from dispatcher.db.statements import Statements
from dispatcher.events.rows import Replay, ReplayedPage, ReplayTurn

_sql = Statements.load("dispatcher.events", "replay.sql")


async def next_replay(connection: Connection, last_dag: str) -> ReplayTurn | None:
    """A subscription that is owed events, of the DAG that follows; its job version is locked."""
    found = await rows(connection, _sql.next_replay, ReplayTurn, last_dag=last_dag)
    return found[0] if found else None


async def locked_replay(connection: Connection, turn: ReplayTurn) -> Replay | None:
    """How far it is; None where another one has ended it before the lock was there."""
    found = await rows(
        connection,
        _sql.locked_replay,
        Replay,
        job_version_id=turn.job_version_id,
        input_version_id=turn.input_version_id,
        from_number=turn.from_number,
    )
    return found[0] if found else None


async def replay_events(connection: Connection, replay: Replay, limit: int) -> ReplayedPage | None:
    """Makes tasks of the next page; None where there was none."""
    found = await rows(
        connection,
        _sql.replay_events,
        ReplayedPage,
        job_version_id=replay.job_version_id,
        input_version_id=replay.input_version_id,
        after_number=replay.after_number,
        from_number=replay.from_number,
        instead_of_version_id=replay.instead_of_version_id,
        replay_key=replay.replay_key,
        replay_event_id=replay.replay_event_id,
        limit=limit,
    )
    return found[0] if found else None


async def note_replay(connection: Connection, replay: Replay, page: ReplayedPage | None) -> None:
    """Raises TransactionFailed where the page is not to be kept: the subscription was collected meanwhile, or the page
    counts as newer than what is served by now."""
    cursor = await connection.execute(
        _sql.note_replay,
        {
            "job_version_id": replay.job_version_id,
            "input_version_id": replay.input_version_id,
            "from_number": replay.from_number,
            "replay_key": page.key if page else None,
            "replay_event_id": page.event_id if page else None,
            "replayed": page is None,
            "raised": page is not None and page.raised,
        },
    )
    if cursor.rowcount == 0:
        raise TransactionFailed("what was replayed was collected, or is not served any more: the page is undone")
