"""What a client of Flight says about a query beside its text: in headers of the call, for Flight has no fields for it.

`trace-as-of` is a deploy number, or a pin as the answer's `trace.pin` has it; `trace-timeout` seconds; `trace-max-rows`
a number of rows. In ADBC a header is the option `adbc.flight.sql.rpc.call_header.NAME`.
"""

import base64
import binascii
from collections.abc import Iterable

from google.protobuf.message import DecodeError

from kernel.errors import TraceError, Violation
from traceapi.query.v1.query_service_pb2 import QueryRequest
from traceapi.types.v1.dataset_pb2 import Pin
from traceapi.types.v1.errors_pb2 import ErrorReason

AS_OF, TIMEOUT, MAX_ROWS = "trace-as-of", "trace-timeout", "trace-max-rows"
_LEAST_SECONDS, _MOST_SECONDS = 0.001, 3600.0
_MOST_DIGITS = 18  # which 64 bits hold


def apply(metadata: Iterable[tuple[str, str | bytes]], request: QueryRequest) -> None:
    """Writes what the headers say into a request. Raises TraceError INVALID_REQUEST, with the header's name.

    A request that has its pin, as one from a ticket, keeps it: a client sends the same headers with each of its calls.
    """
    pinned = request.HasField("pin")
    for key, value in metadata:
        if not isinstance(value, str):
            continue
        if key == AS_OF and not pinned:
            _as_of(value, request)
        elif key == TIMEOUT:
            request.timeout.FromMilliseconds(_milliseconds(key, value))
        elif key == MAX_ROWS:
            request.max_rows = _whole(key, value, "a whole number of rows")


def pin_text(pin: Pin) -> str:
    """A pin as `trace-as-of` takes it."""
    return base64.urlsafe_b64encode(pin.SerializeToString()).decode()


def _as_of(value: str, request: QueryRequest) -> None:
    if value.isdecimal():
        request.deploy_number = _whole(AS_OF, value, "the number of a deploy")
        return
    try:
        request.pin.CopyFrom(Pin.FromString(base64.urlsafe_b64decode(value)))
    except (binascii.Error, DecodeError, ValueError) as error:
        raise _invalid(AS_OF, "a deploy number, or the pin that an answer carried") from error


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


def _invalid(key: str, wanted: str) -> TraceError:
    violation = Violation(key, f"this is not {wanted}")
    message = f"the header {key} is not {wanted}"
    return TraceError(ErrorReason.ERROR_REASON_INVALID_REQUEST, message, violations=(violation,))
