"""A change is taken back in one transaction, and what was before comes back and misses nothing."""

from kernel.ids import new_id
from tests.dispatcher.builders import Source
from tests.dispatcher.changing import (
    CHANGED,
    PIPELINE,
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
from traceapi.control.v1 import task_service_pb2 as tasks_pb
from traceapi.types.v1.task_pb2 import TaskState


async def test_a_rollback_restores_what_was_and_runs_what_it_missed(
    dispatcher: InProcess, source: Source, fleet: Fleet
) -> None:
    await source.publish([1])
    await fleet.work()
    before = await served(dispatcher)
    await deploy(dispatcher, CHANGED)
    await fleet.catch_up()
    changed = await served(dispatcher)
    await source.publish([2])
    await fleet.work()
    await source.publish([3])
    back = await roll_back(dispatcher)
    assert (state(back.deployment), back.deployment.version) == ("active", 1)
    assert back.lag_event_count == 2
    assert await served(dispatcher) == before
    assert await run_states(dispatcher) == {
        "apart": ["running"],
        "blocks": ["running"],
        "copies": ["running", "rolled_back"],
        "echo": ["running", "rolled_back"],
    }
    await source.publish([4])
    await fleet.catch_up()
    for dataset in ("copies", "echoes"):
        events = await dispatcher.rows(
            "select scope_first from event where dataset_version_id = %s order by 1", before[dataset]
        )
        assert [int.from_bytes(key, "big") - 2**63 for (key,) in events] == [1, 2, 3, 4]
    assert await missing(dispatcher) == 0
    shown = await dispatcher.tasks.ListTasks(
        tasks_pb.ListTasksRequest(filter=tasks_pb.TaskFilter(job="copies", states=[TaskState.TASK_STATE_CANCELED]))
    )
    assert {task.reason for task in shown.tasks} == {"a rollback took its job version back"}
    history = await dispatcher.rows("select version, state::text from dag_version order by version")
    assert history == [(1, "active"), (2, "rolled_back")]
    again = await roll_back(dispatcher)
    assert again.deployment.version == 2
    assert await served(dispatcher) == changed
    await fleet.catch_up()
    assert await dispatcher.value("select count(*) from event where dataset_version_id = %s", changed["echoes"]) == 4


async def test_a_repeated_rollback_gets_the_first_answer(dispatcher: InProcess, source: Source, fleet: Fleet) -> None:
    await deploy(dispatcher, CHANGED)
    await fleet.catch_up()
    request_id = new_id()
    first = await roll_back(dispatcher, request_id=request_id)
    again = await roll_back(dispatcher, request_id=request_id)
    assert again.deployment == first.deployment
    assert await dispatcher.value("select deploy_number from deploy_counter") == 3
    call = pb.RollbackDagRequest(dag="chain", to_version=2, request_id=request_id)
    assert await refusal(dispatcher.dags.RollbackDag(call)) == "REQUEST_ID_REUSED"


async def test_a_rollback_during_a_deploy_aborts_it(dispatcher: InProcess, source: Source, fleet: Fleet) -> None:
    await source.publish([1])
    await deploy(dispatcher, CHANGED)
    await fleet.catch_up()
    building = await deploy(dispatcher, CHANGED.replace("+ 1", "+ 2"))
    assert state(building) == "building"
    back = await roll_back(dispatcher)
    assert back.deployment.version == 1
    assert state((await watch(dispatcher, building)).deployment) == "aborted"
    assert (await run_states(dispatcher))["copies"] == ["running", "rolled_back", "retired"]


async def test_a_rollback_that_cannot_be_is_refused_with_the_reason(dispatcher: InProcess, source: Source) -> None:
    calls = dispatcher.dags
    first = pb.RollbackDagRequest(dag="chain", request_id=new_id())
    assert await refusal(calls.RollbackDag(first)) == "DEPLOYMENT_NOT_FOUND"
    assert await refusal(calls.RollbackDag(pb.RollbackDagRequest(dag="chian", request_id=new_id()))) == "DAG_NOT_FOUND"
    await deploy(dispatcher, CHANGED, hold=True)
    never = pb.RollbackDagRequest(dag="chain", to_version=2, request_id=new_id())
    assert await refusal(calls.RollbackDag(never)) == "DEPLOYMENT_FINAL"
    assert await dispatcher.value("select count(*) from activation") == 1


async def test_deploying_what_was_before_runs_only_what_it_missed(
    dispatcher: InProcess, source: Source, fleet: Fleet
) -> None:
    """A, B, A: the third deploy takes the first one's versions up again."""
    await source.publish([1, 2])
    await fleet.work()
    before = await served(dispatcher)
    await deploy(dispatcher, CHANGED)
    await fleet.catch_up()
    await source.publish([3])
    await fleet.work()
    third = await deploy(dispatcher, PIPELINE)
    assert state(third) == "building"
    while await dispatcher.replay():
        pass
    done = await fleet.work()
    assert sorted(done) == ["copies", "echo"]
    await fleet.catch_up()
    assert state((await watch(dispatcher, third)).deployment) == "active"
    assert await served(dispatcher) == before
    assert await missing(dispatcher) == 0


async def test_every_switch_is_on_record(dispatcher: InProcess, source: Source, fleet: Fleet) -> None:
    building = await deploy(dispatcher, CHANGED)
    await fleet.catch_up()
    await roll_back(dispatcher)
    held = await deploy(dispatcher, CHANGED.replace("+ 1", "+ 2"), hold=True)
    await dispatcher.dags.AbortDeployment(pb.AbortDeploymentRequest(deployment_id=held.deployment_id))
    rows = await dispatcher.rows(
        "select actor, method, details ->> 'version' from audit where subject = 'chain' order by audit_id"
    )
    assert rows == [
        ("user:tester", "DagService.DeployDag", "1"),
        ("user:tester", "DagService.DeployDag", "2"),
        ("user:tester", "DagService.CutOverDag", str(building.version)),
        ("user:tester", "DagService.RollbackDag", "1"),
        ("user:tester", "DagService.DeployDag", "3"),
        ("user:tester", "DagService.AbortDeployment", "3"),
    ]


async def test_tasks_are_counted_by_job_whatever_versions_it_has(
    dispatcher: InProcess, source: Source, fleet: Fleet
) -> None:
    await source.publish([1])
    await fleet.work()
    await deploy(dispatcher, CHANGED)
    await fleet.catch_up()
    counts = (await dispatcher.tasks.CountTasks(tasks_pb.CountTasksRequest(dag="chain"))).counts
    of_copies = [(count.state, count.count) for count in counts if count.job == "copies"]
    assert of_copies == [(TaskState.TASK_STATE_SUCCEEDED, 2)]
