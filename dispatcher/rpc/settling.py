"""What workers write, on its way through the batcher: emits and the ends of attempts, as one call brings them.

An emit is sent with its cost in rows, and the cost depends on how many consumers its events have. Acceptance knows that
for certain; here it is what acceptance said the last time, so that no call has to ask beforehand. An emit whose cost
was counted for too few is answered with the number and sent again, and the ends that came with it follow it.
"""

import bisect
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from dispatcher.db.batcher import Batcher, Held, Kind, Quarantined
from dispatcher.db.pool import Pool, transaction
from dispatcher.events.values import (
    MAX_ROWS,
    ConsumersChanged,
    Emit,
    EmitResult,
    EmitVerdict,
    max_events_per_emit,
)
from dispatcher.events.verify import ArtifactVerifier
from dispatcher.tasks import store as tasks_store
from dispatcher.tasks.ending import Completion, CompletionResult
from dispatcher.tasks.leases import Refusal
from kernel.errors import TraceError
from traceapi.types.v1.errors_pb2 import ErrorReason

MAX_CALL_ROWS = 25_000
"""Of all operations of a call: half of what the batcher queues."""

EmitAnswer = EmitVerdict | Quarantined
EndAnswer = CompletionResult | Quarantined


@dataclass(frozen=True, slots=True)
class Settled:
    """One answer per operation, in order."""

    emits: list[EmitAnswer]
    ends: list[EndAnswer]


@dataclass(slots=True)
class Settling:
    """`_consumers` is by dataset, as last heard; an emit takes the most of its datasets."""

    pool: Pool
    batcher: Batcher
    emit_kind: Kind[Emit, EmitResult]
    complete_kind: Kind[Completion, CompletionResult]
    verifier: ArtifactVerifier
    _consumers: dict[str, int] = field(default_factory=dict)

    async def settle(self, emits: Sequence[Emit], ends: Sequence[Completion]) -> Settled:
        """Writes the emits, and each end after the emits of its key.

        Raises MESSAGE_TOO_LARGE, and whatever the batcher raises.
        """
        prepared = await self.verifier.verify([await self._counted(op) for op in emits])
        if (rows := sum(op.cost for op in prepared) + sum(op.cost for op in ends)) > MAX_CALL_ROWS:
            raise TraceError(
                ErrorReason.ERROR_REASON_MESSAGE_TOO_LARGE,
                f"the call would write up to {rows} rows; {MAX_CALL_ROWS} is the limit: send fewer items at once",
            )
        answers = await self._submit(_in_order(prepared, ends))
        settled = Settled([answers[number] for number in range(len(emits))], [])
        settled.ends.extend(answers[len(emits) + number] for number in range(len(ends)))
        await self._note_quarantined(prepared, settled.emits)
        return settled

    async def _submit(self, waiting: "list[_Numbered]") -> dict[int, Any]:
        """By number, the answers. What is to be repeated is, in the same order."""
        answers: dict[int, Any] = {}
        kinds: dict[type, Kind[Any, Any]] = {Emit: self.emit_kind, Completion: self.complete_kind}
        while waiting:
            # Recounted emits may be more than the call began with: then they go in parts.
            sent, later = _first_rows(waiting)
            found = await self.batcher.submit_all([(kinds[type(one.op)], one.op) for one in sent])
            again: list[_Numbered] = []
            for one, answer in zip(sent, found, strict=True):
                if isinstance(answer, ConsumersChanged) and isinstance(one.op, Emit):
                    again.append(_Numbered(one.number, self._recounted(one.op, answer.consumers)))
                elif isinstance(answer, Held):
                    again.append(one)
                else:
                    answers[one.number] = answer
            waiting = again + later
        return answers

    async def _counted(self, op: Emit) -> Emit:
        """With its cost; refused where one transaction cannot hold it."""
        guess = max((self._consumers.get(event.dataset_id, 0) for event in op.events), default=0)
        counted = op.with_consumers(guess)
        if counted.cost <= MAX_ROWS or op.unverified is not None:
            return counted
        async with transaction(self.pool) as connection:  # a guess refuses nobody
            found = await tasks_store.fan_outs(connection, {op.leases[0].task_id})
        return self._recounted(op, found.get(op.leases[0].task_id, 0))

    def _recounted(self, op: Emit, consumers: int) -> Emit:
        self._consumers.update((event.dataset_id, consumers) for event in op.events)
        return _within_rows(op.with_consumers(consumers))

    async def _note_quarantined(self, ops: Sequence[Emit], answers: Iterable[EmitAnswer]) -> None:
        """An emit that made its transaction fail left no trace in it; its attempt must not succeed all the same."""
        left = [
            op.refused(Refusal(ErrorReason.ERROR_REASON_EMIT_REFUSED, "it could not be stored"))
            for op, answer in zip(ops, answers, strict=True)
            if isinstance(answer, Quarantined)
        ]
        await self.batcher.submit(self.emit_kind, left)


class _Numbered(NamedTuple):
    """An operation, and where its answer belongs: emits first, then ends."""

    number: int
    op: Emit | Completion


def _in_order(emits: Sequence[Emit], ends: Sequence[Completion]) -> list[_Numbered]:
    """Each end stands behind the emits of its key: together they go into one transaction, also where the call has more
    than one can hold."""
    by_key: dict[Any, list[_Numbered]] = {}
    for number, emit in enumerate(emits):
        by_key.setdefault(emit.key, []).append(_Numbered(number, emit))
    for number, end in enumerate(ends, start=len(emits)):
        by_key.setdefault(end.key, []).append(_Numbered(number, end))
    return [one for same in by_key.values() for one in same]


def _first_rows(waiting: "list[_Numbered]") -> "tuple[list[_Numbered], list[_Numbered]]":
    """As many as MAX_CALL_ROWS allow, and the others."""
    rows = list(itertools.accumulate([one.op.cost for one in waiting]))
    count = max(1, bisect.bisect_right(rows, MAX_CALL_ROWS))
    return waiting[:count], waiting[count:]


def _within_rows(op: Emit) -> Emit:
    """The emit, refused where one transaction cannot hold it."""
    if op.cost <= MAX_ROWS:
        return op
    limit = max_events_per_emit(op.consumers)
    message = f"the emit would write up to {op.cost} rows; {MAX_ROWS} is the limit of a transaction: {limit} events now"
    return op.refused(Refusal(ErrorReason.ERROR_REASON_TOO_MANY_ROWS, message))
