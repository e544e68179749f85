"""The port to the wrapper: what units of work need. `socket_link.py` is the real one; `testing.py` has another."""

from collections.abc import Sequence
from typing import Protocol

import pyarrow as pa

from traceapi.operator.v1.operator_service_pb2 import OperatorLogLine, TaskProgress, UnitEmit, WriteOutputResponse
from traceapi.types.v1.scope_pb2 import Scope
from tracesdk.cancellation import Cancellation


class OutputStream(Protocol):
    """A file that is being written. Nothing is visible before an emit names it."""

    def write(self, batch: pa.RecordBatch) -> None:
        """Adds rows; waits while the wrapper is behind."""

    def close(self) -> WriteOutputResponse:
        """Ends the file."""

    def abort(self) -> None:
        """Drops the file; nothing happens after `close`."""


class Link(Protocol):
    """The wrapper. Calls raise TaskCanceled, WrapperRefused or WrapperGone."""

    def read(
        self, task_id: str, dataset: str, columns: Sequence[str], cancellation: Cancellation
    ) -> pa.RecordBatchReader:
        """Rows of an input within the task's scope, as they arrive. No columns means all."""

    def open_output(
        self, task_id: str, dataset: str, scope: Scope, schema: pa.Schema, cancellation: Cancellation
    ) -> OutputStream:
        """Starts a file of an output."""

    def emit(self, emit: UnitEmit, cancellation: Cancellation) -> None:
        """Publishes now; returns once it is accepted."""

    def log(self, line: OperatorLogLine) -> None:
        """Sends a line, soon."""

    def progress(self, report: TaskProgress) -> None:
        """Sends how far a task is, soon; a newer report replaces one that still waits."""
