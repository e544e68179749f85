"""From what an operator publishes to what the dispatcher is asked to accept, and back.

The operator's word is turned into items here: leases and state versions are added, files are taken only from those
that this very unit has written, tasks only from its own. Of a unit that keeps state one emit at a time, each knowing
what the one before it left.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

from kernel.errors import TraceError, item_error, to_item_error
from traceapi.operator.v1.operator_service_pb2 import OperatorEvent, UnitEmit
from traceapi.types.v1 import errors_pb2
from traceapi.types.v1.artifact_pb2 import Artifact
from traceapi.types.v1.errors_pb2 import ItemError
from traceapi.types.v1.task_pb2 import OperatorState
from traceapi.worker.v1.emit_pb2 import EmitItem, EmitResult, StateWrite, WatermarkMove
from wrapper.outbox import Outbox
from wrapper.unit import Unit


@dataclass(frozen=True, slots=True)
class Emitted:
    """What became of an emit: why it was refused, or how many of its events stood before."""

    error: ItemError | None = None
    duplicates: int = 0


@dataclass(frozen=True, slots=True)
class _Part:
    """An item, and the operator's events that it carries."""

    item: EmitItem
    events: Sequence[OperatorEvent]


class Emitter:
    """Publishes for all units of this worker."""

    def __init__(self, outbox: Outbox[EmitItem, EmitResult]) -> None:
        self._outbox = outbox

    async def emit(self, unit: Unit, emit: UnitEmit) -> Emitted:
        """Publishes now. A refused emit refuses the success of the attempt, which the unit remembers."""
        async with unit.emitting if unit.keeps_state else nullcontext():
            emitted = await self._publish(unit, emit)
            unit.refused = unit.refused or emitted.error
            return emitted

    async def all_but_last(self, unit: Unit, emit: UnitEmit) -> EmitItem | ItemError:
        """What a unit publishes at its end, as far as it does not fit into one item; answers the last item, which is to
        be sent with the unit's completions and counts as emitted. The caller holds `unit.emitting`."""
        prepared = await _prepared(unit, emit)
        if isinstance(prepared, ItemError):
            return prepared
        *leading, last = prepared
        if leading:
            emitted = await self._send_all(unit, leading)
            if emitted.error is not None:
                return emitted.error
        _count_as_emitted(unit, last)
        return last.item

    async def _publish(self, unit: Unit, emit: UnitEmit) -> Emitted:
        prepared = await _prepared(unit, emit)
        if isinstance(prepared, ItemError):
            return Emitted(prepared)
        # The last part carries state and watermarks: they must not stand before the events that they speak of.
        *leading, last = prepared
        emitted = await self._send_all(unit, leading) if leading else Emitted()
        if emitted.error is None:
            final = await self._send_all(unit, [last])
            emitted = Emitted(final.error, emitted.duplicates + final.duplicates)
        if emitted.error is None:
            unit.covered_tasks = max(unit.covered_tasks, _covered(unit, emit))
        return emitted

    async def _send_all(self, unit: Unit, parts: Sequence[_Part]) -> Emitted:
        results = await asyncio.gather(*[self._send(unit, part) for part in parts])
        duplicates = 0
        for part, result in zip(parts, results, strict=True):
            if result.HasField("error"):
                return Emitted(result.error)
            duplicates += _remember(unit, part, result)
            if part.item.HasField("state"):
                unit.state = OperatorState(data=part.item.state.data, version=result.accepted.state_version)
        return Emitted(duplicates=duplicates)

    async def _send(self, unit: Unit, part: _Part) -> EmitResult:
        results = await self._outbox.put([part.item], unit.alive)
        if results is None:
            return EmitResult(error=item_error(errors_pb2.ERROR_REASON_STALE_LEASE, "the lease was lost meanwhile"))
        return results[0]


def refused_emit(_item: EmitItem, error: TraceError) -> EmitResult:
    """The verdict on an item that the dispatcher would not even read."""
    return EmitResult(error=to_item_error(error))


async def _prepared(unit: Unit, emit: UnitEmit) -> "list[_Part] | ItemError":
    """The parts, at least one; or why nothing of the unit may be published."""
    if not unit.alive():
        return item_error(errors_pb2.ERROR_REASON_STALE_LEASE, f"the lease is lost: {unit.stop_reason}")
    if unit.refused is not None:
        return item_error(errors_pb2.ERROR_REASON_EMIT_REFUSED, f"an earlier emit was refused: {unit.refused.message}")
    try:
        return _parts(unit, emit, _covered(unit, emit), await _stored(unit, emit))
    except TraceError as error:
        return to_item_error(error)


def _count_as_emitted(unit: Unit, part: _Part) -> None:
    """For an item that is sent with the completions, which say how many events there were."""
    only = not unit.accepted_emits
    for event in part.item.events:
        emitted = unit.emitted[event.task_index]
        if only:  # an item does not emit a dataset twice at a scope
            emitted.add_distinct()
        else:
            emitted.add(event.dataset_id, event.scope, duplicate=None)


def _remember(unit: Unit, part: _Part, result: EmitResult) -> int:
    """Counts what was accepted; answers how many of the events stood before."""
    unit.accepted_emits += 1
    duplicates = 0
    for event, verdict in zip(part.item.events, result.accepted.events, strict=False):
        index = unit.task_indexes[part.item.tasks[event.task_index].task_id]
        unit.emitted[index].add(event.dataset_id, event.scope, duplicate=verdict.duplicate)
        duplicates += verdict.duplicate
    return duplicates


def _covered(unit: Unit, emit: UnitEmit) -> int:
    return min(emit.covered_tasks or len(unit.tasks), len(unit.tasks))


async def _stored(unit: Unit, emit: UnitEmit) -> dict[str, Artifact]:
    """The files that an emit names, by output_id, each once it is stored. TraceError for what was not."""
    artifacts: dict[str, Artifact] = {}
    for event in emit.events:
        if not event.output_id or event.output_id in artifacts:
            continue
        storing = unit.outputs.get(event.output_id)
        if storing is None:
            raise _invalid(f"an event of {event.dataset_id} names output {event.output_id!r}, which was not written")
        await asyncio.wait([storing])  # without cancelling it, whoever cancels this
        if storing.cancelled():
            raise TraceError(errors_pb2.ERROR_REASON_UNAVAILABLE, "the worker stopped before the file was stored")
        artifacts[event.output_id] = storing.result()
    return artifacts


def _parts(unit: Unit, emit: UnitEmit, covered: int, artifacts: Mapping[str, Artifact]) -> list[_Part]:
    """The items of an emit, at least one. A run's stays whole, with its state; so does a source's, whose SDK cuts it
    itself."""
    limit = len(emit.events) if unit.is_run or unit.is_source else unit.job.max_events_per_emit
    slices = (
        [emit.events[start : start + limit] for start in range(0, len(emit.events), limit)] if emit.events else [[]]
    )
    parts = [_Part(_item(unit, events, covered, artifacts), events) for events in slices]
    last = parts[-1].item
    if emit.HasField("state"):
        last.state.CopyFrom(StateWrite(data=emit.state, expected_version=unit.state.version if unit.state else 0))
    for watermark in emit.watermarks:
        _check_output(unit, watermark.dataset_id)
        last.watermarks.append(WatermarkMove(dataset_id=watermark.dataset_id, cursor=watermark.cursor))
    return parts


def _item(unit: Unit, events: Sequence[OperatorEvent], covered: int, artifacts: Mapping[str, Artifact]) -> EmitItem:
    """One item. TraceError for what the operator may not name."""
    indexes: dict[str, int] = {}
    item = EmitItem(tasks=unit.leases[:covered], stream=unit.stream)
    for event in events:
        _check_output(unit, event.dataset_id)
        index = unit.task_indexes.get(event.task_id)
        if index is None or index >= covered:
            raise _invalid(f"an event of {event.dataset_id} names task {event.task_id}, which this emit does not cover")
        if event.output_id and event.output_id not in indexes:
            indexes[event.output_id] = len(item.artifacts)
            item.artifacts.append(artifacts[event.output_id])
        _add(item, event, index, indexes.get(event.output_id), unit.tasks[index].scope.revision)
    return item


def _add(item: EmitItem, event: OperatorEvent, task_index: int, artifact_index: int | None, revision: int) -> None:
    """In place: protobuf copies what is set as a message."""
    emitted = item.events.add(dataset_id=event.dataset_id, artifact_index=artifact_index, task_index=task_index)
    emitted.scope.CopyFrom(event.scope)
    emitted.scope.revision = revision
    if event.HasField("manifest"):
        emitted.manifest.CopyFrom(event.manifest)
    if event.HasField("event_time"):
        emitted.event_time.CopyFrom(event.event_time)


def _check_output(unit: Unit, dataset_id: str) -> None:
    if dataset_id not in unit.job.outputs:
        raise TraceError(
            errors_pb2.ERROR_REASON_DATASET_NOT_PRODUCED, f"{dataset_id} is no output of job {unit.job.details.job}"
        )


def _invalid(message: str) -> TraceError:
    return TraceError(errors_pb2.ERROR_REASON_INVALID_REQUEST, message)
