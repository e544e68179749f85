"""Stored files that queries want, and what is said where they are not to be had."""

from dataclasses import dataclass

from kernel.errors import TraceError
from traceapi.types.v1.errors_pb2 import ErrorReason


@dataclass(frozen=True, slots=True)
class WantedFile:
    """An object of the store, as it was recorded."""

    key: str
    size_bytes: int
    sha256: bytes


def lost(file: WantedFile, what: str) -> TraceError:
    """A file that is not what it was."""
    message = f"the file {file.key} {what}"
    return TraceError(ErrorReason.ERROR_REASON_ARTIFACT_LOST, message, metadata={"key": file.key})


def ending() -> TraceError:
    """What had to come does not come any more."""
    return TraceError(ErrorReason.ERROR_REASON_UNAVAILABLE, "this server is ending, and fetches nothing more")
