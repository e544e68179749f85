"""Follows a task until it ends: on a terminal as a picture that changes, elsewhere by a line or a message a change."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import grpc
from rich.console import Console
from rich.live import Live

from ctl.connection import CALL_SECONDS, Connection
from ctl.render import machine
from ctl.render.task_progress import picture, summary
from ctl.render.values import FINAL_STATES
from kernel.errors import from_rpc_error
from traceapi.control.v1 import task_service_pb2 as api
from traceapi.types.v1 import task_pb2

_LOOK_SECONDS = 0.25
_RETRIES = 40
_WAITING = (task_pb2.TASK_STATE_QUEUED, task_pb2.TASK_STATE_RELEASED, task_pb2.TASK_STATE_BACKOFF)


@dataclass(frozen=True, slots=True)
class Look:
    """A task as it was at one moment, with the reason that held it; empty where nothing did."""

    answer: api.GetTaskResponse
    held_by: str

    @property
    def ended(self) -> bool:
        return self.answer.task.state in FINAL_STATES


def follow_task(connection: Connection, task_id: str, console: Console) -> api.GetTaskResponse:
    """Shows it until it has ended; answers how. Raises CtlError where there is none, or the stack stops answering."""
    if not console.is_terminal or console.is_dumb_terminal:
        return _print_lines(connection, task_id, console)
    with Live(console=console, auto_refresh=False, transient=True) as live:
        for look in _looks(connection, task_id):
            live.update(picture(look.answer, look.held_by), refresh=True)
    return look.answer


def _print_lines(connection: Connection, task_id: str, console: Console) -> api.GetTaskResponse:
    last = ""
    for look in _looks(connection, task_id):
        line = summary(look.answer, look.held_by)
        if line != last:
            console.print(line, markup=False, soft_wrap=True)
            last = line
    return look.answer


def follow_task_as_messages(connection: Connection, task_id: str) -> api.GetTaskResponse:
    """The same for programs: a line of JSON for each change. That a lease was extended is none."""
    last = None
    for look in _looks(connection, task_id, explained=False):
        seen = api.GetTaskResponse()
        seen.CopyFrom(look.answer)
        seen.task.ClearField("lease_until_time")
        if seen != last:
            machine.print_line(look.answer)
            last = seen
    return look.answer


def _looks(connection: Connection, task_id: str, *, explained: bool = True) -> Iterator[Look]:
    """At least one; the last is that of its end. Each is a call, so a lost connection is one call more."""
    failures = 0
    while True:
        try:
            look = _look(connection, task_id, explained)
        except grpc.RpcError as error:
            failures += 1
            if from_rpc_error(error).code != grpc.StatusCode.UNAVAILABLE or failures > _RETRIES:
                with connection.errors(f"task {task_id}"):
                    raise
        else:
            failures = 0
            yield look
            if look.ended:
                return
        time.sleep(_LOOK_SECONDS)


def _look(connection: Connection, task_id: str, explained: bool) -> Look:
    answer = connection.tasks.GetTask(api.GetTaskRequest(task_id=task_id), timeout=CALL_SECONDS)
    if not explained or answer.task.state not in _WAITING:
        return Look(answer, "")
    why = connection.tasks.ExplainTask(api.ExplainTaskRequest(task_id=task_id), timeout=CALL_SECONDS)
    # It may have gone on between the two calls: then what holds it is of no task that is shown.
    return Look(answer, why.explanation if why.task.state == answer.task.state else "")
