"""How long a cutover and a rollback of a thousand datasets take, with a million queued tasks of the versions concerned
and live traffic; and how long that traffic waits for them.

No worker serves the DAG's queue, so its tasks stay queued. A worker by hand publishes events of one task of the same
DAG all the time, whose acceptance takes the very lock that a cutover takes.
"""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

from google.protobuf.duration_pb2 import Duration

from bench.percentiles import percentile
from bench.settings import Settings
from bench.stack import Stack, TooSlow
from bench.table import Measure
from ctl.connection import Connection, connect
from dispatcher.db.statements import Statements
from kernel.channels import aio_channel
from kernel.credentials import read_token
from kernel.ids import new_id
from traceapi.control.v1 import dag_service_pb2 as api
from traceapi.types.v1.scope_pb2 import CursorValue, Scope
from traceapi.types.v1.task_pb2 import TaskLease
from traceapi.worker.v1 import worker_service_pb2 as pb
from traceapi.worker.v1.emit_pb2 import EmitItem, EmittedEvent
from traceapi.worker.v1.worker_service_pb2_grpc import WorkerServiceStub

if TYPE_CHECKING:  # the stubs' types for asyncio exist in the .pyi only
    from traceapi.worker.v1.worker_service_pb2_grpc import WorkerServiceAsyncStub

_sql = Statements.load("bench", "switching.sql")

_CALL_SECONDS = 300.0
_READY_SECONDS = 60.0
_PAUSE_SECONDS = 0.3
_EVERY_SECONDS = 0.004


_COPY = 'select n + ADDED as n from "DAG.ticks"'


def document(dag: str, jobs: int, added: int) -> str:
    """A source, and so many jobs that read it, which `added` makes others; and one for the traffic."""
    numbers = {"cursor": {"column": "n", "type": "int64"}, "schema": {"n": "int64"}}
    nowhere = {"source": "replay", "config": {"path": "/nowhere.csv", "cursor": "n"}}
    copy = {
        "operator": "sql",
        "config": {"sql": _COPY.replace("ADDED", str(added)).replace("DAG", dag)},
        "inputs": {f"{dag}.ticks": {}},
    }
    made = {
        "ticks": {**nowhere, "outputs": {f"{dag}.ticks": numbers}},
        "pulses": {
            "operator": "noop",
            "execution": {"queue": dag},
            "inputs": {f"{dag}.ticks": {}},
            "outputs": {f"{dag}.pulses": {"storage": "none"}},
        },
        **{f"j{n}": {**copy, "outputs": {f"{dag}.d{n}": {"schema": {"n": "int64"}}}} for n in range(jobs)},
    }
    return json.dumps({"dag": dag, "defaults": {"execution": {"queue": "nobody"}}, "jobs": made})  # which is YAML too


def measure(stack: Stack, settings: Settings) -> Sequence[Measure]:
    """A cutover and some rollbacks a round."""
    jobs, tasks = settings.scaled(1_000, 20), settings.scaled(1_000_000, 2_000)
    rollbacks = settings.scaled(20, 4)
    found = [asyncio.run(_round(stack, f"wide-{number}", jobs, tasks, rollbacks)) for number in range(settings.rounds)]
    cutovers = tuple(took for one in found for took in one.cutovers)
    backs = tuple(took for one in found for took in one.rollbacks)
    stalls = tuple(max(one.during, default=0.0) for one in found)
    usual = tuple(percentile(one.between, 99) for one in found)
    what = f"{jobs:,} datasets with {tasks:,} queued tasks"
    return [
        Measure(f"cutover of {what}, the longest of {len(cutovers)}", max(cutovers), "ms", "<= 300", cutovers),
        Measure(f"rollback of {what}, p99 of {len(backs)}", percentile(backs, 99), "ms", "<= 300", backs),
        Measure("the same, median", median(backs), "ms"),
        Measure("acceptance of an event meanwhile, the longest", max(stalls), "ms", "<= 100", stalls),
        Measure("acceptance of an event at other times, p99", median(usual), "ms", samples=usual),
    ]


@dataclass(slots=True)
class _Round:
    """Milliseconds."""

    cutovers: list[float] = field(default_factory=list)
    rollbacks: list[float] = field(default_factory=list)
    during: list[float] = field(default_factory=list)
    between: list[float] = field(default_factory=list)


async def _round(stack: Stack, dag: str, jobs: int, tasks: int, rollbacks: int) -> _Round:
    found = _Round()
    with connect(stack.home.root) as connection:
        await asyncio.to_thread(_deploy, connection, document(dag, jobs, 1), hold=False)
        staged = await asyncio.to_thread(_deploy, connection, document(dag, jobs, 2), hold=True)
        with stack.database() as database:
            await asyncio.to_thread(database.execute, _sql.queue_wide, {"dag": dag, "events": tasks // (2 * jobs)})
            await asyncio.to_thread(database.execute, "vacuum (analyze) task")
        token = read_token(stack.home.token_file("worker"))
        async with aio_channel(stack.internal, token=token, actor_name="pulses") as channel:
            pulses = await _Pulses.start(WorkerServiceStub(channel), dag)
            beating = asyncio.create_task(pulses.beat(found))
            try:
                # Of what is queued half is the new version's, and would be waited for.
                over = api.CutOverDagRequest(deployment_id=staged, watermarks_may_go_back=True)
                found.cutovers.append(await pulses.timed(connection.dags.CutOverDag, over))
                for _ in range(rollbacks):
                    await asyncio.sleep(_PAUSE_SECONDS)
                    back = api.RollbackDagRequest(dag=dag, request_id=new_id())
                    found.rollbacks.append(await pulses.timed(connection.dags.RollbackDag, back))
            finally:
                beating.cancel()
                await asyncio.wait([beating])
            if not beating.cancelled():
                beating.result()
    return found


def _deploy(connection: Connection, text: str, *, hold: bool) -> str:
    request = api.DeployDagRequest(
        document=api.DagDocument(text=text, file_name="dag.yaml"), hold=hold, request_id=new_id()
    )
    return connection.dags.DeployDag(request, timeout=_CALL_SECONDS).deployment.deployment_id


class _Pulses:
    """One task in hand, which publishes an event every few milliseconds and notes how long each took."""

    def __init__(self, stub: "WorkerServiceAsyncStub", dag: str, lease: TaskLease) -> None:
        self._stub = stub
        self._dag = dag
        self._lease = lease
        self.switching = False

    @classmethod
    async def start(cls, stub: "WorkerServiceAsyncStub", dag: str) -> "_Pulses":
        """Claims a task of the job `pulses`. Raises TooSlow."""
        token = os.urandom(32)

        async def requests() -> AsyncIterator[pb.WatchWakeupsRequest]:
            yield pb.WatchWakeupsRequest(start=pb.WatchStart(worker_id="pulses", queues=[dag], credits=1))
            await asyncio.Event().wait()

        call = stub.WatchWakeups(requests())
        try:
            async with asyncio.timeout(_READY_SECONDS):
                async for response in call:
                    for task_id in response.task_ids:
                        request = pb.ClaimTasksRequest(
                            request_id=new_id(),
                            worker_id="pulses",
                            lease_token=token,
                            task_ids=[task_id],
                            lease_duration=Duration(seconds=600),
                        )
                        (result,) = (await stub.ClaimTasks(request)).results
                        if result.HasField("claimed"):
                            lease = TaskLease(task_id=task_id, attempt=result.claimed.attempt, lease_token=token)
                            return cls(stub, dag, lease)
        except TimeoutError as error:
            raise TooSlow(f"no wake-up of {dag} within {_READY_SECONDS:.0f} s") from error
        finally:
            call.cancel()
        raise TooSlow(f"the stream of {dag} ended")

    async def beat(self, found: _Round) -> None:
        """Until cancelled."""
        number = 0
        while True:
            number += 1
            scope = Scope(cursor=CursorValue(int64_value=number))
            item = EmitItem(tasks=[self._lease], events=[EmittedEvent(dataset_id=f"{self._dag}.pulses", scope=scope)])
            switching, began = self.switching, time.perf_counter()
            answer = await self._stub.EmitEvents(pb.EmitEventsRequest(worker_id="pulses", items=[item]))
            took = (time.perf_counter() - began) * 1000
            if not answer.results[0].HasField("accepted"):
                raise RuntimeError(f"an event was refused: {answer.results[0].error}")
            (found.during if switching or self.switching else found.between).append(took)
            await asyncio.sleep(_EVERY_SECONDS)

    async def timed(self, call: Callable[..., object], request: object) -> float:
        """How long the call takes, in milliseconds; what is published meanwhile counts as such."""
        self.switching = True
        began = time.perf_counter()
        await asyncio.to_thread(call, request, timeout=_CALL_SECONDS)
        took = (time.perf_counter() - began) * 1000
        self.switching = False
        return took
