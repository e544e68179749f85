"""What a pause takes back: places of the queue, and the runs of sources."""

from tests.dispatcher.builders import CHAIN, READER, Source, Worker, start_source, success
from tests.dispatcher.in_process import InProcess
from traceapi.control.v1 import dag_service_pb2 as dags
from traceapi.control.v1 import queue_service_pb2 as queues
from traceapi.control.v1 import task_service_pb2 as tasks
from traceapi.types.v1.task_pb2 import ATTEMPT_OUTCOME_RETURNED
from traceapi.worker.v1.completion_pb2 import CompleteItem, TaskReturned
from traceapi.worker.v1.worker_service_pb2 import HeartbeatItem

COPIES = "\n".join(line for line in CHAIN.splitlines() if "ranges" not in line)
OUT = """
select j.job, count(*) from task t join job_version j using (job_version_id)
where t.state in ('released', 'running') and t.origin <> 'source_run' group by 1
"""
RUN_STATE = """
update job_version_run r set run_state = %s, changed_at = clock_timestamp()
from job_version j where j.job_version_id = r.job_version_id and j.job = %s
"""
RELEASED = """
update task t set state = 'released', released_at = clock_timestamp()
from job_version j where j.job_version_id = t.job_version_id and j.job = %s and t.state = 'queued'
"""


async def _pause(dispatcher: InProcess, *jobs: str) -> None:
    await dispatcher.dags.PauseDag(dags.PauseDagRequest(dag="chain", jobs=jobs))


async def _resume(dispatcher: InProcess) -> None:
    await dispatcher.dags.ResumeDag(dags.ResumeDagRequest(dag="chain"))


async def _out(dispatcher: InProcess) -> dict[str, int]:
    return dict(await dispatcher.rows(OUT))


async def _full_window(dispatcher: InProcess) -> Source:
    """Of two places both are taken by `copies`, and tasks of another DAG wait for one."""
    await dispatcher.queues.SetQueue(queues.SetQueueRequest(queue="default", window_size=2))
    await dispatcher.deploy(COPIES)
    source = await start_source(dispatcher)
    await source.publish([1, 2])
    await dispatcher.release()
    assert await _out(dispatcher) == {"copies": 2}
    await dispatcher.deploy(READER)
    await source.publish([3, 4])
    assert await dispatcher.release() == []
    return source


async def test_what_a_paused_job_has_released_takes_no_place_from_others(dispatcher: InProcess) -> None:
    await _full_window(dispatcher)
    await _pause(dispatcher, "copies")
    assert sorted(await dispatcher.release()) == [await dispatcher.task_of("reader", "echo", n) for n in (3, 4)]
    assert await _out(dispatcher) == {"echo": 2}


async def test_what_runs_of_a_paused_job_keeps_its_place(dispatcher: InProcess) -> None:
    await _full_window(dispatcher)
    worker = Worker(dispatcher)
    running = worker.lease(await worker.claim_one(await dispatcher.task_of("chain", "copies", 1)))
    await _pause(dispatcher, "copies")
    await dispatcher.release()
    assert await _out(dispatcher) == {"copies": 1, "echo": 1}
    assert await worker.complete(success(running)) == ["succeeded"]
    await dispatcher.release()
    assert await _out(dispatcher) == {"echo": 2}


async def test_a_resumed_job_waits_for_places_like_any_other(dispatcher: InProcess) -> None:
    await _full_window(dispatcher)
    await _pause(dispatcher, "copies")
    await dispatcher.release()
    await dispatcher.leave_unanswered()
    await _resume(dispatcher)
    assert sorted(await dispatcher.release()) == [await dispatcher.task_of("reader", "echo", n) for n in (3, 4)]
    assert await _out(dispatcher) == {"echo": 2}
    worker = Worker(dispatcher)
    ended = await worker.claim_one(await dispatcher.task_of("reader", "echo", 3))
    await worker.complete(success(worker.lease(ended)))
    assert await dispatcher.release() == [await dispatcher.task_of("chain", "copies", 1)]


async def test_what_was_withdrawn_is_released_as_soon_as_its_job_is_resumed(dispatcher: InProcess) -> None:
    """A worker that was woken meanwhile was refused, and waits for the next wake-up."""
    await _full_window(dispatcher)
    await _pause(dispatcher)
    await dispatcher.release(1)
    await _resume(dispatcher)
    await dispatcher.release()
    assert await _out(dispatcher) == {"copies": 1, "echo": 1}


async def test_an_ordered_job_goes_on_where_it_was_paused(dispatcher: InProcess, source: Source) -> None:
    await source.publish([1, 2])
    await dispatcher.release()
    first = await dispatcher.task_of("chain", "ranges", 1)
    await _pause(dispatcher, "ranges")
    assert await dispatcher.release() == []
    assert await dispatcher.value("select state::text from task where task_id = %s", first) == "queued"
    await _resume(dispatcher)
    assert await dispatcher.release() == [first]
    run = await Worker(dispatcher).claim_run(first)
    assert [task.scope.cursor.int64_value for task in run.tasks] == [1, 2]


async def test_people_see_no_place_of_what_is_paused(dispatcher: InProcess) -> None:
    """Also before a round has withdrawn it: there is none while no worker has room."""
    await _full_window(dispatcher)
    await _pause(dispatcher, "copies")
    (queue,) = (await dispatcher.queues.ListQueues(queues.ListQueuesRequest())).queues
    live = queue.classes[0]
    assert (live.released_count, live.place_count) == (2, 0)
    with dispatcher.hot.channel.watch("worker-1", ["default"], 0):
        request = tasks.ExplainTaskRequest(task_id=await dispatcher.task_of("reader", "echo", 3))
        explained = await dispatcher.tasks.ExplainTask(request)
    assert explained.explanation == "the workers of the queue 'default' have no room yet: it takes its turn"


async def test_what_was_released_of_a_version_that_was_taken_back_keeps_no_place(dispatcher: InProcess) -> None:
    await _full_window(dispatcher)
    await dispatcher.run(RUN_STATE, "superseded", "copies")
    await dispatcher.release()
    assert await _out(dispatcher) == {"echo": 2}


async def test_what_was_released_before_its_version_was_taken_back_waits_anew_when_it_is_restored(
    dispatcher: InProcess,
) -> None:
    """It is not sent again beside what has had its place since."""
    await _full_window(dispatcher)
    await dispatcher.leave_unanswered()
    await dispatcher.run(RELEASED, "echo")
    await dispatcher.run(RUN_STATE, "running", "copies")
    assert await dispatcher.release() == []
    assert await _out(dispatcher) == {"echo": 2}


async def test_a_source_that_was_released_before_its_version_took_over_is_woken_again(dispatcher: InProcess) -> None:
    await dispatcher.deploy(COPIES)
    released = await dispatcher.release()
    await dispatcher.leave_unanswered()
    await dispatcher.run(RUN_STATE, "running", "blocks")
    assert await dispatcher.release() == released != []


async def test_the_run_of_a_paused_source_is_handed_back(dispatcher: InProcess, source: Source) -> None:
    await source.publish([1])
    assert await source.worker.beat(HeartbeatItem(lease=source.lease)) == ["continue"]
    await _pause(dispatcher, "blocks")
    assert await source.worker.beat(HeartbeatItem(lease=source.lease)) == ["return"]
    await source.publish([2])
    returned = CompleteItem(lease=source.lease, returned=TaskReturned(message="its job or its DAG is paused"))
    assert await source.worker.complete(returned) == ["queued"]
    run = source.lease.task_id
    assert run not in await dispatcher.release()
    await _resume(dispatcher)
    assert await dispatcher.release() == [run]
    claimed = await source.worker.claim_one(run)
    assert (claimed.attempt, claimed.state.data, claimed.state.version) == (2, b"2", 2)
    shown = await dispatcher.tasks.GetTask(tasks.GetTaskRequest(task_id=run))
    assert shown.attempts[0].outcome == ATTEMPT_OUTCOME_RETURNED
    assert (shown.task.failed_attempts, shown.task.lost_leases) == (0, 0)


async def test_a_paused_source_has_time_to_stop(dispatcher: InProcess, source: Source) -> None:
    """Its lease is extended, however long that takes."""
    await _pause(dispatcher)
    await dispatcher.run("update task set lease_until = clock_timestamp() + interval '5 s' where origin = 'source_run'")
    assert await source.worker.beat(HeartbeatItem(lease=source.lease)) == ["return"]
    left = "select extract(epoch from lease_until - clock_timestamp())::float from task where origin = 'source_run'"
    assert await dispatcher.value(left) > 30
    explained = await dispatcher.tasks.ExplainTask(tasks.ExplainTaskRequest(task_id=source.lease.task_id))
    assert explained.explanation == "nothing: it is paused, and worker source-worker is about to hand it back"


async def test_whatever_else_runs_may_finish(dispatcher: InProcess, source: Source) -> None:
    await source.publish([1])
    await dispatcher.release()
    worker = Worker(dispatcher)
    copy = worker.lease(await worker.claim_one(await dispatcher.task_of("chain", "copies", 1)))
    run = await worker.claim_run(await dispatcher.task_of("chain", "ranges", 1))
    await _pause(dispatcher)
    beats = [HeartbeatItem(lease=copy), HeartbeatItem(lease=worker.leases(run)[0], stream=run.stream)]
    assert await worker.beat(*beats) == ["continue", "continue"]


async def test_a_source_that_was_cancelled_hears_that_first(dispatcher: InProcess, source: Source) -> None:
    await _pause(dispatcher)
    chosen = tasks.TaskFilter(task_ids=[source.lease.task_id])
    await dispatcher.tasks.CancelTasks(tasks.CancelTasksRequest(filter=chosen))
    assert await source.worker.beat(HeartbeatItem(lease=source.lease)) == ["cancel"]
