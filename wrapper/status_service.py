"""Serves traceapi.wrapper.v1: what this worker is and does, for the people who look after it."""

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from traceapi.wrapper.v1 import wrapper_service_pb2 as wrapper_pb2
from traceapi.wrapper.v1.wrapper_service_pb2_grpc import WrapperServiceServicer
from wrapper.config import SandboxChoice
from wrapper.logs import Line, OperatorLogs
from wrapper.operator_processes import OperatorProcesses
from wrapper.run_task import Counts
from wrapper.unit import Unit
from wrapper.worker import Phase, Worker

_DEFAULT_TAIL = 1000
_PHASES = {
    Phase.CONNECTING: wrapper_pb2.WORKER_PHASE_CONNECTING,
    Phase.SERVING: wrapper_pb2.WORKER_PHASE_SERVING,
    Phase.DRAINING: wrapper_pb2.WORKER_PHASE_DRAINING,
}
_SANDBOXES = {
    SandboxChoice.BUBBLEWRAP: wrapper_pb2.SANDBOX_KIND_BUBBLEWRAP,
    SandboxChoice.PLAIN: wrapper_pb2.SANDBOX_KIND_PLAIN,
}
Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True)
class Identity:
    """What does not change while the worker runs."""

    worker_id: str
    queues: tuple[str, ...]
    capacity: int
    sandbox: SandboxChoice


class WrapperService(WrapperServiceServicer):
    """The trusted listener's only service."""

    def __init__(
        self, identity: Identity, worker: Worker, processes: OperatorProcesses, counts: Counts, logs: OperatorLogs
    ) -> None:
        self._identity = identity
        self._worker = worker
        self._processes = processes
        self._counts = counts
        self._logs = logs
        self._started = time.time()

    async def GetStatus(self, request: wrapper_pb2.GetStatusRequest, context: Context) -> wrapper_pb2.GetStatusResponse:
        return wrapper_pb2.GetStatusResponse(
            worker_id=self._identity.worker_id,
            phase=_PHASES[self._worker.phase],
            queues=self._identity.queues,
            capacity=self._identity.capacity,
            running_tasks=self._running_tasks(),
            succeeded_attempts=self._counts.succeeded,
            failed_attempts=self._counts.failed,
            started_time=_timestamp(self._started),
            sandbox=_SANDBOXES[self._identity.sandbox],
            processes=[
                wrapper_pb2.OperatorProcess(
                    dag=process.job.details.dag,
                    job=process.job.details.job,
                    job_version_id=process.job.job_version_id,
                    pid=process.pid,
                    running_tasks=process.handover.tasks_in_hand,
                    sandboxed=process.sandboxed,
                )
                for process in self._processes.running()
            ],
            version=_version(),
        )

    async def ListRunningTasks(
        self, request: wrapper_pb2.ListRunningTasksRequest, context: Context
    ) -> wrapper_pb2.ListRunningTasksResponse:
        return wrapper_pb2.ListRunningTasksResponse(tasks=[row for unit in self._worker.held() for row in _rows(unit)])

    async def Drain(self, request: wrapper_pb2.DrainRequest, context: Context) -> wrapper_pb2.DrainResponse:
        if request.undo:
            self._worker.resume()
        else:
            self._worker.drain()
        return wrapper_pb2.DrainResponse(phase=_PHASES[self._worker.phase], running_tasks=self._running_tasks())

    async def StreamLogs(
        self, request: wrapper_pb2.StreamLogsRequest, context: Context
    ) -> AsyncIterator[wrapper_pb2.StreamLogsResponse]:
        tail = request.tail or _DEFAULT_TAIL
        async for lines in self._logs.read(task_id=request.task_id, tail=tail, follow=request.follow):
            yield wrapper_pb2.StreamLogsResponse(lines=[_line(line) for line in lines.lines], lost_lines=lines.lost)

    def _running_tasks(self) -> int:
        return sum(len(unit.tasks) for unit in self._worker.held())


def _rows(unit: Unit) -> list[wrapper_pb2.RunningTask]:
    return [
        wrapper_pb2.RunningTask(
            task_id=task.task_id,
            attempt=task.attempt,
            dag=unit.job.details.dag,
            job=unit.job.details.job,
            scope=task.scope if task.HasField("scope") else None,
            started_time=_timestamp(unit.claimed_time),
            progress=unit.progress,
        )
        for task in unit.tasks
    ]


def _line(line: Line) -> wrapper_pb2.LogLine:
    return wrapper_pb2.LogLine(
        time=_timestamp(line.time), task_id=line.task_id, job=line.job, level=line.level, text=line.text
    )


def _timestamp(seconds: float) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromMicroseconds(round(seconds * 1_000_000))
    return timestamp


def _version() -> str:
    try:
        return version("trace-pipelines")
    except PackageNotFoundError:
        return "unknown"
