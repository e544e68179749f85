"""What a client of Flight says about a query beside its text: in headers of the call, for Flight has no fields for it.

`trace-as-of` is a deploy number, or a pin as the answer's `as_of` has it; `trace-timeout` seconds; `trace-max-rows` a
number of rows; `trace-min-watermarks` a JSON object of datasets with cursors. Another header that begins with `trace-`
is refused: it would be one of these, misspelt. In ADBC a header is the option
`adbc.flight.sql.rpc.call_header.NAME`.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches

from kernel.call_metadata import ACTOR_NAME_KEY
from kernel.errors import TraceError, Violation
from kernel.pin_text import pin_of
from traceapi.query.v1.query_service_pb2 import QueryRequest
from traceapi.types.v1.errors_pb2 import ErrorReason
from traceapi.types.v1.event_pb2 import Watermark
from traceapi.types.v1.scope_pb2 import CursorValue

AS_OF, TIMEOUT, MAX_ROWS, MIN_WATERMARKS = "trace-as-of", "trace-timeout", "trace-max-rows", "trace-min-watermarks"
_PREFIX = "trace-"
_LEAST_SECONDS, _MOST_SECONDS = 0.001, 3600.0
_MOST_DIGITS = 18  # which 64 bits hold
_MOST_WATERMARKS = 100


def apply(metadata: Iterable[tuple[str, str | bytes]], request: QueryRequest) -> None:
    """Writes what the headers say into a request. Raises TraceError INVALID_REQUEST, with the header's name.

    A request that has its pin, as one from a ticket, keeps it: a client sends the same headers with each of its calls.
    """
    pinned = request.HasField("pin")
    for key, value in metadata:
        if not isinstance(value, str):
            continue
        if key in _WRITERS:
            if not pinned or key not in _OF_THE_PIN:
                _WRITERS[key](value, request)
        elif key.startswith(_PREFIX) and key != ACTOR_NAME_KEY:
            raise _unknown(key)


def _as_of(value: str, request: QueryRequest) -> None:
    if value.isdecimal():
        request.deploy_number = _whole(AS_OF, value, "the number of a deploy")
        return
    try:
        request.pin.CopyFrom(pin_of(value))
    except ValueError as error:
        raise _invalid(AS_OF, "a deploy number, or the pin that an answer carried") from error


def _timeout(value: str, request: QueryRequest) -> None:
    request.timeout.FromMilliseconds(_milliseconds(TIMEOUT, value))


def _max_rows(value: str, request: QueryRequest) -> None:
    request.max_rows = _whole(MAX_ROWS, value, "a whole number of rows")


def _min_watermarks(value: str, request: QueryRequest) -> None:
    """A number is a cursor of integers; a string is read as the dataset's cursors are written."""
    wanted = 'a JSON object of datasets with cursors, such as {"eth.blocks": 500000}'
    try:
        cursors = json.loads(value)
        if not isinstance(cursors, dict) or len(cursors) > _MOST_WATERMARKS:
            raise _invalid(MIN_WATERMARKS, wanted)
        del request.min_watermarks[:]
        for dataset_id, cursor in cursors.items():
            if isinstance(cursor, bool) or not isinstance(cursor, int | str):
                raise _invalid(MIN_WATERMARKS, wanted)
            value_ = CursorValue(string_value=cursor) if isinstance(cursor, str) else CursorValue(int64_value=cursor)
            request.min_watermarks.append(Watermark(dataset_id=dataset_id, cursor=value_))
    except (ValueError, RecursionError) as error:  # no JSON, or a number beyond 64 bits
        raise _invalid(MIN_WATERMARKS, wanted) from error


_WRITERS: Mapping[str, Callable[[str, QueryRequest], None]] = {
    AS_OF: _as_of,
    TIMEOUT: _timeout,
    MAX_ROWS: _max_rows,
    MIN_WATERMARKS: _min_watermarks,
}
_OF_THE_PIN = frozenset({AS_OF, MIN_WATERMARKS})


def _milliseconds(key: str, value: str) -> int:
    """Within what QueryRequest takes: GetFlightInfo begins a query before anything else looks at it."""
    wanted = "a number of seconds from 0.001 to 3600"
    try:
        seconds = float(value)
    except ValueError as error:
        raise _invalid(key, wanted) from error
    if not _LEAST_SECONDS <= seconds <= _MOST_SECONDS:
        raise _invalid(key, wanted)
    return round(seconds * 1000)


def _whole(key: str, value: str, wanted: str) -> int:
    if not value.isdecimal() or len(value) > _MOST_DIGITS:
        raise _invalid(key, wanted)
    return int(value)


def _unknown(key: str) -> TraceError:
    close = get_close_matches(key, _WRITERS, n=1, cutoff=0.75)
    remedy = f"did you mean {close[0]}?" if close else f"known are {', '.join(_WRITERS)}"
    violation = Violation(key, "there is no such header")
    message = f"there is no header {key}: {remedy}"
    return TraceError(ErrorReason.ERROR_REASON_INVALID_REQUEST, message, violations=(violation,))


def _invalid(key: str, wanted: str) -> TraceError:
    violation = Violation(key, f"this is not {wanted}")
    message = f"the header {key} is not {wanted}"
    return TraceError(ErrorReason.ERROR_REASON_INVALID_REQUEST, message, violations=(violation,))
