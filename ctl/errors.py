"""What tracectl says when it cannot do what was asked: what, where, remedy, and the exit code.

Commands raise; `ctl.main` prints. Nothing else ends the process, so a command can be called from a test or from another
command and be caught.
"""

from enum import IntEnum

import grpc

from ctl.remedies import remedy_of, with_home
from kernel.errors import TraceError
from traceapi.types.v1 import errors_pb2


class ExitCode(IntEnum):
    """The exit codes of tracectl, as `--help` documents them."""

    OK = 0
    FAULTY = 1  # the work, the document or the query has a fault; or the server has
    USAGE = 2  # the command line is wrong
    UNREACHABLE = 3  # no stack, no answer, or not let in


class CtlError(Exception):
    """An expected failure, printed without a traceback."""

    def __init__(
        self, message: str, *, where: str = "", remedy: str = "", exit_code: ExitCode = ExitCode.FAULTY
    ) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.remedy = remedy
        self.exit_code = exit_code


_UNREACHABLE = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.DEADLINE_EXCEEDED}


def from_trace_error(error: TraceError, *, where: str = "", remedy: str = "", home_option: str = "") -> CtlError:
    """The same failure for a person: with what a person can do about it, which is the reason's or `remedy`."""
    details = (f"{violation.field}: {violation.description}" for violation in error.violations)
    lines = [error.message, *(f"  {detail}" for detail in details if detail not in error.message)]
    if error.code in _UNREACHABLE:
        exit_code = ExitCode.UNREACHABLE
    elif error.reason == errors_pb2.ERROR_REASON_INVALID_REQUEST:
        exit_code = ExitCode.USAGE
    else:
        exit_code = ExitCode.FAULTY
    told = with_home(remedy, home_option) if remedy else remedy_of(error, home_option)
    return CtlError("\n".join(lines), where=where, remedy=told, exit_code=exit_code)
