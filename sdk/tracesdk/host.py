"""The operator's process: `python -m tracesdk.host`. Serves one job version, over the socket of its own wrapper.

    TRACE_OPERATOR_SOCKET       path of the socket; required
    TRACE_OPERATOR_ENTRYPOINT   `module:name` of a built-in operator; else the job's own entrypoint, from its bundle

A built-in operator is trusted, so its process imports nothing from bundles: to it they are data, whatever their names.

Exits 0 once the wrapper ends the stream of work and all work in hand is finished; and at once where the wrapper is
gone, since nothing that the process could still do would have an effect. The main thread runs the operator's code.
"""

import contextlib
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn, TypeVar

import grpc

from traceapi.operator.v1 import operator_service_pb2 as operator
from traceapi.operator.v1.operator_service_pb2_grpc import OperatorServiceStub
from traceapi.types.v1.task_pb2 import ErrorClass
from tracesdk.entrypoint import Code, bundle_folders, load_code, make_importable
from tracesdk.inbox import Credits, Inbox, ReceivedUnit
from tracesdk.job import Job
from tracesdk.memory import limit_memory
from tracesdk.operators import Source
from tracesdk.outbox import Outbox, OutboxCalls
from tracesdk.socket_link import SocketLink, open_channel, operator_error
from tracesdk.task import Task
from tracesdk.unit import Unit
from tracesdk.work import Worker

Request = TypeVar("Request")

SOCKET_VARIABLE = "TRACE_OPERATOR_SOCKET"
ENTRYPOINT_VARIABLE = "TRACE_OPERATOR_ENTRYPOINT"
SDK, PROTOCOL = "tracesdk-python/0.1.0", 1

EXIT_USAGE, EXIT_WRAPPER_GONE, EXIT_OUT_OF_MEMORY = 64, 69, 71  # of sysexits.h
_ATTACH_SECONDS = 30.0
_END_SECONDS = 60.0
_CALL_SECONDS = 60.0  # for calls that the wrapper answers without asking anyone


class Host:
    """The process' parts and their life."""

    def __init__(self, stub: OperatorServiceStub, job: Job, code: Code) -> None:
        self._stub = stub
        self._job = job
        self._inbox = Inbox()
        self._requests: queue.SimpleQueue[operator.ReceiveWorkRequest | None] = queue.SimpleQueue()
        self._outbox = Outbox(
            OutboxCalls(
                write_log=lambda lines: _call(stub.WriteLog, operator.WriteLogRequest(lines=lines)),
                report_progress=lambda reports: _call(stub.ReportProgress, _progress_request(reports)),
                finish_work=lambda units: _call(stub.FinishWork, operator.FinishWorkRequest(units=units)),
                failed=_leave,
            )
        )
        self._link = SocketLink(stub, self._outbox)
        self._worker = Worker(code, bundle_folders(job.local_paths))
        self._credits = Credits(1) if isinstance(code, Source) else Credits()

    def run(self) -> None:
        """Works until the wrapper ends the stream."""
        self._requests.put(operator.ReceiveWorkRequest(credits=self._credits.first()))
        threading.Thread(target=self._listen, name="listener", daemon=True).start()
        while (received := self._inbox.next()) is not None:
            self._work(received)
        self._outbox.close()
        self._requests.put(None)

    def _work(self, received: ReceivedUnit) -> None:
        started = time.monotonic()
        unit = Unit(received.message.unit_id, self._job, self._link, received.cancellation)
        finished = self._worker.run(received.message, unit)
        self._inbox.ended(received)
        self._outbox.finish(finished)
        if finished.failed.error_class == ErrorClass.ERROR_CLASS_OUT_OF_MEMORY:
            self._await_end()
        more = self._credits.finished(time.monotonic() - started)
        if more:
            self._requests.put(operator.ReceiveWorkRequest(credits=more))

    def _hand_back(self, unit_ids: Sequence[int]) -> None:
        """Units that were cancelled before their turn: one may take long to come, so they do not wait for it."""
        for unit_id in unit_ids:
            self._outbox.finish(operator.FinishedUnit(unit_id=unit_id, canceled=operator.UnitCanceled()))
        if unit_ids:
            self._requests.put(operator.ReceiveWorkRequest(credits=len(unit_ids)))  # others in their place

    def _await_end(self) -> NoReturn:
        """Tells what there is to tell, and does no more work: what the code has left behind stays, and nobody knows how
        much. The wrapper ends this process and gives to another one what is still in its hands."""
        self._outbox.close()
        time.sleep(_END_SECONDS)
        _exit(EXIT_OUT_OF_MEMORY, "the wrapper did not end this process, which is out of memory")

    def _listen(self) -> None:
        requests: Iterator[operator.ReceiveWorkRequest] = iter(self._requests.get, None)
        try:
            for response in self._stub.ReceiveWork(requests):
                self._hand_back(self._inbox.add(response))
        except Exception as error:  # noqa: BLE001 -- a thread's end must be heard
            _leave(error)
        self._inbox.close()


def main() -> int:
    """Serves until the wrapper ends the work; the process' exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C at a terminal is the wrapper's matter, which drains
    socket_path = os.environ.get(SOCKET_VARIABLE)
    if not socket_path:
        print(f"{SOCKET_VARIABLE} must be the path of the wrapper's socket", file=sys.stderr)  # noqa: T201
        return EXIT_USAGE
    with open_channel(socket_path) as channel:
        stub = OperatorServiceStub(channel)
        try:
            request = operator.AttachRequest(sdk=SDK, protocol=PROTOCOL)
            answer = stub.Attach(request, timeout=_ATTACH_SECONDS, wait_for_ready=True)
        except grpc.RpcError as error:
            _leave(operator_error(error))
        job = Job.from_message(answer.job, answer.local_paths, answer.secrets)
        limit_memory(job.memory_bytes)  # before any of the operator's code
        Host(stub, job, _load(os.environ.get(ENTRYPOINT_VARIABLE, ""), answer.job.entrypoint, job)).run()
    return 0


def _load(built_in: str, entrypoint: str, job: Job) -> Code:
    """The code; or, where it cannot be loaded, code that fails every task with the reason, so that people see it."""
    try:
        if not built_in:
            make_importable(entrypoint, job.local_paths)
        return load_code(built_in or entrypoint, job)
    except BaseException as error:  # noqa: BLE001 -- whatever an import raises
        reason, traceback = error, error.__traceback__

        def fail(_task: Task) -> NoReturn:
            raise reason.with_traceback(traceback)  # as it was: each raise would add frames to it

        return fail


def _call(method: "grpc.UnaryUnaryMultiCallable[Request, Any]", request: Request) -> None:
    method(request, timeout=_CALL_SECONDS)


def _progress_request(reports: Sequence[operator.TaskProgress]) -> operator.ReportProgressRequest:
    return operator.ReportProgressRequest(reports=reports)


def _leave(error: BaseException) -> NoReturn:
    """Ends the process from any thread, whatever the operator's code is doing."""
    _exit(EXIT_WRAPPER_GONE, f"the wrapper is gone: {error}")


def _exit(code: int, message: str = "") -> NoReturn:
    """Ends the process without waiting for threads that the operator's code may have left behind.

    Who would read the message may be gone: a pipe that breaks must not keep the process alive.
    """
    with contextlib.suppress(OSError):
        if message:
            print(message, file=sys.stderr)  # noqa: T201
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _exit(main())
