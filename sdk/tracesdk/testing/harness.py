"""The socket of a wrapper for a real host process: the operator service over gRPC, with what it accepts in memory."""

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
import pyarrow as pa
import pyarrow.compute as pc
from google.protobuf.message import Message

from traceapi.operator.v1 import operator_service_pb2 as operator
from traceapi.operator.v1.operator_service_pb2_grpc import (
    OperatorServiceServicer,
    add_OperatorServiceServicer_to_server,
)
from traceapi.types.v1 import scope_pb2
from traceapi.types.v1.job_pb2 import JobDetails
from traceapi.types.v1.task_pb2 import OperatorState
from tracesdk.host import ENTRYPOINT_VARIABLE, SOCKET_VARIABLE
from tracesdk.scopes import Scope
from tracesdk.socket_link import CHUNK_BYTES
from tracesdk.testing.record import Record

DEADLINE_SECONDS = 30.0


class OperatorHarness:
    """The socket of one job version. Use it as a context manager; hosts that still run at its end are killed.

    `seen`, when given, is called with every message that a host sends, so that a test can hold it against the contract.
    """

    def __init__(
        self,
        job: JobDetails,
        *,
        inputs: Mapping[str, pa.Table] | None = None,
        local_paths: Mapping[str, str] | None = None,
        seen: Callable[[Message], None] | None = None,
    ) -> None:
        self.record = Record(job.max_events_per_emit)
        self._servicer = _Servicer(job, dict(inputs or {}), dict(local_paths or {}), self.record, seen)
        self._folder = Path(tempfile.mkdtemp(prefix="trace-"))  # a socket's path may have 107 bytes
        self._server = grpc.server(ThreadPoolExecutor(16))
        self._hosts: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        add_OperatorServiceServicer_to_server(self._servicer, self._server)
        self._server.add_insecure_port(f"unix:{self._folder}/operator.sock")
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for host in self._hosts:
            host.kill()
            host.wait()
        self._server.stop(None).wait()
        shutil.rmtree(self._folder)

    @property
    def reads(self) -> int:
        """How often hosts have opened an input."""
        return self._servicer.reads

    def start_host(
        self, entrypoint: str = "", *, python_path: Sequence[str] = tuple(sys.path), output: int | None = None
    ) -> subprocess.Popen[bytes]:
        """Starts `python -m tracesdk.host`; `entrypoint` for a built-in operator, else the job's own.

        What it prints goes to the descriptor `output`, else into `host_log`.
        """
        environment = {SOCKET_VARIABLE: f"{self._folder}/operator.sock", "PATH": os.environ.get("PATH", "")}
        environment["PYTHONPATH"] = os.pathsep.join(path for path in python_path if path)
        if entrypoint:
            environment[ENTRYPOINT_VARIABLE] = entrypoint
        command = [sys.executable, "-P", "-m", "tracesdk.host"]
        with (self._folder / "host.log").open("ab") as log:
            host = subprocess.Popen(
                command, env=environment, cwd=self._folder, stdout=output or log, stderr=output or log
            )
        self._hosts.append(host)
        return host

    def host_log(self) -> str:
        """What the hosts have printed."""
        return (self._folder / "host.log").read_text(errors="replace")

    def add_unit(self, *tasks: operator.OperatorTask, state: bytes | None = None) -> int:
        """Hands a unit to the host that asks next; its id."""
        return self._servicer.add_unit(tasks, state)

    def cancel(self, unit_id: int, reason: str = "a test says so") -> None:
        """Tells the host to stop a unit."""
        self._servicer.cancel(unit_id, reason)

    def end_work(self) -> None:
        """Ends the stream of work: the host is to leave."""
        self._servicer.end_work()

    def stop_serving(self) -> None:
        """Is gone, as a wrapper that was killed."""
        self._server.stop(None).wait()

    def wait_finished(self, unit_id: int) -> operator.FinishedUnit:
        """Waits until the host has finished the unit."""
        self.wait_for(lambda: unit_id in self._servicer.finished)
        return self._servicer.finished[unit_id]

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Waits until what the host has sent makes it true. Raises TimeoutError, with what the host printed."""
        with self.record.changed:
            if not self.record.changed.wait_for(condition, DEADLINE_SECONDS):
                raise TimeoutError(f"waited for {DEADLINE_SECONDS} s; the host printed: {self.host_log()}")


class _Servicer(OperatorServiceServicer):
    def __init__(
        self,
        job: JobDetails,
        inputs: dict[str, pa.Table],
        local_paths: dict[str, str],
        record: Record,
        seen: Callable[[Message], None] | None,
    ) -> None:
        self.finished: dict[int, operator.FinishedUnit] = {}
        self._job = job
        self._inputs = inputs
        self._local_paths = local_paths
        self._record = record
        self._seen = seen or (lambda _message: None)
        self._changed = record.changed
        self._waiting: deque[operator.WorkUnit] = deque()
        self._scopes: dict[str, scope_pb2.Scope] = {}
        self._notices: list[operator.CancelNotice] = []
        self.reads = 0
        self._next_unit = 1
        self._ended = False

    def add_unit(self, tasks: Sequence[operator.OperatorTask], state: bytes | None) -> int:
        with self._changed:
            unit = operator.WorkUnit(unit_id=self._next_unit, tasks=tasks)
            if state is not None:
                unit.state.CopyFrom(OperatorState(data=state))
            self._scopes.update({task.task_id: task.scope for task in tasks})
            self._next_unit += 1
            self._waiting.append(unit)
            self._changed.notify_all()
            return unit.unit_id

    def cancel(self, unit_id: int, reason: str) -> None:
        with self._changed:
            self._notices.append(operator.CancelNotice(unit_id=unit_id, reason=reason))
            self._changed.notify_all()

    def end_work(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def Attach(self, request: operator.AttachRequest, context: grpc.ServicerContext) -> operator.AttachResponse:
        self._seen(request)
        return operator.AttachResponse(job=self._job, local_paths=self._local_paths)

    def ReceiveWork(
        self, request_iterator: Iterator[operator.ReceiveWorkRequest], context: grpc.ServicerContext
    ) -> Iterator[operator.ReceiveWorkResponse]:
        connection = _Connection(self._changed)
        context.add_callback(connection.closed)
        threading.Thread(target=connection.take_credits, args=(request_iterator, self._seen), daemon=True).start()
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: (
                        not connection.open
                        or self._ended
                        or self._notices
                        or (self._waiting and connection.credits > 0)
                    )
                )
                if not connection.open:
                    return
                response = operator.ReceiveWorkResponse(cancellations=self._notices)
                self._notices = []
                while self._waiting and connection.credits:
                    response.units.append(self._waiting.popleft())
                    connection.credits -= 1
                ended = self._ended and not self._waiting
            if response.units or response.cancellations:
                yield response
            elif ended:
                return

    def ReadInput(
        self, request: operator.ReadInputRequest, context: grpc.ServicerContext
    ) -> Iterator[operator.ReadInputResponse]:
        self._seen(request)
        if request.dataset_id not in self._inputs:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"the job does not read {request.dataset_id}")
        table = self._within_scope(request.dataset_id, self._scopes[request.task_id])
        with self._changed:
            self.reads += 1
            self._changed.notify_all()
        if request.columns:
            table = table.select(list(request.columns))
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        data = sink.getvalue().to_pybytes()
        for start in range(0, len(data), CHUNK_BYTES):
            yield operator.ReadInputResponse(arrow_ipc=data[start : start + CHUNK_BYTES])

    def WriteOutput(
        self, request_iterator: Iterator[operator.WriteOutputRequest], context: grpc.ServicerContext
    ) -> operator.WriteOutputResponse:
        header, data = None, bytearray()
        for request in request_iterator:
            self._seen(request)
            if request.WhichOneof("message") == "header":
                header = request.header
            data += request.arrow_ipc
        if header is None or not context.is_active():
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no header, or cut off")
        table = pa.ipc.open_stream(pa.py_buffer(bytes(data))).read_all()
        output_id = self._record.add_output(header.dataset_id, Scope.from_message(header.scope), table)
        return operator.WriteOutputResponse(output_id=output_id, row_count=table.num_rows, size_bytes=len(data))

    def Emit(self, request: operator.EmitRequest, context: grpc.ServicerContext) -> operator.EmitResponse:
        self._seen(request)
        return operator.EmitResponse(results=[self._record.accept(emit) for emit in request.emits])

    def FinishWork(
        self, request: operator.FinishWorkRequest, context: grpc.ServicerContext
    ) -> operator.FinishWorkResponse:
        self._seen(request)
        for unit in request.units:
            if unit.HasField("emit"):
                self._record.accept(unit.emit)
        with self._changed:
            self.finished.update({unit.unit_id: unit for unit in request.units})
            self._changed.notify_all()
        return operator.FinishWorkResponse()

    def WriteLog(self, request: operator.WriteLogRequest, context: grpc.ServicerContext) -> operator.WriteLogResponse:
        self._seen(request)
        with self._changed:
            self._record.lines.extend(request.lines)
            self._changed.notify_all()
        return operator.WriteLogResponse()

    def ReportProgress(
        self, request: operator.ReportProgressRequest, context: grpc.ServicerContext
    ) -> operator.ReportProgressResponse:
        self._seen(request)
        with self._changed:
            self._record.progress.update({report.task_id: report for report in request.reports})
            self._changed.notify_all()
        return operator.ReportProgressResponse()

    def _within_scope(self, dataset: str, scope: scope_pb2.Scope) -> pa.Table:
        table = self._inputs[dataset]
        column = next((one.cursor.column for one in self._job.inputs if one.dataset_id == dataset), "")
        if not column or column not in table.column_names or scope.WhichOneof("extent") in (None, "partition_key"):
            return table
        about = Scope.from_message(scope)
        values = pc.field(column)
        first: Any = about.first
        last: Any = about.last
        return table.filter((values >= pa.scalar(first)) & (values <= pa.scalar(last)))


class _Connection:
    """A host's stream of work."""

    def __init__(self, changed: threading.Condition) -> None:
        self.credits = 0
        self.open = True
        self._changed = changed

    def closed(self) -> None:
        with self._changed:
            self.open = False
            self._changed.notify_all()

    def take_credits(self, requests: Iterator[operator.ReceiveWorkRequest], seen: Callable[[Message], None]) -> None:
        try:
            for request in requests:
                seen(request)
                with self._changed:
                    self.credits += request.credits
                    self._changed.notify_all()
        except grpc.RpcError:  # the host was killed
            self.closed()


def operator_task(scope: Scope | None = None, *, task_id: str = "", attempt: int = 1) -> operator.OperatorTask:
    """A task without an event; without a scope too, a source run."""
    return operator.OperatorTask(
        task_id=task_id or str(uuid.uuid4()), attempt=attempt, scope=scope.to_message(0) if scope else None
    )
