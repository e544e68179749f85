"""The producers of a transaction of emits and ends: their rows, locked at once, in the one order that everybody keeps.

DAGs (advisory, shared), then streams, then tasks, each by their key. If each kind locked its own rows, one kind after
the other would not be in order, and a heartbeat in between a deadlock.

What is read here holds until the transaction ends, so both kinds judge by it, and no row is read twice. An end writes
what the emits before it added to its task's row, so that the row is written once.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field

from dispatcher.db.pipeline import together
from dispatcher.db.rows import Connection
from dispatcher.events import store
from dispatcher.events.rows import JobOutputRow
from dispatcher.events.values import Emit
from dispatcher.tasks import store as tasks_store
from dispatcher.tasks.ending import Completion
from dispatcher.tasks.leases import LockedStream, LockedTask
from dispatcher.tasks.rows import Emitted


@dataclass(frozen=True, slots=True)
class Producers:
    """`outputs` and `consumers` are those of the emits: by job version what it produces, and by dataset version how
    many tasks an event of it makes."""

    connection: Connection
    outputs: Mapping[str, Mapping[str, JobOutputRow]]
    consumers: Mapping[str, int]
    streams: Mapping[tuple[str, str], LockedStream]
    tasks: dict[str, LockedTask]
    ending: Set[str]
    """Tasks of which the transaction has an end."""
    emitted: dict[str, Emitted] = field(default_factory=dict)
    """By task, what its emits added and its end is to write; what no end has written, the last step does."""


async def lock_producers(connection: Connection, ops: Sequence[Emit | Completion]) -> Producers:
    """Of these operations."""
    emitting = {lease.task_id for op in ops if isinstance(op, Emit) for lease in op.leases}
    ending = {op.lease.task_id for op in ops if isinstance(op, Completion)}
    owners = await tasks_store.job_versions_of(connection, emitting)
    job_version_ids = {owner.job_version_id for owner in owners.values()}
    outputs, _, consumers, streams, tasks = await together(
        store.job_outputs(connection, job_version_ids),
        store.share_dags(connection, job_version_ids),
        store.consumers(connection, job_version_ids),
        tasks_store.lock_streams(connection, {op.stream.key for op in ops if op.stream is not None}),
        tasks_store.lock_tasks(connection, emitting | ending),
    )
    return Producers(connection, outputs, consumers, streams, tasks, ending)
