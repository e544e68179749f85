"""A run of a source: it emits on its own, and resumes after a crash from the state of its last accepted emit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from traceapi.operator.v1.operator_service_pb2 import WorkUnit
from tracesdk.job import Job
from tracesdk.scopes import Cursor, RangeManifest, Scope
from tracesdk.task import Task, TaskLog
from tracesdk.unit import Output, Rows, Unit, checked_state, watermark_message


@dataclass(frozen=True, slots=True)
class SourceEvent:
    """An event that a source emits. Many may point into one file."""

    dataset: str
    scope: Scope
    output: Output | None = None
    manifest: RangeManifest | None = None
    event_time: datetime | None = None


class SourceRun:
    """The run: its state, and the ways to write and emit. The run's id stays the same over its attempts."""

    def __init__(self, message: WorkUnit, unit: Unit) -> None:
        self._unit = unit
        self._task = Task(message.tasks[0], unit)
        self.state = message.state.data  # what the last accepted emit left, by any attempt; empty at first

    @property
    def run_id(self) -> str:
        return self._task.task_id

    @property
    def attempt(self) -> int:
        return self._task.attempt

    @property
    def job(self) -> Job:
        return self._unit.job

    @property
    def config(self) -> Mapping[str, Any]:
        return self._unit.job.config

    @property
    def log(self) -> TaskLog:
        return self._task.log

    @property
    def canceled(self) -> bool:
        return self._unit.cancellation.canceled

    def check_canceled(self) -> None:
        """Raises TaskCanceled once the run was told to stop."""
        self._unit.cancellation.check()

    def wait(self, seconds: float) -> bool:
        """Waits so long, or until the run is told to stop; then True."""
        return self._unit.cancellation.wait(seconds)

    def write(self, dataset: str, rows: Rows, scope: Scope) -> Output:
        """Writes a file of an output, as Task.write does; visible once an emit names it."""
        return self._task.write(dataset, rows, scope)

    def emit_batch(
        self, events: Sequence[SourceEvent], state: bytes, watermarks: Mapping[str, Cursor] | None = None
    ) -> None:
        """Publishes events, the state after them, and how far outputs are complete; returns once that is accepted.

        More events than one emit may carry go in parts, and state and watermarks with the last: a run that is resumed
        in between emits the earlier parts again, which then stand as they are.
        """
        for event in events:
            self._task.emit(
                event.dataset,
                event.scope,
                output=event.output,
                manifest=event.manifest,
                event_time=event.event_time,
            )
        last = self._unit.publish_all_but_last(self._unit.take_events())
        last.state = checked_state(state)
        last.watermarks.extend(
            watermark_message(self.job.output(dataset), cursor) for dataset, cursor in (watermarks or {}).items()
        )
        self._unit.publish(last)
        self.state = state

    def progress(self, done: int, total: int = 0, unit: str = "", message: str = "") -> None:
        """Says how far the run is, for people."""
        self._task.progress(done, total, unit, message)
