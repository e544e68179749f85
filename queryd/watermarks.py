"""Reading what one caused: whether a pinned state is as far as the caller wants it."""

from collections.abc import Sequence

from kernel.errors import TraceError, Violation
from kernel.scopes import cursor_key, format_cursor, parse_cursor
from traceapi.control.v1.dataset_service_pb2 import PinDatasetsResponse, PinnedDataset
from traceapi.types.v1.errors_pb2 import ErrorReason
from traceapi.types.v1.event_pb2 import Watermark
from traceapi.types.v1.scope_pb2 import CursorType, CursorValue

_FIELDS = {
    CursorType.CURSOR_TYPE_INT64: "int64_value",
    CursorType.CURSOR_TYPE_TIMESTAMP: "timestamp_value",
    CursorType.CURSOR_TYPE_STRING: "string_value",
}


def missing_watermark(pinned: PinDatasetsResponse, wanted: Sequence[Watermark]) -> str | None:
    """What is not reached yet, for people, or None. INVALID_REQUEST for a dataset that the query does not read, and for
    a cursor that is none of its dataset's."""
    # As names are: there are no two ids that differ in their case alone.
    held = {dataset.dataset.dataset_id.casefold(): dataset for dataset in pinned.datasets}
    for watermark in wanted:
        dataset = held.get(watermark.dataset_id.casefold())
        if dataset is None:
            raise _invalid(f'the query does not read dataset "{watermark.dataset_id}"')
        cursor = _as_declared(watermark, dataset)
        reached = dataset.watermark.cursor if dataset.HasField("watermark") else None
        if reached is None or cursor_key(reached) < cursor_key(cursor):
            where = "has not moved" if reached is None else f"is at {format_cursor(reached)}"
            return f'the watermark of "{watermark.dataset_id}" {where}, wanted is {format_cursor(cursor)}'
    return None


def _as_declared(watermark: Watermark, dataset: PinnedDataset) -> CursorValue:
    """The wanted cursor, in its dataset's type; one that is given as a string is read as a person would write it."""
    name = f'dataset "{watermark.dataset_id}"'
    cursor_type = dataset.dataset.spec.cursor.type
    if cursor_type not in _FIELDS:
        raise _invalid(f"{name} has no cursor, so there is no watermark to wait for")
    given = watermark.cursor.WhichOneof("value")
    if given == _FIELDS[cursor_type]:
        return watermark.cursor
    kind = CursorType.Name(cursor_type).removeprefix("CURSOR_TYPE_").lower()
    if given != "string_value":
        raise _invalid(f"the cursor of {name} is of type {kind}, and another one is given")
    try:
        return parse_cursor(watermark.cursor.string_value, cursor_type)
    except TraceError as error:
        raise _invalid(f"the cursor of {name} is of type {kind}: {error.message}") from error


def _invalid(description: str) -> TraceError:
    violation = Violation("min_watermarks", description)
    return TraceError(ErrorReason.ERROR_REASON_INVALID_REQUEST, description, violations=(violation,))
