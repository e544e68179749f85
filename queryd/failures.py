"""What a cell's complaint, or its end, means to the caller: a reason of the table of errors, and no path."""

import re
from collections.abc import Sequence

from kernel.errors import TraceError
from queryd.engine.frames import ProtocolError
from queryd.engine.messages import Failure, Name
from queryd.engine.pool import CellUnavailableError
from queryd.engine.process import CellEndedError, CellForsakenError
from traceapi.types.v1.errors_pb2 import ErrorReason

_REASONS = {
    "refused": ErrorReason.ERROR_REASON_SQL_REFUSED,
    "ambiguous": ErrorReason.ERROR_REASON_NAME_AMBIGUOUS,
    "failed": ErrorReason.ERROR_REASON_QUERY_FAILED,
    "files": ErrorReason.ERROR_REASON_QUERY_FAILED,
    "memory": ErrorReason.ERROR_REASON_QUERY_LIMIT,
    "rows": ErrorReason.ERROR_REASON_QUERY_LIMIT,
    "parameters": ErrorReason.ERROR_REASON_INVALID_REQUEST,
}
# Signals by which a process ends that was refused memory, or took too much of the machine's.
_MEMORY_SIGNALS = (6, 9)
_FILE_SIZE_SIGNAL = 25
# In a traceback: its heading, its frames, which are indented, and the exception's class.
_RAISED = re.compile(
    r"^Traceback \(most recent call last\):\n(?:[ \t].*\n)*"
    r"([A-Za-z_][\w.]{0,80}(?:Error|Exception|Interrupt|Exit))(?:: |$)",
    re.MULTILINE | re.ASCII,
)


def of_failure(failure: Failure, root: str) -> TraceError:
    """A complaint of the gate or the engine. `root` is where the cell sees the store."""
    reason = _REASONS.get(failure.kind, ErrorReason.ERROR_REASON_QUERY_FAILED)
    metadata = {"limit": failure.kind} if reason == ErrorReason.ERROR_REASON_QUERY_LIMIT else {}
    return _placed(reason, failure.message.replace(f"{root}/", "").strip(), failure.line, failure.column, metadata)


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
    if error.signal_number in _MEMORY_SIGNALS:
        message, limit = "the query took more memory than there is, and its process was ended", "memory"
    elif error.signal_number == _FILE_SIZE_SIGNAL:
        message, limit = "the query spilled more to disk than it may, and its process was ended", "scratch"
    else:
        message = f"the engine's process ended without an answer (signal {error.signal_number})"
        return TraceError(ErrorReason.ERROR_REASON_QUERY_FAILED, message)
    return TraceError(ErrorReason.ERROR_REASON_QUERY_LIMIT, message, metadata={"limit": limit})


def of_defect(error: ProtocolError | CellUnavailableError) -> TraceError:
    """A cell that does not do its part."""
    if isinstance(error, CellUnavailableError):
        return TraceError(ErrorReason.ERROR_REASON_OVERLOADED, str(error), retry_after=1.0)
    return TraceError(ErrorReason.ERROR_REASON_QUERY_FAILED, "the engine's process gave an answer that makes no sense")


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
