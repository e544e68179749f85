"""The product as the machine uses it: dispatchers on one real Postgres, called as workers and people call them."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from string import Template
from typing import Any, Self

from google.protobuf.duration_pb2 import Duration

from dispatcher.db.pool import single_statements, transaction
from dispatcher.db.statements import Statements
from dispatcher.tasks import store as tasks_store
from dispatcher.wakeups.release import Releaser
from tests.dispatcher.builders import Worker, artifact, at, between, event, failure, int64, success, verdict
from tests.dispatcher.in_process import InProcess, Workers
from tests.model.tasks import (
    BACKOFF,
    HOPS,
    LEASE,
    MAX_ATTEMPTS,
    MAX_CONCURRENCY,
    MAX_RUN_TASKS,
    STEP,
    UNANSWERED,
    Claim,
    Key,
    Lease,
    Seen,
    Standing,
)
from traceapi.control.v1 import dag_service_pb2 as dags
from traceapi.control.v1 import task_service_pb2 as tasks
from traceapi.types.v1.task_pb2 import StreamLease, TaskLease
from traceapi.worker.v1 import worker_service_pb2 as pb
from traceapi.worker.v1.completion_pb2 import CompleteItem, TaskCanceled, TaskReturned
from traceapi.worker.v1.emit_pb2 import EmitItem, WatermarkMove

# The queue is the DAG's own, so that what earlier examples left is nobody's business.
_DOCUMENT = Template(
    """
dag: $dag
defaults:
  execution: {queue: $dag, max_attempts: $attempts, retry_backoff: ${backoff}s, max_retry_backoff: ${backoff}s}
jobs:
  numbers:
    source: replay
    config: {path: /data/numbers.csv, cursor: number}
    outputs: {$dag.numbers: {cursor: {column: number, type: int64}, schema: {number: int64}}}
  hops:
    operator: noop
    inputs: {$dag.numbers: {}}
    outputs: {$dag.hops: {storage: none}}
    execution: {max_concurrency: $concurrency}
  ranges:
    operator: aggregator
    config: {size: 10}
    inputs: {$dag.numbers: {}}
    outputs: {$dag.ranges: {storage: none}}
    execution: {max_run_tasks: $run_tasks}
"""
)
_LIMITS = {
    "attempts": MAX_ATTEMPTS,
    "backoff": BACKOFF,
    "concurrency": MAX_CONCURRENCY,
    "run_tasks": MAX_RUN_TASKS,
}
_SOURCE_SECONDS = 3600
"""An example is over by then, whatever the machine does beside."""

_sql = Statements.load("tests.model", "world.sql")


class _Workers(Workers):
    """What they were sent takes room from what comes next."""

    def send(self, queue: str, task_ids: Sequence[str]) -> None:
        Workers.send(self, queue, task_ids)
        self.credits[queue] -= len(task_ids)


@dataclass(slots=True)
class World:
    """One example. A claim's token and request id are made from its number."""

    replicas: Sequence[InProcess]
    dag: str
    source: TaskLease
    ids: dict[Key, str] = field(default_factory=dict)
    run_of: dict[tuple[Claim, int], StreamLease] = field(default_factory=dict)

    @classmethod
    async def open(cls, replicas: Sequence[InProcess]) -> Self:
        """Deploys a DAG and claims its source, for longer than time goes on."""
        dag = f"m{uuid.uuid4().hex[:12]}"
        await replicas[0].deploy(_DOCUMENT.substitute(dag=dag, **_LIMITS))
        world = cls(replicas, dag, TaskLease())
        (task_id,) = await world.release(0, 10)
        worker = Worker(replicas[0])
        response = await worker.claim([task_id], seconds=_SOURCE_SECONDS)
        world.source = worker.lease(response.results[0].claimed)
        return world

    async def publish(self, replica: int, numbers: Sequence[int], *, watermark: bool) -> None:
        dispatcher = self.replicas[replica]
        file = await artifact(dispatcher, f"{self.dag}.numbers", between(numbers[0], numbers[-1]))
        moves = [WatermarkMove(dataset_id=f"{self.dag}.numbers", cursor=int64(numbers[-1]))] if watermark else []
        events = [event(f"{self.dag}.numbers", at(number), artifact=0) for number in numbers]
        item = EmitItem(tasks=[self.source], artifacts=[file], events=events, watermarks=moves)
        (result,) = await Worker(dispatcher).emit(item)
        assert verdict(result) == "accepted", result

    async def pass_time(self) -> None:
        await self._execute(_sql.time_passes, seconds=STEP)
        await self._execute(_sql.time_passes_for_streams, seconds=STEP)
        await self._execute(_sql.time_passes_for_jobs, seconds=STEP)

    async def pause(self, replica: int, job: str) -> None:
        await self.replicas[replica].dags.PauseDag(dags.PauseDagRequest(dag=self.dag, jobs=[job] if job else []))

    async def resume(self, replica: int, job: str) -> None:
        await self.replicas[replica].dags.ResumeDag(dags.ResumeDagRequest(dag=self.dag, jobs=[job] if job else []))

    async def release(self, replica: int, room: int) -> list[str]:
        """A round of the release loop; the ids that it sends."""
        workers = _Workers({self.dag: room})
        await Releaser(self.replicas[replica].pool, workers, unanswered=timedelta(seconds=UNANSWERED)).run_once()
        return workers.sent

    async def claim(self, replica: int, claim: Claim, key: Key) -> pb.ClaimTasksResponse:
        request = pb.ClaimTasksRequest(
            request_id=str(uuid.uuid5(uuid.NAMESPACE_OID, f"{self.dag}/{claim.number}")),
            worker_id="worker",
            lease_token=self._token(claim),
            task_ids=[self.ids[key]],
            lease_duration=Duration(seconds=LEASE),
        )
        response = await self.replicas[replica].worker.ClaimTasks(request)
        for run in response.runs:
            self.run_of[claim, run.stream.epoch] = run.stream
        return response

    async def beat(self, replica: int, lease: Lease) -> str:
        request = pb.HeartbeatRequest(
            worker_id="worker",
            items=[pb.HeartbeatItem(lease=self.lease(lease), stream=self.stream(lease))],
            lease_duration=Duration(seconds=LEASE),
        )
        (result,) = (await self.replicas[replica].worker.Heartbeat(request)).results
        return pb.Directive.Name(result.directive).removeprefix("DIRECTIVE_").lower()

    async def emit(self, replica: int, lease: Lease, *, right: bool) -> str:
        scope = at(lease.key.number, revision=0 if right else 3)
        item = EmitItem(tasks=[self.lease(lease)], events=[event(f"{self.dag}.{HOPS}", scope)])
        (result,) = await Worker(self.replicas[replica]).emit(item)
        return verdict(result)

    async def complete(self, replica: int, leases: Sequence[Lease], outcome: str, stated: int) -> list[str]:
        items = [self._end(lease, outcome, stated) for lease in leases]
        return await Worker(self.replicas[replica]).complete(*items)

    async def cancel(self, replica: int, key: Key) -> int:
        request = tasks.CancelTasksRequest(filter=tasks.TaskFilter(task_ids=[self.ids[key]]), reason="no more")
        return (await self.replicas[replica].tasks.CancelTasks(request)).task_count

    async def retry(self, replica: int, key: Key) -> int:
        request = tasks.RetryTasksRequest(filter=tasks.TaskFilter(task_ids=[self.ids[key]]))
        return (await self.replicas[replica].tasks.RetryTasks(request)).task_count

    async def skip(self, replica: int, key: Key) -> int:
        request = tasks.SkipTasksRequest(filter=tasks.TaskFilter(task_ids=[self.ids[key]]), reason="let it be")
        return (await self.replicas[replica].tasks.SkipTasks(request)).task_count

    async def end_backoffs(self, replica: int) -> int:
        async with transaction(self.replicas[replica].pool) as connection:
            return await tasks_store.end_backoffs(connection, 1000)

    async def standing(self) -> Standing:
        """What stands in the database."""
        rows, streams, watermarks = await self._rows(_sql.tasks, _sql.stream, _sql.watermarks)
        found = {Key(job, _number(scope)): (task_id, Seen(*seen)) for job, scope, task_id, *seen in rows}
        self.ids.update((key, task_id) for key, (task_id, _) in found.items())
        complete_to = {job: _number(key) for job, key in watermarks}
        return Standing(
            {key: seen for key, (_, seen) in found.items()},
            (streams[0][0], bool(streams[0][1])) if streams else (0, False),
            complete_to.get("numbers"),
            complete_to.get(HOPS),
        )

    async def close(self) -> None:
        """What may run out must not be found by later examples."""
        for _ in range(-(-LEASE // STEP)):
            await self.pass_time()
        await self.replicas[0].reap()
        await Worker(self.replicas[0]).complete(CompleteItem(lease=self.source, returned=TaskReturned()))
        await self.end_backoffs(0)

    async def _rows(self, *queries: str) -> list[list[Any]]:
        """Of each query, at one moment or nearly so: nothing else happens."""
        async with single_statements(self.replicas[0].pool) as connection:
            cursors = [await connection.execute(query, {"dag": self.dag}) for query in queries]
            return [await cursor.fetchall() for cursor in cursors]

    async def _execute(self, query: str, **parameters: int) -> None:
        async with transaction(self.replicas[0].pool) as connection:
            await connection.execute(query, {"dag": self.dag, **parameters})

    def lease(self, lease: Lease) -> TaskLease:
        return TaskLease(task_id=self.ids[lease.key], attempt=lease.attempt, lease_token=self._token(lease.claim))

    def stream(self, lease: Lease) -> StreamLease | None:
        return None if lease.epoch is None else self.run_of[lease.claim, lease.epoch]

    def _token(self, claim: Claim) -> bytes:
        return f"{self.dag}/{claim.number}".encode().ljust(32, b".")

    def _end(self, lease: Lease, outcome: str, stated: int) -> CompleteItem:
        held, stream = self.lease(lease), self.stream(lease)
        match outcome:
            case "success":
                return success(held, stated, stream)
            case "failure":
                return failure(held, stream)
            case "canceled":
                return CompleteItem(lease=held, stream=stream, canceled=TaskCanceled(message="it stopped"))
            case _:
                return CompleteItem(lease=held, stream=stream, returned=TaskReturned(message="it leaves"))


def _number(key: bytes) -> int:
    """Of the key of an int64 cursor."""
    return int.from_bytes(key, "big") - 2**63
