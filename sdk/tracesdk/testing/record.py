"""What a wrapper would have accepted: files, events, state, watermarks, log lines. Both test doubles keep one."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa

from traceapi.operator.v1.operator_service_pb2 import (
    OperatorEvent,
    OperatorLogLine,
    TaskProgress,
    UnitEmit,
    UnitEmitResult,
)
from traceapi.types.v1.errors_pb2 import ErrorReason, ItemError
from tracesdk.scopes import Cursor, RangeManifest, Scope, cursor_from_message, time_from_message


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """An accepted event."""

    dataset: str
    scope: Scope
    task_id: str
    output_id: str
    manifest: RangeManifest | None
    event_time: datetime | None


class Record:
    """Accepts emits as the dispatcher does: an event once per task, dataset and scope. Safe for threads."""

    def __init__(self, max_events_per_emit: int) -> None:
        self.changed = threading.Condition()
        self.outputs: dict[str, tuple[str, Scope, pa.Table]] = {}
        self.events: list[RecordedEvent] = []
        self.emits: list[UnitEmit] = []
        self.state = b""
        self.watermarks: dict[str, Cursor] = {}
        self.lines: list[OperatorLogLine] = []
        self.progress: dict[str, TaskProgress] = {}
        self.refuse: Callable[[UnitEmit], ItemError | None] | None = None
        self._max_events = max_events_per_emit
        self._keys: set[tuple[str, str, bytes]] = set()

    def add_output(self, dataset: str, scope: Scope, table: pa.Table) -> str:
        """Keeps a file; the id that names it."""
        with self.changed:
            output_id = f"output-{len(self.outputs)}"
            self.outputs[output_id] = (dataset, scope, table)
            self.changed.notify_all()
            return output_id

    def accept(self, emit: UnitEmit) -> UnitEmitResult:
        """Accepts an emit, or says why not."""
        with self.changed:
            error = self._fault(emit)
            if error is not None:
                return UnitEmitResult(unit_id=emit.unit_id, error=error)
            new = [event for event in emit.events if self._is_new(event)]
            self.events.extend(_recorded(event) for event in new)
            self.emits.append(emit)
            if emit.HasField("state"):
                self.state = emit.state
            for watermark in emit.watermarks:
                self.watermarks[watermark.dataset_id] = cursor_from_message(watermark.cursor)
            self.changed.notify_all()
            return UnitEmitResult(unit_id=emit.unit_id, duplicate_count=len(emit.events) - len(new))

    def table(self, dataset: str) -> pa.Table:
        """All rows of a dataset that events have made visible, in the order of the first event of each file."""
        with self.changed:
            visible = dict.fromkeys(event.output_id for event in self.events if event.dataset == dataset)
            return pa.concat_tables([self.outputs[output_id][2] for output_id in visible])

    def scopes(self, dataset: str) -> list[Scope]:
        """The scopes of a dataset's events, in the order in which they were accepted."""
        with self.changed:
            return [event.scope for event in self.events if event.dataset == dataset]

    def _fault(self, emit: UnitEmit) -> ItemError | None:
        if len(emit.events) > self._max_events:
            return ItemError(reason=ErrorReason.ERROR_REASON_TOO_MANY_ROWS, message=f"{len(emit.events)} events")
        for event in emit.events:
            if event.output_id and event.output_id not in self.outputs:
                return ItemError(reason=ErrorReason.ERROR_REASON_INVALID_REQUEST, message=f"no file {event.output_id}")
        return self.refuse(emit) if self.refuse else None

    def _is_new(self, event: OperatorEvent) -> bool:
        key = (event.task_id, event.dataset_id, event.scope.SerializeToString(deterministic=True))
        if key in self._keys:
            return False
        self._keys.add(key)
        return True


def _recorded(event: OperatorEvent) -> RecordedEvent:
    return RecordedEvent(
        event.dataset_id,
        Scope.from_message(event.scope),
        event.task_id,
        event.output_id,
        RangeManifest.from_message(event.manifest) if event.HasField("manifest") else None,
        time_from_message(event.event_time) if event.HasField("event_time") else None,
    )
