"""`why` beside a version that is being built: what is held for its cutover, and what its own jobs are metered as."""

from dispatcher.deploy.advancing import advance
from tests.dispatcher.builders import Source
from tests.dispatcher.changing import CHANGED, Fleet, deploy
from tests.dispatcher.in_process import InProcess
from tests.dispatcher.switches.builds import HALTED, built
from traceapi.control.v1 import queue_service_pb2 as queues
from traceapi.control.v1 import task_service_pb2 as tasks

LAST = """
select t.task_id::text
from task t join job_version j using (job_version_id) join job_version_run r using (job_version_id)
where j.job = %s and r.run_state = %s::run_state order by t.scope_first desc limit 1
"""
ENDED = """
update task t set state = 'canceled', reason = 'not here', finished_at = clock_timestamp()
from job_version_run r where r.job_version_id = t.job_version_id and r.run_state = 'running' and t.state = 'queued'
"""


async def _explain(dispatcher: InProcess, task_id: str) -> tasks.ExplainTaskResponse:
    """While a worker has room."""
    with dispatcher.hot.channel.watch("worker-1", ["default"], 5):
        return await dispatcher.tasks.ExplainTask(tasks.ExplainTaskRequest(task_id=task_id))


async def test_a_halt_of_releases_for_a_cutover_is_named(dispatcher: InProcess, fleet: Fleet) -> None:
    source, _ = await built(dispatcher, fleet)
    await source.publish([3])
    await fleet.work("copies")
    await advance(dispatcher.pool, lambda: None)
    assert await dispatcher.value(HALTED)
    await source.publish([4])
    await fleet.work("copies")
    held = await dispatcher.value(LAST, "sums", "running")
    explained = await _explain(dispatcher, held)
    until = await dispatcher.value("select releases_held_until from dag where dag = 'chain'")
    assert explained.hold == tasks.HOLD_KIND_CUTOVER
    assert explained.explanation == (
        "a version of chain that is being built is about to take over: releases of what it replaces are halted"
        f" until then, until {until:%H:%M:%S} UTC at the latest"
    )
    building = await _explain(dispatcher, await dispatcher.value(LAST, "sums", "staged"))
    assert building.hold == tasks.HOLD_KIND_WAKEUP, "what is being built is not held"
    await dispatcher.run("update dag set releases_held_until = clock_timestamp()")
    assert (await _explain(dispatcher, held)).hold == tasks.HOLD_KIND_QUEUE_WINDOW


async def test_a_place_that_is_kept_for_live_tasks_is_kept_from_a_job_that_is_being_built(
    dispatcher: InProcess, source: Source
) -> None:
    """Whatever it does is rematerialization, of fresh events too."""
    await dispatcher.queues.SetQueue(queues.SetQueueRequest(queue="default", window_size=2, live_reserve=1))
    await deploy(dispatcher, CHANGED)
    await source.publish([1, 2])
    await dispatcher.run(ENDED)
    assert len(await dispatcher.release()) == 1
    explained = await _explain(dispatcher, await dispatcher.value(LAST, "copies", "staged"))
    assert explained.hold == tasks.HOLD_KIND_CLASS_SHARE
    assert explained.explanation == "what is free of the queue 'default' (1) is kept for live tasks"
