"""From an exception of an operator's code to the failure that the wrapper is told: its class, one line, the traceback.

The traceback shows the operator's own frames: those of this package and of the import system are left out, and files
of the bundle are named as in the bundle.
"""

import traceback
from collections.abc import Sequence
from pathlib import Path

from traceapi.types.v1.errors_pb2 import ErrorReason
from traceapi.types.v1.task_pb2 import ErrorClass, TaskFailure
from tracesdk.errors import InvalidOutput, TransientError, WrapperGone, WrapperRefused
from tracesdk.text import clip, clip_middle

_MESSAGE_BYTES, _TRACEBACK_BYTES = 4096, 65_536  # the contract's limits
_OWN_FOLDER = str(Path(__file__).parent) + "/"
_IMPORT_SYSTEM = ("<frozen importlib", "<frozen runpy")

# Refusals that the same output meets again.
_INVALID_OUTPUT = frozenset(
    {
        ErrorReason.ERROR_REASON_EVENT_CONFLICT,
        ErrorReason.ERROR_REASON_DATASET_NOT_PRODUCED,
        ErrorReason.ERROR_REASON_SCOPE_MISMATCH,
        ErrorReason.ERROR_REASON_SCOPE_OVERLAP,
        ErrorReason.ERROR_REASON_SCHEMA_DRIFT,
        ErrorReason.ERROR_REASON_WATERMARK_BACKWARDS,
        ErrorReason.ERROR_REASON_TOO_MANY_ROWS,
        ErrorReason.ERROR_REASON_MESSAGE_TOO_LARGE,
    }
)
# Mistakes of the code, such as reading what is no input. Any other refusal is of a kind that passes.
_USER = frozenset(
    {
        ErrorReason.ERROR_REASON_INVALID_REQUEST,
        ErrorReason.ERROR_REASON_DATASET_NOT_READ,
        ErrorReason.ERROR_REASON_NOT_IMPLEMENTED,
    }
)


def failure_of(error: BaseException, bundle_folders: Sequence[str] = (), memory_bytes: int = 0) -> TaskFailure:
    """The failure that stands for `error`; `memory_bytes` is what the code may allocate, 0 for no limit."""
    told = traceback.TracebackException.from_exception(error)
    lines = list(told.format_exception_only())
    summary = lines[-1].strip() if lines else type(error).__name__
    if isinstance(error, MemoryError) and memory_bytes:
        summary = f"more memory was wanted than the {memory_bytes:,} bytes that the code may use: {summary}"
    _trim(told, bundle_folders, set())
    return TaskFailure(
        error_class=error_class(error),
        message=clip(summary, _MESSAGE_BYTES),
        traceback=clip_middle("".join(told.format()), _TRACEBACK_BYTES),
    )


def error_class(error: BaseException) -> ErrorClass.ValueType:
    """Decides about retries."""
    if isinstance(error, InvalidOutput):
        return ErrorClass.ERROR_CLASS_INVALID_OUTPUT
    if isinstance(error, MemoryError):
        return ErrorClass.ERROR_CLASS_OUT_OF_MEMORY
    if isinstance(error, TransientError | WrapperGone):
        return ErrorClass.ERROR_CLASS_TRANSIENT
    if isinstance(error, WrapperRefused):
        if error.reason in _INVALID_OUTPUT:
            return ErrorClass.ERROR_CLASS_INVALID_OUTPUT
        return ErrorClass.ERROR_CLASS_USER if error.reason in _USER else ErrorClass.ERROR_CLASS_TRANSIENT
    return ErrorClass.ERROR_CLASS_USER


def _trim(told: traceback.TracebackException, folders: Sequence[str], seen: set[int]) -> None:
    if id(told) in seen:
        return
    seen.add(id(told))
    kept = [frame for frame in told.stack if not frame.filename.startswith((_OWN_FOLDER, *_IMPORT_SYSTEM))]
    told.stack = traceback.StackSummary.from_list([_in_bundle(frame, folders) for frame in kept])
    for other in (told.__cause__, told.__context__, *(told.exceptions or ())):
        if other is not None:
            _trim(other, folders, seen)


def _in_bundle(frame: traceback.FrameSummary, folders: Sequence[str]) -> traceback.FrameSummary:
    for folder in folders:
        if frame.filename.startswith(folder + "/"):
            name = frame.filename.removeprefix(folder + "/")
            return traceback.FrameSummary(name, frame.lineno, frame.name, lookup_line=False, line=frame.line)
    return frame
