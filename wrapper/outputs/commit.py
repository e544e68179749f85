"""From an operator's stream to a file in the artifact store: written aside, checked, hashed, then put under its final
key.

The key names dataset version, task, attempt and a number, so that no two attempts ever write the same one. A stored
file means nothing until an emit that names it is accepted; what is never named is the collector's.
"""

import asyncio
import itertools
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import TypeVar

from kernel.artifacts.store import ArtifactStore, StoredObject, is_unavailable
from kernel.column_types import schema_digest
from kernel.crash import crash
from kernel.errors import TraceError
from traceapi.types.v1 import errors_pb2
from traceapi.types.v1.artifact_pb2 import Artifact
from traceapi.types.v1.dag_pb2 import STORAGE_PARQUET, STORAGE_UNSPECIFIED
from traceapi.types.v1.job_pb2 import JobOutput
from traceapi.types.v1.scope_pb2 import Scope
from traceapi.worker.v1.worker_service_pb2 import ClaimedTask
from wrapper.dispatcher_client import persist
from wrapper.outputs.parquet import ParquetFile
from wrapper.outputs.reader import OutputReader
from wrapper.unit import Unit

T = TypeVar("T")
_MAX_OUTPUTS = 10_000
_PUTS_AT_ONCE = 16
_numbers = itertools.count(1)


class OutputCommitter:
    """Opens outputs, and stores what they become. Files under way lie in `folder`, which nobody else uses."""

    def __init__(
        self, store: ArtifactStore, folder: Path, row_threads: Executor, store_threads: Executor, max_bytes: int
    ) -> None:
        self._store = store
        self._folder = folder
        self._row_threads = row_threads
        self._store_threads = store_threads
        self._max_bytes = max_bytes
        self._puts = asyncio.Semaphore(_PUTS_AT_ONCE)
        self._group: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Stores files until cancelled. Those under way then are lost with their units."""
        async with asyncio.TaskGroup() as self._group:
            await asyncio.get_running_loop().create_future()

    def open(self, unit: Unit, task: ClaimedTask, dataset_id: str, scope: Scope) -> "OutputUpload":
        """Begins one output. TraceError DATASET_NOT_PRODUCED, or MESSAGE_TOO_LARGE for too many."""
        output = unit.job.outputs.get(dataset_id)
        if output is None:
            raise TraceError(
                errors_pb2.ERROR_REASON_DATASET_NOT_PRODUCED, f"{dataset_id} is no output of job {unit.job.details.job}"
            )
        if output.spec.storage not in (STORAGE_UNSPECIFIED, STORAGE_PARQUET):
            raise TraceError(
                errors_pb2.ERROR_REASON_DATASET_NOT_PRODUCED, f"{dataset_id} has no files: its storage is not parquet"
            )
        if unit.output_count >= _MAX_OUTPUTS and not unit.is_source:
            raise TraceError(
                errors_pb2.ERROR_REASON_MESSAGE_TOO_LARGE,
                f"a task writes at most {_MAX_OUTPUTS} files; write larger ones",
            )
        stated = Scope()
        stated.CopyFrom(scope)
        stated.revision = task.scope.revision  # 0 for a source run
        return OutputUpload(unit, task, output, stated, self)

    async def store(self, path: Path, artifact: Artifact, alive: Callable[[], bool]) -> "asyncio.Future[Artifact]":
        """Puts a finished file under its key, in the background: the operator goes on, an emit waits for the answer.

        Returns once there is room for one more under way. A store that does not answer is waited for while the work is
        `alive`: an outage is no fault of the attempt. The file is removed from where it lies.
        """
        await self._puts.acquire()
        answer: asyncio.Future[Artifact] = asyncio.get_running_loop().create_future()
        answer.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may ever ask
        if self._group is None:
            raise TraceError(errors_pb2.ERROR_REASON_UNAVAILABLE, "the worker stops")
        self._group.create_task(self._put(path, artifact, alive, answer))
        return answer

    async def _put(
        self, path: Path, artifact: Artifact, alive: Callable[[], bool], answer: "asyncio.Future[Artifact]"
    ) -> None:
        loop = asyncio.get_running_loop()
        crash("artifact.ready")
        try:
            stored = await persist(
                lambda: loop.run_in_executor(self._store_threads, self._put_and_remove, artifact.key, path),
                alive,
                is_unavailable,
            )
            crash("artifact.stored")
            artifact.size_bytes, artifact.sha256 = stored.size_bytes, stored.sha256
            answer.set_result(artifact)
        except TraceError as error:
            answer.set_exception(error)
        except OSError as error:
            message = f"the artifact store failed: {error}"
            answer.set_exception(TraceError(errors_pb2.ERROR_REASON_UNAVAILABLE, message))
        finally:
            self._puts.release()
            answer.cancel()
            await self.in_thread(lambda: path.unlink(missing_ok=True))

    def _put_and_remove(self, key: str, path: Path) -> StoredObject:
        """Once a file is in the store it is nowhere else: who waits for the answer finds the folder empty of it."""
        stored = self._store.put(key, path)
        path.unlink(missing_ok=True)
        return stored

    async def in_thread(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._row_threads, function)

    def scratch(self) -> Path:
        return self._folder / f"{next(_numbers)}.parquet"

    @property
    def max_bytes(self) -> int:
        return self._max_bytes


class OutputUpload:
    """One output under way. Either `commit` or `abort` ends it."""

    def __init__(
        self, unit: Unit, task: ClaimedTask, output: JobOutput, scope: Scope, committer: OutputCommitter
    ) -> None:
        self._unit = unit
        self._output = output
        self._committer = committer
        self._reader = OutputReader(output.dataset_id, output.spec, scope)
        self._path = committer.scratch()
        self._number = unit.output_count
        unit.output_count += 1
        name = f"{task.task_id}-{task.attempt}-{self._number}.parquet"
        self._artifact = Artifact(
            dataset_id=output.dataset_id, key=f"data/{output.dataset_version_id}/{name}", scope=scope
        )
        self._file: ParquetFile | None = None
        self._received = 0

    async def feed(self, data: bytes) -> None:
        """The next bytes. TraceError SCHEMA_DRIFT, SCOPE_MISMATCH, INVALID_REQUEST or MESSAGE_TOO_LARGE."""
        self._received += len(data)
        if self._received > self._committer.max_bytes:
            raise TraceError(
                errors_pb2.ERROR_REASON_MESSAGE_TOO_LARGE,
                f"{self._output.dataset_id}: an output may have {self._committer.max_bytes} bytes; split it by scope",
            )
        await self._committer.in_thread(lambda: self._write(data))

    async def commit(self) -> tuple[str, Artifact]:
        """Ends the file and has it stored; answers its output_id. TraceError as `feed`."""
        path = await self._committer.in_thread(self._finish)
        output_id = str(self._number)
        storing = await self._committer.store(path, self._artifact, self._unit.alive)
        self._unit.keep_output(output_id, storing)
        return output_id, self._artifact

    async def abort(self) -> None:
        """Removes what lies aside."""
        await self._committer.in_thread(self._remove)

    def _write(self, data: bytes) -> None:
        for batch in self._reader.feed(data):
            self._opened().write(batch)

    def _opened(self) -> ParquetFile:
        if self._file is None:
            schema = self._reader.schema
            sort = [name for name in self._output.spec.sort if name in schema.names]
            self._file = ParquetFile(self._path, schema, sort)
        return self._file

    def _finish(self) -> Path:
        self._reader.finish()
        file = self._opened()
        path = file.finish()
        self._artifact.row_count = file.row_count
        self._artifact.size_bytes = path.stat().st_size
        self._artifact.schema_digest = schema_digest(self._reader.words)
        self._artifact.schema.update(self._reader.words)
        self._artifact.column_order.extend(self._reader.words)
        return path

    def _remove(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        for path in self._path.parent.glob(f"{self._path.stem}.*"):
            if path.is_dir():
                for inner in path.iterdir():
                    inner.unlink(missing_ok=True)
                path.rmdir()
            else:
                path.unlink(missing_ok=True)
