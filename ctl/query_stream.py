"""A running query: the contract's stream read as Arrow batches, with what comes before and after them."""

import io
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

import pyarrow as pa
from google.protobuf.duration_pb2 import Duration

from ctl.as_of import AsOf, give
from ctl.connection import Connection
from traceapi.query.v1 import query_service_pb2 as api
from traceapi.types.v1.event_pb2 import Watermark

_MARGIN_SECONDS = 15.0


class QueryStream:
    """Use it in a `with`: leaving it early stops the query."""

    def __init__(
        self,
        connection: Connection,
        sql: str,
        *,
        timeout: float,
        as_of: AsOf = None,
        min_watermarks: Sequence[Watermark] = (),
    ) -> None:
        """Without `as_of` the present state is read, once the watermarks are reached."""
        limit = Duration()
        limit.FromMilliseconds(round(timeout * 1000))
        request = api.QueryRequest(sql=sql, timeout=limit, min_watermarks=min_watermarks)
        give(as_of, request)
        # The server stops at its limit and says so; this deadline is for one that does not answer any more.
        self._call = connection.queries.Query(request, timeout=timeout + _MARGIN_SECONDS)
        self.started = api.QueryStarted()
        self.finished: api.QueryFinished | None = None
        self.row_count = 0
        self._reader: pa.RecordBatchStreamReader | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call.cancel()

    def schema(self) -> pa.Schema:
        """Waits for the first bytes. Raises grpc.RpcError."""
        return self._open().schema

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Batch by batch, as they come; memory holds one. Raises grpc.RpcError."""
        for batch in self._open():
            self.row_count += batch.num_rows
            yield batch
        for message in self._call:  # what follows the end of the Arrow stream
            self._take(message)

    def _open(self) -> pa.RecordBatchStreamReader:
        if self._reader is None:
            self._reader = pa.ipc.open_stream(io.BufferedReader(_ArrowBytes(self), 1 << 20))
        return self._reader

    def next_bytes(self) -> bytes | None:
        """The next part of the Arrow stream; None at its end."""
        for message in self._call:
            data = self._take(message)
            if data:
                return data
        return None

    def _take(self, message: api.QueryResponse) -> bytes:
        match message.WhichOneof("message"):
            case "started":
                self.started = message.started
            case "finished":
                self.finished = message.finished
            case "arrow_ipc":
                return message.arrow_ipc
        return b""


class _ArrowBytes(io.RawIOBase):
    """The parts of the stream as the file that Arrow reads."""

    def __init__(self, stream: QueryStream) -> None:
        self._stream = stream
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if not self._rest:
            data = self._stream.next_bytes()
            if data is None:
                return 0
            self._rest = memoryview(data)
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size
