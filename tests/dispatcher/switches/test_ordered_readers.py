"""Ordered jobs of other DAGs follow a pointer: what they had of the version before, they pass by, on record."""

import pytest

from tests.dispatcher.builders import Source, Worker, success
from tests.dispatcher.changing import CHANGED, Fleet, deploy, roll_back
from tests.dispatcher.in_process import InProcess
from traceapi.control.v1 import dataset_service_pb2 as datasets

READER = """\
dag: reader
jobs:
  sums: {operator: aggregator, inputs: {copies: {}}, config: {size: 100}, outputs: {sums: {storage: none}}}
"""
# The ordered job is not the one that follows the pointer: it is downstream of that.
BEHIND = """\
dag: reader
jobs:
  mine: {operator: splitter, inputs: {copies: {}}, outputs: {mine: {storage: none}}}
  sums: {operator: aggregator, inputs: {mine: {}}, config: {size: 100}, outputs: {sums: {storage: none}}}
"""


async def _fold(dispatcher: InProcess) -> list[int]:
    """Does what the ordered job may do now, one run; answers its scopes."""
    await dispatcher.release()
    head = await dispatcher.rows(
        "select task_id::text from task join job_version using (job_version_id)"
        " where job = 'sums' and state = 'released'"
    )
    if not head:
        return []
    worker = Worker(dispatcher)
    response = await worker.claim([head[0][0]])
    if not response.runs:
        return []
    run = response.runs[0]
    results = await worker.complete(*[success(lease, stream=run.stream) for lease in worker.leases(run)])
    assert set(results) == {"succeeded"}
    return [task.scope.cursor.int64_value for task in run.tasks]


async def _work(dispatcher: InProcess) -> None:
    """All that may be done, by everybody."""
    fleet = Fleet(dispatcher)
    await fleet.catch_up("blocks", "copies", "echo", "apart", "mine")
    while await _fold(dispatcher):
        await fleet.catch_up("blocks", "copies", "echo", "apart", "mine")


async def _tasks(dispatcher: InProcess) -> list[tuple[int, str]]:
    rows = await dispatcher.rows(
        "select t.scope_first, t.state::text from any_task t join job_version j using (job_version_id)"
        " where j.job = 'sums' order by t.task_id"
    )
    return [(int.from_bytes(key, "big") - 2**63, state) for key, state in rows]


async def _edge(dispatcher: InProcess) -> datasets.LineageEdge:
    answer = await dispatcher.datasets.GetLineage(datasets.GetLineageRequest(dataset_id="sums"))
    return next(edge for edge in answer.edges if edge.job == "sums")


async def _switch_and_back(dispatcher: InProcess, source: Source, reader: str) -> None:
    """The reader has had 1 to 4, of which 3 and 4 of a version that is taken back then."""
    await source.publish([1, 2])
    await _work(dispatcher)
    await dispatcher.deploy(reader)
    await _work(dispatcher)
    await deploy(dispatcher, CHANGED)
    await _work(dispatcher)
    await source.publish([3, 4])
    await _work(dispatcher)
    done = [(number, "succeeded") for number in (1, 2, 3, 4)]
    assert await _tasks(dispatcher) == done
    await roll_back(dispatcher)
    await source.publish([5])
    await _work(dispatcher)


@pytest.mark.parametrize("reader", [READER, BEHIND])
async def test_what_a_restored_version_catches_up_on_is_passed_by_where_it_was_had(
    dispatcher: InProcess, source: Source, reader: str
) -> None:
    await _switch_and_back(dispatcher, source, reader)
    assert sorted(await _tasks(dispatcher)) == [
        (1, "succeeded"),
        (2, "succeeded"),
        (3, "skipped"),
        (3, "succeeded"),
        (4, "skipped"),
        (4, "succeeded"),
        (5, "succeeded"),
    ]
    edge = await _edge(dispatcher)
    assert (edge.outdated, edge.passed_scope_count) == (True, 2)
    skipped = await dispatcher.rows("select distinct reason from any_task where state = 'skipped'")
    assert skipped == [("its stream had this scope of a version of copies that was served before, and cannot go back",)]


async def test_what_the_source_itself_brings_late_is_still_refused(dispatcher: InProcess, source: Source) -> None:
    await _switch_and_back(dispatcher, source, READER)
    await source.publish([0], watermark=False)
    await _work(dispatcher)
    assert (0, "dead") in await _tasks(dispatcher)


async def test_one_scope_of_both_versions_that_waits_is_done_once(dispatcher: InProcess, source: Source) -> None:
    """The reader is behind: the scope waits for it of the one version when the other one makes it too."""
    await source.publish([1])
    await _work(dispatcher)
    await dispatcher.deploy(READER)
    await _work(dispatcher)
    await deploy(dispatcher, CHANGED)
    await _work(dispatcher)
    await source.publish([2, 3])
    fleet = Fleet(dispatcher)
    await fleet.work("copies", "echo", "apart")
    await roll_back(dispatcher)
    while await dispatcher.replay():
        pass
    await fleet.work("copies", "echo", "apart")
    assert sorted(number for number, state in await _tasks(dispatcher) if state != "succeeded") == [2, 2, 3, 3]
    await _work(dispatcher)
    assert sorted(await _tasks(dispatcher)) == [
        (1, "succeeded"),
        (2, "skipped"),
        (2, "succeeded"),
        (3, "skipped"),
        (3, "succeeded"),
    ]
