"""Reading what one caused: whether a pinned state is as far as the caller wants it."""

from collections.abc import Sequence

from kernel.errors import TraceError, Violation
from kernel.scopes import cursor_key, format_cursor
from traceapi.control.v1.dataset_service_pb2 import PinDatasetsResponse
from traceapi.types.v1.errors_pb2 import ErrorReason
from traceapi.types.v1.event_pb2 import Watermark


def missing_watermark(pinned: PinDatasetsResponse, wanted: Sequence[Watermark]) -> str | None:
    """What is not reached yet, for people, or None. INVALID_REQUEST for a dataset that the query does not read."""
    held = {dataset.dataset.dataset_id: dataset for dataset in pinned.datasets}
    for watermark in wanted:
        dataset = held.get(watermark.dataset_id)
        if dataset is None:
            violation = Violation("min_watermarks", f'the query does not read dataset "{watermark.dataset_id}"')
            raise TraceError(ErrorReason.ERROR_REASON_INVALID_REQUEST, violation.description, violations=(violation,))
        reached = dataset.watermark.cursor if dataset.HasField("watermark") else None
        if reached is None or cursor_key(reached) < cursor_key(watermark.cursor):
            where = "has not moved" if reached is None else f"is at {format_cursor(reached)}"
            return f'the watermark of "{watermark.dataset_id}" {where}, wanted is {format_cursor(watermark.cursor)}'
    return None
