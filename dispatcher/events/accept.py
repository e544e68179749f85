"""Acceptance: events, their artifacts, operator state, watermarks and the consumers' tasks, in one transaction.

The order of the steps is the proof:

1. the DAGs' locks, shared: the set of consumers cannot change until this transaction ends. An item whose cost was
   counted for fewer consumers is not judged: with it the transaction could exceed its rows;
2. the producers' streams and tasks, locked in the order of their keys (both in `producers`): from here on nobody else
   can write under their event keys, their artifact keys or their state, so that what is read next is still true when
   it is written;
3. a verdict per item, from values only (`verdicts`): an item is accepted or refused as a whole, the others stand for
   themselves;
4. the inserts of all accepted items, one statement per table, and a mark on the producers of refused ones;
5. the publication, as the last step before COMMIT (`publish`, the batcher's `finish`): it takes the rows of the dataset
   versions' heads, so what it then sees of their artifacts is all there is.

A repetition of an accepted call finds its keys taken and gets the first answer. Nothing is kept in memory between
`accept` and `publish` but the answers: the batcher may call `accept` several times for one transaction, and again after
a rollback.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence

from dispatcher.db.pipeline import together
from dispatcher.events import store
from dispatcher.events.producers import Producers
from dispatcher.events.rows import EventKey, JobOutputRow, Span
from dispatcher.events.values import Accepted, ConsumersChanged, Emit, EmitResult, Publication
from dispatcher.events.verdicts import Found, hinders_success, judge
from dispatcher.events.writes import Writes
from dispatcher.tasks import store as tasks_store
from dispatcher.tasks.leases import LockedStream, LockedTask, Refusal, lease_refusal
from dispatcher.tasks.rows import Emitted
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

    async def accept(self, producers: Producers, ops: Sequence[Emit]) -> list[EmitResult]:
        """One verdict per emit, in order."""
        tasks, streams, outputs = producers.tasks, producers.streams, producers.outputs
        refusals = [
            next((r for lease in op.leases if (r := lease_refusal(lease, op.stream, tasks, streams))), None)
            or op.unverified
            for op in ops
        ]
        found = await _find(producers, ops, refusals)
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
            fan_out = _fan_out(op, produced, producers.consumers)
            if fan_out > op.consumers or op.key in postponed:  # and so waits what follows it under its key
                postponed.add(op.key)
                results.append(ConsumersChanged(fan_out))
                continue
            result = judge(op, tasks, produced, found)
            if isinstance(result, Accepted):
                writes.add(op, result, tasks, produced, found)
            elif hinders_success(op, first, found):
                writes.refused |= {lease.task_id for lease in op.leases}
            results.append(result)
        publication = await self._write(producers, writes)
        crash("accept.written")
        for number, written in enumerate(results):
            if isinstance(written, Accepted):  # one of them is enough to find it by
                results[number] = written._replace(publication=publication)
                break
        return results

    async def publish(self, producers: Producers, ops: Sequence[Emit], results: Sequence[EmitResult]) -> None:
        """Numbers what `accept` wrote, and settles which artifacts are visible; before that, writes what no end has.

        Raises ScopeOverlap, which only here can be seen for certain.
        """
        connection = producers.connection
        await store.record_emits(connection, producers.emitted)
        publications = {result.publication for result in results if isinstance(result, Accepted)} - {None}
        numbered = sorted(
            (version_id, publication.publication_id, event_count)
            for publication in publications
            if publication is not None
            for version_id, event_count in publication.event_counts
        )
        if not numbered:
            return
        await store.publish(connection, numbered)
        crash("publish.numbered")
        replacing = sorted({id_ for item in publications if item is not None for id_ in item.replacing_ids})
        if replacing:
            await store.remove_replaced(
                connection, {version_id: publication_id for version_id, publication_id, _ in numbered}, replacing
            )
            object_key = await store.overlapping_artifact(connection, replacing)
            if object_key is not None:
                raise ScopeOverlap(object_key)

    async def _write(self, producers: Producers, writes: Writes) -> Publication:
        connection, publication_id = producers.connection, self._new_id()
        if writes.schemas:
            await store.freeze_schemas(connection, writes.schemas)
        if writes.artifacts:
            await store.insert_artifacts(connection, publication_id, writes.artifacts)
        if writes.events:
            await store.insert_events(connection, publication_id, writes.events)
        await _note(producers, writes)
        if writes.states:
            await store.write_states(connection, writes.states)
        await store.move_watermarks(connection, writes.watermarks)
        event_counts = Counter(item.key.dataset_version_id for item in writes.events)
        versions = {item.dataset_version_id for item in writes.artifacts} | event_counts.keys()
        gained = frozenset((version_id, event_counts[version_id]) for version_id in versions)
        return Publication(publication_id, gained, frozenset(writes.replacing))


async def _note(producers: Producers, writes: Writes) -> None:
    """What the producers' own rows remember. A source's run may have its failures forgiven, which its end must see."""
    now: dict[str, Emitted] = {}
    for task_id, emitted in writes.emitted.items():
        by_end = task_id in producers.ending and producers.tasks[task_id].origin != "source_run"
        (producers.emitted if by_end else now)[task_id] = emitted
    await store.record_emits(producers.connection, now)
    await store.record_refusals(producers.connection, writes.refused)
    changed = (now.keys() | writes.refused) & producers.ending
    producers.tasks.update(await tasks_store.lock_tasks(producers.connection, changed))


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


async def _find(producers: Producers, ops: Sequence[Emit], refusals: Sequence[Refusal | None]) -> Found:
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
        task = producers.tasks[op.leases[0].task_id]
        produced = producers.outputs.get(task.job_version_id, {})
        if op.state is not None:
            states.add((task.job_version_id, task.stream_key or ""))
        keys += _taken_perhaps(op, producers.tasks, produced)
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
    connection = producers.connection
    taken, artifacts, nearest, schemas, standing, watermarks = await together(
        store.taken_spans(connection, _spans(keys)),
        store.existing_artifacts(connection, object_keys),
        store.nearest_artifacts(connection, extents),
        store.lock_unfrozen(connection, unfrozen),
        tasks_store.operator_states(connection, states),
        store.watermarks(connection, version_ids),
    )
    # A task that emits a million events has new ones only, call after call, unless it does so again.
    events = await store.existing_events(connection, [key for key in keys if key[:2] in taken])
    return Found(
        events=events,
        artifacts=artifacts,
        extents={extents[index]: (extent.scope_first, extent.scope_last) for index, extent in nearest.items()},
        schemas=schemas,
        states=standing,
        watermarks=watermarks,
    )


def _spans(keys: Sequence[EventKey]) -> dict[Span, tuple[bytes, bytes]]:
    firsts: dict[Span, list[bytes]] = {}
    for version_id, task_id, scope in keys:
        firsts.setdefault((version_id, task_id), []).append(scope.first)
    return {span: (min(found), max(found)) for span, found in firsts.items()}


def _taken_perhaps(
    op: Emit, tasks: Mapping[str, LockedTask], produced: Mapping[str, JobOutputRow]
) -> Iterator[EventKey]:
    """The keys of its events under which something may stand: there is nothing of a task of which nothing was ever
    accepted."""
    for event in op.events:
        row = produced.get(event.dataset_id)
        if row is not None and event.task_index < len(op.leases):
            task_id = op.leases[event.task_index].task_id
            if tasks[task_id].accepted_events > 0:
                yield EventKey(row.dataset_version_id, task_id, event.scope)
