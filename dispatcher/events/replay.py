"""Replay: retained events become tasks of a consumer that subscribed later, in scope order, one page a transaction."""

from dispatcher.db.rows import Connection
from dispatcher.events import store
from kernel.crash import crash

PAGE = 2_000
"""Events of one transaction."""


async def replay_page(connection: Connection) -> int:
    """One page of one subscription that is owed events; answers how many subscriptions moved, 0 or 1.

    The row of the subscription stays locked, so two replicas never replay the same one at once.
    """
    for replay in await store.replaying_subscriptions(connection):
        place = await store.replay_events(connection, replay, PAGE)
        await store.note_replay(connection, replay, place)
        crash("replay.written")
        return 1
    return 0
