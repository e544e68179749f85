"""What is served has the last word, also where both versions' events come to a reader by replays."""

import pytest

from dispatcher.db.errors import TransactionFailed
from dispatcher.db.rows import Connection
from dispatcher.events import replay_rows
from dispatcher.events.rows import Replay, ReplayedPage
from kernel.ids import new_id
from tests.dispatcher.builders import Source, int64
from tests.dispatcher.changing import CHANGED, PIPELINE, Fleet, deploy, roll_back, served
from tests.dispatcher.in_process import InProcess
from tests.dispatcher.switches.test_replays_of_readers import OWNERS, STORED, nothing_replayed_to_the_reader
from traceapi.control.v1 import dag_service_pb2 as pb
from traceapi.control.v1.source_service_pb2 import BackfillJobRequest
from traceapi.types.v1.scope_pb2 import CursorRange

OF_SCOPE_1 = (
    "select e.dataset_version_id::text, t.task_id::text from task t join job_version j using (job_version_id)"
    " join event e using (event_id) where j.job = 'mine' and get_byte(t.scope_first, 7) = 1 order by t.revision"
)
INSTEAD_OF = (
    "select instead_of_version_id::text from subscription join job_version using (job_version_id)"
    " where job = 'mine' and to_number is null"
)
VISIBLE = (
    "select a.producer_task_id::text from artifact a join dataset_version v using (dataset_version_id)"
    " where v.dataset_id = 'mine' and a.removed_publication_id is null"
)


async def _copies(dispatcher: InProcess) -> str:
    """The version that is served."""
    return (await served(dispatcher))["copies"]


async def _replay(dispatcher: InProcess) -> None:
    while await dispatcher.replay():
        pass


async def test_a_replay_of_what_is_served_again_hides_what_the_other_version_left_undone(
    dispatcher: InProcess, source: Source, fleet: Fleet
) -> None:
    await source.publish([1])
    await fleet.work()
    await dispatcher.deploy(STORED)
    async with nothing_replayed_to_the_reader(dispatcher):
        await source.publish([2])  # so that what the reader is owed of the first version is another interval's later
        await fleet.catch_up(*OWNERS)
        first = await _copies(dispatcher)
        await deploy(dispatcher, CHANGED)
        await fleet.catch_up(*OWNERS)
        await fleet.catch_up(*OWNERS)
    await _replay(dispatcher)
    await roll_back(dispatcher)
    await _replay(dispatcher)
    (_, gone), (version, back) = await dispatcher.rows(OF_SCOPE_1)
    assert version == first
    await fleet.do(back)
    await fleet.do(gone)  # it was in backoff, say
    assert await dispatcher.rows(VISIBLE) == [(back,)]


async def test_a_page_of_what_is_not_served_any_more_is_undone_where_it_would_count_as_newer(
    dispatcher: InProcess, source: Source, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    await source.publish([1])
    await fleet.work()
    await dispatcher.deploy(STORED)
    built = await deploy(dispatcher, CHANGED, hold=True)
    async with nothing_replayed_to_the_reader(dispatcher):
        await fleet.catch_up(*OWNERS)
    right = replay_rows.replay_events

    async def after_a_switch(connection: Connection, replay: Replay, limit: int) -> ReplayedPage | None:
        """The version that is served by then makes the scope once more before the page does."""
        monkeypatch.setattr(replay_rows, "replay_events", right)
        await dispatcher.dags.CutOverDag(pb.CutOverDagRequest(deployment_id=built.deployment_id))
        request = BackfillJobRequest(dag="chain", job="copies", request_id=new_id())
        request.range.CopyFrom(CursorRange(first=int64(1), last=int64(1)))
        await dispatcher.sources.BackfillJob(request)
        await fleet.work("copies")
        return await right(connection, replay, limit)

    monkeypatch.setattr(replay_rows, "replay_events", after_a_switch)
    with pytest.raises(TransactionFailed):
        await dispatcher.replay()
    await _replay(dispatcher)
    assert {version for version, _ in await dispatcher.rows(OF_SCOPE_1)} == {await _copies(dispatcher)}


async def test_what_comes_back_takes_the_place_of_what_was_read_last(
    dispatcher: InProcess, source: Source, fleet: Fleet
) -> None:
    """Not of what it took the place of before."""
    await source.publish([1])
    await fleet.work()
    await dispatcher.deploy(STORED)
    await fleet.catch_up()
    for document in (CHANGED, CHANGED.replace("+ 1", "+ 2")):
        await deploy(dispatcher, document)
        await fleet.catch_up()
        await fleet.catch_up()
        last = await _copies(dispatcher)
        await deploy(dispatcher, PIPELINE)
        await fleet.catch_up()
        await fleet.catch_up()
    assert await dispatcher.value(INSTEAD_OF) == last
