"""Who may go next: watermarks that tasks wait for, windows, turns between jobs, and wake-ups that were lost."""

import asyncio
import uuid
from datetime import timedelta

import grpc
import pytest

from dispatcher.db.pool import transaction
from dispatcher.wakeups.release import Releaser, release
from dispatcher.wakeups.stream import StreamChannel
from tests.dispatcher.builders import CHAIN, Source, Worker, start_source, success
from tests.dispatcher.in_process import InProcess, Workers
from traceapi.control.v1 import dag_service_pb2, task_service_pb2
from traceapi.types.v1.task_pb2 import RunState
from traceapi.worker.v1 import worker_service_pb2

WAITING = """\
  merged:
    operator: sql
    config: {sql: select number from copies}
    inputs: {blocks: {}, copies: {trigger: false, wait: true}}
    outputs: {merged: {schema: {number: int64}}}
"""


async def _succeed(dispatcher: InProcess, job: str, number: int) -> None:
    worker = Worker(dispatcher)
    task = await worker.claim_one(await dispatcher.task_of("chain", job, number))
    assert await worker.complete(success(worker.lease(task))) == ["succeeded"]


async def _watermark(dispatcher: InProcess, dataset: str) -> int | None:
    rows = await dispatcher.rows(
        "select w.cursor_key from watermark w join pointer p using (dataset_version_id) where p.dataset_id = %s",
        dataset,
    )
    return int.from_bytes(rows[0][0], "big") - 2**63 if rows else None


async def test_the_watermark_of_a_stateless_job_stands_before_its_first_open_task(
    dispatcher: InProcess, source: Source
) -> None:
    await source.publish([1, 2, 3, 7])
    await dispatcher.release()
    assert await dispatcher.derive() == 1
    assert await _watermark(dispatcher, "copies") == 0
    await _succeed(dispatcher, "copies", 2)
    assert await dispatcher.derive() == 0
    await _succeed(dispatcher, "copies", 1)
    assert await dispatcher.derive() == 1
    assert await _watermark(dispatcher, "copies") == 2
    await _succeed(dispatcher, "copies", 3)
    await dispatcher.derive()
    assert (
        await _watermark(dispatcher, "copies") == 6
    )  # nothing between 3 and 7 will come: the input is complete up to 7
    await _succeed(dispatcher, "copies", 7)
    await dispatcher.derive()
    assert await _watermark(dispatcher, "copies") == 7
    assert await dispatcher.derive() == 0


async def test_a_task_waits_for_the_watermark_that_covers_its_scope(dispatcher: InProcess) -> None:
    await dispatcher.deploy(CHAIN + WAITING)
    source = await start_source(dispatcher)
    await source.publish([1, 2])
    first, second = [await dispatcher.task_of("chain", "merged", number) for number in (1, 2)]
    assert not {first, second} & set(await dispatcher.release())
    await _succeed(dispatcher, "copies", 1)
    await dispatcher.derive()
    assert set(await dispatcher.release()) == {first}
    await _succeed(dispatcher, "copies", 2)
    await dispatcher.derive()
    assert await dispatcher.release() == [second]


async def test_wakeups_that_nobody_answers_are_sent_again(dispatcher: InProcess, source: Source) -> None:
    await source.publish([1])
    first = await dispatcher.release()
    assert await dispatcher.release() == []
    await dispatcher.leave_unanswered()
    assert sorted(await dispatcher.release()) == sorted(first)
    assert await dispatcher.release() == []


async def test_wakeups_of_a_paused_job_are_not_sent_again(dispatcher: InProcess, source: Source) -> None:
    await source.publish([1])
    await dispatcher.release()
    await dispatcher.dags.PauseDag(dag_service_pb2.PauseDagRequest(dag="chain"))
    await dispatcher.leave_unanswered()
    assert await dispatcher.release() == []
    await dispatcher.dags.ResumeDag(dag_service_pb2.ResumeDagRequest(dag="chain"))
    assert len(await dispatcher.release()) == 2


async def test_a_paused_job_is_not_released_and_a_resumed_one_is(dispatcher: InProcess, source: Source) -> None:
    paused = await dispatcher.dags.PauseDag(dag_service_pb2.PauseDagRequest(dag="chain", jobs=["copies"]))
    assert list(paused.paused_jobs) == ["copies"]
    await source.publish([1])
    copies = await dispatcher.task_of("chain", "copies", 1)
    assert copies not in await dispatcher.release()
    await dispatcher.dags.ResumeDag(dag_service_pb2.ResumeDagRequest(dag="chain"))
    assert copies in await dispatcher.release()


async def _paused(dispatcher: InProcess, *jobs: str) -> list[str]:
    return list((await dispatcher.dags.PauseDag(dag_service_pb2.PauseDagRequest(dag="chain", jobs=jobs))).paused_jobs)


async def _resumed(dispatcher: InProcess, *jobs: str) -> list[str]:
    request = dag_service_pb2.ResumeDagRequest(dag="chain", jobs=jobs)
    return list((await dispatcher.dags.ResumeDag(request)).paused_jobs)


async def test_a_job_stays_paused_while_its_dag_is(dispatcher: InProcess, source: Source) -> None:
    assert await _paused(dispatcher, "copies") == ["copies"]
    assert await _paused(dispatcher) == ["blocks", "copies", "ranges"]
    assert await _resumed(dispatcher, "copies") == ["blocks", "copies", "ranges"]
    assert await _paused(dispatcher, "ranges") == ["blocks", "copies", "ranges"]
    assert await _resumed(dispatcher) == []


async def test_pausing_a_job_that_does_not_exist_is_refused_with_its_name(
    dispatcher: InProcess, source: Source
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await _paused(dispatcher, "copies", "copie")
    assert "chain has no job copie; did you mean copies?" in str(refused.value.details())
    assert await dispatcher.value("select count(*) from pause") == 0


async def test_a_pause_is_a_fact_of_its_own(dispatcher: InProcess, source: Source) -> None:
    """It neither lifts a fence nor is lifted with one."""
    await source.publish([1])
    await _paused(dispatcher, "copies")
    await dispatcher.run("update job_version_run set run_state = 'superseded', epoch = epoch + 1")
    await dispatcher.run("update job_version_run set run_state = 'running', epoch = epoch + 1")
    copies = await dispatcher.task_of("chain", "copies", 1)
    assert copies not in await dispatcher.release()
    shown = await dispatcher.tasks.GetTask(task_service_pb2.GetTaskRequest(task_id=copies))
    assert (shown.task.paused, shown.task.run_state) == (True, RunState.RUN_STATE_RUNNING)
    await dispatcher.run("update job_version_run set run_state = 'superseded', epoch = epoch + 1")
    assert await _resumed(dispatcher) == []
    assert copies not in await dispatcher.release()


LIMITED = CHAIN.replace("    outputs: {copies:", "    execution: {max_concurrency: 2}\n    outputs: {copies:")


async def test_a_job_has_no_more_tasks_out_than_it_may(dispatcher: InProcess) -> None:
    await dispatcher.deploy(LIMITED)
    source = await start_source(dispatcher)
    await source.publish(range(5))
    copies = {await dispatcher.task_of("chain", "copies", number) for number in range(5)}
    assert len(copies & set(await dispatcher.release())) == 2
    assert not copies & set(await dispatcher.release())
    await _succeed(dispatcher, "copies", 0)
    assert len(copies & set(await dispatcher.release())) == 1


@pytest.mark.races
async def test_two_replicas_do_not_give_one_room_twice(dispatcher: InProcess) -> None:
    """The first round is stopped inside its transaction, after it has released; the second must leave the job alone."""
    await dispatcher.deploy(LIMITED)
    source = await start_source(dispatcher)
    await source.publish(range(5))
    async with transaction(dispatcher.pool) as first:
        await release(first, "default", 100)
        await Releaser(dispatcher.pool, Workers(), unanswered=timedelta(seconds=10)).run_once()
    await dispatcher.release()
    released = (
        "select count(*) from task join job_version using (job_version_id) where job = 'copies' and state = 'released'"
    )
    assert await dispatcher.value(released) == 2


async def _asks_for_a_round(releaser: Releaser) -> bool:
    asked = asyncio.ensure_future(releaser.wait())
    await asyncio.sleep(0)
    return not asked.cancel()


async def test_a_free_place_is_a_round_only_where_something_waits_for_one(dispatcher: InProcess) -> None:
    await dispatcher.deploy("\n".join(line for line in CHAIN.splitlines() if "ranges" not in line))
    source = await start_source(dispatcher)
    workers = Workers({"default": 2})
    releaser = Releaser(dispatcher.pool, workers, unanswered=timedelta(seconds=10))
    await source.publish(range(3))
    assert await releaser.run_once() == 2
    workers.credits = {"default": 0}
    assert await releaser.run_once() == 0
    workers.credits = {"default": 2}
    releaser.signal_place()
    assert await _asks_for_a_round(releaser)
    assert await releaser.run_once() == 1
    releaser.signal_place()
    assert not await _asks_for_a_round(releaser)
    workers.credits = {"default": 2, "other": 1}
    releaser.signal_place()
    assert await _asks_for_a_round(releaser)


async def test_jobs_take_turns(dispatcher: InProcess, source: Source) -> None:
    await source.publish(range(50))
    other = CHAIN.replace("dag: chain", "dag: other").replace("blocks", "blips").replace("ranges", "spans")
    await dispatcher.release(8)
    await dispatcher.deploy(other.replace("copies", "doubles"))
    await dispatcher.release(1)  # the backlog's tasks are older
    rival = Worker(dispatcher)
    run = await dispatcher.value(
        "select task_id::text from task join job_version using (job_version_id)"
        " where dag = 'other' and origin = 'source_run'"
    )
    claimed = await rival.claim([run])
    assert claimed.results[0].HasField("claimed"), "a new DAG waits behind the backlog of another"


async def test_rounds_are_as_large_as_the_room(dispatcher: InProcess, source: Source) -> None:
    await source.publish(range(20))
    assert [len(await dispatcher.release(room)) for room in (3, 5, 100)] == [3, 5, 13]


async def test_a_worker_of_two_queues_is_not_promised_twice(dispatcher: InProcess, source: Source) -> None:
    await source.publish(range(5))
    with dispatcher.hot.channel.watch("worker-1", ["default", "other"], 4) as watcher:
        await dispatcher.hot.releaser.run_once()
        assert watcher.credits == 0
        assert dispatcher.hot.channel.room() == {}
    assert await dispatcher.value("select count(*) from task where state = 'released'") == 4


async def test_credits_that_a_worker_takes_back_are_not_used(dispatcher: InProcess, source: Source) -> None:
    await source.publish(range(9))
    granted = asyncio.Event()
    stream = dispatcher.worker.WatchWakeups()
    start = worker_service_pb2.WatchStart(worker_id="worker-1", queues=["default"], credits=8)
    await stream.write(worker_service_pb2.WatchWakeupsRequest(start=start))
    await stream.write(worker_service_pb2.WatchWakeupsRequest(credits=-6))
    dispatcher.hot.channel.on_credit(granted.set)
    await stream.write(worker_service_pb2.WatchWakeupsRequest(credits=1))  # in order: what came before has been read
    async with asyncio.timeout(20):
        while dispatcher.hot.channel.room() != {"default": 3}:
            granted.clear()
            await granted.wait()
    await dispatcher.hot.releaser.run_once()
    stream.cancel()
    assert await dispatcher.value("select count(*) from task where state = 'released'") == 3


def test_more_than_is_left_may_be_taken_back() -> None:
    """Ids were on their way when the worker took its credits back: the next grant fills the gap first."""
    channel = StreamChannel()
    with channel.watch("worker-1", ["default"], 5) as watcher:
        channel.send("default", ["a", "b", "c"])
        watcher.grant(-4)
        assert channel.room() == {}
        watcher.grant(3)
        assert channel.room() == {"default": 1}


async def test_what_was_released_goes_out_also_when_credits_were_taken_back_meanwhile() -> None:
    channel = StreamChannel()
    with channel.watch("worker-1", ["default"], 5) as one, channel.watch("worker-2", ["default"], 2) as other:
        one.grant(-4)
        channel.send("default", [str(number) for number in range(7)])
        channel.close()
        sent = [[task_id async for ids in watcher.batches() for task_id in ids] for watcher in (one, other)]
        assert sorted([*sent[0], *sent[1]]) == [str(number) for number in range(7)]
        assert (one.credits, other.credits) == (1 - len(sent[0]), 2 - len(sent[1]))


@pytest.mark.parametrize(("granted", "sent"), [((9, 9), {3, 4}), ((1, 9), {1, 6}), ((0, 7), {0, 7})])
def test_ids_are_spread_evenly_within_the_credits(granted: tuple[int, int], sent: set[int]) -> None:
    channel = StreamChannel()
    with (
        channel.watch("worker-1", ["default"], granted[0]) as one,
        channel.watch("worker-2", ["default"], granted[1]) as other,
    ):
        channel.send("default", ["id"] * 7)
        assert {granted[0] - one.credits, granted[1] - other.credits} == sent


async def test_a_foreign_wakeup_does_nothing(dispatcher: InProcess, source: Source) -> None:
    response = await Worker(dispatcher).claim([str(uuid.uuid4())])
    assert response.results[0].HasField("error")
