"""A dispatcher that cannot go on for a while, and one that is to end: its memory stays, its callers hear what to do."""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import psycopg
import pytest

from kernel.errors import TraceError, from_rpc_error
from tests.dispatcher.builders import at, event
from tests.dispatcher.running import RunningDispatcher, running_dispatcher
from traceapi.types.v1.errors_pb2 import ErrorReason
from traceapi.types.v1.task_pb2 import TaskLease
from traceapi.worker.v1 import worker_service_pb2 as pb
from traceapi.worker.v1.emit_pb2 import EmitItem

pytestmark = pytest.mark.faults

CALLS = 500
EVENTS = 400
GROWTH = 200 << 20
LARGE_CALLS, LARGE_GROWTH = 64, 1 << 30
UNKNOWN = TaskLease(task_id="0190b7a1-0000-7000-8000-000000000001", attempt=1, lease_token=bytes(32))
# A batch of what workers write, at its first statement; background duties wait too, at others.
WAITING = r"""
select count(*) from pg_stat_activity
where wait_event_type = 'Lock' and query ~ '^-- name: (job_versions_of|lock_tasks)\M'
"""


@asynccontextmanager
async def stuck(database: str) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    """Nobody gets at a task while the block lasts."""
    async with await psycopg.AsyncConnection.connect(database) as connection:
        await connection.execute("lock table task in access exclusive mode")
        yield connection
        await connection.rollback()


def emit(events: int) -> pb.EmitEventsRequest:
    """An emit of nobody's: it is queued like any, and refused by its verdict."""
    item = EmitItem(tasks=[UNKNOWN], events=[event("blocks", at(number)) for number in range(events)])
    return pb.EmitEventsRequest(worker_id="worker-1", items=[item])


def large_emit() -> pb.EmitEventsRequest:
    """Nearly as much as a message may have: 15 MiB."""
    request = pb.EmitEventsRequest(worker_id="worker-1")
    for _ in range(15):
        request.items.add(tasks=[UNKNOWN]).state.data = bytes(1 << 20)
    return request


async def outcome(dispatcher: RunningDispatcher, request: pb.EmitEventsRequest) -> str | TraceError:
    """The verdict of the one item, or the error of the whole call."""
    try:
        answer = await dispatcher.worker.EmitEvents(request, timeout=60)
    except grpc.RpcError as error:
        return from_rpc_error(error)
    return ErrorReason.Name(answer.results[0].error.reason)


def resident(dispatcher: RunningDispatcher) -> int:
    """Bytes."""
    pages = Path(f"/proc/{dispatcher.process.pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def forget_peak(dispatcher: RunningDispatcher) -> None:
    """From now on."""
    Path(f"/proc/{dispatcher.process.pid}/clear_refs").write_text("5")


def peak(dispatcher: RunningDispatcher) -> int:
    """The most bytes that were resident at once."""
    status = Path(f"/proc/{dispatcher.process.pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) << 10


async def blocked(database: str) -> None:
    """Returns once a batch waits for its tasks."""
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as connection, asyncio.timeout(20):
        while (await (await connection.execute(WAITING)).fetchone()) == (0,):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_a_full_queue_refuses_with_a_time_and_takes_no_memory(database: str, tmp_path: Path) -> None:
    async with running_dispatcher(database, tmp_path) as dispatcher:
        request = emit(EVENTS)
        assert await outcome(dispatcher, request) == "ERROR_REASON_TASK_NOT_FOUND"
        before = resident(dispatcher)
        async with stuck(database):
            calls = [asyncio.create_task(outcome(dispatcher, request)) for _ in range(CALLS)]
            refused = await first(calls, CALLS // 2)
            assert resident(dispatcher) - before < GROWTH
        later = [call for call in await asyncio.gather(*calls) if isinstance(call, str)]
        assert {(error.reason, error.code) for error in refused} == {
            (ErrorReason.ERROR_REASON_OVERLOADED, grpc.StatusCode.RESOURCE_EXHAUSTED)
        }
        assert all(error.retry_after for error in refused)
        assert set(later) == {"ERROR_REASON_TASK_NOT_FOUND"}  # what was taken is answered
        assert await outcome(dispatcher, request) == "ERROR_REASON_TASK_NOT_FOUND"


async def test_large_requests_come_in_a_few_at_a_time(database: str, tmp_path: Path) -> None:
    """All of them are 960 MiB before anybody could say no, and three times as much with what is made of them."""
    async with running_dispatcher(database, tmp_path) as dispatcher:
        request = large_emit()
        assert await outcome(dispatcher, request) == "ERROR_REASON_TASK_NOT_FOUND"
        before = resident(dispatcher)
        forget_peak(dispatcher)
        async with stuck(database):
            calls = [asyncio.create_task(outcome(dispatcher, request)) for _ in range(LARGE_CALLS)]
            refused = await first(calls, LARGE_CALLS - 10)
        later = [call for call in await asyncio.gather(*calls) if isinstance(call, str)]
        assert peak(dispatcher) - before < LARGE_GROWTH
        assert {error.reason for error in refused} == {ErrorReason.ERROR_REASON_OVERLOADED}
        assert set(later) == {"ERROR_REASON_TASK_NOT_FOUND"}


async def first(calls: Sequence["asyncio.Task[str | TraceError]"], count: int) -> list[TraceError]:
    """The first errors, while the others still wait."""
    found: list[TraceError] = []
    async with asyncio.timeout(60):
        for call in asyncio.as_completed(calls):
            answer = await call
            assert isinstance(answer, TraceError), answer
            found.append(answer)
            if len(found) == count:
                break
    return found


async def test_an_oversized_message_is_refused_and_harms_nobody(database: str, tmp_path: Path) -> None:
    async with running_dispatcher(database, tmp_path) as dispatcher:
        small = emit(1)
        assert await outcome(dispatcher, small) == "ERROR_REASON_TASK_NOT_FOUND"
        before = resident(dispatcher)
        large = pb.EmitEventsRequest(worker_id="worker-1")
        large.items.add(tasks=[UNKNOWN]).state.data = bytes(17 << 20)
        answers = await asyncio.gather(*[outcome(dispatcher, one) for one in (large, small) * 8])
        for too_large, beside in zip(answers[::2], answers[1::2], strict=True):
            assert isinstance(too_large, TraceError)
            assert too_large.reason == ErrorReason.ERROR_REASON_MESSAGE_TOO_LARGE
            assert beside == "ERROR_REASON_TASK_NOT_FOUND"
        assert resident(dispatcher) - before < 64 << 20


async def test_sigterm_answers_the_calls_that_were_taken(database: str, tmp_path: Path) -> None:
    async with running_dispatcher(database, tmp_path, settings={"TRACE_DRAIN_SECONDS": "30"}) as dispatcher:
        async with stuck(database):
            call = asyncio.create_task(outcome(dispatcher, emit(1)))
            await blocked(database)
            dispatcher.process.terminate()
            await refuses_new_calls(dispatcher)
            assert not call.done()
        assert await call == "ERROR_REASON_TASK_NOT_FOUND"
        assert await asyncio.wait_for(dispatcher.process.wait(), 30) == 0


async def refuses_new_calls(dispatcher: RunningDispatcher) -> None:
    """Returns once the port is closed."""
    host, port = dispatcher.addresses["internal"].split(":")
    async with asyncio.timeout(20):
        while True:
            try:
                _, writer = await asyncio.open_connection(host, int(port))
            except ConnectionError:
                return
            writer.close()
