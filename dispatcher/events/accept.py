"""Acceptance: events, their artifacts, operator state, watermarks and the consumers' tasks, in one transaction.

The order of the steps is the proof:

1. the DAGs' locks, shared: the set of consumers cannot change until this transaction ends. An item whose cost was
   counted for fewer consumers is not judged: with it the transaction could exceed its rows;
2. the producers' streams and tasks, locked in the order of their keys: from here on nobody else can write under their
   event keys, their artifact keys or their state, so that what is read next is still true when it is written;
3. a verdict per item, from values only (`verdicts`): an item is accepted or refused as a whole, the others stand for
   themselves;
4. the inserts of all accepted items, one statement per table, and a mark on the producers of refused ones;
5. the publication, as the last step before COMMIT (`publish`, the batcher's `finish`): it takes the rows of the dataset
   versions' heads, so what it then sees of their artifacts is all there is.

A repetition of an accepted call finds its keys taken and gets the first answer. Nothing is kept in memory between
`accept` and `publish` but the answers: the batcher may call `accept` several times for one transaction, and again after
a rollback.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence

from dispatcher.db.rows import Connection
from dispatcher.events import store
from dispatcher.events.rows import EventKey, JobOutputRow
from dispatcher.events.values import Accepted, ConsumersChanged, Emit, EmitResult, Publication
from dispatcher.events.verdicts import Found, judge
from dispatcher.events.writes import Writes
from dispatcher.tasks import store as tasks_store
from dispatcher.tasks.leases import LockedStream, LockedTask, Refusal, lease_refusal
from kernel.crash import crash
from kernel.scopes import ScopeKey
from traceapi.types.v1.errors_pb2 import ErrorReason

_OF_THE_LEASE = frozenset(
    {
        ErrorReason.ERROR_REASON_TASK_NOT_FOUND,
        ErrorReason.ERROR_REASON_STALE_LEASE,
        ErrorReason.ERROR_REASON_STALE_STREAM_EPOCH,
        ErrorReason.ERROR_REASON_TASK_CANCELED,
    }
)


class ScopeOverlap(Exception):
    """Two transactions, or two items of one, wrote overlapping ranges at the same time. The batcher finds the item."""


class Acceptance:
    """Emits as operations of the batcher: `accept` is the kind's apply, `publish` its finish."""

    def __init__(self, new_id: Callable[[], str]) -> None:
        self._new_id = new_id

    async def accept(self, connection: Connection, ops: Sequence[Emit]) -> list[EmitResult]:
        """One verdict per emit, in order."""
        owners = await tasks_store.job_versions_of(connection, [lease.task_id for op in ops for lease in op.leases])
        outputs = await store.job_outputs(connection, {owner.job_version_id for owner in owners.values()})
        rows = [row for by_dataset in outputs.values() for row in by_dataset.values()]
        await store.share_dags(connection, {row.dag for row in rows})
        consumers = await store.consumers(connection, {row.dataset_version_id for row in rows})
        streams = await tasks_store.lock_streams(connection, {op.stream.key for op in ops if op.stream is not None})
        tasks = await tasks_store.lock_tasks(connection, set(owners))
        refusals = [
            next((r for lease in op.leases if (r := lease_refusal(lease, op.stream, tasks, streams))), None)
            or op.unverified
            for op in ops
        ]
        found = await _find(connection, ops, refusals, tasks, outputs)
        writes = Writes()
        results: list[EmitResult] = []
        postponed: set[Hashable] = set()
        for op, refusal in zip(ops, refusals, strict=True):
            if refusal is not None:
                results.append(refusal)
                writes.refused |= _refused_with(op, refusal, tasks, streams)
                continue
            first = tasks[op.leases[0].task_id]
            produced = outputs.get(first.job_version_id, {})
            fan_out = _fan_out(op, produced, consumers)
            if fan_out > op.consumers or op.key in postponed:  # and so waits what follows it under its key
                postponed.add(op.key)
                results.append(ConsumersChanged(fan_out))
                continue
            result = judge(op, tasks, produced, found)
            if isinstance(result, Accepted):
                writes.add(op, result, first, produced, found)
            else:
                writes.refused |= {lease.task_id for lease in op.leases}
            results.append(result)
        publication = await self._write(connection, writes)
        crash("accept.written")
        return [
            result._replace(publication=publication) if isinstance(result, Accepted) else result for result in results
        ]

    async def publish(self, connection: Connection, ops: Sequence[Emit], results: Sequence[EmitResult]) -> None:
        """Numbers what `accept` wrote, and settles which artifacts are visible.

        Raises ScopeOverlap, which only here can be seen for certain.
        """
        publications = {result.publication for result in results if isinstance(result, Accepted)} - {None}
        numbered = sorted(
            (version_id, publication.publication_id)
            for publication in publications
            if publication is not None
            for version_id in publication.version_ids
        )
        if not numbered:
            return
        await store.publish(connection, numbered)
        crash("publish.numbered")
        replacing = sorted({id_ for item in publications if item is not None for id_ in item.replacing_ids})
        if replacing:
            await store.remove_replaced(connection, dict(numbered), replacing)
            object_key = await store.overlapping_artifact(connection, replacing)
            if object_key is not None:
                raise ScopeOverlap(object_key)

    async def _write(self, connection: Connection, writes: Writes) -> Publication:
        publication_id = self._new_id()
        if writes.schemas:
            await store.freeze_schemas(connection, writes.schemas)
        if writes.artifacts:
            await store.insert_artifacts(connection, publication_id, writes.artifacts)
        if writes.events:
            await store.insert_events(connection, publication_id, writes.events)
        if writes.emitted:
            await store.record_emits(connection, writes.emitted)
        if writes.refused:
            await store.record_refusals(connection, writes.refused)
        if writes.states:
            await store.write_states(connection, writes.states)
        await store.move_watermarks(connection, writes.watermarks)
        version_ids = {item.dataset_version_id for item in writes.artifacts}
        version_ids |= {item.key.dataset_version_id for item in writes.events}
        return Publication(publication_id, frozenset(version_ids), frozenset(writes.replacing))


def _refused_with(
    op: Emit,
    refusal: Refusal,
    tasks: Mapping[str, LockedTask],
    streams: Mapping[tuple[str, str], LockedStream],
) -> set[str]:
    """Tasks that must not succeed, because the emit is refused.

    Of a lease that is lost there is nothing to mark; but the others of its item may live: a person cancelled one task
    of a run. What an earlier emit covered has succeeded already, and this one is its repetition.
    """
    if refusal.reason not in _OF_THE_LEASE:
        return {lease.task_id for lease in op.leases}
    return {
        lease.task_id
        for lease in op.leases
        if lease_refusal(lease, op.stream, tasks, streams) is None and not tasks[lease.task_id].run_emitted
    }


def _fan_out(op: Emit, produced: Mapping[str, JobOutputRow], consumers: Mapping[str, int]) -> int:
    """Tasks that an event of the emit makes, at most."""
    rows = [row for event in op.events if (row := produced.get(event.dataset_id)) is not None]
    return max((consumers.get(row.dataset_version_id, 0) for row in rows), default=0)


async def _find(
    connection: Connection,
    ops: Sequence[Emit],
    refusals: Sequence[Refusal | None],
    tasks: dict[str, LockedTask],
    outputs: dict[str, dict[str, JobOutputRow]],
) -> Found:
    """Reads what the verdicts need, one statement per kind of fact."""
    keys: list[EventKey] = []
    extents: list[tuple[str, ScopeKey]] = []
    states: set[tuple[str, str]] = set()
    version_ids: set[str] = set()
    unfrozen: set[str] = set()
    object_keys: list[str] = []
    for op, refusal in zip(ops, refusals, strict=True):
        if refusal is not None:
            continue
        task = tasks[op.leases[0].task_id]
        produced = outputs.get(task.job_version_id, {})
        states.add((task.job_version_id, task.stream_key or ""))
        for event in op.events:
            row = produced.get(event.dataset_id)
            if row is not None and event.task_index < len(op.leases):
                keys.append(EventKey(row.dataset_version_id, op.leases[event.task_index].task_id, event.scope))
        for artifact in op.artifacts:
            object_keys.append(artifact.object_key)
            row = produced.get(artifact.dataset_id)
            if row is not None:
                extents.append((row.dataset_version_id, artifact.scope))
                if row.schema_digest is None:
                    unfrozen.add(row.dataset_version_id)
        version_ids |= {
            produced[move.dataset_id].dataset_version_id for move in op.watermarks if move.dataset_id in produced
        }
    nearest = await store.nearest_artifacts(connection, extents)
    return Found(
        events=await store.existing_events(connection, keys),
        artifacts=await store.existing_artifacts(connection, object_keys),
        extents={extents[index]: (extent.scope_first, extent.scope_last) for index, extent in nearest.items()},
        schemas=await store.lock_unfrozen(connection, unfrozen),
        states=await tasks_store.operator_states(connection, states),
        watermarks=await store.watermarks(connection, version_ids),
    )
