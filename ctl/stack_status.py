"""How a running stack is: asks every program itself, and takes no answer for an answer."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc

from ctl.connection import Connection
from ctl.home import Endpoints, Home
from ctl.render import machine
from kernel.errors import from_rpc_error
from traceapi.control.v1 import task_service_pb2 as task_api
from traceapi.query.v1 import query_service_pb2 as query_api
from traceapi.wrapper.v1 import wrapper_service_pb2 as wrapper_api

_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class ProgramStatus:
    """One program, and whether it answered."""

    name: str
    address: str
    pid: int | None
    fault: str = ""

    @property
    def answers(self) -> bool:
        return not self.fault


@dataclass(frozen=True, slots=True)
class StackStatus:
    """All that `tracectl status` shows."""

    home: Home
    endpoints: Endpoints
    programs: tuple[ProgramStatus, ...]
    workers: tuple[wrapper_api.GetStatusResponse, ...]
    counts: task_api.CountTasksResponse | None
    """None where the dispatcher does not say."""

    def to_document(self) -> dict[str, Any]:
        return {
            "home": str(self.home.root),
            "endpoints": json.loads(self.endpoints.to_json()),
            "programs": [
                {"name": one.name, "address": one.address, "pid": one.pid, "answers": one.answers, "fault": one.fault}
                for one in self.programs
            ],
            "workers": [machine.as_document(worker) for worker in self.workers],
            "taskCounts": None if self.counts is None else machine.as_document(self.counts),
        }


def read_status(connection: Connection) -> StackStatus:
    """Asks dispatcher, queryd and every wrapper."""
    endpoints = connection.endpoints
    pids = endpoints.pids
    counts: list[task_api.CountTasksResponse] = []
    workers: list[wrapper_api.GetStatusResponse] = []

    def ask_dispatcher() -> None:
        counts.append(connection.tasks.CountTasks(task_api.CountTasksRequest(), timeout=_SECONDS))

    def ask_queryd() -> None:
        connection.queries.ListQueries(query_api.ListQueriesRequest(), timeout=_SECONDS)

    def ask_wrapper(address: str) -> None:
        workers.append(connection.wrapper(address).GetStatus(wrapper_api.GetStatusRequest(), timeout=_SECONDS))

    programs = [
        _ask("dispatcher", endpoints.control, pids.get("dispatcher"), ask_dispatcher),
        _ask("queryd", endpoints.query, pids.get("queryd"), ask_queryd),
    ]
    programs += [_ask("wrapper", one, pids.get("wrapper"), partial(ask_wrapper, one)) for one in endpoints.wrappers]
    return StackStatus(connection.home, endpoints, tuple(programs), tuple(workers), counts[0] if counts else None)


def _ask(name: str, address: str, pid: int | None, question: Callable[[], None]) -> ProgramStatus:
    """A program that does not serve the question does answer: UNIMPLEMENTED is somebody speaking."""
    try:
        question()
    except grpc.RpcError as error:
        fault = from_rpc_error(error)
        if fault.code != grpc.StatusCode.UNIMPLEMENTED:
            return ProgramStatus(name, address, pid, fault.message or fault.reason_name)
    return ProgramStatus(name, address, pid)
