"""The wrapper at the other end of the unix socket.

Streams and emits have no deadline of their own: how long they take is the wrapper's matter, which limits attempts, and
its end closes the socket. A cancelled unit's calls are cancelled.
"""

import io
import queue
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar, cast

import grpc
import pyarrow as pa
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from traceapi.operator.v1 import operator_service_pb2 as operator
from traceapi.operator.v1.operator_service_pb2_grpc import OperatorServiceStub
from traceapi.types.v1.errors_pb2 import ErrorReason
from traceapi.types.v1.scope_pb2 import Scope
from tracesdk.cancellation import Cancellation
from tracesdk.errors import OperatorError, TaskCanceled, WrapperGone, WrapperRefused
from tracesdk.outbox import Outbox

Response = TypeVar("Response")

CHUNK_BYTES = 1024 * 1024  # the contract's limit
_QUEUED_CHUNKS = 4
_MESSAGE_BYTES = 64 * 1024 * 1024
_DETAILS = "grpc-status-details-bin"


def open_channel(socket_path: str) -> grpc.Channel:
    """The channel to the wrapper's socket."""
    options = [("grpc.max_receive_message_length", _MESSAGE_BYTES), ("grpc.max_send_message_length", _MESSAGE_BYTES)]
    return grpc.insecure_channel(f"unix:{socket_path}", options)


class SocketLink:
    """A `Link` over gRPC."""

    def __init__(self, stub: OperatorServiceStub, outbox: Outbox) -> None:
        self._stub = stub
        self._outbox = outbox

    def read(
        self, task_id: str, dataset: str, columns: Sequence[str], cancellation: Cancellation
    ) -> pa.RecordBatchReader:
        request = operator.ReadInputRequest(task_id=task_id, dataset_id=dataset, columns=columns)
        call = self._stub.ReadInput(request)
        chunks = _ChunkReader((response.arrow_ipc for response in call), call, cancellation)
        with cancellation.watching(call):
            stream = pa.ipc.open_stream(chunks)
        return pa.RecordBatchReader.from_batches(stream.schema, _batches(stream, call, cancellation))

    def open_output(
        self, task_id: str, dataset: str, scope: Scope, schema: pa.Schema, cancellation: Cancellation
    ) -> "SocketOutput":
        header = operator.OutputHeader(task_id=task_id, dataset_id=dataset, scope=scope)
        return SocketOutput(self._stub, header, schema, cancellation)

    def emit(self, emit: operator.UnitEmit, cancellation: Cancellation) -> None:
        call = self._stub.Emit.future(operator.EmitRequest(emits=[emit]))
        with cancellation.watching(call):
            response = _result(call, cancellation)
        for result in response.results:
            if result.HasField("error"):
                raise WrapperRefused(result.error.reason, result.error.message)

    def log(self, line: operator.OperatorLogLine) -> None:
        self._outbox.log(line)

    def progress(self, report: operator.TaskProgress) -> None:
        self._outbox.progress(report)


class SocketOutput:
    """An output's Arrow IPC stream on its way. Rows are made by the caller's thread, and sent by one of gRPC's."""

    def __init__(
        self, stub: OperatorServiceStub, header: operator.OutputHeader, schema: pa.Schema, cancellation: Cancellation
    ) -> None:
        self._cancellation = cancellation
        self._messages: queue.Queue[operator.WriteOutputRequest | None] = queue.Queue(_QUEUED_CHUNKS)
        self._messages.put(operator.WriteOutputRequest(header=header))
        self._call = stub.WriteOutput.future(iter(self._messages.get, None))
        self._call.add_done_callback(self._call_ended)
        self._sink = _ChunkWriter(self._send)
        self._writer = pa.ipc.new_stream(self._sink, schema)

    def write(self, batch: pa.RecordBatch) -> None:
        if self._call.done():
            self._response()
        with self._cancellation.watching(self._call):
            self._writer.write_batch(batch)

    def close(self) -> operator.WriteOutputResponse:
        with self._cancellation.watching(self._call):
            self._writer.close()
            self._sink.end()
            self._put(None)
            return self._response()

    def abort(self) -> None:
        self._call.cancel()

    def _response(self) -> operator.WriteOutputResponse:
        return _result(self._call, self._cancellation)

    def _send(self, chunk: bytes) -> None:
        self._put(operator.WriteOutputRequest(arrow_ipc=chunk))

    def _put(self, message: operator.WriteOutputRequest | None) -> None:
        if not self._call.done():  # nobody takes messages of a call that has ended
            self._messages.put(message)

    def _call_ended(self, _call: "grpc.Future[operator.WriteOutputResponse]") -> None:
        """Frees whoever waits at either end of the queue."""
        while True:
            try:
                self._messages.get_nowait()
            except queue.Empty:
                break
        self._messages.put(None)


class _ChunkWriter(io.RawIOBase):
    """A file that cuts what is written to it into chunks."""

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._send = send
        self._buffer = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: "bytes | memoryview") -> int:  # type: ignore[override]
        self._buffer += data
        while len(self._buffer) >= CHUNK_BYTES:
            self._send(bytes(self._buffer[:CHUNK_BYTES]))
            del self._buffer[:CHUNK_BYTES]
        return len(data)

    def end(self) -> None:
        """Sends what is left."""
        if self._buffer:
            self._send(bytes(self._buffer))
            self._buffer.clear()


class _ChunkReader(io.RawIOBase):
    """A file of chunks that arrive."""

    def __init__(self, chunks: Iterator[bytes], call: grpc.Call, cancellation: Cancellation) -> None:
        self._chunks = chunks
        self._call = call
        self._cancellation = cancellation
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        parts: list[memoryview] = []
        missing = size
        while missing:
            if not self._rest:
                chunk = self._next()
                if chunk is None:
                    break
                self._rest = memoryview(chunk)
            part = self._rest if size < 0 else self._rest[:missing]
            parts.append(part)
            self._rest = self._rest[len(part) :]
            missing -= len(part)
        return b"".join(parts)

    def _next(self) -> bytes | None:
        try:
            return next(self._chunks, None)
        except grpc.RpcError as error:
            raise operator_error(error, self._cancellation) from error


def _batches(stream: pa.RecordBatchReader, call: grpc.Call, cancellation: Cancellation) -> Iterator[pa.RecordBatch]:
    try:
        with cancellation.watching(call):
            yield from stream
    finally:
        call.cancel()  # not all rows were wanted; nothing where all have come


def _result(call: "grpc.Future[Response]", cancellation: Cancellation) -> Response:
    try:
        return call.result()
    except grpc.FutureCancelledError:
        cancellation.check()
        raise TaskCanceled("the call was cancelled") from None
    except grpc.RpcError as error:
        raise operator_error(error, cancellation) from error


def operator_error(error: grpc.RpcError, cancellation: Cancellation | None = None) -> OperatorError:
    """The error of this package that stands for a failed call."""
    call = cast(grpc.Call, error)  # the errors of this package's calls are calls, too
    code, text = call.code(), call.details() or call.code().name
    reason = _reason(call)
    if reason == ErrorReason.ERROR_REASON_TASK_CANCELED:
        return TaskCanceled(text)
    if code is grpc.StatusCode.CANCELLED and cancellation is not None:
        return TaskCanceled(cancellation.reason or text)
    if code is grpc.StatusCode.UNAVAILABLE and reason == ErrorReason.ERROR_REASON_UNSPECIFIED:
        return WrapperGone(text)
    return WrapperRefused(reason, text)


def _reason(call: grpc.Call) -> int:
    """The reason of the ErrorInfo that a failed call carries."""
    metadata: Sequence[tuple[str, str | bytes]] = call.trailing_metadata() or ()
    data = next((value for key, value in metadata if key == _DETAILS), b"")
    info = ErrorInfo()
    try:
        status = Status.FromString(data if isinstance(data, bytes) else data.encode())
        for detail in status.details:
            if detail.Unpack(info):
                value = ErrorReason.DESCRIPTOR.values_by_name.get(f"ERROR_REASON_{info.reason}")
                return value.number if value else ErrorReason.ERROR_REASON_UNSPECIFIED
    except DecodeError:
        pass
    return ErrorReason.ERROR_REASON_UNSPECIFIED
