"""What a failure inside a handler looks like outside: a reason of the table of errors, or INTERNAL without detail."""

import grpc
from grpc_status import rpc_status

from kernel.errors import TraceError, to_status
from kernel.ids import new_id
from kernel.telemetry import get_logger
from traceapi.types.v1 import errors_pb2

_log = get_logger("kernel.servers")


def status_of(error: Exception, method: str) -> grpc.Status:
    """The status with which the call ends. What was unexpected is logged whole; the caller gets an id to find it by."""
    known = _known(error)
    if isinstance(error, NotImplementedError):
        # What the generated servicers raise where a subclass leaves a method of the contract out.
        known = TraceError(errors_pb2.ERROR_REASON_NOT_IMPLEMENTED, f"{method} is not served by this release")
    if known is None:
        error_id = new_id()
        _log.error("call failed unexpectedly", method=method, error_id=error_id, exc_info=error)
        known = TraceError(
            errors_pb2.ERROR_REASON_INTERNAL,
            f"{method} failed unexpectedly; the server's log says more under {error_id}",
            metadata={"error_id": error_id},
        )
    elif known.reason == errors_pb2.ERROR_REASON_INTERNAL:
        _log.error("call failed", method=method, exc_info=error)
    status: grpc.Status = rpc_status.to_status(to_status(known))
    return status


def _known(error: BaseException) -> TraceError | None:
    """The TraceError that this is, or that every part of a TaskGroup's failure is."""
    if isinstance(error, TraceError):
        return error
    if isinstance(error, BaseExceptionGroup):
        parts = [_known(part) for part in error.exceptions]
        if all(part is not None for part in parts):
            return parts[0]
    return None
