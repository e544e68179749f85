"""Replay: retained events become tasks of a consumer that subscribed later, in scope order, one page a transaction.

DAGs take turns, so that what one rebuilds does not wait until a larger one is done. A page locks the job version, which
no switch of a pipeline writes, and the subscription only for its last statement: who cuts over or aborts, and holds up
the acceptance of events by it, never waits for a page.
"""

from dispatcher.db.rows import Connection
from dispatcher.events import replay_rows
from kernel.crash import crash

PAGE = 2_000
"""Events of one transaction."""


class Replayer:
    """Remembers whose turn it was; another dispatcher has turns of its own."""

    def __init__(self) -> None:
        self._last_dag = ""

    async def page(self, connection: Connection) -> int:
        """One page of one subscription that is owed events, of the DAG whose turn it is; 0 where there is none.

        The job version stays locked, so two replicas never replay for the same one at once. What another one did before
        this one had the lock is seen by a second look.
        """
        turn = await replay_rows.next_replay(connection, self._last_dag)
        if turn is None:
            return 0
        self._last_dag = turn.dag
        replay = await replay_rows.locked_replay(connection, turn)
        if replay is not None:
            page = await replay_rows.replay_events(connection, replay, PAGE)
            await replay_rows.note_replay(connection, replay, page)
            crash("replay.written")
        return 1
