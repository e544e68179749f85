"""A pipeline that changes: its documents, and a worker that does whatever may be done, as a fleet would."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from dispatcher.deploy.advancing import advance
from kernel.ids import new_id
from tests.dispatcher.builders import Worker, artifact, event, success
from tests.dispatcher.in_process import InProcess
from traceapi.control.v1 import dag_service_pb2 as pb
from traceapi.control.v1.deployment_pb2 import Deployment, DeploymentState
from traceapi.types.v1.scope_pb2 import Scope
from traceapi.types.v1.task_pb2 import TaskLease
from traceapi.worker.v1.emit_pb2 import EmitItem

# A source that all versions share; a job that changes; one downstream of it; and one that has nothing to do with it.
PIPELINE = """\
dag: chain
jobs:
  blocks:
    source: replay
    config: {path: /data/blocks.csv, cursor: number}
    outputs:
      blocks: {cursor: {column: number, type: int64}, schema: {number: int64}}
  copies:
    operator: sql
    config: {sql: select number from blocks}
    inputs: {blocks: {}}
    outputs: {copies: {schema: {number: int64}}}
  echo: {operator: splitter, inputs: {copies: {}}, outputs: {echoes: {storage: none}}}
  apart: {operator: splitter, inputs: {blocks: {}}, outputs: {parts: {storage: none}}}
"""
CHANGED = PIPELINE.replace("select number from", "select number + 1 as number from")
TUNED = PIPELINE + "defaults: {execution: {max_attempts: 7}}\n"


def state(deployment: Deployment) -> str:
    """In lower case."""
    return DeploymentState.Name(deployment.state).removeprefix("DEPLOYMENT_STATE_").lower()


@dataclass(frozen=True, slots=True)
class _Released:
    """A task that may be claimed, and what it writes."""

    task_id: str
    job: str
    run_state: str
    version_id: str
    dataset_id: str
    stored: bool


@dataclass(frozen=True, slots=True)
class InWork:
    """A task that was claimed and has yet to be ended; `run_state` is its job version's at that moment."""

    worker: Worker
    lease: TaskLease
    scope: Scope
    run_state: str
    version_id: str
    dataset_id: str
    stored: bool


@dataclass(slots=True)
class Fleet:
    """Works off whatever is released."""

    dispatcher: InProcess

    async def work(self, *jobs: str) -> list[str]:
        """Does everything that may be done, of these jobs only where some are named; answers the job of each task."""
        done: list[str] = []
        while released := await self._released(jobs):
            await self._do(released)
            done += [task.job for task in released]
            while await self.dispatcher.replay():
                pass
            await self.dispatcher.derive()
        return done

    async def do(self, task_id: str) -> None:
        """Does this one, which is released."""
        await self._do([task for task in await self._released(()) if task.task_id == task_id])

    async def catch_up(self, *jobs: str) -> None:
        """Replays, works, and lets what has caught up take over, until nothing moves."""
        while await self.dispatcher.replay():
            pass
        await self.work(*jobs)
        await self.dispatcher.derive()
        await advance(self.dispatcher.pool, lambda: None)

    async def _released(self, jobs: tuple[str, ...]) -> list[_Released]:
        await self.dispatcher.release()
        rows = await self.dispatcher.rows(
            "select t.task_id::text, j.job, r.run_state::text, o.dataset_version_id::text, v.dataset_id, v.stored"
            " from task t"
            " join job_version j using (job_version_id) join job_output o using (job_version_id)"
            " join dataset_version v using (dataset_version_id)"
            " join job_version_run r using (job_version_id)"
            " where t.state = 'released' and t.origin <> 'source_run' and r.run_state in ('running', 'staged')"
            " order by t.task_id"
        )
        return [task for task in (_Released(*row) for row in rows) if not jobs or task.job in jobs]

    async def _do(self, released: list[_Released]) -> None:
        await self.end(await self._claim(released))

    async def begin(self) -> list[InWork]:
        """Claims everything that may be done."""
        return await self._claim(await self._released(()))

    async def _claim(self, released: list[_Released]) -> list[InWork]:
        worker = Worker(self.dispatcher)
        response = await worker.claim([task.task_id for task in released]) if released else None
        begun: list[InWork] = []
        for task, result in zip(released, response.results if response else (), strict=True):
            assert result.HasField("claimed"), result
            lease, scope = worker.lease(result.claimed), result.claimed.scope
            begun.append(InWork(worker, lease, scope, task.run_state, task.version_id, task.dataset_id, task.stored))
        return begun

    async def end(self, tasks: Sequence[InWork]) -> None:
        """One event about each task's own scope, with a file where the dataset stores some. All are one worker's."""
        items: list[EmitItem] = []
        for task in tasks:
            item = EmitItem(tasks=[task.lease])
            if task.stored:
                key = f"data/{task.version_id}/{new_id()}-1-0.parquet"
                content = os.urandom(8)
                file = await artifact(self.dispatcher, task.dataset_id, task.scope, content=content, key=key)
                item.artifacts.append(file)
            item.events.append(event(task.dataset_id, task.scope, artifact=0 if task.stored else None))
            items.append(item)
        if items:
            emits, ends = await tasks[0].worker.end(items, [success(item.tasks[0], 1) for item in items])
            assert (set(emits), set(ends)) == ({"accepted"}, {"succeeded"})


async def deploy(dispatcher: InProcess, document: str, *, hold: bool = False) -> Deployment:
    source = pb.DagDocument(text=document, file_name="dag.yaml")
    request = pb.DeployDagRequest(document=source, request_id=new_id(), hold=hold)
    return (await dispatcher.dags.DeployDag(request)).deployment


async def watch(dispatcher: InProcess, deployment: Deployment) -> pb.WatchDeploymentResponse:
    """Its state now."""
    request = pb.WatchDeploymentRequest(deployment_id=deployment.deployment_id)
    async for response in dispatcher.dags.WatchDeployment(request):
        return response
    raise AssertionError("a watch begins with the present state")


async def roll_back(dispatcher: InProcess, *, to: int = 0, request_id: str | None = None) -> pb.RollbackDagResponse:
    request = pb.RollbackDagRequest(dag="chain", to_version=to, request_id=request_id or new_id())
    return await dispatcher.dags.RollbackDag(request)


async def served(dispatcher: InProcess) -> dict[str, str]:
    """Dataset versions by dataset."""
    rows = await dispatcher.rows("select dataset_id, dataset_version_id::text from pointer order by 1")
    return dict(rows)


async def run_states(dispatcher: InProcess) -> dict[str, list[str]]:
    """By job, those of its versions, oldest first."""
    rows = await dispatcher.rows(
        "select j.job, array_agg(r.run_state::text order by j.job_version_id) from job_version j"
        " join job_version_run r using (job_version_id) where j.dag = 'chain' group by 1"
    )
    return dict(rows)


async def missing(dispatcher: InProcess) -> int:
    """Events that a subscription covers and that made no task: the checker's anti-join."""
    return int(
        await dispatcher.value(
            "select count(*) from event e join publication p using (publication_id, dataset_version_id)"
            " join subscription s on s.input_version_id = e.dataset_version_id"
            " and (s.to_number is null or p.number <= s.to_number)"
            " left join any_task t on t.event_id = e.event_id and t.job_version_id = s.job_version_id"
            " join job_version_run r on r.job_version_id = s.job_version_id"
            " where t.task_id is null and r.run_state in ('running', 'staged')"
        )
    )
