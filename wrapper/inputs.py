"""What a task reads: the files of a dataset that the dispatcher names, down to the rows within the task's scope, as
an Arrow stream.

Files are read one after the other, a batch at a time, and only as fast as the operator takes them. Before its first use
on this worker a file is checked by its digest, which a store on disk makes and S3 keeps: it must be the one that its
event was accepted with. A store that does not answer when a file's turn comes is waited for, as long as the operator
waits.
"""

import asyncio
import io
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Generator, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import closing
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from kernel.artifacts.store import ArtifactStore, is_unavailable
from kernel.column_types import ordered_columns
from kernel.errors import TraceError
from traceapi.types.v1 import errors_pb2
from traceapi.types.v1.artifact_pb2 import Artifact
from traceapi.types.v1.dag_pb2 import STORAGE_NONE, STORAGE_POSTGRES
from traceapi.types.v1.job_pb2 import JobInput
from traceapi.worker.v1.worker_service_pb2 import ClaimedTask
from wrapper.backoff import Backoff
from wrapper.dispatcher_client import Dispatcher
from wrapper.outputs.columns import arrow_schema
from wrapper.rows import CursorBounds
from wrapper.scope_rows import scope_batches, scope_schema
from wrapper.unit import Unit

MAX_CHUNK_BYTES = 1 << 20
_CHUNK_BYTES = 512 << 10
_BATCH_ROWS = 32 * 1024
_VERIFIED_KEPT = 50_000


class Inputs:
    """Reads for all tasks of this worker."""

    def __init__(self, dispatcher: Dispatcher, store: ArtifactStore, executor: Executor) -> None:
        self._dispatcher = dispatcher
        self._store = store
        self._executor = executor
        self._verified: OrderedDict[str, bytes] = OrderedDict()

    async def read(
        self, unit: Unit, task: ClaimedTask, dataset_id: str, columns: Sequence[str]
    ) -> AsyncIterator[bytes]:
        """The rows as chunks of one Arrow IPC stream. TraceError DATASET_NOT_READ, ARTIFACT_LOST, or as
        ResolveInputs."""
        dataset = _input(unit, dataset_id)
        if not task.HasField("scope"):
            raise TraceError(errors_pb2.ERROR_REASON_DATASET_NOT_READ, "a source run has no scope to read within")
        leaving = threading.Event()
        lease = unit.leases[unit.task_indexes[task.task_id]]
        found = await self._dispatcher.resolve_input(lease, dataset_id, unit.alive)
        if dataset.storage == STORAGE_NONE:
            schema = scope_schema(dataset.cursor.type)
            batches = scope_batches(found.events, schema, columns)
        else:
            bounds = CursorBounds.of_scope(task.scope, lookback=dataset.lookback)
            schema = _schema(dataset, found.artifacts)
            batches = self._file_batches(dataset, found.artifacts, schema, bounds, columns, leaving)
        stream = _ChunkStream(batches, _chosen(schema, columns, dataset_id))
        loop = asyncio.get_running_loop()
        try:
            while (chunk := await loop.run_in_executor(self._executor, stream.next)) is not None:
                yield chunk
        finally:
            leaving.set()
            await loop.run_in_executor(self._executor, stream.close)

    def _file_batches(
        self,
        dataset: JobInput,
        artifacts: Sequence[Artifact],
        schema: pa.Schema,
        bounds: CursorBounds | None,
        columns: Sequence[str],
        leaving: threading.Event,
    ) -> Generator[pa.RecordBatch, None, None]:
        cursor = dataset.cursor.column if dataset.HasField("cursor") else ""
        for artifact in artifacts:
            with self._opened(artifact, leaving) as source, closing(pq.ParquetFile(source)) as file:
                yield from _rows(file, cursor, bounds, columns, schema)

    def _opened(self, artifact: Artifact, leaving: threading.Event) -> BinaryIO:
        """The file, checked. Blocks its thread while the store does not answer and the reader has not left."""
        backoff = Backoff()
        while True:
            try:
                self._verify(artifact)
                return self._store.open(artifact.key)
            except TraceError as error:
                if not is_unavailable(error) or leaving.wait(backoff.seconds()):
                    raise

    def _verify(self, artifact: Artifact) -> None:
        if self._verified.get(artifact.key) == artifact.sha256:
            return
        stored = self._store.stat(artifact.key, digest=True)
        if stored is None or stored.sha256 != artifact.sha256 or stored.size_bytes != artifact.size_bytes:
            what = "is missing" if stored is None else "is not what was committed"
            raise TraceError(
                errors_pb2.ERROR_REASON_ARTIFACT_LOST, f"{artifact.key} {what}", metadata={"key": artifact.key}
            )
        self._verified[artifact.key] = artifact.sha256
        while len(self._verified) > _VERIFIED_KEPT:
            self._verified.popitem(last=False)


def _input(unit: Unit, dataset_id: str) -> JobInput:
    dataset = unit.job.inputs.get(dataset_id)
    details = unit.job.details
    if dataset is None or (dataset.indirect and not unit.job.built_in):
        raise TraceError(errors_pb2.ERROR_REASON_DATASET_NOT_READ, f"{dataset_id} is no input of job {details.job}")
    if dataset.virtual_sql or dataset.storage == STORAGE_POSTGRES:
        what = "is virtual: read the datasets behind it" if dataset.virtual_sql else "is stored in Postgres"
        raise TraceError(
            errors_pb2.ERROR_REASON_NOT_IMPLEMENTED, f"{dataset_id} {what}; operators of this release read stored files"
        )
    return dataset


def _schema(dataset: JobInput, artifacts: Sequence[Artifact]) -> pa.Schema:
    """Declared or frozen columns, in the order of the dataset version; of a dataset that was frozen after the job was
    handed out, those of its files."""
    if dataset.schema:
        return arrow_schema(ordered_columns(dataset.schema, dataset.column_order))
    return arrow_schema(ordered_columns(artifacts[0].schema, artifacts[0].column_order)) if artifacts else pa.schema([])


def _chosen(schema: pa.Schema, columns: Sequence[str], dataset_id: str) -> pa.Schema:
    """The columns that were asked for, in the order of the question."""
    if not columns:
        return schema
    unknown = [name for name in columns if name not in schema.names]
    # A dataset without any file yet has no columns that are known: it has no rows either.
    if unknown and len(schema):
        raise TraceError(
            errors_pb2.ERROR_REASON_INVALID_REQUEST,
            f"{dataset_id} has no column {', '.join(unknown)}; it has {', '.join(schema.names)}",
        )
    return pa.schema([schema.field(name) for name in columns]) if len(schema) else schema


def _rows(
    file: pq.ParquetFile, cursor: str, bounds: CursorBounds | None, columns: Sequence[str], schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    """Rows of one file within the bounds. Row groups whose statistics lie outside are not read."""
    names = list(columns) if columns else list(schema.names)
    filtering = bounds is not None and cursor in file.schema_arrow.names
    read = [*names, cursor] if filtering and cursor not in names else names
    groups = [
        index
        for index in range(file.num_row_groups)
        if not (filtering and bounds is not None and _outside(file, index, cursor, bounds))
    ]
    if not groups:
        return
    for batch in file.iter_batches(batch_size=_BATCH_ROWS, row_groups=groups, columns=read, use_threads=False):
        kept = batch
        if filtering and bounds is not None:
            kept = batch.filter(bounds.contains(batch.column(cursor)))
        if kept.num_rows:
            yield kept.select(names)


def _outside(file: pq.ParquetFile, index: int, cursor: str, bounds: CursorBounds) -> bool:
    group = file.metadata.row_group(index)
    column = file.schema_arrow.names.index(cursor)
    if group.num_columns != len(file.schema_arrow.names):
        return False  # nested columns shift the numbers
    statistics = group.column(column).statistics
    return bool(statistics is not None and statistics.has_min_max and bounds.misses(statistics.min, statistics.max))


class _ChunkStream:
    """The Arrow IPC stream of some batches, in chunks of at most MAX_CHUNK_BYTES. Made for one reader and several
    threads."""

    def __init__(self, batches: Generator[pa.RecordBatch, None, None], schema: pa.Schema) -> None:
        self._chunks = _chunks(batches, schema)
        self._lock = threading.Lock()

    def next(self) -> bytes | None:
        with self._lock:
            return next(self._chunks, None)

    def close(self) -> None:
        """Lets go of the files. Waits for a batch that is just being read: a reader that left cannot stop it."""
        with self._lock:
            self._chunks.close()


def _chunks(batches: Generator[pa.RecordBatch, None, None], schema: pa.Schema) -> Generator[bytes, None, None]:
    sink = io.BytesIO()
    with closing(batches), pa.ipc.new_stream(sink, schema) as writer:
        for batch in batches:
            writer.write_batch(batch if batch.schema == schema else batch.cast(schema))
            if sink.tell() >= _CHUNK_BYTES:
                yield from _drained(sink)
    yield from _drained(sink)


def _drained(sink: io.BytesIO) -> Iterator[bytes]:
    view = sink.getvalue()
    sink.seek(0)
    sink.truncate()
    for start in range(0, len(view), MAX_CHUNK_BYTES):
        yield view[start : start + MAX_CHUNK_BYTES]
