"""Finished tasks that were moved out of the hot tables: nobody who asks or calls is told anything else than before."""

import uuid
from collections.abc import Awaitable, Callable

import grpc
import pytest

from kernel.errors import from_rpc_error
from tests.dispatcher.builders import Source, Worker, at, event, failure, reason_of, success, verdict
from tests.dispatcher.in_process import InProcess
from tests.dispatcher.test_cancel import REASON
from traceapi.control.v1 import dag_service_pb2 as dags
from traceapi.control.v1 import task_service_pb2 as tasks
from traceapi.types.v1.scope_pb2 import Scope
from traceapi.types.v1.task_pb2 import TaskLease, TaskState
from traceapi.worker.v1 import worker_service_pb2 as pb
from traceapi.worker.v1.emit_pb2 import EmitItem

LIVE = "select count(*) from task where event_id is not null"


async def _claimed(dispatcher: InProcess, number: int, job: str = "copies") -> tuple[Worker, TaskLease]:
    await dispatcher.release()
    worker = Worker(dispatcher)
    return worker, worker.lease(await worker.claim_one(await dispatcher.task_of("chain", job, number)))


async def _succeed(dispatcher: InProcess, number: int) -> str:
    worker, lease = await _claimed(dispatcher, number)
    assert await worker.complete(success(lease)) == ["succeeded"]
    return lease.task_id


async def _cancel(dispatcher: InProcess, *task_ids: str) -> int:
    request = tasks.CancelTasksRequest(filter=tasks.TaskFilter(task_ids=task_ids), reason="no longer wanted")
    return (await dispatcher.tasks.CancelTasks(request)).task_count


async def _die(dispatcher: InProcess, number: int) -> str:
    """It fails as often as it may."""
    for _ in range(3):
        worker, lease = await _claimed(dispatcher, number)
        await worker.complete(failure(lease))
        await dispatcher.end_backoffs()
    assert await dispatcher.value("select state::text from task where task_id = %s", lease.task_id) == "dead"
    return str(lease.task_id)


async def test_a_finished_task_leaves_with_its_attempts_and_reads_as_before(
    dispatcher: InProcess, source: Source
) -> None:
    await source.publish([1, 2, 3])
    worker, lease = await _claimed(dispatcher, 1)
    assert await worker.complete(failure(lease)) == ["backoff"]
    await dispatcher.end_backoffs()
    await _succeed(dispatcher, 1)
    await _cancel(dispatcher, await dispatcher.task_of("chain", "copies", 2))
    asked: list[Callable[[], Awaitable[object]]] = [
        lambda: dispatcher.tasks.ListTasks(tasks.ListTasksRequest()),
        lambda: dispatcher.tasks.ListTasks(tasks.ListTasksRequest(filter=tasks.TaskFilter(scope=at(1)), page_size=1)),
        lambda: dispatcher.tasks.ListTasks(
            tasks.ListTasksRequest(filter=tasks.TaskFilter(states=[TaskState.TASK_STATE_CANCELED]))
        ),
        lambda: dispatcher.tasks.GetTask(tasks.GetTaskRequest(task_id=lease.task_id)),
        lambda: dispatcher.tasks.CountTasks(tasks.CountTasksRequest(dag="chain")),
        lambda: dispatcher.dags.GetDag(dags.GetDagRequest(dag="chain")),
        lambda: dispatcher.tasks.ExplainTask(tasks.ExplainTaskRequest(task_id=lease.task_id)),
        lambda: dispatcher.worker.FetchTasks(pb.FetchTasksRequest(task_ids=[lease.task_id])),
    ]
    before = [await ask() for ask in asked]
    assert await dispatcher.keep() == 2
    assert await dispatcher.value(LIVE) == 4  # the third of `copies`, and what `ranges` has to do
    assert await dispatcher.value("select count(*) from attempt") == 0
    assert await dispatcher.value("select count(*) from finished_attempt") == 2
    assert [await ask() for ask in asked] == before


async def test_pages_of_tasks_go_on_from_live_ones_to_moved_ones(dispatcher: InProcess, source: Source) -> None:
    await source.publish(range(1, 7))
    for number in (2, 3, 5):
        await _succeed(dispatcher, number)
    await dispatcher.keep()
    seen: list[str] = []
    request = tasks.ListTasksRequest(filter=tasks.TaskFilter(job="copies"), page_size=2)
    while True:
        page = await dispatcher.tasks.ListTasks(request)
        seen += [task.task_id for task in page.tasks]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert seen == [await dispatcher.task_of("chain", "copies", number) for number in range(6, 0, -1)]


async def test_the_events_of_a_source_that_has_ended_are_counted_after_it_was_moved(
    dispatcher: InProcess, source: Source
) -> None:
    await source.publish([1, 2, 3])
    assert await source.worker.complete(success(source.lease, 3)) == ["succeeded"]
    assert await dispatcher.keep() == 1
    deployment = (await dispatcher.dags.GetDag(dags.GetDagRequest(dag="chain"))).deployment
    watched = dispatcher.dags.WatchDeployment(dags.WatchDeploymentRequest(deployment_id=deployment.deployment_id))
    assert (await anext(aiter(watched))).source_event_count == 3
    watched.cancel()


async def test_a_dead_task_stays_until_somebody_decides(dispatcher: InProcess, source: Source) -> None:
    await source.publish([1, 2])
    retried, skipped = await _die(dispatcher, 1), await _die(dispatcher, 2)
    assert await dispatcher.keep() == 0
    chosen = tasks.TaskFilter(task_ids=[retried])
    assert (await dispatcher.tasks.RetryTasks(tasks.RetryTasksRequest(filter=chosen))).task_count == 1
    chosen = tasks.TaskFilter(task_ids=[skipped])
    await dispatcher.run("update task set finished_at = finished_at - interval '40 days' where state = 'dead'")
    assert (await dispatcher.tasks.SkipTasks(tasks.SkipTasksRequest(filter=chosen, reason="why"))).task_count == 1
    assert await dispatcher.keep() == 1
    assert await dispatcher.value("select clock_timestamp() - finished_at < interval '1 h' from finished_task")
    await _succeed(dispatcher, 1)
    assert await dispatcher.keep() == 1
    attempts = (await dispatcher.tasks.GetTask(tasks.GetTaskRequest(task_id=retried))).attempts
    assert [attempt.attempt for attempt in attempts] == [1, 2, 3, 4]


@pytest.mark.parametrize("moved", [False, True])
async def test_a_late_call_is_answered_as_if_its_task_were_there(
    dispatcher: InProcess, source: Source, moved: bool
) -> None:
    await source.publish([1, 2])
    worker, lease = await _claimed(dispatcher, 1)
    assert await worker.complete(success(lease)) == ["succeeded"]
    canceled = await dispatcher.task_of("chain", "copies", 2)
    await _cancel(dispatcher, canceled)
    if moved:
        assert await dispatcher.keep() == 2
    assert await worker.complete(success(lease)) == ["succeeded"]
    assert await worker.complete(failure(lease)) == ["STALE_LEASE"]
    (emitted,) = await worker.emit(EmitItem(tasks=[lease], events=[event("copies", at(1))]))
    assert reason_of(emitted.error) == "STALE_LEASE"
    assert await worker.beat(pb.HeartbeatItem(lease=lease)) == ["lease_lost"]
    claimed = await worker.claim([lease.task_id, canceled, str(uuid.uuid4())])
    assert [verdict(result) for result in claimed.results] == ["TASK_FINISHED", "TASK_CANCELED", "TASK_NOT_FOUND"]
    assert await worker.beat(
        pb.HeartbeatItem(lease=TaskLease(task_id=canceled, attempt=1, lease_token=worker.token))
    ) == ["cancel"]


@pytest.mark.parametrize("moved", [False, True])
async def test_what_has_ended_well_can_be_neither_cancelled_nor_retried_nor_skipped(
    dispatcher: InProcess, source: Source, moved: bool
) -> None:
    await source.publish([1])
    chosen = tasks.TaskFilter(task_ids=[await _succeed(dispatcher, 1)])
    if moved:
        assert await dispatcher.keep() == 1
    for dry_run in (True, False):
        cancel = tasks.CancelTasksRequest(filter=chosen, dry_run=dry_run)
        retry = tasks.RetryTasksRequest(filter=chosen, dry_run=dry_run)
        skip = tasks.SkipTasksRequest(filter=chosen, reason="why", dry_run=dry_run)
        assert (await dispatcher.tasks.CancelTasks(cancel)).task_count == 0
        assert (await dispatcher.tasks.RetryTasks(retry)).task_count == 0
        assert (await dispatcher.tasks.SkipTasks(skip)).task_count == 0


async def test_why_finds_the_moved_task_that_made_what_is_there(dispatcher: InProcess, source: Source) -> None:
    await source.publish([1, 2])
    done = await _succeed(dispatcher, 1)
    canceled = await dispatcher.task_of("chain", "copies", 2)
    await _cancel(dispatcher, canceled)
    await dispatcher.keep()
    assert [await _why(dispatcher, at(number)) for number in (1, 2)] == [
        (done, "nothing: it is succeeded"),
        (canceled, f"nothing: it is canceled ({REASON})"),
    ]


async def _why(dispatcher: InProcess, scope: Scope) -> tuple[str, str]:
    subject = tasks.DatasetScope(dataset_id="copies", scope=scope)
    found = await dispatcher.tasks.ExplainTask(tasks.ExplainTaskRequest(dataset_scope=subject))
    return found.task.task_id, found.explanation


async def test_a_task_that_is_no_longer_kept_is_said_to_be_so_and_still_counted(
    dispatcher: InProcess, source: Source
) -> None:
    await source.publish([1])
    task_id = await _succeed(dispatcher, 1)
    await dispatcher.keep()
    counts = tasks.CountTasksRequest(dag="chain")
    before = await dispatcher.tasks.CountTasks(counts)
    await dispatcher.run("select drop_finished_day(day) from finished_day")
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await dispatcher.tasks.GetTask(tasks.GetTaskRequest(task_id=task_id))
    error = from_rpc_error(raised.value)
    assert error is not None
    assert error.message == f"task {task_id} does not exist, or ended longer ago than finished tasks are kept"
    assert await dispatcher.tasks.CountTasks(counts) == before
