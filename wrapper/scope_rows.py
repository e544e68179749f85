"""A dataset without rows of its own, read as a relation of its scopes: one row for each visible one, in scope order."""

from collections.abc import Generator, Sequence

import pyarrow as pa

from kernel.dataset_sql import scope_columns
from kernel.scopes import scope_key
from traceapi.types.v1 import scope_pb2
from traceapi.types.v1.event_pb2 import Event
from traceapi.types.v1.scope_pb2 import CursorValue, Scope
from wrapper.outputs.columns import arrow_schema
from wrapper.rows import plain_cursor

_BATCH_ROWS = 16 * 1024
_WORDS = {
    scope_pb2.CURSOR_TYPE_UNSPECIFIED: "",
    scope_pb2.CURSOR_TYPE_INT64: "int64",
    scope_pb2.CURSOR_TYPE_TIMESTAMP: "timestamp",
    scope_pb2.CURSOR_TYPE_STRING: "string",
}


def scope_schema(cursor_type: scope_pb2.CursorType.ValueType) -> pa.Schema:
    """The columns of such a relation."""
    return arrow_schema(scope_columns(_WORDS[cursor_type]))


def scope_batches(
    events: Sequence[Event], schema: pa.Schema, columns: Sequence[str]
) -> Generator[pa.RecordBatch, None, None]:
    """A row for each scope; of one that was replaced, the highest revision."""
    visible: dict[tuple[bytes, bytes], Event] = {}
    for event in events:
        key = scope_key(event.scope)
        held = visible.get((key.first, key.last))
        if held is None or held.scope.revision <= event.scope.revision:
            visible[key.first, key.last] = event
    ordered = [visible[key] for key in sorted(visible)]
    for start in range(0, len(ordered), _BATCH_ROWS):
        rows = [_row(event) for event in ordered[start : start + _BATCH_ROWS]]
        batch = pa.RecordBatch.from_pylist(rows, schema)
        yield batch.select(list(columns)) if columns else batch


def _row(event: Event) -> dict[str, object]:
    scope = event.scope
    if scope.WhichOneof("extent") == "partition_key":
        return {"partition_key": scope.partition_key, "revision": scope.revision}
    first, last = _ends(scope)
    units = event.manifest.unit_count if event.HasField("manifest") else 1
    return {"first": plain_cursor(first), "last": plain_cursor(last), "unit_count": units, "revision": scope.revision}


def _ends(scope: Scope) -> tuple[CursorValue, CursorValue]:
    if scope.WhichOneof("extent") == "cursor":
        return scope.cursor, scope.cursor
    return scope.range.first, scope.range.last
