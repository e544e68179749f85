"""`why`: one reason, the first that would have to go away, in every state that a task can be in."""

import uuid

import grpc
import pytest

from dispatcher.db.pool import transaction
from dispatcher.wakeups.queues import report_queues
from kernel.errors import from_rpc_error
from tests.dispatcher.builders import CHAIN, Source, Worker, at, between, failure, int64, start_source, success
from tests.dispatcher.in_process import InProcess
from tests.dispatcher.test_release import LIMITED, WAITING
from traceapi.control.v1 import dag_service_pb2
from traceapi.control.v1 import dataset_service_pb2 as datasets
from traceapi.control.v1 import queue_service_pb2 as queues
from traceapi.control.v1 import task_service_pb2 as tasks
from traceapi.types.v1.errors_pb2 import ErrorReason
from traceapi.types.v1.scope_pb2 import CursorRange, CursorValue, Scope


async def _explain(dispatcher: InProcess, task_id: str) -> tasks.ExplainTaskResponse:
    return await dispatcher.tasks.ExplainTask(tasks.ExplainTaskRequest(task_id=task_id))


async def _hold(dispatcher: InProcess, task_id: str) -> str:
    return tasks.HoldKind.Name((await _explain(dispatcher, task_id)).hold).removeprefix("HOLD_KIND_")


async def _at(dispatcher: InProcess, dataset_id: str, scope: Scope) -> tasks.ExplainTaskResponse:
    subject = tasks.DatasetScope(dataset_id=dataset_id, scope=scope)
    return await dispatcher.tasks.ExplainTask(tasks.ExplainTaskRequest(dataset_scope=subject))


async def test_the_reason_follows_a_task_through_its_life(dispatcher: InProcess, source: Source) -> None:
    await source.publish([1])
    task_id = await dispatcher.task_of("chain", "copies", 1)
    assert await _hold(dispatcher, task_id) == "NO_WORKER"
    with dispatcher.hot.channel.watch("worker-1", ["default"], 0):
        assert await _hold(dispatcher, task_id) == "QUEUE_WINDOW"
    await dispatcher.dags.PauseDag(dag_service_pb2.PauseDagRequest(dag="chain", jobs=["copies"]))
    assert await _hold(dispatcher, task_id) == "PAUSE"
    await dispatcher.dags.ResumeDag(dag_service_pb2.ResumeDagRequest(dag="chain"))
    await dispatcher.release()
    assert await _hold(dispatcher, task_id) == "WAKEUP"
    worker = Worker(dispatcher)
    lease = worker.lease(await worker.claim_one(task_id))
    running = await _explain(dispatcher, task_id)
    assert (running.hold, running.explanation) == (tasks.HOLD_KIND_NONE, "nothing: worker worker-1 runs it")
    await worker.complete(failure(lease))
    assert await _hold(dispatcher, task_id) == "BACKOFF"
    await dispatcher.run("update task set failed_attempts = 2 where task_id = %s", task_id)
    await dispatcher.end_backoffs()
    await dispatcher.release()
    await worker.complete(failure(worker.lease(await worker.claim_one(task_id))))
    dead = await _explain(dispatcher, task_id)
    assert dead.hold == tasks.HOLD_KIND_DEAD
    assert "3 attempts failed" in dead.explanation
    await dispatcher.run("update job_version_run set run_state = 'superseded'")
    assert await _hold(dispatcher, task_id) == "RUN_STATE"


async def test_a_cancelled_task_is_held_by_nothing(dispatcher: InProcess, source: Source) -> None:
    await source.publish([1])
    task_id = await dispatcher.task_of("chain", "copies", 1)
    await dispatcher.tasks.CancelTasks(tasks.CancelTasksRequest(filter=tasks.TaskFilter(task_ids=[task_id])))
    explained = await _explain(dispatcher, task_id)
    assert explained.explanation == "nothing: it is canceled (cancelled by user:tester)"


async def test_an_attempt_of_a_version_that_was_taken_back_and_restored_is_to_stop(
    dispatcher: InProcess, source: Source
) -> None:
    await source.publish([1])
    await dispatcher.release()
    task_id = await dispatcher.task_of("chain", "copies", 1)
    await Worker(dispatcher).claim_one(task_id)
    await dispatcher.run("update job_version_run set epoch = epoch + 2")
    explained = await _explain(dispatcher, task_id)
    assert explained.hold == tasks.HOLD_KIND_RUN_STATE
    assert "is told to stop it" in explained.explanation


async def test_a_watermark_that_does_not_cover_the_scope_is_named(dispatcher: InProcess) -> None:
    await dispatcher.deploy(CHAIN + WAITING)
    source = await start_source(dispatcher)
    await source.publish([1, 2])
    task_id = await dispatcher.task_of("chain", "merged", 2)
    explained = await _explain(dispatcher, task_id)
    assert explained.explanation == "the watermark of copies has not moved yet"
    assert not explained.awaited_watermark.HasField("cursor")
    await dispatcher.derive()
    explained = await _explain(dispatcher, task_id)
    assert (explained.hold, explained.awaited_watermark.dataset_id) == (tasks.HOLD_KIND_WATERMARK, "copies")
    assert explained.awaited_watermark.cursor == int64(0)


async def test_what_comes_first_in_an_ordered_stream_is_named(dispatcher: InProcess, source: Source) -> None:
    await source.publish([1, 2, 3])
    first, last = [await dispatcher.task_of("chain", "ranges", number) for number in (1, 3)]
    assert await _hold(dispatcher, first) == "NO_WORKER"
    explained = await _explain(dispatcher, last)
    assert (explained.hold, explained.blocking_task_id) == (tasks.HOLD_KIND_STREAM, first)
    await dispatcher.run(
        "update task set state = 'dead', reason = 'why', finished_at = clock_timestamp() where task_id = %s", first
    )
    explained = await _explain(dispatcher, last)
    assert explained.explanation == f"task {first} of its ordered stream comes first, and is dead"


async def test_the_limit_of_a_job_is_named(dispatcher: InProcess) -> None:
    await dispatcher.deploy(LIMITED)
    source = await start_source(dispatcher)
    await source.publish(range(3))
    await dispatcher.release()
    explained = await _explain(dispatcher, await dispatcher.task_of("chain", "copies", 2))
    assert explained.explanation == "2 tasks of copies are out, and its max_concurrency is 2"


async def test_a_full_window_is_named(dispatcher: InProcess, source: Source) -> None:
    await dispatcher.queues.SetQueue(queues.SetQueueRequest(queue="default", window_size=2))
    await source.publish(range(5))
    with dispatcher.hot.channel.watch("worker-1", ["default"], 0):
        await dispatcher.release()
        explained = await _explain(dispatcher, await dispatcher.task_of("chain", "copies", 4))
    assert explained.hold == tasks.HOLD_KIND_QUEUE_WINDOW
    assert explained.explanation == "2 tasks of the queue 'default' are out, and its window is 2"


async def test_a_place_that_is_kept_for_live_tasks_is_named(dispatcher: InProcess, source: Source) -> None:
    await source.publish(range(5))
    await dispatcher.run("update task set origin = 'backfill' where origin = 'live'")
    with dispatcher.hot.channel.watch("worker-1", ["default"], 3):
        await dispatcher.hot.releaser.run_once()
        explained = await _explain(dispatcher, await dispatcher.task_of("chain", "copies", 4))
    assert explained.hold == tasks.HOLD_KIND_CLASS_SHARE
    assert explained.explanation == "what is free of the queue 'default' (1) is kept for live tasks"


async def test_a_class_that_has_its_share_is_named(dispatcher: InProcess, source: Source) -> None:
    await source.publish(range(9))
    await dispatcher.run("update task set origin = 'backfill' where origin = 'live'")
    await dispatcher.release(5)
    await source.publish([9, 10])
    with dispatcher.hot.channel.watch("worker-1", ["default"], 0):
        held = await _explain(dispatcher, await dispatcher.task_of("chain", "copies", 8))
        fresh = await _explain(dispatcher, await dispatcher.task_of("chain", "copies", 10))
    assert held.hold == tasks.HOLD_KIND_CLASS_SHARE
    assert held.explanation == (
        "the next place of the queue 'default' goes to live (0 out, share 60 of 100),"
        " before backfill (4 out, share 10 of 100)"
    )
    assert fresh.hold == tasks.HOLD_KIND_QUEUE_WINDOW


async def test_workers_of_another_dispatcher_are_workers(dispatcher: InProcess, source: Source) -> None:
    await source.publish([1])
    task_id = await dispatcher.task_of("chain", "copies", 1)
    other = str(uuid.uuid4())
    async with transaction(dispatcher.pool) as connection:
        await report_queues(connection, other, {"default": 4})
    assert await _hold(dispatcher, task_id) == "QUEUE_WINDOW"
    async with transaction(dispatcher.pool) as connection:
        await report_queues(connection, other, {})
    assert await _hold(dispatcher, task_id) == "NO_WORKER"
    async with transaction(dispatcher.pool) as connection:
        await report_queues(connection, other, {"default": 4})
    await dispatcher.run("update queue_report set reported_at = clock_timestamp() - interval '16 s'")
    assert await _hold(dispatcher, task_id) == "NO_WORKER"


async def test_a_dataset_at_a_scope_means_the_task_that_makes_it(dispatcher: InProcess, source: Source) -> None:
    await source.publish([1, 2])
    second = await dispatcher.task_of("chain", "copies", 2)
    assert (await _at(dispatcher, "copies", at(2))).task.task_id == second
    worker = Worker(dispatcher)
    await dispatcher.release()
    first = await dispatcher.task_of("chain", "copies", 1)
    await worker.complete(success(worker.lease(await worker.claim_one(first))))
    assert (await _at(dispatcher, "copies", between(1, 2))).task.task_id == second, "the first that is not done"
    assert (await _at(dispatcher, "copies", at(1))).task.task_id == first, "done, though it emitted nothing"
    assert (await _at(dispatcher, "blocks", at(1))).task.task_id == source.lease.task_id


@pytest.mark.parametrize(("dataset_id", "reason"), [("copies", "TASK_NOT_FOUND"), ("nothing", "DATASET_NOT_FOUND")])
async def test_where_nothing_makes_it_that_is_said(
    dispatcher: InProcess, source: Source, dataset_id: str, reason: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await _at(dispatcher, dataset_id, at(9))
    assert from_rpc_error(raised.value).reason_name == reason


async def test_an_unknown_task_does_not_exist(dispatcher: InProcess) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await _explain(dispatcher, str(uuid.uuid4()))
    assert from_rpc_error(raised.value).reason_name == "TASK_NOT_FOUND"


@pytest.mark.parametrize(
    "scope",
    [
        Scope(cursor=CursorValue(string_value="rubbish")),
        Scope(range=CursorRange(first=CursorValue(string_value="a"), last=CursorValue(string_value="b"))),
        Scope(partition_key="rubbish"),
    ],
    ids=["cursor", "range", "partition"],
)
async def test_a_scope_that_the_dataset_cannot_have_is_refused(
    dispatcher: InProcess, source: Source, scope: Scope
) -> None:
    await source.publish([1])
    events = datasets.ListEventsRequest(dataset_id="Copies", scope=scope)
    for call in (_at(dispatcher, "Copies", scope), dispatcher.datasets.ListEvents(events)):
        with pytest.raises(grpc.RpcError) as caught:
            await call
        error = from_rpc_error(caught.value)
        assert error.reason == ErrorReason.ERROR_REASON_SCOPE_MISMATCH
        assert "no scope of copies, which has a cursor of type int64: its scopes are such as 500000" in error.message


async def test_nothing_makes_a_virtual_dataset(dispatcher: InProcess) -> None:
    await dispatcher.deploy("dag: view\njobs:\n  ones: {virtual: {sql: select 1 as one}, outputs: {ones: {}}}\n")
    with pytest.raises(grpc.RpcError) as caught:
        await _at(dispatcher, "ones", at(1))
    error = from_rpc_error(caught.value)
    assert (error.reason, "ones is virtual" in error.message) == (ErrorReason.ERROR_REASON_TASK_NOT_FOUND, True)
