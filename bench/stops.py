"""How soon a query that is stopped takes no CPU any more: from the stop to the end of its process."""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ctl.connection
from bench.cpu import cpu_seconds
from bench.memory import tree
from bench.settings import Settings
from bench.stack import Stack, TooSlow, wait_until
from bench.table import Measure
from ctl.connection import Connection
from traceapi.query.v1 import query_service_pb2 as pb

_SQL = "select count(*) from range(100000000) a, range(100000000) b where a.range > b.range"
_WORKS_SECONDS = 0.5  # of CPU, by which the process is known that runs the text
_MOST_SECONDS = 30.0


def measure(stack: Stack, settings: Settings) -> Sequence[Measure]:
    """Milliseconds, the longest of several times, by each way in which somebody stops a query."""
    ways: dict[str, Callable[[Stack], float]] = {
        "CancelQuery": _by_cancel_query,
        "the end of its call": _by_end_of_call,
        "a client that is killed": lambda stack: _by_signal(stack, signal.SIGKILL),
        "Ctrl-C in tracectl": lambda stack: _by_signal(stack, signal.SIGINT),
    }
    times = settings.scaled(10, 2)
    found = {name: [way(stack) * 1000 for _ in range(times)] for name, way in ways.items()}
    return [
        Measure(
            f"stopped by {name}, until its process has ended, the longest",
            max(samples),
            "ms",
            "<= 1000",
            samples=tuple(samples),
        )
        for name, samples in found.items()
    ]


def _by_cancel_query(stack: Stack) -> float:
    with ctl.connection.connect(stack.home.root) as connection, _running(stack, connection) as (call, cell):
        query_id = next(call).started.query_id

        def stop() -> None:
            connection.queries.CancelQuery(pb.CancelQueryRequest(query_id=query_id))

        return _until_ended(cell(), stop)


def _by_end_of_call(stack: Stack) -> float:
    with ctl.connection.connect(stack.home.root) as connection, _running(stack, connection) as (call, cell):
        return _until_ended(cell(), call.cancel)


def _by_signal(stack: Stack, number: signal.Signals) -> float:
    command = [sys.executable, "-m", "ctl", "query", _SQL, "--home", str(stack.home.root)]
    before = _used(stack)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as client:
        try:
            return _until_ended(_cell(stack, before), lambda: client.send_signal(number))
        finally:
            client.kill()


@contextmanager
def _running(stack: Stack, connection: Connection) -> Iterator[tuple[Any, Callable[[], int]]]:
    """A query, and how its process is found."""
    before = _used(stack)
    call = connection.queries.Query(pb.QueryRequest(sql=_SQL))
    try:
        yield call, lambda: _cell(stack, before)
    finally:
        call.cancel()


def _used(stack: Stack) -> dict[int, float]:
    """Seconds of CPU of queryd's processes."""
    return {pid: cpu_seconds(pid) for pid in tree(stack.pids["queryd"])}


def _cell(stack: Stack, before: dict[int, float]) -> int:
    """The process that has worked much since then."""
    found: list[int] = []

    def works() -> bool:
        now = _used(stack)
        found[:] = [pid for pid in now if now[pid] - before.get(pid, 0.0) >= _WORKS_SECONDS]
        return bool(found)

    wait_until(works, _MOST_SECONDS, "a query works")
    return max(found, key=cpu_seconds)


def _until_ended(pid: int, stop: Callable[[], object]) -> float:
    """Seconds from the beginning of the stop."""
    descriptor = os.pidfd_open(pid)
    try:
        begin = time.perf_counter()
        stop()
        ended, _, _ = select.select([descriptor], [], [], _MOST_SECONDS)
        if not ended:
            raise TooSlow(f"a stopped query ends: not within {_MOST_SECONDS:.0f} s")
        return time.perf_counter() - begin
    finally:
        os.close(descriptor)
