"""A small stage for one scenario: a dispatcher in the test's own loop, everything written down as in a run of chaos."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import psycopg

import kernel.channels
from dispatcher.db.pool import PoolConfig, open_pool
from kernel.call_metadata import AIO_INTERCEPTORS
from tests.chaos.collect import collect, install_audit
from tests.chaos.evidence import Bounds, Evidence
from tests.chaos.recorder import History, Recording
from tests.dispatcher.builders import CHAIN, Source, Worker, artifact, at, event, start_source
from tests.dispatcher.in_process import InProcess, in_process_dispatcher
from traceapi.control.v1 import task_service_pb2 as tasks
from traceapi.types.v1.task_pb2 import TaskLease
from traceapi.worker.v1 import worker_service_pb2 as pb
from traceapi.worker.v1.emit_pb2 import EmitItem

_END_OTHERS = (
    "select pg_terminate_backend(pid) from pg_stat_activity"
    " where datname = current_database() and pid <> pg_backend_pid()"
)
_AGE_TASKS = (
    "update task set lease_until = lease_until - make_interval(secs => %s),"
    " released_at = released_at - make_interval(secs => %s) where state in ('running', 'released')"
)
_AGE_JOBS = "update job_version_run set changed_at = changed_at - make_interval(secs => %s)"
_AGE_STREAMS = (
    "update ordered_stream set lease_until = lease_until - make_interval(secs => %s) where lease_until is not null"
)


@dataclass(frozen=True, slots=True)
class Stage:
    """The DAG `chain` is deployed, its source is claimed. Every worker is another one, with a token of its own."""

    dispatcher: InProcess
    source: Source
    conninfo: str
    history: History
    folder: Path

    async def claim(self, job: str, number: int) -> tuple[Worker, TaskLease]:
        """Releases, and claims the task of a job that is not ordered."""
        await self.dispatcher.release()
        worker = Worker(self.dispatcher)
        return worker, worker.lease(await worker.claim_one(await self.task(job, number)))

    async def claim_run(self, *, max_run_tasks: int = 0) -> tuple[Worker, pb.TaskRun] | None:
        """Releases, and claims what stands at the head of the stream; None where there is nothing to have."""
        await self.dispatcher.release()
        worker = Worker(self.dispatcher)
        response = await worker.claim([await self.task("ranges", 1)], max_run_tasks=max_run_tasks)
        return (worker, response.runs[0]) if response.runs else None

    async def task(self, job: str, number: int) -> str:
        return await self.dispatcher.task_of("chain", job, number)

    async def copy(self, lease: TaskLease, number: int) -> EmitItem:
        """What a task of `copies` emits: a file and an event of its scope."""
        file = await artifact(self.dispatcher, "copies", at(number))
        return EmitItem(tasks=[lease], artifacts=[file], events=[event("copies", at(number), artifact=0)])

    async def cancel(self, task_id: str) -> None:
        request = tasks.CancelTasksRequest(filter=tasks.TaskFilter(task_ids=[task_id]), reason="a change of mind")
        number = self.history.began("CancelTasks", request)
        self.history.ended(number, "OK", await self.dispatcher.tasks.CancelTasks(request))

    async def age(self, seconds: int) -> None:
        """Lets leases and wake-ups be so much older."""
        await self.dispatcher.run(_AGE_JOBS, seconds)
        await self.dispatcher.run(_AGE_TASKS, seconds, seconds)
        await self.dispatcher.run(_AGE_STREAMS, seconds)

    def end_sessions(self) -> None:
        """Ends every session of the dispatcher, whatever it is doing."""
        with psycopg.connect(self.conninfo, autocommit=True) as connection:
            connection.execute(_END_OTHERS)

    def evidence(self, *, drained: bool) -> Evidence:
        evidence = collect(self.conninfo, self.dispatcher.store, self.folder, Bounds())
        evidence.drained, evidence.attended = drained, False
        return evidence


@asynccontextmanager
async def open_stage(conninfo: str, home: Path, schema: str = "") -> AsyncIterator[Stage]:
    """On a fresh migrated database, of which `schema` may take something away."""
    folder = home / "history"
    folder.mkdir()
    install_audit(conninfo, schema)
    recording = Recording(History(folder / "worker.jsonl", "worker"))
    interceptors = (lambda _metadata: recording, *AIO_INTERCEPTORS)
    async with open_pool(PoolConfig(conninfo)) as pool:
        with patch.object(kernel.channels, "AIO_INTERCEPTORS", interceptors):
            async with in_process_dispatcher(pool, home / "artifacts") as dispatcher:
                await dispatcher.deploy(CHAIN)
                source = await start_source(dispatcher)
                yield Stage(dispatcher, source, conninfo, History(folder / "person.jsonl", "person"), folder)
