"""A dispatcher inside the test's own loop: its real services over real gRPC, its background duties run by hand.

So a test decides when wake-ups are handed out, leases are taken back and watermarks move, and needs no waiting.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from dispatcher.config import DispatcherConfig
from dispatcher.db.pool import Pool, transaction
from dispatcher.events.replay import Replayer
from dispatcher.events.watermarks import derive_watermarks
from dispatcher.main import HotPath, build_control, build_hot_path, build_internal
from dispatcher.tasks import store as tasks_store
from dispatcher.tasks.ending import expire_leases
from dispatcher.tasks.keeping import move_finished
from dispatcher.wakeups.release import Releaser
from kernel.artifacts.local import LocalArtifactStore
from kernel.channels import aio_channel
from kernel.config import SecretStr
from kernel.credentials import token_digest
from kernel.ids import new_id
from traceapi.control.v1 import dag_service_pb2 as dag_pb
from traceapi.control.v1.dag_service_pb2_grpc import DagServiceStub
from traceapi.control.v1.dataset_service_pb2_grpc import DatasetServiceStub
from traceapi.control.v1.deployment_pb2 import Deployment
from traceapi.control.v1.queue_service_pb2_grpc import QueueServiceStub
from traceapi.control.v1.retention_service_pb2_grpc import RetentionServiceStub
from traceapi.control.v1.source_service_pb2_grpc import SourceServiceStub
from traceapi.control.v1.task_service_pb2_grpc import TaskServiceStub
from traceapi.worker.v1.worker_service_pb2_grpc import WorkerServiceStub

if TYPE_CHECKING:  # the stubs' types for asyncio exist in the .pyi only
    from traceapi.control.v1.dag_service_pb2_grpc import DagServiceAsyncStub
    from traceapi.control.v1.dataset_service_pb2_grpc import DatasetServiceAsyncStub
    from traceapi.control.v1.queue_service_pb2_grpc import QueueServiceAsyncStub
    from traceapi.control.v1.retention_service_pb2_grpc import RetentionServiceAsyncStub
    from traceapi.control.v1.source_service_pb2_grpc import SourceServiceAsyncStub
    from traceapi.control.v1.task_service_pb2_grpc import TaskServiceAsyncStub
    from traceapi.worker.v1.worker_service_pb2_grpc import WorkerServiceAsyncStub

WAITERS = "select count(*) from pg_locks where not granted"
DEADLINE = 20
USER, WORKER, QUERYD = "u" * 32, "w" * 32, "q" * 32


@dataclass(slots=True)
class Workers:
    """A wake-up channel with as much room as the test gives; it remembers what was sent."""

    credits: dict[str, int] = field(default_factory=lambda: {"default": 10_000})
    sent: list[str] = field(default_factory=list)

    def room(self) -> Mapping[str, int]:
        return self.credits

    def send(self, queue: str, task_ids: Sequence[str]) -> None:
        self.sent += task_ids

    def served_queues(self) -> Collection[str]:
        return self.credits

    def nudge(self, worker_id: str, task_ids: Sequence[str]) -> None:
        self.sent += task_ids


@dataclass(frozen=True, slots=True)
class InProcess:
    """The services' clients, and the duties."""

    pool: Pool
    hot: HotPath
    store: LocalArtifactStore
    control: grpc.aio.Channel
    internal: grpc.aio.Channel
    addresses: Mapping[str, str]

    @property
    def dags(self) -> "DagServiceAsyncStub":
        return DagServiceStub(self.control)

    @property
    def tasks(self) -> "TaskServiceAsyncStub":
        return TaskServiceStub(self.control)

    @property
    def sources(self) -> "SourceServiceAsyncStub":
        return SourceServiceStub(self.control)

    @property
    def datasets(self) -> "DatasetServiceAsyncStub":
        return DatasetServiceStub(self.control)

    @property
    def retention(self) -> "RetentionServiceAsyncStub":
        return RetentionServiceStub(self.control)

    @property
    def queues(self) -> "QueueServiceAsyncStub":
        return QueueServiceStub(self.control)

    @property
    def worker(self) -> "WorkerServiceAsyncStub":
        return WorkerServiceStub(self.internal)

    async def deploy(self, document: str) -> Deployment:
        """Deploys a document that needs no bundle."""
        source = dag_pb.DagDocument(text=document, file_name="dag.yaml")
        request = dag_pb.DeployDagRequest(document=source, request_id=new_id())
        return (await self.dags.DeployDag(request)).deployment

    async def release(self, room: int = 10_000) -> list[str]:
        """Hands out what may go; answers the wake-ups."""
        workers = Workers({"default": room})
        await Releaser(self.pool, workers, unanswered=timedelta(seconds=10)).run_once()
        return workers.sent

    async def leave_unanswered(self) -> None:
        """Lets every wake-up that was sent be due to be sent again; what was switched before stays so."""
        await self.run("update job_version_run set changed_at = changed_at - interval '1 min'")
        await self.run("update task set released_at = released_at - interval '11 s' where state = 'released'")

    async def expire(self) -> int:
        """Lets every lease that is held run out, and takes the tasks back."""
        await self.run("update task set lease_until = clock_timestamp() - interval '1 s' where lease_until is not null")
        await self.run(
            "update ordered_stream set lease_until = clock_timestamp() - interval '1 s' where lease_until is not null"
        )
        return await self.reap()

    async def reap(self) -> int:
        """The duty that takes back what has expired."""
        taken = 0
        while True:
            async with transaction(self.pool) as connection:
                found = await expire_leases(connection, 100)
            if not found:
                return taken
            taken += found

    async def end_backoffs(self) -> int:
        """Lets every backoff pass."""
        await self.run("update task set retry_at = clock_timestamp() where state = 'backoff'")
        async with transaction(self.pool) as connection:
            return await tasks_store.end_backoffs(connection, 1000)

    async def keep(self) -> int:
        """Moves all finished tasks out of the hot tables; answers how many."""
        moved = 0
        while True:
            async with transaction(self.pool) as connection:
                batch = await move_finished(connection, timedelta())
            if batch.first is None:
                return moved
            moved += batch.tasks

    async def derive(self) -> int:
        """Moves the watermarks of stateless jobs."""
        async with transaction(self.pool) as connection:
            return await derive_watermarks(connection)

    async def replay(self) -> int:
        """One page of one replay."""
        async with transaction(self.pool) as connection:
            return await Replayer().page(connection)

    async def rows(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        async with transaction(self.pool) as connection:
            cursor = await connection.execute(query, parameters or None)
            return await cursor.fetchall()

    async def value(self, query: str, *parameters: object) -> Any:
        """The one value of the one row."""
        ((value,),) = await self.rows(query, *parameters)
        return value

    async def until_waiting_or_done(self, task: "asyncio.Task[Any]") -> None:
        """Returns when somebody waits for a lock, or when the task has ended without having to."""
        async with asyncio.timeout(DEADLINE):
            while not task.done() and not await self.value(WAITERS):
                await asyncio.wait([task], timeout=0.005)

    async def run(self, statement: str, *parameters: object) -> None:
        async with transaction(self.pool) as connection:
            await connection.execute(statement, parameters or None)

    async def task_of(self, dag: str, job: str, number: int) -> str:
        """The task of a job for an int64 cursor, also a moved one."""
        return str(
            await self.value(
                "select t.task_id::text from any_task t join job_version j using (job_version_id)"
                " where j.dag = %s and j.job = %s and t.scope_first = %s",
                dag,
                job,
                (number + 2**63).to_bytes(8, "big"),
            )
        )


@contextlib.asynccontextmanager
async def in_process_dispatcher(pool: Pool, home: Path, **settings: Any) -> AsyncIterator[InProcess]:
    """Serves on free ports until the end of the block; no duty runs by itself. `settings` as in the program's file."""
    config = DispatcherConfig(
        database_url=SecretStr("not used: the pool is given"),
        artifacts=home.as_uri(),
        user_token_sha256=(token_digest(USER),),
        worker_token_sha256=(token_digest(WORKER),),
        queryd_token_sha256=(token_digest(QUERYD),),
        control_listen="127.0.0.1:0",
        internal_listen="127.0.0.1:0",
        **settings,
    )
    store = LocalArtifactStore(home)
    hot = build_hot_path(config, pool)
    control, internal = build_control(config, pool, store, hot), build_internal(config, pool, store, hot)
    async with asyncio.TaskGroup() as group:
        batching = group.create_task(hot.batcher.run())
        addresses = {"control": await control.start(), "internal": await internal.start()}
        async with (
            aio_channel(addresses["control"], token=USER, actor_name="tester") as user,
            aio_channel(addresses["internal"], token=WORKER, actor_name="worker-1") as worker,
        ):
            try:
                yield InProcess(pool, hot, store, user, worker, addresses)
            finally:
                hot.channel.close()
                await asyncio.gather(control.stop(0), internal.stop(0))
                await hot.batcher.stop()
                await batching
