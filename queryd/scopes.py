"""A dataset without files, as rows: one for each of its events, in the columns of `kernel.dataset_sql.scope_columns`.

`first` and `last` are the extent, in the type of the dataset's cursor; `unit_count` is how many units it is made of: 1
for a cursor, for a range what its manifest says, and nothing where it has none. Of an extent that was replaced, all
revisions are here; the engine leaves the highest (queryd/engine/session.py).
"""

from collections.abc import Sequence

import pyarrow as pa

from kernel.dataset_sql import scope_columns
from kernel.errors import TraceError
from traceapi.types.v1.errors_pb2 import ErrorReason
from traceapi.types.v1.event_pb2 import Event
from traceapi.types.v1.scope_pb2 import CursorType, CursorValue, Scope

_WORDS = {
    CursorType.CURSOR_TYPE_UNSPECIFIED: "",  # partition keys only
    CursorType.CURSOR_TYPE_INT64: "int64",
    CursorType.CURSOR_TYPE_TIMESTAMP: "timestamp",
    CursorType.CURSOR_TYPE_STRING: "string",
}
_ARROW: dict[str, pa.DataType] = {
    "int64": pa.int64(),
    "uint64": pa.uint64(),
    "timestamp": pa.timestamp("us", tz="UTC"),
    "string": pa.string(),
}


def cursor_word(cursor_type: CursorType.ValueType) -> str:
    """The type of a cursor's values as a column's; empty for partition keys."""
    return _WORDS[cursor_type]


def scope_schema(cursor_type: CursorType.ValueType) -> pa.Schema:
    """The columns of the relation."""
    columns = scope_columns(cursor_word(cursor_type))
    return pa.schema([pa.field(name, _ARROW[word]) for name, word in columns.items()])


def scope_rows(cursor_type: CursorType.ValueType, events: Sequence[Event]) -> pa.RecordBatch:
    """One row for each event, in the order given."""
    schema = scope_schema(cursor_type)
    rows = [_row(event) for event in events]
    try:
        return pa.record_batch(
            [pa.array([row[field.name] for row in rows], field.type) for field in schema], schema=schema
        )
    except (pa.ArrowInvalid, pa.ArrowTypeError, KeyError) as error:
        message = "an event's scope is not of its dataset's cursor type"
        raise TraceError(ErrorReason.ERROR_REASON_INTERNAL, message) from error


def _row(event: Event) -> dict[str, int | str | None]:
    scope = event.scope
    if scope.HasField("partition_key"):
        return {"partition_key": scope.partition_key, "revision": scope.revision}
    first, last = _ends(scope)
    units = event.manifest.unit_count if event.HasField("manifest") else None if scope.HasField("range") else 1
    return {"first": first, "last": last, "unit_count": units, "revision": scope.revision}


def _ends(scope: Scope) -> tuple[int | str, int | str]:
    if scope.HasField("range"):
        return _value(scope.range.first), _value(scope.range.last)
    return _value(scope.cursor), _value(scope.cursor)


def _value(cursor: CursorValue) -> int | str:
    """Timestamps as microseconds since 1970, as Arrow takes them."""
    if cursor.HasField("timestamp_value"):
        return cursor.timestamp_value.ToMicroseconds()
    return cursor.int64_value if cursor.HasField("int64_value") else cursor.string_value
