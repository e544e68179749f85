"""Cancelling by a person: what waits is cancelled at once, what runs may only stop from now on.

Owns its transaction's steps, not its commit. A run stops as a whole, because its tasks share one lease; those of them
that were not cancelled go back in line when their worker has confirmed it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from dispatcher.db.rows import Connection
from dispatcher.tasks import changes, store
from dispatcher.tasks.rows import TaskQuery
from dispatcher.tasks.state import TaskEvent, TaskState, transition


@dataclass(frozen=True, slots=True)
class CancelResult:
    """`task_ids` were cancelled or told to stop, in their order; `running` are those that a worker has, by worker.

    The next page begins after `next_after`, the last id that was looked at; None where this was the last page.
    """

    task_ids: list[str]
    running: dict[str, list[str]]
    next_after: str | None


async def cancel_tasks(
    connection: Connection, query: TaskQuery, task_ids: Sequence[str] | None, reason: str
) -> CancelResult:
    """One page of what the query finds; `query.limit` bounds it."""
    found = await changes.cancelable_tasks(connection, query, task_ids)
    owners = await store.job_versions_of(connection, found)
    ordered = {task_id: (o.job_version_id, o.stream_key) for task_id, o in owners.items() if o.stream_key is not None}
    await store.lock_streams(connection, set(ordered.values()))
    locked = (await store.lock_tasks(connection, set(found))).values()
    # They were found without locks: what was asked for is judged again, on the rows as they are now.
    chosen = [task for task in locked if not query.states or task.state in query.states]
    waiting = [task.task_id for task in chosen if transition(TaskEvent.CANCEL, task.state) is not None]
    running = [task for task in chosen if task.state is TaskState.RUNNING and task.cancel_reason is None]
    await changes.cancel(connection, waiting, reason)
    await changes.request_cancel(connection, [task.task_id for task in running], reason)
    await changes.stop_streams(connection, {ordered[t.task_id] for t in running if t.task_id in ordered}, reason)
    by_worker: dict[str, list[str]] = {}
    for task in running:
        by_worker.setdefault(task.worker_id or "", []).append(task.task_id)
    taken = sorted([*waiting, *(task.task_id for task in running)])
    return CancelResult(taken, by_worker, found[-1] if len(found) == query.limit else None)
