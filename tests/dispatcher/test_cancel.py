"""Cancelling by a person: what waits ends at once, what runs may only stop, and both sides hear the same."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from dispatcher.db.pool import transaction
from dispatcher.events.producers import lock_producers
from dispatcher.rpc import convert, task_service
from dispatcher.tasks import changes, store
from dispatcher.tasks.cancel import cancel_tasks
from dispatcher.tasks.rows import TaskQuery
from tests.dispatcher.builders import Source, Worker, at, event, failure, success, verdict
from tests.dispatcher.in_process import InProcess
from tests.dispatcher.test_fences import canceled, returned
from traceapi.control.v1 import task_service_pb2 as tasks
from traceapi.types.v1.task_pb2 import AttemptOutcome, TaskLease, TaskState
from traceapi.worker.v1 import worker_service_pb2 as pb
from traceapi.worker.v1.completion_pb2 import CompleteItem
from traceapi.worker.v1.emit_pb2 import EmitItem, StateWrite

REASON = "cancelled by user:tester: no longer wanted"


async def _cancel(dispatcher: InProcess, *task_ids: str, dry_run: bool = False, **fields: Any) -> int:
    chosen = tasks.TaskFilter(task_ids=task_ids, **fields)
    request = tasks.CancelTasksRequest(filter=chosen, reason="no longer wanted", dry_run=dry_run)
    return (await dispatcher.tasks.CancelTasks(request)).task_count


async def _state(dispatcher: InProcess, task_id: str) -> tuple[str, str]:
    ((state, reason),) = await dispatcher.rows("select state::text, reason from task where task_id = %s", task_id)
    return state, reason


@pytest.fixture
async def task_id(dispatcher: InProcess, source: Source) -> str:
    await source.publish([1])
    return await dispatcher.task_of("chain", "copies", 1)


async def _claimed(dispatcher: InProcess, task_id: str) -> tuple[Worker, TaskLease]:
    await dispatcher.release()
    worker = Worker(dispatcher)
    return worker, worker.lease(await worker.claim_one(task_id))


async def test_what_waits_is_cancelled_at_once_and_never_runs(dispatcher: InProcess, task_id: str) -> None:
    assert await _cancel(dispatcher, task_id) == 1
    assert await _state(dispatcher, task_id) == ("canceled", REASON)
    assert await _cancel(dispatcher, task_id) == 0
    assert task_id not in await dispatcher.release()
    assert verdict((await Worker(dispatcher).claim([task_id])).results[0]) == "TASK_CANCELED"


async def test_a_woken_task_and_one_in_backoff_are_cancelled_too(dispatcher: InProcess, task_id: str) -> None:
    worker, lease = await _claimed(dispatcher, task_id)
    assert await worker.complete(failure(lease)) == ["backoff"]
    await _cancel(dispatcher, task_id)
    await dispatcher.end_backoffs()
    assert await _state(dispatcher, task_id) == ("canceled", REASON)


async def test_a_running_task_can_only_stop(dispatcher: InProcess, task_id: str) -> None:
    worker, lease = await _claimed(dispatcher, task_id)
    assert await _cancel(dispatcher, task_id) == 1
    assert (await _state(dispatcher, task_id))[0] == "running"
    fetched = await dispatcher.worker.FetchTasks(pb.FetchTasksRequest(task_ids=[task_id]))
    assert fetched.results[0].task.canceled
    (emitted,) = await worker.emit(EmitItem(tasks=[lease], events=[event("copies", at(1))]))
    assert verdict(emitted) == "TASK_CANCELED"
    assert await worker.complete(success(lease)) == ["TASK_CANCELED"]
    assert await worker.beat(pb.HeartbeatItem(lease=lease)) == ["cancel"]
    assert await worker.complete(canceled(lease), canceled(lease)) == ["canceled", "canceled"]
    assert await _state(dispatcher, task_id) == ("canceled", REASON)
    shown = await dispatcher.tasks.GetTask(tasks.GetTaskRequest(task_id=task_id))
    assert [one.outcome for one in shown.attempts] == [AttemptOutcome.ATTEMPT_OUTCOME_CANCELED]


@pytest.mark.parametrize("end", [failure, returned])
async def test_however_a_cancelled_attempt_ends_it_is_cancelled(
    dispatcher: InProcess, task_id: str, end: Callable[[TaskLease], CompleteItem]
) -> None:
    worker, lease = await _claimed(dispatcher, task_id)
    await _cancel(dispatcher, task_id)
    item = end(lease)
    assert await worker.complete(item) == ["canceled"]
    assert await worker.complete(item) == ["canceled"]
    assert await _state(dispatcher, task_id) == ("canceled", REASON)


async def test_a_cancelled_task_whose_worker_has_gone_is_cancelled(dispatcher: InProcess, task_id: str) -> None:
    worker, lease = await _claimed(dispatcher, task_id)
    await _cancel(dispatcher, task_id)
    assert await worker.beat(pb.HeartbeatItem(lease=lease)) == ["cancel"]
    await dispatcher.expire()
    assert await _state(dispatcher, task_id) == ("canceled", REASON)


async def test_a_worker_cannot_cancel_by_itself(dispatcher: InProcess, task_id: str) -> None:
    worker, lease = await _claimed(dispatcher, task_id)
    assert await worker.complete(canceled(lease)) == ["queued"]


async def test_a_run_with_a_cancelled_task_stops_and_the_others_go_back_in_line(
    dispatcher: InProcess, source: Source
) -> None:
    await source.publish([1, 2, 3])
    await dispatcher.release()
    worker = Worker(dispatcher)
    run = await worker.claim_run(await dispatcher.task_of("chain", "ranges", 1))
    await _cancel(dispatcher, await dispatcher.task_of("chain", "ranges", 2))
    assert await worker.beat(pb.HeartbeatItem(lease=worker.leases(run)[0], stream=run.stream)) == ["cancel"]
    items = [canceled(lease, run.stream) for lease in worker.leases(run)]
    assert await worker.complete(*items) == ["queued", "canceled", "queued"]
    await dispatcher.release()
    again = await worker.claim_run(await dispatcher.task_of("chain", "ranges", 1))
    assert [task.scope.cursor.int64_value for task in again.tasks] == [1, 3]
    assert await worker.beat(pb.HeartbeatItem(lease=worker.leases(again)[0], stream=again.stream)) == ["continue"]


async def test_the_worker_that_has_it_is_told_at_once(dispatcher: InProcess, task_id: str) -> None:
    await _claimed(dispatcher, task_id)
    with (
        dispatcher.hot.channel.watch("worker-1", ["default"], 0) as holder,
        dispatcher.hot.channel.watch("worker-2", ["default"], 0) as other,
    ):
        await _cancel(dispatcher, task_id)
        assert (holder.credits, other.credits) == (-1, 0)
        assert await anext(holder.batches()) == [task_id]
    assert verdict((await Worker(dispatcher).claim([task_id])).results[0]) == "TASK_CANCELED"


async def test_a_filter_takes_what_it_finds_and_a_dry_run_takes_nothing(dispatcher: InProcess, source: Source) -> None:
    await source.publish(range(6))
    found: dict[str, Any] = {"dag": "chain", "job": "copies"}
    assert await _cancel(dispatcher, dry_run=True, **found) == 6
    assert await _cancel(dispatcher, dry_run=True, scope=at(3), **found) == 1
    assert await _cancel(dispatcher, scope=at(3), **found) == 1
    assert await _cancel(dispatcher, dry_run=True, **found) == 5
    assert await _cancel(dispatcher, states=[TaskState.TASK_STATE_RUNNING], **found) == 0
    assert await _cancel(dispatcher, **found) == 5
    counts = await dispatcher.rows(
        "select state::text, count(*) from task join job_version using (job_version_id) where job = 'copies' group by 1"
    )
    assert counts == [("canceled", 6)]


async def test_a_cancelled_scope_holds_nothing_up(dispatcher: InProcess, task_id: str) -> None:
    """As a skipped one: the person who cancelled it has said that it is not wanted."""
    await _cancel(dispatcher, task_id)
    assert await dispatcher.derive() == 1


@pytest.mark.races
async def test_a_completion_that_came_first_wins_over_a_cancel_that_waits_for_it(
    dispatcher: InProcess, task_id: str
) -> None:
    """The completion is stopped in its open transaction; the cancel waits for the row, and finds nothing to cancel."""
    _, lease = await _claimed(dispatcher, task_id)
    completion = convert.completion(success(lease), "worker-1")
    async with transaction(dispatcher.pool) as connection:
        await dispatcher.hot.complete.apply(await lock_producers(connection, [completion]), [completion])
        cancelling = asyncio.create_task(_cancel(dispatcher, task_id))
        await dispatcher.until_waiting_or_done(cancelling)
    assert await cancelling == 0
    assert (await _state(dispatcher, task_id))[0] == "succeeded"


@pytest.mark.races
async def test_a_cancel_that_came_first_wins_over_a_completion_that_waits_for_it(
    dispatcher: InProcess, task_id: str
) -> None:
    worker, lease = await _claimed(dispatcher, task_id)
    async with transaction(dispatcher.pool) as connection:
        await cancel_tasks(connection, TaskQuery(limit=10), [task_id], "why")
        completing = asyncio.create_task(worker.complete(success(lease)))
        await dispatcher.until_waiting_or_done(completing)
    assert await completing == ["TASK_CANCELED"]
    async with transaction(dispatcher.pool) as connection:
        assert (await store.lock_tasks(connection, {task_id}))[task_id].cancel_reason == "why"


async def test_a_run_that_ends_after_one_of_its_tasks_was_cancelled_loses_nothing(
    dispatcher: InProcess, source: Source
) -> None:
    """Its emit is refused with the cancelled task; so the others must not succeed without what they emitted."""
    await source.publish([1, 2, 3])
    await dispatcher.release()
    worker = Worker(dispatcher)
    run = await worker.claim_run(await dispatcher.task_of("chain", "ranges", 1))
    await _cancel(dispatcher, await dispatcher.task_of("chain", "ranges", 2))
    state = StateWrite(data=b"state", expected_version=run.state.version)
    emit = EmitItem(tasks=worker.leases(run), stream=run.stream, state=state)
    emits, ends = await worker.end([emit], [success(lease, stream=run.stream) for lease in worker.leases(run)])
    assert emits == ["TASK_CANCELED"]
    assert ends == ["EMIT_REFUSED", "TASK_CANCELED", "EMIT_REFUSED"]


async def test_a_page_that_found_less_than_it_looked_at_is_not_the_last(
    dispatcher: InProcess, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of the page completes between the look and the lock."""
    await source.publish(range(10))
    monkeypatch.setattr(task_service, "MAX_CHANGED", 4)
    await dispatcher.release()
    query = "select min(task_id::text) from task join job_version using (job_version_id) where job = 'copies'"
    worker = Worker(dispatcher)
    lease = worker.lease(await worker.claim_one(str(await dispatcher.value(query))))
    request = tasks.CancelTasksRequest(filter=tasks.TaskFilter(dag="chain", job="copies"))
    async with transaction(dispatcher.pool) as connection:
        completion = convert.completion(success(lease), "worker-1")
        await dispatcher.hot.complete.apply(await lock_producers(connection, [completion]), [completion])
        cancelling = asyncio.create_task(_page(dispatcher, request))
        await dispatcher.until_waiting_or_done(cancelling)
    answer = await cancelling
    assert answer.task_count == 3
    rest = 0
    while answer.next_page_token:
        request.page_token = answer.next_page_token
        answer = await _page(dispatcher, request)
        rest += answer.task_count
    assert rest == 6


async def _page(dispatcher: InProcess, request: tasks.CancelTasksRequest) -> tasks.CancelTasksResponse:
    return await dispatcher.tasks.CancelTasks(request)


async def test_a_task_that_was_claimed_meanwhile_is_not_one_that_waits(
    dispatcher: InProcess, task_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A filter by state means the state under the lock."""
    await dispatcher.release()
    found = changes.cancelable_tasks

    async def claim_in_between(*arguments: Any) -> list[str]:
        candidates = await found(*arguments)
        await Worker(dispatcher).claim_one(task_id)
        return candidates

    monkeypatch.setattr(changes, "cancelable_tasks", claim_in_between)
    assert await _cancel(dispatcher, job="copies", states=[TaskState.TASK_STATE_RELEASED]) == 0
    assert (await _state(dispatcher, task_id))[0] == "running"


async def test_a_filter_does_not_end_a_source_and_its_id_does(dispatcher: InProcess, source: Source) -> None:
    """Nothing can start it again."""
    assert await _cancel(dispatcher, dag="chain", dry_run=True) == 0
    assert await _cancel(dispatcher, dag="chain") == 0
    assert await _cancel(dispatcher, source.lease.task_id) == 1
    assert await source.worker.beat(pb.HeartbeatItem(lease=source.lease)) == ["cancel"]


async def test_a_run_that_was_told_to_stop_and_never_answers_charges_nobody(
    dispatcher: InProcess, source: Source
) -> None:
    await source.publish([1, 2, 3])
    await dispatcher.release()
    await Worker(dispatcher).claim_run(await dispatcher.task_of("chain", "ranges", 1))
    await _cancel(dispatcher, await dispatcher.task_of("chain", "ranges", 2))
    await dispatcher.expire()
    rows = await dispatcher.rows("select state::text, lost_leases from task where stream_key = '' order by scope_first")
    assert rows == [("queued", 0), ("canceled", 0), ("queued", 0)]
