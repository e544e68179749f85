"""What has to happen for a planted bug to show. Without a bug none of them breaks an invariant.

A scenario does what clients may do, also late, twice, or with a lease that is not theirs; it asserts nothing. What came
of it is in the evidence.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping

from dispatcher.db.pool import transaction
from dispatcher.events import store as events_store
from dispatcher.events.accept import Acceptance
from dispatcher.events.producers import lock_producers
from dispatcher.rpc import convert
from dispatcher.tasks import store as tasks_store
from kernel.ids import new_id
from tests.chaos import scenarios_of_changes
from tests.chaos.pausing import paused
from tests.chaos.stage import Stage
from tests.dispatcher.builders import READER, Worker, at, between, event, failure, manifest, success
from traceapi.control.v1 import task_service_pb2 as tasks
from traceapi.types.v1.task_pb2 import TaskLease
from traceapi.worker.v1 import worker_service_pb2 as pb
from traceapi.worker.v1.emit_pb2 import EmitItem, StateWrite

Scenario = Callable[[Stage], Awaitable[None]]
_MOST_ATTEMPTS = 5


async def _taken_over(stage: Stage) -> tuple[Worker, TaskLease, Worker, TaskLease]:
    """A task whose first worker has lost it to a second one, and knows nothing of it."""
    await stage.source.publish([1])
    zombie, former = await stage.claim("copies", 1)
    await stage.dispatcher.expire()
    worker, lease = await stage.claim("copies", 1)
    return zombie, former, worker, lease


async def a_lease_of_two_attempts(stage: Stage) -> None:
    _, _, worker, lease = await _taken_over(stage)
    mixed = TaskLease(task_id=lease.task_id, attempt=1, lease_token=lease.lease_token)
    await worker.emit(await stage.copy(mixed, 1))


async def a_forged_token(stage: Stage) -> None:
    await stage.source.publish([1])
    _, lease = await stage.claim("copies", 1)
    stranger = Worker(stage.dispatcher)
    forged = TaskLease(task_id=lease.task_id, attempt=lease.attempt, lease_token=stranger.token)
    await stranger.emit(await stage.copy(forged, 1))


async def a_zombie_ends(stage: Stage) -> None:
    zombie, former, worker, lease = await _taken_over(stage)
    await zombie.complete(success(former))
    await worker.complete(success(lease))


async def a_zombie_beats(stage: Stage) -> None:
    zombie, former, _, _ = await _taken_over(stage)
    await zombie.beat(pb.HeartbeatItem(lease=former))


async def a_lease_has_ended(stage: Stage) -> None:
    """And nobody has noticed yet."""
    await stage.source.publish([1])
    worker, lease = await stage.claim("copies", 1)
    await stage.age(100)
    await worker.beat(pb.HeartbeatItem(lease=lease))
    await worker.emit(await stage.copy(lease, 1))


async def leases_are_looked_at(stage: Stage) -> None:
    await stage.source.publish([1])
    await stage.claim("copies", 1)
    await stage.dispatcher.reap()


async def two_replicas_take_back(stage: Stage) -> None:
    """The slower one has found what has expired when the other one takes it back and a worker has it again."""
    await stage.source.publish([1])
    await stage.claim("copies", 1)
    await stage.age(100)
    with paused(tasks_store, "expired_tasks") as pause:
        slow = asyncio.create_task(stage.dispatcher.reap())
        await pause.reached()
        if await stage.dispatcher.reap():
            await stage.claim("copies", 1)
        pause.over()
        await slow


async def a_takeover_within_an_emit(stage: Stage) -> None:
    """Between the judgement on a lease and what is written under it, another one comes."""
    await stage.source.publish([1])
    _, lease = await stage.claim("copies", 1)
    acceptance, ops = Acceptance(new_id), [convert.emit(await stage.copy(lease, 1), new_id).with_consumers(1)]

    async def emit() -> None:
        async with transaction(stage.dispatcher.pool) as connection:
            producers = await lock_producers(connection, ops)
            await acceptance.publish(producers, ops, await acceptance.accept(producers, ops))

    with paused(events_store, "existing_events") as pause:
        emitting = asyncio.create_task(emit())
        await pause.reached()
        expiring = asyncio.create_task(stage.dispatcher.expire())
        await stage.dispatcher.until_waiting_or_done(expiring)
        if expiring.done():
            await stage.claim("copies", 1)
        pause.over()
        await asyncio.gather(emitting, expiring)


async def a_streams_lease_has_ended(stage: Stage) -> None:
    await stage.source.publish(range(10))
    worker, run = await _run(stage)
    await stage.age(100)
    item = EmitItem(
        tasks=worker.leases(run),
        stream=run.stream,
        events=[event("ranges", between(0, 9), task=9, units=manifest(0, 9))],
        state=StateWrite(data=b"{}", expected_version=run.state.version),
    )
    await worker.emit(item)


async def a_second_worker_asks_for_the_stream(stage: Stage) -> None:
    await stage.source.publish([1, 2])
    await stage.claim_run(max_run_tasks=1)
    await stage.claim_run(max_run_tasks=1)


async def a_claim_arrives_late_once_more(stage: Stage) -> None:
    """When the attempt that it made has failed, and the task is on offer again."""
    await stage.source.publish([1])
    await stage.dispatcher.release()
    worker, request_id, task_id = Worker(stage.dispatcher), str(uuid.uuid4()), await stage.task("copies", 1)
    first = await worker.claim([task_id], request_id=request_id)
    await worker.complete(failure(worker.lease(first.results[0].claimed)))
    await stage.dispatcher.end_backoffs()
    await stage.dispatcher.release()
    await worker.claim([task_id], request_id=request_id)


async def a_task_fails_again_and_again(stage: Stage) -> None:
    await stage.source.publish([1])
    task_id = await stage.task("copies", 1)
    for _ in range(_MOST_ATTEMPTS):
        if task_id in await stage.dispatcher.release():
            worker = Worker(stage.dispatcher)
            await worker.complete(failure(worker.lease(await worker.claim_one(task_id))))
            await stage.dispatcher.end_backoffs()


async def a_running_task_is_cancelled(stage: Stage) -> None:
    await stage.source.publish([1])
    worker, lease = await stage.claim("copies", 1)
    await stage.cancel(lease.task_id)
    await worker.complete(success(lease))


async def a_success_is_retried(stage: Stage) -> None:
    await stage.source.publish([1])
    worker, lease = await stage.claim("copies", 1)
    await worker.complete(success(lease))
    request = tasks.RetryTasksRequest(filter=tasks.TaskFilter(task_ids=[lease.task_id]))
    await stage.dispatcher.tasks.RetryTasks(request)


async def sessions_end_after_the_answer(stage: Stage) -> None:
    await stage.source.publish([1, 2])
    stage.end_sessions()


async def an_emit_is_repeated(stage: Stage) -> None:
    """Its answer was lost, say."""
    item = await stage.source.item([1, 2, 3])
    await stage.source.worker.emit(item)
    await stage.source.worker.emit(item)


async def an_emit_arrives_late_once_more(stage: Stage) -> None:
    """When others have been accepted since."""
    item = await stage.source.item([1])
    await stage.source.worker.emit(item)
    stage.source.version = 1
    await stage.source.publish([2])
    await stage.source.publish([3])
    await stage.source.worker.emit(item)


async def a_consumer_is_deployed_within_an_emit(stage: Stage) -> None:
    await stage.source.publish([1])
    acceptance, ops = Acceptance(new_id), [convert.emit(await stage.source.item([2]), new_id).with_consumers(2)]
    async with transaction(stage.dispatcher.pool) as connection:
        producers = await lock_producers(connection, ops)
        results = await acceptance.accept(producers, ops)
        deploying = asyncio.create_task(stage.dispatcher.deploy(READER))
        await stage.dispatcher.until_waiting_or_done(deploying)
        await acceptance.publish(producers, ops, results)
    await deploying
    await _replay(stage)


async def a_consumer_is_deployed_later(stage: Stage) -> None:
    """It is owed what was there, and gets what comes."""
    await stage.source.publish([1, 2])
    await stage.dispatcher.deploy(READER)
    await stage.source.publish([3])
    await _replay(stage)


async def a_success_without_its_events(stage: Stage) -> None:
    await stage.source.publish([1])
    worker, lease = await stage.claim("copies", 1)
    await worker.complete(success(lease, events=1))


async def a_success_after_a_refused_emit(stage: Stage) -> None:
    await stage.source.publish([1])
    worker, lease = await stage.claim("copies", 1)
    await worker.emit(EmitItem(tasks=[lease], events=[event("copies", at(1, revision=3))]))
    await worker.complete(success(lease))


async def a_file_that_is_not_there(stage: Stage) -> None:
    await stage.source.publish([1])
    worker, lease = await stage.claim("copies", 1)
    item = await stage.copy(lease, 1)
    item.artifacts[0].key = item.artifacts[0].key.replace("-1-0.", "-1-1.")
    await worker.emit(item)


async def a_stream_is_worked_off(stage: Stage) -> None:
    """Two tasks at a time."""
    await stage.source.publish([1, 2, 3, 4])
    while (claimed := await stage.claim_run(max_run_tasks=2)) is not None:
        worker, run = claimed
        await worker.complete(*(success(lease, stream=run.stream) for lease in worker.leases(run)))


async def the_head_of_a_stream_fails(stage: Stage) -> None:
    await stage.source.publish([1, 2])
    worker, run = await _run(stage, max_run_tasks=1)
    await worker.complete(failure(worker.leases(run)[0], stream=run.stream))
    if (claimed := await stage.claim_run(max_run_tasks=1)) is not None:
        worker, run = claimed
        await worker.complete(success(worker.leases(run)[0], stream=run.stream))


async def watermarks_move_while_a_task_runs(stage: Stage) -> None:
    await stage.source.publish([1, 2])
    worker, lease = await stage.claim("copies", 2)
    other, done = await stage.claim("copies", 1)
    await other.complete(success(done))
    await stage.dispatcher.derive()
    await worker.emit(await stage.copy(lease, 2))


async def a_wakeup_is_lost(stage: Stage) -> None:
    await stage.source.publish([1])
    await stage.dispatcher.release()
    await stage.age(100)
    await stage.dispatcher.release()


async def the_holder_of_a_stream_dies(stage: Stage) -> None:
    await stage.source.publish([1])
    await _run(stage)
    await stage.age(100)
    await stage.dispatcher.reap()


LATER: Mapping[str, str] = {"a_wakeup_is_lost": "L3", "the_holder_of_a_stream_dies": "L2"}
"""Scenarios that are over when the duties had their turn, and what of later is judged then."""

_OF_TASKS = {
    scenario.__name__: scenario
    for scenario in (
        a_lease_of_two_attempts,
        a_forged_token,
        a_zombie_ends,
        a_zombie_beats,
        a_lease_has_ended,
        leases_are_looked_at,
        two_replicas_take_back,
        a_takeover_within_an_emit,
        a_streams_lease_has_ended,
        a_second_worker_asks_for_the_stream,
        a_claim_arrives_late_once_more,
        a_task_fails_again_and_again,
        a_running_task_is_cancelled,
        a_success_is_retried,
        sessions_end_after_the_answer,
        an_emit_is_repeated,
        an_emit_arrives_late_once_more,
        a_consumer_is_deployed_within_an_emit,
        a_consumer_is_deployed_later,
        a_success_without_its_events,
        a_success_after_a_refused_emit,
        a_file_that_is_not_there,
        a_stream_is_worked_off,
        the_head_of_a_stream_fails,
        watermarks_move_while_a_task_runs,
        a_wakeup_is_lost,
        the_holder_of_a_stream_dies,
    )
}
SCENARIOS: Mapping[str, Scenario] = {**_OF_TASKS, **scenarios_of_changes.SCENARIOS}


async def _run(stage: Stage, *, max_run_tasks: int = 0) -> tuple[Worker, pb.TaskRun]:
    claimed = await stage.claim_run(max_run_tasks=max_run_tasks)
    if claimed is None:
        raise LookupError("there is no run to be had")
    return claimed


async def _replay(stage: Stage) -> None:
    while await stage.dispatcher.replay():
        pass
