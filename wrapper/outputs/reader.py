"""From an operator's bytes to record batches that can be trusted to be what they say: well-formed, of the declared
columns, of the stated scope. Owns no file; whoever reads decides what becomes of the batches.
"""

from collections.abc import Iterator, Mapping

import pyarrow as pa

from kernel.column_types import parse_column_type
from kernel.errors import TraceError
from traceapi.types.v1 import errors_pb2
from traceapi.types.v1.dag_pb2 import OutputSpec
from traceapi.types.v1.scope_pb2 import Scope
from wrapper.outputs.columns import UnknownColumnType, stored_schema
from wrapper.outputs.framing import Frame, Framer, FramingError, Kind
from wrapper.rows import CursorBounds

_MAX_COLUMNS = 2000
# What the Arrow library raises for malformed messages, depending on where it stumbles.
_MALFORMED = (
    FramingError,
    pa.ArrowException,
    OSError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    MemoryError,
)


class OutputReader:
    """One output of one task. Methods run in a worker thread, one at a time."""

    def __init__(self, dataset_id: str, spec: OutputSpec, scope: Scope) -> None:
        self._dataset_id = dataset_id
        self._declared = dict(spec.schema)
        self._column = spec.cursor.column if spec.HasField("cursor") else ""
        self._bounds = CursorBounds.of_scope(scope)
        self._framer = Framer()
        self._arriving: pa.Schema | None = None
        self._schema: pa.Schema | None = None
        self.words: dict[str, str] = {}
        """The columns in their order, in the words of a document, once the schema has arrived."""

    @property
    def schema(self) -> pa.Schema:
        """How the rows are stored. Only once a batch has come, or the stream has ended well."""
        if self._schema is None:
            raise _invalid(f"{self._dataset_id}: the stream has no schema")
        return self._schema

    def feed(self, data: bytes) -> Iterator[pa.RecordBatch]:
        """The batches that these bytes complete. TraceError SCHEMA_DRIFT, SCOPE_MISMATCH or INVALID_REQUEST."""
        try:
            for frame in self._framer.feed(data):
                batch = self._read(frame)
                if batch is not None and batch.num_rows:
                    yield batch
        except _MALFORMED as error:
            raise _invalid(f"{self._dataset_id}: not an acceptable Arrow IPC stream: {error}") from error

    def finish(self) -> None:
        """The stream has ended."""
        try:
            self._framer.finish()
        except FramingError as error:
            raise _invalid(f"{self._dataset_id}: not an acceptable Arrow IPC stream: {error}") from error
        if self._schema is None:
            raise _invalid(f"{self._dataset_id}: the stream has no schema")

    def _read(self, frame: Frame) -> pa.RecordBatch | None:
        message = pa.ipc.read_message(pa.py_buffer(frame.content))
        if frame.kind is Kind.SCHEMA:
            if self._arriving is not None:
                raise _invalid(f"{self._dataset_id}: the stream has two schemas")
            self._take_schema(pa.ipc.read_schema(message))
            return None
        if self._arriving is None or self._schema is None:
            raise _invalid(f"{self._dataset_id}: rows come before the schema")
        batch = pa.ipc.read_record_batch(message, self._arriving)
        # Offsets that point outside of their buffers would be read by everything that follows.
        batch.validate(full=True)
        try:
            stored = batch.cast(self._schema) if batch.schema != self._schema else batch
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise _drift(f"{self._dataset_id}: {error}") from error
        self._check_scope(stored)
        return stored

    def _take_schema(self, arriving: pa.Schema) -> None:
        if not 1 <= len(arriving) <= _MAX_COLUMNS:
            raise _invalid(f"{self._dataset_id}: {len(arriving)} columns; from 1 to {_MAX_COLUMNS} are accepted")
        try:
            schema, words = stored_schema(arriving, self._declared)
        except UnknownColumnType as error:
            raise _drift(f"{self._dataset_id}: {error}") from error
        problem = _difference(words, self._declared)
        if problem:
            raise _drift(f"{self._dataset_id}: {problem}")
        self._arriving, self._schema, self.words = arriving.remove_metadata(), schema, words

    def _check_scope(self, batch: pa.RecordBatch) -> None:
        """Rows outside of their file's scope would never be found again: files are chosen by scope, rows by cursor."""
        if self._bounds is None or not self._column or self._column not in batch.schema.names:
            return
        values = batch.column(self._column)
        if values.null_count:
            raise _scope(f"{self._dataset_id}: {values.null_count} rows have no {self._column}, the dataset's cursor")
        try:
            outside = batch.num_rows - self._bounds.contains(values).true_count
        except (pa.ArrowException, TypeError, OverflowError) as error:
            raise _scope(
                f"{self._dataset_id}: {self._column} is no cursor of the stated scope's type: {error}"
            ) from error
        if outside:
            raise _scope(
                f"{self._dataset_id}: {outside} rows have a {self._column} outside of the stated scope {self._bounds}"
            )


def _difference(words: Mapping[str, str], declared: Mapping[str, str]) -> str:
    """What differs from the declaration, all of it; empty where nothing does or nothing is declared."""
    if not declared:
        return ""
    wanted = {name: parse_column_type(word).canonical for name, word in declared.items()}
    problems = [
        f"column {name} is missing, declared as {wanted[name]}" for name in sorted(wanted.keys() - words.keys())
    ]
    problems += [f"column {name} is not declared" for name in sorted(words.keys() - wanted.keys())]
    problems += [
        f"column {name} is {words[name]}, declared as {wanted[name]}"
        for name in sorted(wanted.keys() & words.keys())
        if wanted[name] != words[name]
    ]
    return "; ".join(problems)


def _invalid(message: str) -> TraceError:
    return TraceError(errors_pb2.ERROR_REASON_INVALID_REQUEST, message)


def _drift(message: str) -> TraceError:
    return TraceError(errors_pb2.ERROR_REASON_SCHEMA_DRIFT, message)


def _scope(message: str) -> TraceError:
    return TraceError(errors_pb2.ERROR_REASON_SCOPE_MISMATCH, message)
