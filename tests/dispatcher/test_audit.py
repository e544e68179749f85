"""The audit: what was done, by whom and by which plan; nothing of it can be taken away."""

import psycopg
import pytest
import pytest_asyncio

from dispatcher.audit.entries import METHODS, Action
from dispatcher.db.statements import Statements
from kernel.ids import new_id
from tests.dispatcher.builders import Source, start_source
from tests.dispatcher.changing import CHANGED, PIPELINE, TUNED, Fleet, deploy, roll_back
from tests.dispatcher.commands import words
from tests.dispatcher.in_process import InProcess
from tests.dispatcher.plans import plan_of
from traceapi.control.v1 import change_pb2
from traceapi.control.v1 import dag_service_pb2 as pb
from traceapi.control.v1 import task_service_pb2 as task_pb


@pytest_asyncio.fixture
async def source(dispatcher: InProcess) -> Source:
    """The pipeline is deployed, its source claimed, and three blocks are published."""
    await dispatcher.deploy(PIPELINE)
    source = await start_source(dispatcher)
    await source.publish([1, 2, 3])
    return source


@pytest.fixture
def fleet(dispatcher: InProcess) -> Fleet:
    return Fleet(dispatcher)


async def history(dispatcher: InProcess) -> list[change_pb2.DagChange]:
    """Oldest first."""
    request = change_pb2.ListDagChangesRequest(dag="chain", page_size=1000)
    return list(reversed((await dispatcher.dags.ListDagChanges(request)).changes))


async def plan(dispatcher: InProcess, document: str) -> str:
    source = pb.DagDocument(text=document, file_name="dag.yaml")
    return (await dispatcher.dags.PlanDag(pb.PlanDagRequest(document=source))).plan_id


async def apply(dispatcher: InProcess, plan_id: str, *, hold: bool = False) -> str:
    request = pb.DeployDagRequest(plan_id=plan_id, request_id=new_id(), hold=hold)
    return (await dispatcher.dags.DeployDag(request)).deployment.deployment_id


@pytest.mark.parametrize("statement", ["update audit set actor = 'me'", "delete from audit", "truncate audit"])
async def test_nothing_of_it_is_changed_or_taken_away(dispatcher: InProcess, statement: str) -> None:
    await dispatcher.deploy(PIPELINE)
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match=f"append-only: {statement.split()[0]} is refused"):
        await dispatcher.run(statement)
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
        await dispatcher.run(f"set session_replication_role = replica; {statement}")
    assert await dispatcher.value("select actor from audit") == "user:tester"


def test_actions_are_those_of_the_contract() -> None:
    stated = {name.removeprefix("AUDIT_ACTION_").lower() for name, number in change_pb2.AuditAction.items() if number}
    assert stated == {action.value for action in Action} == {action.value for action in METHODS}


async def test_a_history_names_who_did_what_from_where_to_where_and_by_which_plan(
    dispatcher: InProcess, source: Source, fleet: Fleet
) -> None:
    planned = await plan(dispatcher, CHANGED)
    await apply(dispatcher, planned)
    await fleet.catch_up()  # it cuts over by itself
    await roll_back(dispatcher)
    held_plan = await plan(dispatcher, CHANGED.replace("+ 1", "+ 2"))
    held = await apply(dispatcher, held_plan, hold=True)
    await dispatcher.dags.AbortDeployment(pb.AbortDeploymentRequest(deployment_id=held))
    await deploy(dispatcher, TUNED)
    await dispatcher.dags.RemoveDag(pb.RemoveDagRequest(dag="chain"))
    found = await history(dispatcher)
    assert {change.actor for change in found} == {"user:tester"}
    assert {change.outcome for change in found} == {change_pb2.AUDIT_OUTCOME_DONE}
    assert [(*words(change), change.plan_id) for change in found] == [
        ("deploy", 0, 1, ""),
        ("plan", 1, 0, planned),
        ("deploy", 1, 2, planned),
        ("cut_over", 1, 2, planned),
        ("roll_back", 2, 1, ""),
        ("plan", 1, 0, held_plan),
        ("deploy", 1, 3, held_plan),
        ("abort", 3, 0, held_plan),
        ("deploy", 1, 4, ""),
        ("remove", 4, 0, ""),
    ]
    notes = {words(change): change.note for change in found}
    assert notes["cut_over", 1, 2] == "deploy number 2; by itself"
    assert notes["deploy", 1, 3] == "staged, waits for a cutover by hand"
    assert notes["deploy", 1, 4] == "active at once, deploy number 4"


async def test_a_cutover_by_hand_has_who_asked_and_the_plan_of_its_deploy(
    dispatcher: InProcess, source: Source, fleet: Fleet
) -> None:
    planned = await plan(dispatcher, CHANGED)
    held = await apply(dispatcher, planned, hold=True)
    await dispatcher.run("update dag_version set actor = 'user:another' where dag_version_id = %s", held)
    await fleet.catch_up()
    await dispatcher.dags.CutOverDag(pb.CutOverDagRequest(deployment_id=held))
    last = (await history(dispatcher))[-1]
    assert (words(last), last.actor, last.plan_id) == (("cut_over", 1, 2), "user:tester", planned)
    assert last.note == "deploy number 2"


async def test_a_cutover_by_itself_has_who_deployed(dispatcher: InProcess, source: Source, fleet: Fleet) -> None:
    building = await deploy(dispatcher, CHANGED)
    name = "update dag_version set actor = 'user:another' where dag_version_id = %s"
    await dispatcher.run(name, building.deployment_id)
    await fleet.catch_up()
    last = (await history(dispatcher))[-1]
    assert (words(last), last.actor) == (("cut_over", 1, 2), "user:another")


async def test_what_a_plan_takes_over_without_building_is_on_record(dispatcher: InProcess, source: Source) -> None:
    stated = PIPELINE.replace("  copies:\n", "  copies:\n    execution_strategy: per_update\n")
    document = pb.DagDocument(text=stated, file_name="dag.yaml")
    planned = await dispatcher.dags.PlanDag(pb.PlanDagRequest(document=document, no_rematerialize=True))
    await apply(dispatcher, planned.plan_id)
    last = (await history(dispatcher))[-1]
    assert words(last) == ("deploy", 1, 2)
    assert last.note.endswith("taken over as they are: copies")


async def test_a_build_that_is_told_to_wait_is_on_record(dispatcher: InProcess, source: Source) -> None:
    await deploy(dispatcher, CHANGED)
    await deploy(dispatcher, CHANGED, hold=True)
    last = (await history(dispatcher))[-1]
    assert (words(last), last.actor) == (("hold", 0, 2), "user:tester")


async def test_a_history_comes_in_pages(dispatcher: InProcess) -> None:
    await dispatcher.deploy(PIPELINE)
    for _ in range(4):
        await dispatcher.dags.PauseDag(pb.PauseDagRequest(dag="chain"))
    token = ""
    sizes: list[int] = []
    numbers: list[int] = []
    while not sizes or token:
        request = change_pb2.ListDagChangesRequest(dag="chain", page_size=2, page_token=token)
        page = await dispatcher.dags.ListDagChanges(request)
        token = page.next_page_token
        sizes.append(len(page.changes))
        numbers += [change.audit_id for change in page.changes]
    assert sizes == [2, 2, 1]
    assert numbers == sorted(set(numbers), reverse=True)


async def test_entries_of_the_release_before_are_part_of_the_history(dispatcher: InProcess) -> None:
    await dispatcher.run(
        "insert into audit (actor, method, subject, details)"
        """ values ('user:old', 'DagService.RollbackDag', 'chain', '{"version": 7}')"""
    )
    (change,) = await history(dispatcher)
    assert (change.method, change.to_version, change.actor) == ("DagService.RollbackDag", 7, "user:old")
    assert change.action == change_pb2.AUDIT_ACTION_UNSPECIFIED


async def test_changes_of_tasks_are_part_of_the_history_of_their_dags(dispatcher: InProcess, source: Source) -> None:
    """Though the filter names no DAG."""
    chosen = task_pb.TaskFilter(job="apart")
    await dispatcher.tasks.CancelTasks(task_pb.CancelTasksRequest(filter=chosen, reason="no use"))
    last = (await history(dispatcher))[-1]
    assert (words(last)[0], list(last.dags), last.task_count, last.note) == ("cancel", ["chain"], 3, "no use")


@pytest.mark.slow
async def test_a_history_is_found_among_those_of_others(dispatcher: InProcess) -> None:
    """A few entries of one DAG among 10^5 of others, and the newest of one that has nearly all."""
    await dispatcher.deploy(PIPELINE)
    await dispatcher.run(
        "insert into audit (actor, method, action, subject, dags)"
        " select 'user:a', 'DagService.PauseDag', 'pause', d, array[d] from generate_series(1, 100000) n"
        " cross join lateral (select case when n % 50 = 0 then 'dag-' || n else 'most' end) x (d)"
    )
    await dispatcher.run("analyze audit")
    statements = Statements.load("dispatcher.audit")
    looks: list[tuple[str, dict[str, object]]] = [
        (statements.entries_of_dag, {"dag": dag, "before": None, "limit": 100}) for dag in ("chain", "most")
    ]
    looks.append((statements.removal, {"dag": "chain"}))
    for statement, parameters in looks:
        nodes = await plan_of(dispatcher, statement, analyze=True, **parameters)
        read = [
            (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
            for node in nodes
            if node.get("Relation Name") == "audit"
        ]
        assert max(read) < 1_000, nodes
