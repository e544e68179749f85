"""Serves traceapi.operator.v1 to one operator's process. The socket is the identity: a process reaches its own units,
nothing else.

All that arrives here is hostile until checked: the contract's limits by the server's interceptor, ids against the
units in this process' hands, rows by `outputs.reader`, emits by `emits`, classes of failure by `endings`.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc

from kernel.errors import TraceError
from traceapi.operator.v1 import operator_service_pb2 as operator_pb2
from traceapi.operator.v1.operator_service_pb2_grpc import OperatorServiceServicer
from traceapi.types.v1 import errors_pb2
from traceapi.worker.v1.worker_service_pb2 import ClaimedTask
from wrapper.emits import Emitter
from wrapper.handover import Handover
from wrapper.inputs import Inputs
from wrapper.jobs import Job
from wrapper.logs import OperatorLogs
from wrapper.outputs.commit import OutputCommitter
from wrapper.unit import Unit

_PROTOCOL = 1
_MAX_STREAMS = 512
_LEVELS = frozenset({"debug", "info", "warning", "error"})
Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True)
class Desk:
    """What stands behind every socket."""

    inputs: Inputs
    outputs: OutputCommitter
    emitter: Emitter
    logs: OperatorLogs


class OperatorSocket(OperatorServiceServicer):
    """One process' side of the wrapper."""

    def __init__(self, job: Job, handover: Handover, desk: Desk, local_paths: Mapping[str, str]) -> None:
        self._job = job
        self._handover = handover
        self._desk = desk
        self._local_paths = local_paths
        self._receiving = False
        self._streams = 0
        self.attached = asyncio.Event()

    async def Attach(self, request: operator_pb2.AttachRequest, context: Context) -> operator_pb2.AttachResponse:
        if request.protocol != _PROTOCOL:
            await context.abort(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"{request.sdk} speaks protocol {request.protocol}, this worker speaks {_PROTOCOL}: "
                "install the SDK of this release",
            )
        self.attached.set()
        return operator_pb2.AttachResponse(job=self._job.details, local_paths=dict(self._local_paths))

    async def ReceiveWork(
        self, request_iterator: AsyncIterator[operator_pb2.ReceiveWorkRequest], context: Context
    ) -> AsyncIterator[operator_pb2.ReceiveWorkResponse]:
        if self._receiving:
            raise _invalid("a process receives its work in one stream, and this one has one open")
        self._receiving = True
        self._handover.reset_credits()
        credits_reader = asyncio.create_task(self._read_credits(request_iterator))
        try:
            while (message := await self._handover.next_message()) is not None:
                yield message
        finally:
            self._receiving = False
            credits_reader.cancel()
            await asyncio.wait([credits_reader])

    async def _read_credits(self, requests: AsyncIterator[operator_pb2.ReceiveWorkRequest]) -> None:
        async for request in requests:
            self._handover.add_credits(request.credits)

    async def ReadInput(
        self, request: operator_pb2.ReadInputRequest, context: Context
    ) -> AsyncIterator[operator_pb2.ReadInputResponse]:
        unit, task = self._task(request.task_id)
        async with self._stream():
            async for chunk in self._desk.inputs.read(unit, task, request.dataset_id, request.columns):
                yield operator_pb2.ReadInputResponse(arrow_ipc=chunk)

    async def WriteOutput(
        self, request_iterator: AsyncIterator[operator_pb2.WriteOutputRequest], context: Context
    ) -> operator_pb2.WriteOutputResponse:
        first = await anext(aiter(request_iterator), None)
        if first is None or not first.HasField("header"):
            raise _invalid("an output begins with its header")
        unit, task = self._task(first.header.task_id)
        async with self._stream():
            upload = self._desk.outputs.open(unit, task, first.header.dataset_id, first.header.scope)
            try:
                async for request in request_iterator:
                    if request.HasField("header"):
                        raise _invalid("an output has one header")
                    await upload.feed(request.arrow_ipc)
                output_id, artifact = await upload.commit()
            except BaseException:
                await upload.abort()
                raise
        return operator_pb2.WriteOutputResponse(
            output_id=output_id, row_count=artifact.row_count, size_bytes=artifact.size_bytes
        )

    async def Emit(self, request: operator_pb2.EmitRequest, context: Context) -> operator_pb2.EmitResponse:
        units = [self._unit(emit.unit_id) for emit in request.emits]
        emitted = await asyncio.gather(
            *[self._desk.emitter.emit(unit, emit) for unit, emit in zip(units, request.emits, strict=True)]
        )
        return operator_pb2.EmitResponse(
            results=[
                operator_pb2.UnitEmitResult(unit_id=unit.unit_id, error=one.error, duplicate_count=one.duplicates)
                for unit, one in zip(units, emitted, strict=True)
            ]
        )

    async def FinishWork(
        self, request: operator_pb2.FinishWorkRequest, context: Context
    ) -> operator_pb2.FinishWorkResponse:
        for finished in request.units:
            unit = self._handover.in_hand(finished.unit_id)
            if unit is not None and unit.finished is None:
                unit.finished = finished
                unit.announce()
        return operator_pb2.FinishWorkResponse()

    async def WriteLog(self, request: operator_pb2.WriteLogRequest, context: Context) -> operator_pb2.WriteLogResponse:
        for line in request.lines:
            level = line.level if line.level in _LEVELS else "info"
            own = line.task_id if self._handover.unit_of(line.task_id) is not None else ""
            text = f"{line.text} {_fields(line)}" if line.HasField("fields") else line.text
            self._desk.logs.add(self._job.details.job, level, text, own)
        return operator_pb2.WriteLogResponse()

    async def ReportProgress(
        self, request: operator_pb2.ReportProgressRequest, context: Context
    ) -> operator_pb2.ReportProgressResponse:
        for report in request.reports:
            unit = self._handover.unit_of(report.task_id)
            if unit is not None:
                unit.tell_progress(report.task_id, report.progress)
        return operator_pb2.ReportProgressResponse()

    def _task(self, task_id: str) -> tuple[Unit, ClaimedTask]:
        """A task in this process' hands. TraceError TASK_NOT_FOUND for any other, and once its lease is lost."""
        unit = self._handover.unit_of(task_id)
        if unit is None or not unit.alive():
            raise TraceError(errors_pb2.ERROR_REASON_TASK_NOT_FOUND, f"this process has no task {task_id}")
        return unit, unit.tasks[unit.task_indexes[task_id]]

    def _unit(self, unit_id: int) -> Unit:
        unit = self._handover.in_hand(unit_id)
        if unit is None:
            raise TraceError(errors_pb2.ERROR_REASON_TASK_NOT_FOUND, f"this process has no unit {unit_id}")
        return unit

    @asynccontextmanager
    async def _stream(self) -> AsyncIterator[None]:
        """One open input or output; each may hold some batches in this worker's memory."""
        if self._streams >= _MAX_STREAMS:
            raise TraceError(
                errors_pb2.ERROR_REASON_OVERLOADED,
                f"a process may have {_MAX_STREAMS} inputs and outputs open",
                retry_after=1.0,
            )
        self._streams += 1
        try:
            yield
        finally:
            self._streams -= 1


def _fields(line: operator_pb2.OperatorLogLine) -> str:
    """Fields as `name=value` words; a hostile depth of nesting is cut by the text's limit."""
    return " ".join(f"{name}={_plain(value)}" for name, value in sorted(line.fields.fields.items()))


def _plain(value: Any) -> str:
    kind = value.WhichOneof("kind")
    return str(getattr(value, kind)).strip() if kind in ("number_value", "string_value", "bool_value") else f"<{kind}>"


def _invalid(message: str) -> TraceError:
    return TraceError(errors_pb2.ERROR_REASON_INVALID_REQUEST, message)
