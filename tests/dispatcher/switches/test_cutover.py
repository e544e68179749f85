"""A change to a pipeline is one transaction: built beside what is active, and then all of it at once."""

from datetime import timedelta

import pytest

from dispatcher.deploy import cutover
from kernel.ids import new_id
from tests.dispatcher.builders import Source, Worker, at, event, failure, success, verdict
from tests.dispatcher.changing import (
    CHANGED,
    TUNED,
    Fleet,
    deploy,
    missing,
    roll_back,
    run_states,
    served,
    state,
    watch,
)
from tests.dispatcher.in_process import InProcess
from tests.dispatcher.refusals import refusal
from traceapi.control.v1 import dag_service_pb2 as pb
from traceapi.types.v1.task_pb2 import TaskLease
from traceapi.worker.v1 import worker_service_pb2 as worker_pb
from traceapi.worker.v1.emit_pb2 import EmitItem


async def test_a_change_is_built_beside_what_is_active_and_then_takes_its_place(
    dispatcher: InProcess, source: Source, fleet: Fleet
) -> None:
    await source.publish([1, 2, 3])
    await fleet.work()
    before = await served(dispatcher)
    building = await deploy(dispatcher, CHANGED)
    assert state(building) == "building"
    assert await served(dispatcher) == before
    assert await run_states(dispatcher) == {
        "apart": ["running"],
        "blocks": ["running"],
        "copies": ["running", "staged"],
        "echo": ["running", "staged"],
    }
    await source.publish([4])
    await fleet.catch_up()
    now = await watch(dispatcher, building)
    assert state(now.deployment) == "active"
    after = await served(dispatcher)
    assert {dataset for dataset in after if after[dataset] != before[dataset]} == {"copies", "echoes"}
    assert await run_states(dispatcher) == {
        "apart": ["running"],
        "blocks": ["running"],
        "copies": ["superseded", "running"],
        "echo": ["superseded", "running"],
    }
    assert await dispatcher.value("select count(*) from event where dataset_version_id = %s", after["echoes"]) == 4
    assert await missing(dispatcher) == 0


async def test_replays_come_before_the_cutover_and_live_events_go_to_both(
    dispatcher: InProcess, source: Source, fleet: Fleet
) -> None:
    await source.publish([1, 2])
    await fleet.work()
    building = await deploy(dispatcher, CHANGED)
    await source.publish([3])
    now = await watch(dispatcher, building)
    assert now.waiting_for == "copies still to catch up"
    assert [(job.job, job.task_count, job.replaying) for job in now.progress] == [
        ("copies", 1, True),
        ("echo", 0, False),
    ]
    while await dispatcher.replay():
        pass
    rows = await dispatcher.rows(
        "select r.run_state::text, t.origin::text, count(*) from task t join job_version j using (job_version_id)"
        " join job_version_run r using (job_version_id) where j.job = 'copies' group by 1, 2 order by 1, 2"
    )
    assert rows == [("running", "live", 3), ("staged", "live", 1), ("staged", "replay", 2)]
    await fleet.catch_up()
    assert state((await watch(dispatcher, building)).deployment) == "active"


async def test_what_changes_only_how_jobs_run_is_active_at_once_and_runs_nothing(
    dispatcher: InProcess, source: Source, fleet: Fleet
) -> None:
    await source.publish([1])
    await fleet.work()
    tasks = await dispatcher.value("select count(*) from any_task")
    before = await served(dispatcher)
    assert state(await deploy(dispatcher, TUNED)) == "active"
    assert await served(dispatcher) == before
    assert await dispatcher.value("select count(*) from any_task") == tasks
    assert await dispatcher.rows("select distinct max_attempts from scheduled_job") == [(7,)]


async def test_a_held_build_waits_for_a_person(dispatcher: InProcess, source: Source, fleet: Fleet) -> None:
    await source.publish([1])
    await fleet.work()
    before = await served(dispatcher)
    held = await deploy(dispatcher, CHANGED, hold=True)
    call = pb.CutOverDagRequest(deployment_id=held.deployment_id)
    assert await refusal(dispatcher.dags.CutOverDag(call)) == "NOT_CAUGHT_UP"
    await fleet.catch_up()
    now = await watch(dispatcher, held)
    assert (state(now.deployment), now.waiting_for) == ("held", "")
    assert await served(dispatcher) == before
    over = await dispatcher.dags.CutOverDag(call)
    assert state(over.deployment) == "active"
    assert await served(dispatcher) != before
    assert state((await dispatcher.dags.CutOverDag(call)).deployment) == "active", "repeated, it answers the same"
    await roll_back(dispatcher)
    assert await refusal(dispatcher.dags.CutOverDag(call)) == "DEPLOYMENT_FINAL"


async def test_a_dead_task_blocks_the_cutover_and_names_itself(
    dispatcher: InProcess, source: Source, fleet: Fleet
) -> None:
    await source.publish([1])
    await fleet.work()
    building = await deploy(dispatcher, CHANGED)
    while await dispatcher.replay():
        pass
    await dispatcher.release()
    task_id = str(await dispatcher.value("select task_id::text from task where origin = 'replay'"))
    worker = Worker(dispatcher)
    for _ in range(3):
        assert await worker.complete(failure(worker.lease(await worker.claim_one(task_id))))
        await dispatcher.end_backoffs()
        await dispatcher.release()
    await fleet.catch_up()
    now = await watch(dispatcher, building)
    assert (state(now.deployment), now.waiting_for.split(":")[0]) == ("building", f"task {task_id} of copies is dead")
    assert now.progress[0].dead_task_id == task_id
    await dispatcher.run("update task set state = 'queued', finished_at = null, reason = '' where state = 'dead'")
    await fleet.catch_up()
    assert state((await watch(dispatcher, building)).deployment) == "active"


async def test_no_watermark_goes_back(
    dispatcher: InProcess, source: Source, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last scopes are still to be done by the new version, but not by the old one."""
    monkeypatch.setattr(cutover, "HALT", timedelta())
    await source.publish([1, 2])
    await fleet.work()
    await dispatcher.derive()
    building = await deploy(dispatcher, CHANGED)
    while await dispatcher.replay():
        pass
    await fleet.work()
    await dispatcher.derive()
    await source.publish([3])
    old = await dispatcher.rows(
        "select t.task_id::text from task t join job_version_run r using (job_version_id)"
        " join job_version j using (job_version_id)"
        " where r.run_state = 'running' and j.job = 'copies' and t.state = 'queued'"
    )
    assert len(old) == 1
    await dispatcher.run("update job_version_run set run_state = 'retired' where run_state = 'staged'")
    await fleet.work()
    await dispatcher.derive()
    await dispatcher.run("update job_version_run set run_state = 'staged' where run_state = 'retired'")
    waiting = (await watch(dispatcher, building)).waiting_for
    assert waiting == "the watermark of copies, echoes would go back"
    call = pb.CutOverDagRequest(deployment_id=building.deployment_id)
    assert await refusal(dispatcher.dags.CutOverDag(call)) == "NOT_CAUGHT_UP"
    await fleet.catch_up()
    assert state((await watch(dispatcher, building)).deployment) == "active"


async def test_while_a_cutover_waits_for_the_last_scopes_the_old_jobs_are_not_released(
    dispatcher: InProcess, source: Source, fleet: Fleet
) -> None:
    await source.publish([1])
    await fleet.work()
    await deploy(dispatcher, CHANGED)
    await source.publish([2])
    await dispatcher.run("update dag set releases_held_until = clock_timestamp() + interval '1 minute'")
    await dispatcher.release()
    rows = await dispatcher.rows(
        "select j.job, r.run_state::text from task t join job_version j using (job_version_id)"
        " join job_version_run r using (job_version_id) where t.state = 'released' order by 1, 2"
    )
    assert rows == [("apart", "running"), ("copies", "staged")]


async def test_two_deploys_of_one_dag_are_never_mixed(dispatcher: InProcess, source: Source, fleet: Fleet) -> None:
    await source.publish([1])
    building = await deploy(dispatcher, CHANGED)
    again = await deploy(dispatcher, CHANGED)
    assert again.deployment_id == building.deployment_id
    document = pb.DagDocument(text=CHANGED.replace("+ 1", "+ 2"), file_name="dag.yaml")
    call = pb.DeployDagRequest(document=document, request_id=new_id())
    assert await refusal(dispatcher.dags.DeployDag(call)) == "DEPLOYMENT_IN_PROGRESS"
    await fleet.catch_up()
    assert state((await watch(dispatcher, building)).deployment) == "active"
    assert not (await dispatcher.dags.DeployDag(call)).unchanged


async def test_an_aborted_build_is_retired_and_taken_up_again(
    dispatcher: InProcess, source: Source, fleet: Fleet
) -> None:
    await source.publish([1, 2])
    await fleet.work()
    before = await served(dispatcher)
    building = await deploy(dispatcher, CHANGED)
    while await dispatcher.replay():
        pass
    await fleet.work("copies")
    aborted = await dispatcher.dags.AbortDeployment(pb.AbortDeploymentRequest(deployment_id=building.deployment_id))
    assert state(aborted.deployment) == "aborted"
    assert (await run_states(dispatcher))["copies"] == ["running", "retired"]
    assert await served(dispatcher) == before
    await source.publish([3])
    await fleet.work()
    assert (await watch(dispatcher, building)).settled
    tasks = await dispatcher.value(
        "select count(*) from any_task t join job_version_run r using (job_version_id) where r.run_state = 'retired'"
    )
    again = await deploy(dispatcher, CHANGED)
    assert again.version == building.version + 1
    await fleet.catch_up()
    assert state((await watch(dispatcher, again)).deployment) == "active"
    copies = (await served(dispatcher))["copies"]
    assert await dispatcher.value("select count(*) from event where dataset_version_id = %s", copies) == 3
    made = await dispatcher.value(
        "select count(*) from any_task t join job_output o using (job_version_id) where o.dataset_version_id = %s",
        copies,
    )
    assert made == 3, f"{tasks} tasks were there: only what it missed was run"


async def test_in_flight_tasks_of_the_former_version_are_told_and_fenced(
    dispatcher: InProcess, source: Source, fleet: Fleet
) -> None:
    await source.publish([1])
    await fleet.work()
    await deploy(dispatcher, CHANGED)
    await fleet.work()
    while await dispatcher.replay():
        pass
    await fleet.work()
    await source.publish([2])
    await dispatcher.release()
    workers: list[tuple[Worker, TaskLease, str]] = []
    for task_id, job, run_state in await dispatcher.rows(
        "select t.task_id::text, j.job, r.run_state::text from task t join job_version j using (job_version_id)"
        " join job_version_run r using (job_version_id) where t.state = 'released' and j.job in ('copies', 'apart')"
    ):
        worker = Worker(dispatcher)
        workers.append((worker, worker.lease(await worker.claim_one(task_id)), f"{job} {run_state}"))
    await dispatcher.run("delete from watermark where dataset_version_id in (select dataset_version_id from pointer)")
    building = (await dispatcher.dags.ListDagHistory(pb.ListDagHistoryRequest(dag="chain"))).deployments[0]
    # It does not wait for the staged version's task that is in work.
    over = pb.CutOverDagRequest(deployment_id=building.deployment_id, watermarks_may_go_back=True)
    await dispatcher.dags.CutOverDag(over)
    answers = {
        what: (await worker.beat(worker_pb.HeartbeatItem(lease=lease)), await worker.complete(success(lease)))
        for worker, lease, what in workers
    }
    assert answers["copies running"] == (["cancel"], ["TASK_CANCELED"])
    assert answers["copies staged"] == (["continue"], ["succeeded"])
    assert answers["apart running"] == (["continue"], ["succeeded"])
    for worker, lease, what in workers:
        if what == "copies running":
            (emitted,) = await worker.emit(EmitItem(tasks=[lease], events=[event("copies", at(2))]))
            assert verdict(emitted) == "TASK_CANCELED"
