"""What can go wrong in an operator, as exceptions with fields. `failures.py` says what class of failure each is."""

from traceapi.types.v1.errors_pb2 import ErrorReason


class OperatorError(Exception):
    """The root of this tree. Raised by itself it is a fault of the operator's code or of its input."""


class TransientError(OperatorError):
    """Something outside that passes. Raise it from an operator's code to have the attempt repeated as such."""


class InvalidOutput(OperatorError):
    """The output breaks a declaration. Repeating does not help: the task is DEAD at once."""


class SchemaMismatch(InvalidOutput):
    """A column is not what the dataset declares."""

    def __init__(self, dataset: str, column: str, found: str, declared: str, detail: str = "") -> None:
        text = f"dataset {dataset!r}, column {column!r}: the table has {found}, declared is {declared}"
        super().__init__(f"{text} ({detail})" if detail else text)
        self.dataset = dataset
        self.column = column
        self.found = found
        self.declared = declared


class TaskCanceled(OperatorError):
    """The task was told to stop. Let it pass through: what was not emitted is dropped, and nothing counts as failed."""


class WrapperRefused(OperatorError):
    """The wrapper refused a call or an emit. `reason` is a value of ErrorReason, UNSPECIFIED where none was given."""

    def __init__(self, reason: int, message: str) -> None:
        name = "" if reason == ErrorReason.ERROR_REASON_UNSPECIFIED else _reason_name(reason)
        super().__init__(f"{name}: {message}" if name else message)
        self.reason = reason
        self.message = message


class WrapperGone(OperatorError):
    """The wrapper does not answer any more. Nothing that the process does can have an effect."""


def _reason_name(reason: int) -> str:
    value = ErrorReason.DESCRIPTOR.values_by_number.get(reason)
    return value.name.removeprefix("ERROR_REASON_") if value else str(reason)
