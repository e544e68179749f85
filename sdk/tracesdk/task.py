"""A task, as the operator's code sees it."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import pyarrow as pa
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from traceapi.operator.v1.operator_service_pb2 import OperatorLogLine, OperatorTask, TaskProgress
from traceapi.types.v1 import scope_pb2
from traceapi.types.v1.task_pb2 import Progress
from tracesdk.errors import InvalidOutput
from tracesdk.job import Job, OutputDataset
from tracesdk.scopes import Event, RangeManifest, Scope
from tracesdk.text import clip
from tracesdk.unit import Output, Rows, Unit

_TEXT_BYTES, _UNIT_BYTES, _MESSAGE_BYTES = 8192, 32, 512  # the contract's limits
_EXACT_INTEGER = 2**53


class TaskLog:
    """Lines for people, kept with the task. Fields are names with plain values."""

    __slots__ = ("_task_id", "_unit")

    def __init__(self, task_id: str, unit: Unit) -> None:
        self._task_id = task_id
        self._unit = unit

    def debug(self, text: str, **fields: Any) -> None:
        self._write("debug", text, fields)

    def info(self, text: str, **fields: Any) -> None:
        self._write("info", text, fields)

    def warning(self, text: str, **fields: Any) -> None:
        self._write("warning", text, fields)

    def error(self, text: str, **fields: Any) -> None:
        self._write("error", text, fields)

    def _write(self, level: str, text: str, fields: Mapping[str, Any]) -> None:
        now = Timestamp()
        now.FromNanoseconds(time.time_ns())
        line = OperatorLogLine(task_id=self._task_id, time=now, level=level, text=clip(text, _TEXT_BYTES))
        if fields:
            line.fields.CopyFrom(_struct(fields))
        self._unit.link.log(line)


class Task:
    """One task: what it is about, its inputs, and what it writes and emits.

    Every call that talks to the wrapper raises TaskCanceled once the task was told to stop; let it pass through.
    """

    __slots__ = ("_event", "_message", "_scope", "_unit")

    def __init__(self, message: OperatorTask, unit: Unit) -> None:
        self._message = message
        self._unit = unit
        self._scope: Scope | None = None
        self._event: Event | None = None

    @property
    def task_id(self) -> str:
        return self._message.task_id

    @property
    def attempt(self) -> int:
        """From 1."""
        return self._message.attempt

    @property
    def job(self) -> Job:
        return self._unit.job

    @property
    def config(self) -> Mapping[str, Any]:
        """The job's `config`."""
        return self._unit.job.config

    @property
    def scope(self) -> Scope:
        """What the task is about."""
        if self._scope is None:
            self._scope = Scope.from_message(self._scope_message())
        return self._scope

    @property
    def event(self) -> Event:
        """The event that caused the task."""
        if self._event is None:
            self._event = Event.from_message(self._message.event)
        return self._event

    @property
    def canceled(self) -> bool:
        """The task was told to stop."""
        return self._unit.cancellation.canceled

    @property
    def log(self) -> TaskLog:
        return TaskLog(self._message.task_id, self._unit)

    def read(self, dataset: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Rows of an input within the task's scope, all at once. `columns` chooses some, in that order."""
        return self.read_batches(dataset, columns).read_all()

    def read_batches(self, dataset: str, columns: Sequence[str] | None = None) -> pa.RecordBatchReader:
        """Rows of an input within the task's scope, as they arrive."""
        return self._unit.read(self._message.task_id, dataset, columns or ())

    def write(self, dataset: str, rows: Rows, scope: Scope | None = None) -> Output:
        """Writes a file of an output, about `scope` or else the task's. Visible once an emit names it.

        Rows are cast to the declared columns, or SchemaMismatch says why not, and ordered as declared.
        """
        return self._unit.write(self._message.task_id, self.job.output(dataset), rows, self._message_of(scope))

    def emit(
        self,
        dataset: str,
        scope: Scope | None = None,
        *,
        output: Output | None = None,
        manifest: RangeManifest | None = None,
        event_time: datetime | None = None,
        now: bool = False,
    ) -> None:
        """Emits an event about `scope`, or else the scope of `output`, or else the task's.

        It is held back until the code has returned; `now` publishes it at once, and then it stays, whatever comes.
        """
        declared = self.job.output(dataset)
        about = scope if scope is not None else output.scope if output is not None else self._scope_message()
        revision = self._message.scope.revision
        event = self._unit.add_event(self._message.task_id, revision, declared, about, output, manifest, event_time)
        if now:
            self._unit.emit_now(event)

    def write_and_emit(self, output: OutputDataset, rows: Rows) -> None:
        """Writes rows about the task's scope, and emits them."""
        scope = self._scope_message()
        file = self._unit.write(self._message.task_id, output, rows, scope)
        self._unit.add_event(self._message.task_id, scope.revision, output, scope, file, None, None)

    @contextmanager
    def stopping(self, stop: Callable[[], object]) -> Iterator[None]:
        """Calls `stop`, from another thread, if the task is told to stop before the block ends."""
        with self._unit.cancellation.watching(_Stop(stop)):
            yield

    def progress(self, done: int, total: int = 0, unit: str = "", message: str = "") -> None:
        """Says how far the task is, for people. `total` is 0 where it is not known."""
        text, words = clip(unit, _UNIT_BYTES), clip(message, _MESSAGE_BYTES)
        progress = Progress(done=max(done, 0), total=max(total, 0), unit=text, message=words)
        self._unit.link.progress(TaskProgress(task_id=self._message.task_id, progress=progress))

    def _message_of(self, scope: Scope | None) -> scope_pb2.Scope:
        return self._scope_message() if scope is None else scope.to_message(self._message.scope.revision)

    def _scope_message(self) -> scope_pb2.Scope:
        if not self._message.HasField("scope"):
            raise InvalidOutput("a source run has no scope of its own: say which one")
        return self._message.scope


class _Stop:
    """A function that stops something, as what a cancellation calls."""

    def __init__(self, stop: Callable[[], object]) -> None:
        self.cancel = stop


def _struct(fields: Mapping[str, Any]) -> Struct:
    struct = Struct()
    struct.update({clip(name, 255): _plain(value) for name, value in fields.items()})
    return struct


def _plain(value: Any) -> Any:
    """What a Struct can hold; anything else as its text."""
    if value is None or isinstance(value, bool | float) or (isinstance(value, int) and abs(value) <= _EXACT_INTEGER):
        return value
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return clip(str(value), _TEXT_BYTES)
