"""The steps of deploys, cutovers, aborts, rollbacks and re-runs, and of the collector."""

import uuid
from datetime import timedelta

from dispatcher.collecting.condemning import condemn
from dispatcher.collecting.sweep import Sweeper
from dispatcher.deploy import barrier
from dispatcher.deploy.advancing import advance
from kernel.ids import new_id
from tests.crashing.step import Arguments, Scene, Step, places, started
from tests.dispatcher.builders import int64
from tests.dispatcher.changing import CHANGED, Fleet, deploy
from tests.dispatcher.giving_up import NO_GRACE, collector, fill, remove_all, replace
from traceapi.control.v1 import dag_service_pb2 as pb
from traceapi.control.v1.source_service_pb2 import BackfillJobRequest
from traceapi.types.v1.scope_pb2 import CursorRange

_ACTOR = "a dying dispatcher"
_BUILT = frozenset(
    {
        "dag_version",
        "dag_version_dataset",
        "dag_version_job",
        "dataset_head",
        "dataset_version",
        "input_binding",
        "job_output",
        "job_version",
        "job_version_run",
        "virtual_dependency",
    }
)
"""To what a deploy adds before it stages a version."""
_GIVEN_UP = frozenset({"dag_version", "dag_version_dataset", "dag_version_job", "input_binding"})
"""Where a build that went no further stands until a later deploy."""


async def _to_change(scene: Scene) -> Arguments:
    await started(scene)
    return [new_id()]


async def _change(scene: Scene, arguments: Arguments) -> None:
    document = pb.DagDocument(text=CHANGED, file_name="dag.yaml")
    await scene.dispatcher.dags.DeployDag(pb.DeployDagRequest(document=document, request_id=arguments[0]))


async def _staged(scene: Scene) -> Arguments:
    await started(scene)
    return [(await deploy(scene.dispatcher, CHANGED)).deployment_id]


async def _replay(scene: Scene, _: Arguments) -> None:
    while await scene.dispatcher.replay():
        pass


async def _caught_up(scene: Scene) -> Arguments:
    arguments = await _staged(scene)
    await _replay(scene, arguments)
    await Fleet(scene.dispatcher).work()
    await barrier.note_passed(scene.dispatcher.pool, arguments[0])
    return arguments


async def _cut_over(scene: Scene, _: Arguments) -> None:
    await advance(scene.dispatcher.pool, lambda: None)


async def _abort(scene: Scene, arguments: Arguments) -> None:
    await scene.dispatcher.dags.AbortDeployment(pb.AbortDeploymentRequest(deployment_id=arguments[0]))


async def _changed(scene: Scene) -> Arguments:
    await _cut_over(scene, await _caught_up(scene))
    return [new_id()]


async def _roll_back(scene: Scene, arguments: Arguments) -> None:
    await scene.dispatcher.dags.RollbackDag(pb.RollbackDagRequest(dag="chain", request_id=arguments[0]))


async def _rerun(scene: Scene, arguments: Arguments) -> None:
    request = BackfillJobRequest(dag="chain", job="copies", request_id=arguments[0])
    request.range.CopyFrom(CursorRange(first=int64(1), last=int64(3)))
    await scene.dispatcher.sources.BackfillJob(request)


async def _given_up(scene: Scene) -> Arguments:
    await fill(scene.dispatcher, [1, 2, 3])
    return (await replace(scene.dispatcher)).ids


async def _condemn(scene: Scene, arguments: Arguments) -> None:
    await condemn(scene.dispatcher.pool, NO_GRACE, arguments, _ACTOR)


async def _condemned(scene: Scene) -> Arguments:
    await fill(scene.dispatcher, [1, 2, 3])
    former = await replace(scene.dispatcher)
    await _condemn(scene, former.ids)
    return [*former.ids, *former.jobs, *former.tasks]


async def _collect(scene: Scene, _: Arguments) -> None:
    await remove_all(collector(scene.dispatcher))


async def _littered(scene: Scene) -> Arguments:
    await started(scene)
    lost = [f"data/{new_id()}/{uuid.uuid4()}-1-0.parquet" for _ in range(3)]
    for key in lost:
        scene.dispatcher.store.put_bytes(key, b"x")
    return lost


async def _sweep(scene: Scene, _: Arguments) -> None:
    async for _swept in Sweeper(scene.dispatcher.pool, scene.dispatcher.store, timedelta(0)).sweep(
        _ACTOR, dry_run=False
    ):
        pass


_DEPLOY = Step(_to_change, _change, added_to=_BUILT, left_behind=_GIVEN_UP, numbering=frozenset({"audit"}))
_COLLECT = Step(_condemned, _collect, unseen=frozenset({"dag_version"}), parted=True)
_SWEEP = Step(_littered, _sweep, parted=True, left_behind=frozenset({"audit"}))

POINTS = {
    **places(_DEPLOY, before=("deploy.page", "deploy.written"), after=("deploy.committed",)),
    **places(Step(_staged, _replay), before=("replay.written",)),
    **places(Step(_caught_up, _cut_over), before=("cutover.written",), after=("cutover.committed",)),
    **places(Step(_staged, _abort), before=("abort.written",)),
    **places(Step(_changed, _roll_back), before=("rollback.written",), after=("rollback.committed",)),
    **places(Step(_to_change, _rerun), before=("rerun.written",)),
    **places(Step(_given_up, _condemn), before=("condemn.written",), after=("condemn.committed",)),
    **places(_COLLECT, before=("collect.files", "collect.written", "collect.committed", "collect.finished")),
    **places(_SWEEP, before=("sweep.deleted",)),
}
"""By crash point."""
