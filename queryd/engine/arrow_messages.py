"""Record batches as IPC messages, each of a size that a gRPC message can carry.

A message here is in Arrow's encapsulated form: a marker, the length of the header, the header, the body. One after the
other they are an IPC stream; split in two they are what Flight sends.
"""

import io
from collections.abc import Iterator

import pyarrow as pa

END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"
_TARGET_BYTES = 2 << 20


class MessageWriter:
    """The messages of one stream, in their order: the schema, then those of each batch."""

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema
        self._stream = _DictionaryStream(schema) if any(_holds_dictionary(field.type) for field in schema) else None

    def opening(self) -> pa.Buffer:
        """The schema's message."""
        return self.schema.serialize()

    def messages(self, batch: pa.RecordBatch) -> Iterator[pa.Buffer]:
        """Those of a batch; a large one is cut between rows."""
        for piece in _pieces(batch):
            if self._stream is None:
                yield piece.serialize()
            else:
                yield from self._stream.messages(piece)


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
