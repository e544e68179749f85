"""What a pause takes back: places of the queue."""

from tests.dispatcher.builders import CHAIN, READER, Source, Worker, start_source, success
from tests.dispatcher.in_process import InProcess
from traceapi.control.v1 import dag_service_pb2 as dags
from traceapi.control.v1 import queue_service_pb2 as queues
from traceapi.control.v1 import task_service_pb2 as tasks

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
