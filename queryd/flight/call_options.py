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


def apply(metadata: Iterable[tuple[str, str | bytes]], request: QueryRequest) -> None:
    """Writes what the headers say into a request. Raises TraceError INVALID_REQUEST, with the header's name."""
    for key, value in metadata:
        if not isinstance(value, str):
            continue
        if key == AS_OF:
            _as_of(value, request)
        elif key == TIMEOUT:
            request.timeout.FromMilliseconds(round(_number(key, value) * 1000))
        elif key == MAX_ROWS:
            request.max_rows = int(_number(key, value))


def pin_text(pin: Pin) -> str:
    """A pin as `trace-as-of` takes it."""
    return base64.urlsafe_b64encode(pin.SerializeToString()).decode()


def _as_of(value: str, request: QueryRequest) -> None:
    if value.isdecimal():
        request.deploy_number = int(value)
        return
    try:
        request.pin.CopyFrom(Pin.FromString(base64.urlsafe_b64decode(value)))
    except (binascii.Error, DecodeError, ValueError) as error:
        raise _invalid(AS_OF, "a deploy number, or the pin that an answer carried") from error


def _number(key: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError as error:
        raise _invalid(key, "a number") from error
    if not 0 <= number <= 1e15:
        raise _invalid(key, "a number that is not negative")
    return number


def _invalid(key: str, wanted: str) -> TraceError:
    violation = Violation(key, f"this is not {wanted}")
    message = f"the header {key} is not {wanted}"
    return TraceError(ErrorReason.ERROR_REASON_INVALID_REQUEST, message, violations=(violation,))
