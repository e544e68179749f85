"""Record batches as IPC messages, each of a size that a gRPC message can carry.

A message here is in Arrow's encapsulated form: a marker, the length of the header, the header, the body. One after the
other they are an IPC stream; split in two they are what Flight sends.
"""

import io
import struct
from collections.abc import Callable, Iterator

import pyarrow as pa

from queryd.engine.frames import ProtocolError

END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"
_TARGET_BYTES = 2 << 20
# The engine makes batches of so many rows, or a multiple.
_VECTOR_ROWS = 2048
_BATCH_ROWS, _MOST_BATCH_ROWS = 16 * _VECTOR_ROWS, 64 * _VECTOR_ROWS
# In its encapsulated form a message begins with a marker and the length of its header.
_PREFIX = struct.Struct("<4sI")
_MARKER = b"\xff\xff\xff\xff"
PREFIX_BYTES = _PREFIX.size

Envelope = Callable[[bytes, int], bytes]
"""What is sent before a body: by the message's header, with its marker and length, and the size of the body."""


def header_bytes(prefix: bytes, size: int) -> int:
    """Of a message of this size that begins so, with marker and length; the body is the rest. Raises ProtocolError."""
    if len(prefix) < PREFIX_BYTES:
        raise ProtocolError(f"a message of {size} bytes")
    marker, length = _PREFIX.unpack(prefix)
    if marker != _MARKER or PREFIX_BYTES + length > size:
        raise ProtocolError("a message that is none of Arrow")
    return PREFIX_BYTES + int(length)


def batch_rows(schema: pa.Schema) -> int:
    """Rows of a batch: as many as fill one message, where each column has one width; else so many that also wide ones
    take not too much memory."""
    try:
        row_bits = sum(int(field.type.bit_width) + 1 for field in schema)  # one says whether there is a value
    except ValueError:
        return _BATCH_ROWS
    rows = 8 * _TARGET_BYTES // max(row_bits, 1)
    return min(max(rows // _VECTOR_ROWS, 1) * _VECTOR_ROWS, _MOST_BATCH_ROWS)


class MessageWriter:
    """The messages of one stream, in their order: the schema, then those of each batch."""

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema
        self._stream = _DictionaryStream(schema) if any(_holds_dictionary(field.type) for field in schema) else None

    def opening(self) -> pa.Buffer:
        """The schema's message."""
        return self.schema.serialize()

    def messages(self, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch | pa.Buffer]:
        """Those of a batch; a large one is cut between rows. What can be written as it is comes as it is."""
        for piece in _pieces(batch):
            if self._stream is None:
                yield piece
            else:
                yield from self._stream.messages(piece)


def serialized(message: pa.RecordBatch | pa.Buffer) -> pa.Buffer:
    """A message of these in its encapsulated form."""
    return message if isinstance(message, pa.Buffer) else message.serialize()


class _DictionaryStream:
    """Batches whose columns have dictionaries: these are messages of their own, told when they are new."""

    def __init__(self, schema: pa.Schema) -> None:
        self._written = io.BytesIO()
        self._writer = pa.ipc.new_stream(self._written, schema)

    def messages(self, batch: pa.RecordBatch) -> Iterator[pa.Buffer]:
        self._writer.write_batch(batch)
        for message in pa.ipc.MessageReader.open_stream(self._take()):
            if message.type != "schema":  # which the writer puts before the first batch
                yield message.serialize()

    def _take(self) -> bytes:
        written = self._written.getvalue()
        self._written.seek(0)
        self._written.truncate()
        return written


def _pieces(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    count = min(-(-batch.nbytes // _TARGET_BYTES), batch.num_rows)
    if count <= 1:
        yield batch
        return
    rows = -(-batch.num_rows // count)
    for start in range(0, batch.num_rows, rows):
        yield batch.slice(start, rows)


def _holds_dictionary(type_: pa.DataType) -> bool:
    if pa.types.is_dictionary(type_):
        return True
    return any(_holds_dictionary(type_.field(index).type) for index in range(type_.num_fields))
