"""The steps of tasks, from their release to their end, of workers, and of the artifact store."""

import asyncio
import os
import uuid
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import timedelta

from dispatcher.tasks.keeping import Keeper, Keeping
from kernel.channels import aio_channel
from kernel.ids import new_id
from tests.crashing.step import Arguments, Scene, Step, places, started
from tests.dispatcher.builders import Worker, artifact, at, event, success
from tests.dispatcher.in_process import WORKER, InProcess
from traceapi.types.v1.artifact_pb2 import Artifact
from traceapi.types.v1.task_pb2 import TaskLease
from traceapi.worker.v1 import worker_service_pb2 as pb
from traceapi.worker.v1.emit_pb2 import EmitItem
from wrapper.dispatcher_client import Dispatcher
from wrapper.endings import UnitEnd
from wrapper.outputs.commit import OutputCommitter

_WORKER = "worker-1"


async def _queued(scene: Scene) -> Arguments:
    await (await started(scene)).publish([4])
    return []


async def _release(scene: Scene, _: Arguments) -> None:
    await scene.dispatcher.release()


async def _released(scene: Scene) -> Arguments:
    """Where the dispatcher is, and a claim."""
    await _release(scene, await _queued(scene))
    return [scene.dispatcher.addresses["internal"], new_id(), os.urandom(32).hex(), await _fourth(scene.dispatcher)]


async def _fourth(dispatcher: InProcess) -> str:
    return await dispatcher.task_of("chain", "copies", 4)


async def _claim(scene: Scene, arguments: Arguments) -> None:
    request_id, token, task_id = arguments[1:]
    await Worker(scene.dispatcher, token=bytes.fromhex(token)).claim([task_id], request_id=request_id)


async def _claimed(scene: Scene) -> Arguments:
    """Where the dispatcher is, the lease, and what publishes the task's work."""
    address = (await _released(scene))[0]
    worker = Worker(scene.dispatcher)
    lease = worker.lease(await worker.claim_one(await _fourth(scene.dispatcher)))
    file = await artifact(scene.dispatcher, "copies", at(4), content=b"8 bytes.")
    item = EmitItem(tasks=[lease], artifacts=[file], events=[event("copies", at(4), artifact=0)])
    return [address, lease.SerializeToString().hex(), item.SerializeToString().hex()]


def _lease(arguments: Arguments) -> TaskLease:
    return TaskLease.FromString(bytes.fromhex(arguments[1]))


def _item(arguments: Arguments) -> EmitItem:
    return EmitItem.FromString(bytes.fromhex(arguments[2]))


async def _beat(scene: Scene, arguments: Arguments) -> None:
    await Worker(scene.dispatcher).beat(pb.HeartbeatItem(lease=_lease(arguments)))


async def _settle(scene: Scene, arguments: Arguments) -> None:
    await Worker(scene.dispatcher).end([_item(arguments)], [success(_lease(arguments), 1)])


async def _expired(scene: Scene) -> Arguments:
    arguments = await _claimed(scene)
    await scene.dispatcher.run(
        "update task set lease_until = clock_timestamp() - interval '1 s' where task_id = %s",
        _lease(arguments).task_id,
    )
    return arguments


async def _expire(scene: Scene, _: Arguments) -> None:
    await scene.dispatcher.reap()


async def _finished(scene: Scene) -> Arguments:
    await started(scene)
    await Keeper(scene.dispatcher.pool, Keeping(timedelta(days=1), 0)).tend_days()
    return []


async def _keep(scene: Scene, _: Arguments) -> None:
    while await Keeper(scene.dispatcher.pool, Keeping(timedelta(), 0)).run_once():
        pass


@asynccontextmanager
async def _client(arguments: Arguments) -> AsyncIterator[Dispatcher]:
    """The dispatcher that lives on, as a wrapper sees it."""
    async with aio_channel(arguments[0], token=WORKER, actor_name=_WORKER) as channel:
        yield Dispatcher(channel, _WORKER, 60)


async def _claim_as_wrapper(_: Scene, arguments: Arguments) -> None:
    request_id, token, task_id = arguments[1:]
    async with _client(arguments) as client:
        await client.claim(
            pb.ClaimTasksRequest(request_id=request_id, lease_token=bytes.fromhex(token), task_ids=[task_id])
        )


async def _beat_as_wrapper(_: Scene, arguments: Arguments) -> None:
    async with _client(arguments) as client:
        await client.heartbeat([pb.HeartbeatItem(lease=_lease(arguments))])


async def _emit_as_wrapper(_: Scene, arguments: Arguments) -> None:
    async with _client(arguments) as client:
        await client.emit([_item(arguments)])


async def _end_as_wrapper(_: Scene, arguments: Arguments) -> None:
    async with _client(arguments) as client:
        await client.end([UnitEnd([success(_lease(arguments), 1)], _item(arguments))])


async def _to_store(scene: Scene) -> Arguments:
    return [f"data/{new_id()}/{uuid.uuid4()}-1-0.parquet"]


async def _store(scene: Scene, arguments: Arguments) -> None:
    await asyncio.to_thread(scene.dispatcher.store.put_bytes, arguments[0], b"rows")


async def _store_as_wrapper(scene: Scene, arguments: Arguments) -> None:
    """As an operator's finished file is stored."""
    finished = scene.home.parent / "finished.parquet"
    finished.parent.mkdir(parents=True, exist_ok=True)
    finished.write_bytes(b"rows")
    with ThreadPoolExecutor(1) as threads:
        committer = OutputCommitter(scene.dispatcher.store, scene.home.parent, threads, threads, 1_000)
        running = asyncio.create_task(committer.run())
        await asyncio.sleep(0)  # it has begun
        stored = await committer.store(finished, Artifact(key=arguments[0]), lambda: True)
        await stored
        running.cancel()
        await asyncio.wait([running])


_SETTLE = Step(_claimed, _settle)

POINTS = {
    **places(_SETTLE, before=("accept.written", "publish.numbered", "settle.written")),
    **places(_SETTLE, before=("batch.written",), after=("batch.committed",), hit=2),
    **places(Step(_released, _claim), before=("claim.written",), after=("claim.committed",)),
    **places(Step(_claimed, _beat), before=("heartbeat.written",), after=("heartbeat.committed",)),
    **places(Step(_queued, _release), before=("release.written",), after=("release.committed",), hit=2),
    **places(Step(_expired, _expire), before=("expire.written",)),
    **places(Step(_finished, _keep), before=("keep.attempts", "keep.written")),
    **places(Step(_released, _claim_as_wrapper), after=("claim.answered",)),
    **places(Step(_claimed, _beat_as_wrapper), after=("heartbeat.answered",)),
    **places(Step(_claimed, _emit_as_wrapper), before=("emit.ready",), after=("emit.answered",)),
    **places(Step(_claimed, _end_as_wrapper), before=("end.ready",), after=("end.answered",)),
    **places(Step(_to_store, _store_as_wrapper), before=("artifact.ready",), after=("artifact.stored",)),
    **places(Step(_to_store, _store), before=("object.written",), after=("object.linked",)),
}
"""By crash point."""
