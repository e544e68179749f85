"""Ordered streams: scope order, one holder, runs, and who bears a failure."""

import uuid

import pytest
from google.protobuf.duration_pb2 import Duration

from dispatcher.tasks import claim
from tests.dispatcher.builders import (
    CHAIN,
    Source,
    Worker,
    between,
    event,
    failure,
    int64,
    manifest,
    reason_of,
    start_source,
    success,
    verdict,
)
from tests.dispatcher.in_process import InProcess
from traceapi.control.v1 import task_service_pb2 as tasks
from traceapi.worker.v1 import worker_service_pb2 as pb
from traceapi.worker.v1.emit_pb2 import EmitItem, StateWrite, WatermarkMove


async def _run(
    dispatcher: InProcess, worker: Worker | None = None, *, max_run_tasks: int = 0
) -> tuple[Worker, pb.TaskRun]:
    """Releases, and claims what stands at the head of the stream."""
    holder = worker or Worker(dispatcher)
    await dispatcher.release()
    head = await dispatcher.value(
        "select task_id::text from task join job_version using (job_version_id)"
        " where job = 'ranges' and state = 'released'"
    )
    return holder, await holder.claim_run(str(head), max_run_tasks=max_run_tasks)


def _numbers(run: pb.TaskRun) -> list[int]:
    return [task.scope.cursor.int64_value for task in run.tasks]


async def _refusal(dispatcher: InProcess, number: int) -> str:
    task_id = await dispatcher.task_of("chain", "ranges", number)
    return verdict((await Worker(dispatcher).claim([task_id])).results[0])


async def test_a_run_is_the_head_of_the_stream_in_scope_order(dispatcher: InProcess, source: Source) -> None:
    await source.publish([3, 1, 2])
    worker, run = await _run(dispatcher, max_run_tasks=2)
    assert _numbers(run) == [1, 2]
    assert run.stream.epoch == 1
    items = [success(lease, stream=run.stream) for lease in worker.leases(run)]
    assert await worker.complete(*items) == ["succeeded", "succeeded"]
    _, rest = await _run(dispatcher)
    assert (_numbers(rest), rest.stream.epoch) == ([3], 2)


async def test_only_the_head_is_woken_and_nothing_while_it_is_open(dispatcher: InProcess, source: Source) -> None:
    await source.publish([1, 2, 3])
    ranges = {await dispatcher.task_of("chain", "ranges", number) for number in (1, 2, 3)}
    assert ranges & set(await dispatcher.release()) == {await dispatcher.task_of("chain", "ranges", 1)}
    assert not ranges & set(await dispatcher.release())


async def test_a_stream_has_one_holder(dispatcher: InProcess, source: Source) -> None:
    await source.publish([1, 2, 3])
    await _run(dispatcher, max_run_tasks=2)
    assert await _refusal(dispatcher, 3) == "STREAM_BUSY"
    assert await _refusal(dispatcher, 1) == "STREAM_BUSY"


async def test_a_repeated_claim_answers_the_same_run(dispatcher: InProcess, source: Source) -> None:
    await source.publish([1, 2])
    await dispatcher.release()
    worker, request_id = Worker(dispatcher), str(uuid.uuid4())
    task_id = await dispatcher.task_of("chain", "ranges", 2)  # any task of the stream claims its head
    first = await worker.claim([task_id], request_id=request_id)
    again = await worker.claim([task_id], request_id=request_id)
    assert first == again
    assert _numbers(first.runs[0]) == [1, 2]
    assert await dispatcher.value("select max(attempt) from task") == 1


async def test_a_run_ends_where_the_watermark_does(dispatcher: InProcess, source: Source) -> None:
    await source.publish([1, 2])
    await source.publish([4, 5], watermark=False)  # 3 may still come
    _, run = await _run(dispatcher)
    assert _numbers(run) == [1, 2]


async def test_without_a_watermark_nothing_of_a_stream_goes(dispatcher: InProcess, source: Source) -> None:
    await source.publish([1, 2], watermark=False)
    released = await dispatcher.release()
    assert await dispatcher.task_of("chain", "ranges", 1) not in released
    assert await _refusal(dispatcher, 1) == "TASK_NOT_READY"


async def test_a_failed_run_charges_its_head_which_then_goes_alone(dispatcher: InProcess, source: Source) -> None:
    await source.publish([1, 2, 3])
    worker, run = await _run(dispatcher)
    assert _numbers(run) == [1, 2, 3]
    items = [failure(lease, run.stream) for lease in worker.leases(run)]
    assert await worker.complete(*items) == ["backoff", "queued", "queued"]
    assert await dispatcher.rows("select failed_attempts from task where stream_key = '' order by scope_first") == [
        (1,),
        (0,),
        (0,),
    ]
    assert await _refusal(dispatcher, 2) == "TASK_NOT_READY"
    await dispatcher.end_backoffs()
    _, alone = await _run(dispatcher, worker)
    assert _numbers(alone) == [1]


async def test_a_run_that_fails_in_the_middle_charges_the_first_that_is_left(
    dispatcher: InProcess, source: Source
) -> None:
    await source.publish([1, 2, 3])
    worker, run = await _run(dispatcher)
    one, two, three = worker.leases(run)
    assert await worker.complete(success(one, stream=run.stream)) == ["succeeded"]
    # The repeated end of the first is refused; the failure must not be charged to it.
    items = [failure(lease, run.stream) for lease in (one, two, three)]
    assert await worker.complete(*items) == ["STALE_LEASE", "backoff", "queued"]


async def test_a_lost_run_charges_its_head_and_goes_back_whole(dispatcher: InProcess, source: Source) -> None:
    await source.publish([1, 2, 3])
    worker, run = await _run(dispatcher)
    await dispatcher.run("update ordered_stream set lease_until = clock_timestamp() - interval '1 s'")
    assert await dispatcher.reap() == 3
    lost = await dispatcher.rows("select lost_leases, state::text from task where stream_key = '' order by scope_first")
    assert lost == [(1, "queued"), (0, "queued"), (0, "queued")]
    assert await worker.complete(success(worker.leases(run)[0], stream=run.stream)) == ["STALE_LEASE"]
    _, alone = await _run(dispatcher)
    assert (_numbers(alone), alone.tasks[0].attempt, alone.stream.epoch) == ([1], 2, 2)


async def test_a_dead_head_holds_its_stream_until_it_is_skipped(dispatcher: InProcess, source: Source) -> None:
    await source.publish([1, 2])
    for _ in range(3):
        worker, run = await _run(dispatcher)
        items = [failure(lease, run.stream) for lease in worker.leases(run)]
        states = await worker.complete(*items)
        await dispatcher.end_backoffs()
    assert states == ["dead"]
    ranges = await dispatcher.task_of("chain", "ranges", 2)
    assert ranges not in await dispatcher.release()
    assert await _refusal(dispatcher, 2) == "TASK_NOT_READY"
    skip = tasks.SkipTasksRequest(filter=tasks.TaskFilter(dag="chain"), reason="known to be broken")
    assert (await dispatcher.tasks.SkipTasks(skip)).task_count == 1
    _, run = await _run(dispatcher)
    assert _numbers(run) == [2]


async def test_a_run_emits_once_and_what_was_emitted_only_completes(dispatcher: InProcess, source: Source) -> None:
    await source.publish(range(10))
    worker, run = await _run(dispatcher)
    item = EmitItem(
        tasks=worker.leases(run),
        stream=run.stream,
        events=[event("ranges", between(0, 9), task=9, units=manifest(0, 9))],
        state=StateWrite(data=b"{}", expected_version=run.state.version),
        watermarks=[WatermarkMove(dataset_id="ranges", cursor=int64(9))],
    )
    (emitted,) = await worker.emit(item)
    (again,) = await worker.emit(item)
    assert emitted.accepted.events[0].event_id == again.accepted.events[0].event_id
    assert (emitted.accepted.state_version, again.accepted.state_version) == (1, 1)
    # The worker dies between its emit and its completion.
    await dispatcher.run("update ordered_stream set lease_until = clock_timestamp() - interval '1 s'")
    await dispatcher.reap()
    successor, head = await _run(dispatcher)
    assert [task.already_emitted for task in head.tasks] == [True]
    assert (head.state.data, head.state.version) == (b"{}", 1)
    assert await successor.complete(success(successor.leases(head)[0], stream=head.stream)) == ["succeeded"]
    successor, rest = await _run(dispatcher, successor)
    assert [task.already_emitted for task in rest.tasks] == [True] * 9
    assert [task.accepted_event_count for task in rest.tasks] == [0] * 8 + [1]
    (stale,) = await worker.emit(item)
    assert reason_of(stale.error) == "STALE_LEASE"


async def test_a_former_epoch_can_do_nothing(dispatcher: InProcess, source: Source) -> None:
    await source.publish([1, 2])
    worker, run = await _run(dispatcher)
    former = EmitItem(tasks=worker.leases(run), stream=run.stream)
    former.stream.epoch = 7
    (refused,) = await worker.emit(former)
    assert reason_of(refused.error) == "STALE_STREAM_EPOCH"
    assert await worker.complete(success(worker.leases(run)[0], stream=former.stream)) == ["STALE_STREAM_EPOCH"]
    nameless = EmitItem(tasks=worker.leases(run)[:1])
    (refused,) = await worker.emit(nameless)
    assert reason_of(refused.error) == "STALE_STREAM_EPOCH"


async def test_an_expired_stream_can_do_nothing(dispatcher: InProcess, source: Source) -> None:
    await source.publish([1, 2])
    worker, run = await _run(dispatcher)
    await dispatcher.run("update ordered_stream set lease_until = clock_timestamp()")
    (refused,) = await worker.emit(EmitItem(tasks=worker.leases(run), stream=run.stream))
    assert reason_of(refused.error) == "STALE_STREAM_EPOCH"
    beat = pb.HeartbeatItem(lease=worker.leases(run)[0], stream=run.stream)
    assert await worker.beat(beat) == ["lease_lost"]


async def test_one_beat_carries_a_run(dispatcher: InProcess, source: Source) -> None:
    await source.publish([1, 2])
    worker, run = await _run(dispatcher)
    await dispatcher.run("update ordered_stream set lease_until = clock_timestamp() + interval '2 s'")
    beat = pb.HeartbeatItem(lease=worker.leases(run)[1], stream=run.stream)
    request = pb.HeartbeatRequest(worker_id="worker-1", items=[beat], lease_duration=Duration(seconds=60))
    (result,) = (await dispatcher.worker.Heartbeat(request)).results
    assert result.directive == pb.DIRECTIVE_CONTINUE
    assert await dispatcher.value("select lease_until > clock_timestamp() + interval '50 s' from ordered_stream")
    former = pb.HeartbeatItem(lease=worker.leases(run)[1], stream=run.stream)
    former.stream.epoch = 9
    assert await worker.beat(beat, former) == ["continue", "lease_lost"]


async def _ranges(dispatcher: InProcess) -> list[tuple[int, str]]:
    rows = await dispatcher.rows(
        "select scope_first, state::text from task where stream_key = '' order by scope_first, task_id"
    )
    return [(int.from_bytes(first, "big") - 2**63, state) for first, state in rows]


async def _publish(source: Source, *numbers: int) -> None:
    """Each in a file of its own, so that none overlaps another, and moves the watermark at the end."""
    for number in numbers[:-1]:
        await source.publish([number], watermark=False)
    await source.publish(numbers[-1:])


async def _do_all(dispatcher: InProcess) -> None:
    worker, run = await _run(dispatcher)
    await worker.complete(*[success(lease, stream=run.stream) for lease in worker.leases(run)])


async def test_a_scope_that_comes_too_late_is_dead_and_holds_its_stream(dispatcher: InProcess, source: Source) -> None:
    await _publish(source, 1, 5)
    await _do_all(dispatcher)
    await _publish(source, 3, 6)
    await dispatcher.release()
    assert await _refusal(dispatcher, 3) == "TASK_FINISHED"
    assert await _ranges(dispatcher) == [(1, "succeeded"), (3, "dead"), (5, "succeeded"), (6, "queued")]
    reason = await dispatcher.value("select reason from task where state = 'dead'")
    assert reason == "its scope lies before one that its ordered stream has done"
    await dispatcher.release()
    assert await _refusal(dispatcher, 6) == "TASK_NOT_READY"


async def test_where_the_job_says_so_late_scopes_are_skipped_on_record(dispatcher: InProcess) -> None:
    await dispatcher.deploy(CHAIN.replace("operator: aggregator,", "operator: aggregator, late_scopes: skip,"))
    source = await start_source(dispatcher)
    await _publish(source, 1, 5)
    await _do_all(dispatcher)
    await _publish(source, 2, 3, 6)
    _, run = await _run(dispatcher)
    assert _numbers(run) == [6]
    assert await _ranges(dispatcher) == [
        (1, "succeeded"),
        (2, "skipped"),
        (3, "skipped"),
        (5, "succeeded"),
        (6, "running"),
    ]


async def test_a_charged_task_in_the_middle_goes_alone(dispatcher: InProcess, source: Source) -> None:
    await source.publish([1, 2, 3])
    await dispatcher.run("update task set lost_leases = 1 where scope_first = int8send(2 # (-9223372036854775808))")
    for numbers in ([1], [2], [3]):
        worker, run = await _run(dispatcher)
        assert _numbers(run) == numbers
        await worker.complete(*[success(lease, stream=run.stream) for lease in worker.leases(run)])


TWO_STREAMS = (
    CHAIN
    + """\
  spans: {operator: aggregator, inputs: {blocks: {}}, config: {size: 10}, outputs: {spans: {storage: none}}}
"""
)


async def test_a_claim_takes_no_more_than_fits_its_transaction(
    dispatcher: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two streams of five tasks each; rows for seven tasks and the streams' own."""
    await dispatcher.deploy(TWO_STREAMS)
    source = await start_source(dispatcher)
    await source.publish(range(5))
    await dispatcher.release()
    heads = [await dispatcher.task_of("chain", job, 0) for job in ("ranges", "spans")]
    monkeypatch.setattr(claim, "MAX_ROWS", 2 + 2 + 5 + 2 + 2)
    response = await Worker(dispatcher).claim(heads)
    assert sorted(len(run.tasks) for run in response.runs) == [2, 5]
    await dispatcher.expire()
    await dispatcher.release()
    monkeypatch.setattr(claim, "MAX_ROWS", 2 + 2 + 1)
    response = await Worker(dispatcher).claim(heads)
    assert sorted(verdict(result) for result in response.results) == ["OVERLOADED", "run_index"]
