"""What has to happen for a planted bug of changes to show; otherwise as in `scenarios`. `copies` is what changes."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta

from dispatcher.collecting.collector import Collector
from dispatcher.collecting.reach import Retention
from dispatcher.deploy.advancing import advance
from kernel.ids import new_id
from tests.chaos.stage import Stage
from tests.dispatcher.builders import CHAIN, Worker, int64
from tests.dispatcher.changing import Fleet, deploy, roll_back, served
from tests.dispatcher.giving_up import age
from tests.dispatcher.switches.builds import work_one_of_staged
from traceapi.control.v1 import dataset_service_pb2 as datasets
from traceapi.control.v1 import source_service_pb2 as sources
from traceapi.types.v1.scope_pb2 import CursorRange
from traceapi.worker.v1.emit_pb2 import EmitItem

_CHANGED = CHAIN.replace("select number from", "select number + 1 as number from")
_CHANGED_AGAIN = CHAIN.replace("select number from", "select number + 2 as number from")
_READER = (
    "dag: reader\njobs:\n  follow: {operator: splitter, inputs: {copies: {}}, outputs: {followed: {storage: none}}}\n"
)
_NAMES = ["blocks", "copies"]


async def a_change_takes_over(stage: Stage) -> None:
    await stage.source.publish([1])
    await _take_over(stage, _CHANGED)


async def a_change_is_not_built_yet(stage: Stage) -> None:
    await stage.source.publish([1])
    await Fleet(stage.dispatcher).work("copies")
    await deploy(stage.dispatcher, _CHANGED)
    await advance(stage.dispatcher.pool, lambda: None)


async def a_zombie_of_what_was_rolled_back(stage: Stage) -> None:
    worker, item = await _at_work_when_it_is_taken_back(stage)
    await worker.emit(item)


async def a_zombie_of_what_was_restored(stage: Stage) -> None:
    worker, item = await _at_work_when_it_is_taken_back(stage)
    await roll_back(stage.dispatcher)
    await worker.emit(item)


async def a_rollback_after_more_has_come(stage: Stage) -> None:
    await a_change_takes_over(stage)
    await stage.source.publish([2])
    await roll_back(stage.dispatcher)
    await Fleet(stage.dispatcher).work("copies")


async def a_reader_follows_a_cutover(stage: Stage) -> None:
    await stage.source.publish([1])
    await Fleet(stage.dispatcher).work("copies")
    await _read_copies(stage)
    await _take_over(stage, _CHANGED)


async def a_pointer_brings_a_scope_that_its_reader_has_not_had(stage: Stage) -> None:
    await stage.source.publish([1])
    fleet = Fleet(stage.dispatcher)
    await fleet.work("copies")
    await _read_copies(stage)
    await deploy(stage.dispatcher, _CHANGED)
    await _replay(stage)
    await stage.source.publish([2])
    for _ in range(2):  # of what is active nobody does the second
        await work_one_of_staged(stage.dispatcher, fleet, "copies")
    await stage.dispatcher.derive()
    await advance(stage.dispatcher.pool, lambda: None)
    await _replay(stage)


async def a_backfill_is_asked_for_twice(stage: Stage) -> None:
    await stage.source.publish([1])
    fleet = Fleet(stage.dispatcher)
    await fleet.work("copies")
    scopes = CursorRange(first=int64(1), last=int64(1))
    request = sources.BackfillJobRequest(dag="chain", job="copies", range=scopes, request_id=new_id())
    for _ in range(2):
        number = stage.history.began("BackfillJob", request)
        stage.history.ended(number, "OK", await stage.dispatcher.sources.BackfillJob(request))
        await fleet.work("copies")


async def what_is_pinned_is_given_up(stage: Stage) -> None:
    await stage.source.publish([1])
    await Fleet(stage.dispatcher).work("copies")
    await stage.dispatcher.datasets.PinDatasets(datasets.PinDatasetsRequest(names=_NAMES))
    former = await served(stage.dispatcher)
    await _take_over(stage, _CHANGED)
    await _take_over(stage, _CHANGED_AGAIN)
    await _give_up(stage, former["copies"])


async def what_a_rollback_may_restore_is_given_up(stage: Stage) -> None:
    await stage.source.publish([1])
    former = await served(stage.dispatcher)
    await _take_over(stage, _CHANGED)
    await _give_up(stage, former["copies"])


async def the_store_is_looked_through(stage: Stage) -> None:
    await stage.source.publish([1])
    await Fleet(stage.dispatcher).work("copies")
    async for _ in _collector(stage).sweep("a test", dry_run=False):
        pass


SCENARIOS: Mapping[str, Callable[[Stage], Awaitable[None]]] = {
    scenario.__name__: scenario
    for scenario in (
        a_change_takes_over,
        a_change_is_not_built_yet,
        a_zombie_of_what_was_rolled_back,
        a_zombie_of_what_was_restored,
        a_rollback_after_more_has_come,
        a_reader_follows_a_cutover,
        a_pointer_brings_a_scope_that_its_reader_has_not_had,
        a_backfill_is_asked_for_twice,
        what_is_pinned_is_given_up,
        what_a_rollback_may_restore_is_given_up,
        the_store_is_looked_through,
    )
}


async def _read_copies(stage: Stage) -> None:
    """Another DAG does, and has been given what there is."""
    await stage.dispatcher.deploy(_READER)
    await _replay(stage)


async def _replay(stage: Stage) -> None:
    while await stage.dispatcher.replay():
        pass


async def _take_over(stage: Stage, document: str) -> None:
    await deploy(stage.dispatcher, document)
    await _replay(stage)
    await Fleet(stage.dispatcher).work("copies")
    await stage.dispatcher.derive()
    await advance(stage.dispatcher.pool, lambda: None)


async def _at_work_when_it_is_taken_back(stage: Stage) -> tuple[Worker, EmitItem]:
    """A worker of the changed version that knows nothing of the rollback, and what it has to say."""
    await a_change_takes_over(stage)
    await stage.source.publish([2])
    await stage.dispatcher.release()
    worker = Worker(stage.dispatcher)
    claimed = await worker.claim_one(
        await stage.dispatcher.value(
            "select t.task_id::text from task t join job_version j using (job_version_id)"
            " where j.job = 'copies' and t.state = 'released'"
        )
    )
    item = await stage.copy(worker.lease(claimed), 2)
    await roll_back(stage.dispatcher)
    return worker, item


async def _give_up(stage: Stage, version_id: str) -> None:
    await age(stage.dispatcher, 90)
    await _collector(stage).condemn([version_id], "a test")


def _collector(stage: Stage) -> Collector:
    return Collector(stage.dispatcher.pool, stage.dispatcher.store, Retention(timedelta(0), 1, timedelta(0)))
