"""The one error of every program, and its three forms: exception, failed call, refused item of a batch.

The table of errors is data in the contract: each value of `traceapi.types.v1.ErrorReason` carries its canonical code,
its meaning and its remedy. Nothing here repeats it. A failed call is a gRPC status with `google.rpc.ErrorInfo` (the
reason, domain "trace"), `BadRequest` where fields are at fault and `RetryInfo` where the server says when to come back;
work that failed is an `ItemError`, data in a successful reply.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from traceapi.types.v1 import errors_pb2, options_pb2

DOMAIN = "trace"
_PREFIX = "ERROR_REASON_"
_DETAILS_KEY = "grpc-status-details-bin"

# Details travel in a trailer, which grpc limits. Servers stay below this; kernel.channels accepts a multiple of it.
MAX_DETAILS_BYTES = 192 * 1024
MAX_MESSAGE_CHARACTERS = 4096


@dataclass(frozen=True, slots=True)
class Violation:
    """One fault of a request: the path of the field, and what is wrong with it."""

    field: str
    description: str


@dataclass(frozen=True, slots=True)
class ErrorRow:
    """One row of the table of errors."""

    reason: int
    name: str
    """Without its prefix, as `google.rpc.ErrorInfo.reason` carries it."""
    code: grpc.StatusCode
    meaning: str
    remedy: str


class TraceError(Exception):
    """A failure with a reason from the table of errors. `str()` is the message, for people."""

    def __init__(
        self,
        reason: int,
        message: str,
        *,
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[Violation] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = errors_pb2.ErrorReason.ValueType(reason)
        self.message = message
        self.metadata: dict[str, str] = dict(metadata or {})
        self.violations = tuple(violations)
        self.retry_after = retry_after
        """Seconds to wait before the same call may be repeated; None where nothing is known."""

    @property
    def code(self) -> grpc.StatusCode:
        """The canonical code of the reason."""
        return _row(self.reason).code

    @property
    def reason_name(self) -> str:
        """The reason without its prefix."""
        return _row(self.reason).name

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.reason_name}, {self.message!r})"


@lru_cache(maxsize=1)
def error_table() -> tuple[ErrorRow, ...]:
    """All rows, by number. The zero value is no row: it is never sent."""
    codes = {code.value[0]: code for code in grpc.StatusCode}
    rows = []
    for value in errors_pb2.ErrorReason.DESCRIPTOR.values:
        if value.number == errors_pb2.ERROR_REASON_UNSPECIFIED:
            continue
        entry = value.GetOptions().Extensions[options_pb2.error]
        name = value.name.removeprefix(_PREFIX)
        rows.append(ErrorRow(value.number, name, codes[entry.code], entry.meaning, entry.remedy))
    return tuple(rows)


@lru_cache(maxsize=1)
def _rows_by_reason() -> dict[int, ErrorRow]:
    return {row.reason: row for row in error_table()}


@lru_cache(maxsize=1)
def _reasons_by_name() -> dict[str, int]:
    return {row.name: row.reason for row in error_table()}


def _row(reason: int) -> ErrorRow:
    """The row of a reason; a number that this release does not know counts as a defect."""
    rows = _rows_by_reason()
    return rows.get(reason, rows[errors_pb2.ERROR_REASON_INTERNAL])


def item_error(reason: int, message: str, **metadata: str) -> errors_pb2.ItemError:
    """A refusal of one item of a batch; metadata are facts for programs, keys in lower_snake_case."""
    return errors_pb2.ItemError(
        reason=errors_pb2.ErrorReason.ValueType(reason), message=_wire_text(message), metadata=metadata
    )


def to_item_error(error: TraceError) -> errors_pb2.ItemError:
    """The same failure as data. Violations have no field there, so they become part of the message."""
    lines = [error.message, *(f"{violation.field}: {violation.description}" for violation in error.violations)]
    return item_error(error.reason, "\n".join(lines), **error.metadata)


def to_status(error: TraceError) -> status_pb2.Status:
    """The failure as a `google.rpc.Status`; `grpc_status.rpc_status.to_status` makes it one for `abort_with_status`."""
    status = status_pb2.Status(code=error.code.value[0], message=_wire_text(error.message))
    info = error_details_pb2.ErrorInfo(reason=error.reason_name, domain=DOMAIN)
    for key, value in error.metadata.items():
        info.metadata[_wire_text(key)] = _wire_text(value)
    status.details.add().Pack(info)
    if error.violations:
        status.details.add().Pack(_bad_request(error.violations))
    if error.retry_after is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(round(error.retry_after * 1000))
        status.details.add().Pack(retry)
    return status


def _bad_request(violations: Sequence[Violation]) -> error_details_pb2.BadRequest:
    """All violations; beyond what a trailer can carry, how many more there are."""
    bad_request = error_details_pb2.BadRequest()
    size = 0
    for index, violation in enumerate(violations):
        field, description = _wire_text(violation.field), _wire_text(violation.description)
        size += len(field.encode()) + len(description.encode()) + 16
        if size > MAX_DETAILS_BYTES:
            more = len(violations) - index
            bad_request.field_violations.add(description=f"and {more} more, which do not fit into one answer")
            break
        bad_request.field_violations.add(field=field, description=description)
    return bad_request


def _wire_text(text: str) -> str:
    """Text that protobuf accepts and a trailer can carry: lone surrogates replaced, overlong text cut."""
    clean = text.encode("utf-8", "replace").decode("utf-8")
    return clean if len(clean) <= MAX_MESSAGE_CHARACTERS else clean[: MAX_MESSAGE_CHARACTERS - 1] + "…"


# What a status without our details means: it comes from grpc itself, from a proxy or from a foreign server.
_REASON_OF_CODE = {
    grpc.StatusCode.INVALID_ARGUMENT: errors_pb2.ERROR_REASON_INVALID_REQUEST,
    grpc.StatusCode.UNAUTHENTICATED: errors_pb2.ERROR_REASON_UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED: errors_pb2.ERROR_REASON_PERMISSION_DENIED,
    grpc.StatusCode.UNIMPLEMENTED: errors_pb2.ERROR_REASON_NOT_IMPLEMENTED,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors_pb2.ERROR_REASON_DEADLINE_EXCEEDED,
    grpc.StatusCode.UNAVAILABLE: errors_pb2.ERROR_REASON_UNAVAILABLE,
    # A server that stops cancels the calls that outlast its grace: the same call goes through once it is back.
    grpc.StatusCode.CANCELLED: errors_pb2.ERROR_REASON_UNAVAILABLE,
}


def from_rpc_error(error: grpc.RpcError) -> TraceError:
    """What a failed call means, for sync and aio calls alike. Raise it `from` the RpcError."""
    code, details = error.code(), error.details() or ""
    status = _rich_status(error)
    if status is not None:
        found = _from_status(status)
        if found is not None:
            return found
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        # Only grpc's words tell its two cases apart: a message above the limit, and a full server.
        too_large = "larger than max" in details
        reason = errors_pb2.ERROR_REASON_MESSAGE_TOO_LARGE if too_large else errors_pb2.ERROR_REASON_OVERLOADED
    else:
        reason = _REASON_OF_CODE.get(code, errors_pb2.ERROR_REASON_INTERNAL)
    return TraceError(reason, details or code.name, metadata={"grpc_code": code.name})


def answered_by_server(error: grpc.RpcError) -> bool:
    """Whether a server of ours said it; otherwise grpc did, a proxy or a foreign server."""
    status = _rich_status(error)
    return status is not None and _from_status(status) is not None


def _rich_status(error: grpc.RpcError) -> status_pb2.Status | None:
    # The stubs of grpc type this neither for sync nor for aio calls as the pairs that both give.
    trailers: Iterable[tuple[str, bytes]] = cast(Any, error).trailing_metadata() or ()
    for key, value in trailers:
        if key == _DETAILS_KEY:
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:
                return None
    return None


def _from_status(status: status_pb2.Status) -> TraceError | None:
    """None where the status carries no reason that this release knows."""
    info, bad_request, retry = (
        error_details_pb2.ErrorInfo(),
        error_details_pb2.BadRequest(),
        error_details_pb2.RetryInfo(),
    )
    retry_after: float | None = None
    for detail in status.details:
        if detail.Is(retry.DESCRIPTOR) and detail.Unpack(retry):
            retry_after = retry.retry_delay.ToMilliseconds() / 1000
        elif not detail.Unpack(info):
            detail.Unpack(bad_request)
    reason = _reasons_by_name().get(info.reason) if info.domain == DOMAIN else None
    if reason is None:
        return None
    violations = [Violation(found.field, found.description) for found in bad_request.field_violations]
    return TraceError(
        reason, status.message, metadata=dict(info.metadata), violations=violations, retry_after=retry_after
    )
