"""A wrapper under test: the real program in a process of its own, against a fake dispatcher of the test's."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pyarrow.parquet as pq

from kernel.artifacts import ArtifactStore, open_store
from kernel.bundles import pack
from kernel.channels import aio_channel
from kernel.credentials import Role, TokenVerifier, create_token_file, token_digest
from kernel.ids import new_id
from kernel.servers import AccessPolicy, aio_server
from tests.wrapper.fake_dispatcher import FakeDispatcher
from traceapi.types.v1.dag_pb2 import STORAGE_NONE, STORAGE_PARQUET, CursorSpec, OutputSpec
from traceapi.types.v1.job_pb2 import JobDetails, JobInput, JobOutput
from traceapi.types.v1.scope_pb2 import CURSOR_TYPE_INT64, CursorRange, CursorValue, Scope
from traceapi.worker.v1.worker_service_pb2_grpc import add_WorkerServiceServicer_to_server
from traceapi.wrapper.v1.wrapper_service_pb2_grpc import WrapperServiceStub

if TYPE_CHECKING:
    from traceapi.wrapper.v1.wrapper_service_pb2_grpc import WrapperServiceAsyncStub

_START_SECONDS = 30.0
_END_SECONDS = 30.0


@dataclass(slots=True)
class Stack:
    """What a test has."""

    root: Path
    dispatcher: FakeDispatcher
    address: str
    store_url: str
    store: ArtifactStore
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def worker_token(self) -> Path:
        return self.root / "credentials" / "worker.token"

    @property
    def user_token(self) -> Path:
        return self.root / "credentials" / "user.token"

    def bundle(self, files: Mapping[str, str]) -> str:
        """Stores a bundle of these files; answers its digest."""
        folder = self.root / "bundle-sources" / new_id()
        for name, text in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        bundle = pack(folder)
        self.store.put_bytes(f"bundles/{bundle.digest}.tar", bundle.data)
        return bundle.digest

    def python_job(self, code: str, **changes: object) -> JobDetails:
        """A job of a `python` operator whose bundle is `code` as module `code`, entrypoint `main`."""
        digest = self.bundle({"code_under_test.py": code})
        return self.job(
            operator="python",
            runtime="python3.11",
            entrypoint="code_under_test:main",
            bundles={"./operators": digest},
            **changes,
        )

    def job(self, **fields: object) -> JobDetails:
        """A job that the dispatcher knows."""
        details = JobDetails(job_version_id=new_id(), details_id=new_id(), dag="dag", max_events_per_emit=1000)
        named = {"job": "job", **fields}
        details.MergeFrom(JobDetails(**named))  # type: ignore[arg-type]
        return self.dispatcher.add_job(details)

    def table(self, key: str) -> list[dict[str, object]]:
        """The rows of a stored file."""
        with self.store.open(key) as content:
            return pq.read_table(content).to_pylist()


@dataclass(slots=True)
class RunningWrapper:
    """The process."""

    worker_id: str
    process: asyncio.subprocess.Process
    ready_file: Path
    log: Path

    async def stop(self) -> int:
        """SIGTERM, then waits; answers the exit status."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(_END_SECONDS):
            return await self.process.wait()

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()

    @property
    def address(self) -> str:
        bound: dict[str, str] = json.loads(self.ready_file.read_text())
        return bound["wrapper"]


@asynccontextmanager
async def open_stack(root: Path, store_url: str = "") -> AsyncIterator[Stack]:
    """The fake dispatcher on a real socket, with credentials and an artifact store, by default one on disk."""
    url = store_url or (root / "artifacts").as_uri()
    worker = create_token_file(root / "credentials" / "worker.token")
    create_token_file(root / "credentials" / "user.token")
    server = aio_server(
        listen="127.0.0.1:0",
        verifier=TokenVerifier({Role.WORKER: token_digest(worker)}),
        policy=AccessPolicy({Role.WORKER: frozenset({"/traceapi.worker.v1.WorkerService"})}),
    )
    dispatcher = FakeDispatcher()
    add_WorkerServiceServicer_to_server(dispatcher, server.server)
    address = await server.start()
    try:
        yield Stack(root, dispatcher, address, url, open_store(url))
    finally:
        await server.stop(0)


@asynccontextmanager
async def running_wrapper(stack: Stack, **settings: str) -> AsyncIterator[RunningWrapper]:
    """Starts the program and waits until it watches for wake-ups; stops it at the end."""
    name = new_id()
    ready_file, log = stack.root / f"{name}.ready", stack.root / f"{name}.log"
    user = stack.user_token.read_text().strip()
    environment = {
        **os.environ,
        "TRACE_DISPATCHER_ADDRESS": stack.address,
        "TRACE_WORKER_TOKEN_FILE": str(stack.worker_token),
        "TRACE_ARTIFACTS": stack.store_url,
        "TRACE_USER_TOKEN_SHA256": token_digest(user),
        "TRACE_WORKER_ID": name,
        "TRACE_WORK_DIR": str(stack.root / "wrapper"),
        "TRACE_READY_FILE": str(ready_file),
        "TRACE_LEASE_SECONDS": "5",
        **stack.environment,
        **{f"TRACE_{key.upper()}": value for key, value in settings.items()},
    }
    with log.open("wb") as sink:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "wrapper.main", stdout=sink, stderr=sink, env=environment, cwd=stack.root
        )
    running = RunningWrapper(name, process, ready_file, log)
    try:
        watching = asyncio.create_task(
            stack.dispatcher.until(lambda: name in stack.dispatcher.watchers, _START_SECONDS)
        )
        ended = asyncio.create_task(process.wait())
        await asyncio.wait([watching, ended], return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            watching.cancel()
            raise AssertionError(f"the wrapper ended with {ended.result()}:\n{log.read_text()}")
        ended.cancel()
        watching.result()
        yield running
        if process.returncode is None:
            assert await running.stop() == 0, log.read_text()
    finally:
        if process.returncode is None:
            await running.kill()


@asynccontextmanager
async def wrapper_service(stack: Stack, running: RunningWrapper) -> "AsyncIterator[WrapperServiceAsyncStub]":
    """WrapperService as a user calls it."""
    channel: grpc.aio.Channel = aio_channel(
        running.address, token=stack.user_token.read_text().strip(), actor_name="test"
    )
    async with channel:
        yield WrapperServiceStub(channel)


def at(cursor: int) -> Scope:
    """A cursor's scope."""
    return Scope(cursor=CursorValue(int64_value=cursor))


def between(first: int, last: int) -> Scope:
    """A range's scope."""
    return Scope(range=CursorRange(first=CursorValue(int64_value=first), last=CursorValue(int64_value=last)))


def reads(dataset_id: str, **fields: object) -> JobInput:
    """An input with int64 cursors in the column `number`."""
    named = {
        "dataset_version_id": new_id(),
        "storage": STORAGE_PARQUET,
        "cursor": CursorSpec(column="number", type=CURSOR_TYPE_INT64),
        **fields,
    }
    return JobInput(dataset_id=dataset_id, **named)  # type: ignore[arg-type]


def writes(dataset_id: str, **fields: object) -> JobOutput:
    """An output with int64 cursors in the column `number`."""
    named = {"storage": STORAGE_PARQUET, "cursor": CursorSpec(column="number", type=CURSOR_TYPE_INT64), **fields}
    return JobOutput(dataset_id=dataset_id, dataset_version_id=new_id(), spec=OutputSpec(**named))  # type: ignore[arg-type]


def emits(dataset_id: str) -> JobOutput:
    """An output of events only."""
    return writes(dataset_id, storage=STORAGE_NONE)
