"""A real dispatcher process for tests, and clients of its two listeners."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from kernel import bundles
from kernel.channels import aio_channel
from kernel.credentials import create_token_file, read_token, token_digest
from kernel.ids import new_id
from traceapi.control.v1 import dag_service_pb2 as pb
from traceapi.control.v1.dag_service_pb2_grpc import DagServiceStub
from traceapi.control.v1.dataset_service_pb2_grpc import DatasetServiceStub
from traceapi.control.v1.deployment_pb2 import Deployment
from traceapi.control.v1.retention_service_pb2_grpc import RetentionServiceStub
from traceapi.control.v1.task_service_pb2_grpc import TaskServiceStub
from traceapi.worker.v1.worker_service_pb2_grpc import WorkerServiceStub

if TYPE_CHECKING:  # the stubs' types for asyncio exist in the .pyi only
    from traceapi.control.v1.dag_service_pb2_grpc import DagServiceAsyncStub
    from traceapi.control.v1.dataset_service_pb2_grpc import DatasetServiceAsyncStub
    from traceapi.control.v1.retention_service_pb2_grpc import RetentionServiceAsyncStub
    from traceapi.control.v1.task_service_pb2_grpc import TaskServiceAsyncStub
    from traceapi.worker.v1.worker_service_pb2_grpc import WorkerServiceAsyncStub

READY_SECONDS = 30


@dataclass(frozen=True, slots=True)
class RunningDispatcher:
    """The process with its clients. `environment` starts another one on the same database."""

    process: asyncio.subprocess.Process
    control: grpc.aio.Channel
    internal: grpc.aio.Channel
    addresses: dict[str, str]
    tokens: dict[str, str]
    artifacts: Path

    @property
    def dags(self) -> "DagServiceAsyncStub":
        return DagServiceStub(self.control)

    @property
    def tasks(self) -> "TaskServiceAsyncStub":
        return TaskServiceStub(self.control)

    @property
    def datasets(self) -> "DatasetServiceAsyncStub":
        return DatasetServiceStub(self.control)

    @property
    def retention(self) -> "RetentionServiceAsyncStub":
        return RetentionServiceStub(self.control)

    @property
    def worker(self) -> "WorkerServiceAsyncStub":
        return WorkerServiceStub(self.internal)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)

    async def deploy(self, document: str, local_files: Path) -> Deployment:
        """Validates, uploads what the document names, deploys."""
        source = pb.DagDocument(text=document, file_name="dag.yaml")
        validated = await self.dags.ValidateDag(pb.ValidateDagRequest(document=source))
        assert not validated.problems, [str(problem) for problem in validated.problems]
        digests: dict[str, str] = {}
        for path in validated.local_paths:
            bundle = bundles.pack(local_files / path.path)
            parts = [
                pb.UploadBundleRequest(sha256=bytes.fromhex(bundle.digest)),
                pb.UploadBundleRequest(data=bundle.data),
            ]
            uploaded = await self.dags.UploadBundle(_each(parts))
            digests[path.path] = uploaded.digest
        response = await self.dags.DeployDag(pb.DeployDagRequest(document=source, bundles=digests, request_id=new_id()))
        return response.deployment


async def _each(parts: list[pb.UploadBundleRequest]) -> AsyncIterator[pb.UploadBundleRequest]:
    for part in parts:
        yield part


@contextlib.asynccontextmanager
async def running_dispatcher(
    database: str, home: Path, *, settings: dict[str, str] | None = None, module: str = "dispatcher.main"
) -> AsyncIterator[RunningDispatcher]:
    """Starts the program on free ports and ends it, by its pid, at the end of the block.

    Started again in the same home it has the same credentials and artifacts. `module` is its entry.
    """
    tokens, ready = _prepare(home)
    environment = {
        **os.environ,
        "TRACE_DATABASE_URL": database,
        "TRACE_CONTROL_LISTEN": "127.0.0.1:0",
        "TRACE_INTERNAL_LISTEN": "127.0.0.1:0",
        "TRACE_ARTIFACTS": (home / "artifacts").as_uri(),
        "TRACE_READY_FILE": str(ready),
        **{f"TRACE_{role.upper()}_TOKEN_SHA256": token_digest(token) for role, token in tokens.items()},
        **(settings or {}),
    }
    with (home / "dispatcher.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", module, env=environment, stdout=log, stderr=log
        )
    try:
        addresses = await _ready(process, ready, home / "dispatcher.log")
        async with (
            aio_channel(addresses["control"], token=tokens["user"], actor_name="tester") as control,
            aio_channel(addresses["internal"], token=tokens["worker"], actor_name="worker-1") as internal,
        ):
            yield RunningDispatcher(process, control, internal, addresses, tokens, home / "artifacts")
    finally:
        if process.returncode is None:
            process.terminate()
        await asyncio.wait_for(process.wait(), READY_SECONDS)


def _prepare(home: Path) -> tuple[dict[str, str], Path]:
    """The credentials by role, and the file that the program will write."""
    home.mkdir(parents=True, exist_ok=True)
    ready = home / "ready.json"
    ready.unlink(missing_ok=True)
    return {role: _token(home / f"{role}.token") for role in ("user", "worker", "queryd")}, ready


def _token(path: Path) -> str:
    return read_token(path) if path.exists() else create_token_file(path)


async def _ready(process: asyncio.subprocess.Process, ready: Path, log: Path) -> dict[str, str]:
    """Watches for the file that the program writes once it serves."""
    ended = asyncio.create_task(process.wait())
    try:
        async with asyncio.timeout(READY_SECONDS):
            while (addresses := _read(ready)) is None:
                await asyncio.wait([ended], timeout=0.02)
                assert not ended.done(), f"the dispatcher ended:\n{_tail(log)}"
    finally:
        ended.cancel()
    return addresses


def _read(ready: Path) -> dict[str, str] | None:
    return json.loads(ready.read_text()) if ready.exists() else None


def _tail(log: Path) -> str:
    return log.read_text()[-4000:]
