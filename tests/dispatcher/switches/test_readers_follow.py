"""Jobs of other DAGs follow the pointer of what they read: nothing is left out, and no backlog is started in them."""

import pytest

from tests.dispatcher.builders import Source
from tests.dispatcher.changing import CHANGED, PIPELINE, Fleet, deploy, roll_back, run_states, served, state
from tests.dispatcher.in_process import InProcess
from traceapi.control.v1 import dag_service_pb2 as dags
from traceapi.control.v1 import dataset_service_pb2 as datasets

READER = """\
dag: reader
jobs:
  mine: {operator: splitter, inputs: {copies: {}}, outputs: {mine: {storage: none}}}
"""


async def _read(dispatcher: InProcess) -> list[int]:
    """The scopes that the reader has had, in the order of its tasks."""
    rows = await dispatcher.rows(
        "select t.scope_first from any_task t join job_version j using (job_version_id) where j.dag = 'reader'"
        " order by t.scope_first"
    )
    return [int.from_bytes(key, "big") - 2**63 for (key,) in rows]


async def _outdated(dispatcher: InProcess) -> bool:
    answer = await dispatcher.datasets.GetLineage(datasets.GetLineageRequest(dataset_id="mine"))
    return any(edge.outdated for edge in answer.edges if edge.from_dataset_id == "copies" and edge.dag == "reader")


async def test_a_reader_is_owed_no_scope_that_it_had_of_the_version_before(
    dispatcher: InProcess, source: Source
) -> None:
    fleet = Fleet(dispatcher)
    await source.publish([1, 2])
    await fleet.work()
    await dispatcher.deploy(READER)
    await fleet.catch_up()
    assert await _read(dispatcher) == [1, 2]
    await deploy(dispatcher, CHANGED)
    await fleet.catch_up()
    await source.publish([3])
    await fleet.catch_up()
    assert await _read(dispatcher) == [1, 2, 3]
    assert await _outdated(dispatcher)
    copies = (await served(dispatcher))["copies"]
    bound = (
        "select distinct dataset_version_id::text from input_binding b"
        " join dag d on d.active_version_id = b.dag_version_id where d.dag = 'reader'"
    )
    assert await dispatcher.rows(bound) == [(copies,)]
    await roll_back(dispatcher)
    await source.publish([4])
    await fleet.catch_up()
    assert await _read(dispatcher) == [1, 2, 3, 3, 4], "the restored version made scope 3 after it was restored"
    assert not await _outdated(dispatcher)


async def test_a_dataset_that_others_read_is_not_left_out(dispatcher: InProcess, source: Source) -> None:
    await dispatcher.deploy(READER)
    without = PIPELINE.replace("copies: {schema", "doubles: {schema").replace("{copies: {}}", "{doubles: {}}")
    with pytest.raises(Exception, match="which DAG reader reads"):
        await deploy(dispatcher, without)


async def test_a_dag_that_others_read_is_removed_only_when_told(dispatcher: InProcess, source: Source) -> None:
    fleet = Fleet(dispatcher)
    await source.publish([1])
    await fleet.work()
    await dispatcher.deploy(READER)
    before = await served(dispatcher)
    with pytest.raises(Exception, match="reader reads datasets of chain"):
        await dispatcher.dags.RemoveDag(dags.RemoveDagRequest(dag="chain"))
    assert await run_states(dispatcher) == {job: ["running"] for job in ("apart", "blocks", "copies", "echo")}
    answer = await dispatcher.dags.RemoveDag(dags.RemoveDagRequest(dag="chain", despite_readers=True))
    assert list(answer.reader_dags) == ["reader"]
    assert await run_states(dispatcher) == {job: ["retired"] for job in ("apart", "blocks", "copies", "echo")}
    assert await served(dispatcher) == before, "what it served can be read"
    assert [one.dag for one in (await dispatcher.dags.ListDags(dags.ListDagsRequest())).dags] == ["reader"]


async def test_a_removed_dag_that_is_deployed_again_goes_on(dispatcher: InProcess, source: Source) -> None:
    fleet = Fleet(dispatcher)
    await source.publish([1])
    await dispatcher.dags.RemoveDag(dags.RemoveDagRequest(dag="chain"))
    assert await fleet.work() == []
    assert state(await deploy(dispatcher, PIPELINE)) == "active"
    assert await run_states(dispatcher) == {job: ["running"] for job in ("apart", "blocks", "copies", "echo")}
    assert sorted(await fleet.work()) == ["apart", "copies", "echo"]
    assert await dispatcher.value("select count(*) from task where origin = 'source_run'") == 1
