"""What a cell's complaint, or its end, means to the caller: a reason of the table of errors, and no path."""

import re
from collections.abc import Sequence

from kernel.errors import TraceError
from queryd.engine.frames import ProtocolError
from queryd.engine.messages import Failure, FailureKind, Name
from queryd.engine.pool import CellUnavailableError
from queryd.engine.process import CellEndedError, CellForsakenError
from traceapi.types.v1.errors_pb2 import ErrorReason

_REASONS = {
    FailureKind.REFUSED: ErrorReason.ERROR_REASON_SQL_REFUSED,
    FailureKind.AMBIGUOUS: ErrorReason.ERROR_REASON_NAME_AMBIGUOUS,
    FailureKind.FAILED: ErrorReason.ERROR_REASON_QUERY_FAILED,
    FailureKind.FILES: ErrorReason.ERROR_REASON_QUERY_FAILED,
    FailureKind.PARAMETERS: ErrorReason.ERROR_REASON_INVALID_REQUEST,
    FailureKind.MEMORY: ErrorReason.ERROR_REASON_QUERY_LIMIT,
    FailureKind.SCRATCH: ErrorReason.ERROR_REASON_QUERY_LIMIT,
    FailureKind.ROWS: ErrorReason.ERROR_REASON_QUERY_LIMIT,
    FailureKind.BROKEN: ErrorReason.ERROR_REASON_INTERNAL,
}
_LONGEST_WORD = 1000
_KILLED = 9
# What a process says that was refused memory and cannot go on; most abort then.
_WANT_OF_MEMORY = re.compile(r"bad_alloc|MemoryError|out of memory|cannot allocate|memory allocation", re.IGNORECASE)
_ENDS_FOR_MEMORY = (0, 6)
_OURS = "that is a fault of this server and not of the query"
# In a traceback: its heading, its frames, which are indented, and the exception's class.
_RAISED = re.compile(
    r"^Traceback \(most recent call last\):\n(?:[ \t].*\n)*"
    r"([A-Za-z_][\w.]{0,80}(?:Error|Exception|Interrupt|Exit))(?:: |$)",
    re.MULTILINE | re.ASCII,
)


def of_failure(failure: Failure, root: str) -> TraceError:
    """A complaint of the gate or the engine. `root` is where the cell sees the store."""
    reason = _REASONS[failure.kind]
    metadata = {"limit": failure.kind.value} if reason == ErrorReason.ERROR_REASON_QUERY_LIMIT else {}
    message = failure.message.replace(f"{root}/", "").strip()
    if failure.kind is FailureKind.BROKEN:  # what the engine says may quote values, and this message goes to the log
        return TraceError(reason, f"the engine broke: {_OURS}", metadata={"engine": message[:_LONGEST_WORD]})
    return _placed(reason, message, failure.line, failure.column, metadata)


def raised(stderr: str) -> str:
    """The class of the exception that the first traceback in a process's last words tells of; empty where none does.

    No more of them is for a log: an exception's message and a frame's line may quote a text, or values.
    """
    found = _RAISED.search(stderr)
    return found[1] if found else ""


def of_end(error: CellEndedError) -> TraceError:
    """A process that ended without an answer."""
    if isinstance(error, CellForsakenError):
        message = "queryd lost the process that those of queries are forked of, and this one with it"
        return TraceError(ErrorReason.ERROR_REASON_UNAVAILABLE, message, retry_after=1.0)
    if error.signal_number in _ENDS_FOR_MEMORY and _WANT_OF_MEMORY.search(error.stderr):
        message = "the query took more memory than it may have, and its process ended"
    elif error.signal_number == _KILLED:
        message = "the query's process was killed, most likely because the machine had no memory left for it"
    else:
        how = f"by signal {error.signal_number}" if error.signal_number else "by itself"
        return TraceError(
            ErrorReason.ERROR_REASON_INTERNAL, f"the query's process ended without an answer, {how}: {_OURS}"
        )
    return TraceError(ErrorReason.ERROR_REASON_QUERY_LIMIT, message, metadata={"limit": FailureKind.MEMORY.value})


def of_defect(error: ProtocolError | CellUnavailableError) -> TraceError:
    """A cell that does not do its part."""
    if isinstance(error, CellUnavailableError):
        return TraceError(ErrorReason.ERROR_REASON_OVERLOADED, str(error), retry_after=1.0)
    message = f"the query's process gave an answer that makes no sense: {_OURS}"
    return TraceError(ErrorReason.ERROR_REASON_INTERNAL, message)


def with_query(error: TraceError, query_id: str) -> TraceError:
    """A defect of the server is found in its log by the query's id."""
    if error.reason != ErrorReason.ERROR_REASON_INTERNAL:
        return error
    return TraceError(error.reason, error.message, metadata={**error.metadata, "query_id": query_id})


def at_name(error: TraceError, names: Sequence[Name]) -> TraceError:
    """The dispatcher's word on a name, with the place where the text has it."""
    for name in names:
        if name.dataset_id == error.metadata.get("name"):
            return _placed(error.reason, error.message, name.line, name.column, error.metadata)
    return error


def _placed(reason: int, message: str, line: int, column: int, metadata: dict[str, str]) -> TraceError:
    if not line:
        return TraceError(reason, message, metadata=metadata)
    facts = {**metadata, "line": str(line), "column": str(column)}
    return TraceError(reason, f"line {line}, column {column}: {message}", metadata=facts)
