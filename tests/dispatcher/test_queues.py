"""Queues as people see and set them, while everything runs."""

import uuid

import grpc
import pytest

from dispatcher.db.pool import transaction
from dispatcher.wakeups.queues import report_queues
from kernel.errors import from_rpc_error
from tests.dispatcher.builders import Source, Worker
from tests.dispatcher.in_process import InProcess
from traceapi.control.v1 import queue_service_pb2 as api


async def _set(dispatcher: InProcess, **fields: int) -> api.Queue:
    return (await dispatcher.queues.SetQueue(api.SetQueueRequest(queue="default", **fields))).queue


async def _list(dispatcher: InProcess) -> dict[str, api.Queue]:
    found = await dispatcher.queues.ListQueues(api.ListQueuesRequest())
    return {queue.queue: queue for queue in found.queues}


def _shares(queue: api.Queue) -> list[int]:
    return [of.share for of in queue.classes]


async def test_a_queue_that_nobody_set_has_the_defaults(dispatcher: InProcess, source: Source) -> None:
    (queue,) = (await _list(dispatcher)).values()
    assert (queue.queue, queue.HasField("window_size"), queue.live_reserve) == ("default", False, 1)
    assert [of.task_class for of in queue.classes] == [
        api.TASK_CLASS_LIVE,
        api.TASK_CLASS_REMATERIALIZATION,
        api.TASK_CLASS_BACKFILL,
    ]
    assert _shares(queue) == [60, 30, 10]
    assert (queue.actor, queue.HasField("changed_time")) == ("", False)


async def test_what_is_not_named_stays_as_it_is(dispatcher: InProcess) -> None:
    queue = await _set(dispatcher, window_size=8, live_share=50)
    assert (queue.window_size, _shares(queue)) == (8, [50, 30, 10])
    queue = await _set(dispatcher, backfill_share=20, live_reserve=0)
    assert (queue.window_size, _shares(queue), queue.live_reserve) == (8, [50, 30, 20], 0)
    queue = await _set(dispatcher, window_size=0)
    assert (queue.HasField("window_size"), _shares(queue)) == (False, [50, 30, 20])


async def test_a_change_is_on_record(dispatcher: InProcess) -> None:
    queue = await _set(dispatcher, window_size=8)
    assert queue.actor == "user:tester"
    assert await dispatcher.rows("select actor, method, subject, details from audit") == [
        ("user:tester", "QueueService.SetQueue", "default", {"window_size": 8})
    ]


async def test_a_change_holds_from_the_next_release_on(dispatcher: InProcess, source: Source) -> None:
    await source.publish(range(10))
    await _set(dispatcher, window_size=3)
    assert len(await dispatcher.release()) == 3
    await _set(dispatcher, window_size=5)
    assert len(await dispatcher.release()) == 2


async def test_what_is_out_is_counted_by_class(dispatcher: InProcess, source: Source) -> None:
    await source.publish(range(4))
    await dispatcher.run("update task set origin = 'backfill' where origin = 'live' and get_byte(scope_first, 7) = 3")
    await dispatcher.release(3)
    await Worker(dispatcher).claim_run(await dispatcher.task_of("chain", "ranges", 0), max_run_tasks=3)
    live, _, backfill = (await _list(dispatcher))["default"].classes
    assert (live.waiting_count, live.released_count, live.running_count, live.place_count) == (2, 1, 3, 2)
    assert (backfill.waiting_count, backfill.place_count) == (1, 1)


async def test_a_queue_is_known_by_its_workers_too(dispatcher: InProcess) -> None:
    for room in (5, 7):
        async with transaction(dispatcher.pool) as connection:
            await report_queues(connection, str(uuid.uuid4()), {"big-machines": room})
    queue = (await _list(dispatcher))["big-machines"]
    assert (queue.served, queue.credits) == (True, 12)
    await _set(dispatcher, window_size=1)
    assert not (await _list(dispatcher))["default"].served


async def test_a_share_of_nothing_is_refused(dispatcher: InProcess) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await _set(dispatcher, live_share=0)
    assert from_rpc_error(refused.value).reason_name == "INVALID_REQUEST"
