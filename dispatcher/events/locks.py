"""The locks of a transaction that holds emits and completions: taken at once, in the one order that everybody keeps.

Each kind locks its own rows in order; one kind after the other would not be in order, and a heartbeat in between a
deadlock.
"""

from collections.abc import Sequence

from dispatcher.db.rows import Connection
from dispatcher.events.values import Emit
from dispatcher.tasks import store
from dispatcher.tasks.ending import Completion
from dispatcher.tasks.leases import LeaseRef


async def lock_producers(connection: Connection, ops: Sequence[Emit | Completion]) -> None:
    """Streams, then tasks, each by their key. The kinds find their rows locked."""
    await store.lock_streams(connection, {op.stream.key for op in ops if op.stream is not None})
    await store.lock_tasks(connection, {lease.task_id for op in ops for lease in _leases(op)})


def _leases(op: Emit | Completion) -> Sequence[LeaseRef]:
    return op.leases if isinstance(op, Emit) else (op.lease,)
