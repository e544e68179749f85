"""How a unit ended, and what the dispatcher is told of it: rules of values only."""

from collections.abc import Sequence
from dataclasses import dataclass

from kernel.errors import TraceError, to_item_error
from traceapi.operator.v1.operator_service_pb2 import FinishedUnit
from traceapi.types.v1 import errors_pb2, task_pb2
from traceapi.types.v1.errors_pb2 import ErrorReason, ItemError
from traceapi.types.v1.task_pb2 import TaskFailure
from traceapi.worker.v1.completion_pb2 import CompleteItem, CompleteTaskResult, TaskCanceled, TaskReturned
from traceapi.worker.v1.emit_pb2 import EmitItem, EmitResult
from wrapper.unit import Stop, Unit

_MESSAGE_BYTES = 4096
_TRACEBACK_BYTES = 65536

# Who hears one of these has lost the task: there is nothing left to report.
GONE = frozenset(
    {
        errors_pb2.ERROR_REASON_STALE_LEASE,
        errors_pb2.ERROR_REASON_STALE_STREAM_EPOCH,
        errors_pb2.ERROR_REASON_TASK_NOT_FOUND,
        errors_pb2.ERROR_REASON_TASK_FINISHED,
    }
)
# Refusals that the next attempt would meet again, because it would emit the same.
_OF_THE_OUTPUT = frozenset(
    {
        errors_pb2.ERROR_REASON_SCHEMA_DRIFT,
        errors_pb2.ERROR_REASON_SCOPE_MISMATCH,
        errors_pb2.ERROR_REASON_SCOPE_OVERLAP,
        errors_pb2.ERROR_REASON_DATASET_NOT_PRODUCED,
        errors_pb2.ERROR_REASON_EVENT_CONFLICT,
        errors_pb2.ERROR_REASON_WATERMARK_BACKWARDS,
        errors_pb2.ERROR_REASON_MESSAGE_TOO_LARGE,
        errors_pb2.ERROR_REASON_INVALID_REQUEST,
    }
)
# Refusals by a state of things that the next attempt starts anew from.
_OF_THE_MOMENT = frozenset(
    {
        errors_pb2.ERROR_REASON_STATE_CONFLICT,
        errors_pb2.ERROR_REASON_ARTIFACT_CONFLICT,
        errors_pb2.ERROR_REASON_ARTIFACT_MISMATCH,
        errors_pb2.ERROR_REASON_EVENTS_MISSING,
        errors_pb2.ERROR_REASON_TOO_MANY_ROWS,  # consumers came since the claim; the next one states a lower limit
        errors_pb2.ERROR_REASON_UNAVAILABLE,
        errors_pb2.ERROR_REASON_OVERLOADED,
        errors_pb2.ERROR_REASON_INTERNAL,
    }
)
# What an operator may say of its own failure. The other classes are for its wrapper to find: a lost lease, for one,
# is not counted against max_attempts.
_OPERATORS_OWN = frozenset(
    {
        task_pb2.ERROR_CLASS_USER,
        task_pb2.ERROR_CLASS_TRANSIENT,
        task_pb2.ERROR_CLASS_OUT_OF_MEMORY,
        task_pb2.ERROR_CLASS_INVALID_OUTPUT,
    }
)


@dataclass(frozen=True, slots=True)
class Succeeded:
    """All of the unit ended well."""


@dataclass(frozen=True, slots=True)
class Failed:
    """What is not done yet failed."""

    failure: TaskFailure


@dataclass(frozen=True, slots=True)
class Canceled:
    """It was told to stop by the dispatcher, and did."""

    message: str


@dataclass(frozen=True, slots=True)
class Returned:
    """This worker gives it up: another one takes it up."""

    message: str


@dataclass(frozen=True, slots=True)
class Dropped:
    """Nothing is reported: the lease is lost."""

    reason: str


Reported = Succeeded | Failed | Canceled | Returned
Ending = Reported | Dropped


@dataclass(frozen=True, slots=True)
class UnitEnd:
    """What the dispatcher is told of a unit's end at once: the last that it publishes, and how its attempts ended."""

    completions: Sequence[CompleteItem]
    emit: EmitItem | None = None

    def ByteSize(self) -> int:
        size = sum(item.ByteSize() for item in self.completions)
        return size if self.emit is None else size + self.emit.ByteSize()


@dataclass(frozen=True, slots=True)
class UnitVerdict:
    """What it answers: for each attempt, and for the emit."""

    completions: Sequence[CompleteTaskResult]
    emit: EmitResult | None = None

    @property
    def refusal(self) -> ItemError | None:
        """Why an attempt has not ended so; None where all have.

        Then the emit's verdict does not matter: its lease may have ended with a former call whose answer was lost.
        Else a refused emit is the reason why its attempt may not succeed.
        """
        refused = next((result.error for result in self.completions if result.HasField("error")), None)
        if refused is not None and self.emit is not None and self.emit.HasField("error"):
            return self.emit.error
        return refused


def refused_end(end: UnitEnd, error: TraceError) -> UnitVerdict:
    """The verdict on an end that the dispatcher would not even read."""
    refusal = to_item_error(error)
    results = [CompleteTaskResult(task_id=item.lease.task_id, error=refusal) for item in end.completions]
    return UnitVerdict(results, None if end.emit is None else EmitResult(error=refusal))


def failed(error_class: task_pb2.ErrorClass.ValueType, message: str, traceback: str = "") -> Failed:
    """A failure within the contract's limits; of a traceback the end counts."""
    return Failed(
        TaskFailure(
            error_class=error_class,
            message=message.encode(errors="replace")[:_MESSAGE_BYTES].decode(errors="ignore"),
            traceback=traceback.encode(errors="replace")[-_TRACEBACK_BYTES:].decode(errors="ignore"),
        )
    )


def ending_of(unit: Unit, finished: FinishedUnit) -> Ending:
    """What the operator says, as far as it may say it."""
    outcome = finished.WhichOneof("outcome")
    if outcome == "succeeded":
        return Succeeded()
    if outcome == "failed":
        failure = finished.failed
        if failure.error_class not in _OPERATORS_OWN:
            failure.error_class = task_pb2.ERROR_CLASS_USER
        return Failed(failure)
    return stopped(unit)


def stopped(unit: Unit) -> Ending:
    """The unit's operator has stopped before its end."""
    if unit.stop is None:
        return failed(task_pb2.ERROR_CLASS_USER, "the operator stopped the task without having been told to")
    if unit.stop is Stop.CANCEL:
        return Canceled(unit.stop_reason)
    if unit.stop is Stop.HAND_BACK:
        return Returned(unit.stop_reason)
    return Dropped(unit.stop_reason)


def ending_of_refusal(error: ItemError) -> Ending:
    """What a refused emit, or a refused success, makes of the attempt."""
    name = ErrorReason.Name(error.reason).removeprefix("ERROR_REASON_")
    message = f"{name}: {error.message}"
    if error.reason in GONE:
        return Dropped(message)
    if error.reason == errors_pb2.ERROR_REASON_TASK_CANCELED:  # it may still say that it has stopped
        return Canceled(error.message)
    if error.reason in _OF_THE_OUTPUT:
        return failed(task_pb2.ERROR_CLASS_INVALID_OUTPUT, message)
    if error.reason in _OF_THE_MOMENT:
        return failed(task_pb2.ERROR_CLASS_TRANSIENT, message)
    return failed(task_pb2.ERROR_CLASS_USER, message)


def completions(unit: Unit, ending: Reported, finished: FinishedUnit | None) -> Sequence[CompleteItem]:
    """What CompleteTasks is told, in scope order: of a run the part that was emitted has succeeded, whatever came
    after.

    The first failing task of a run is the one that the dispatcher charges, so it alone carries the traceback.
    """
    items: list[CompleteItem] = []
    charged = False
    for index, task in enumerate(unit.tasks):
        item = CompleteItem(lease=unit.leases[index], stream=unit.stream)
        emitted = unit.is_run and (index < unit.covered_tasks or task.already_emitted)
        if isinstance(ending, Succeeded) or emitted:
            item.success.SetInParent()  # also where it emitted nothing
            item.success.emitted_event_count = unit.emitted[index].count
        elif isinstance(ending, Canceled):
            item.canceled.CopyFrom(TaskCanceled(message=ending.message[:_MESSAGE_BYTES]))
        elif isinstance(ending, Returned):
            item.returned.CopyFrom(TaskReturned(message=ending.message[:_MESSAGE_BYTES]))
        else:
            item.failure.CopyFrom(ending.failure)
            if charged:
                item.failure.ClearField("traceback")
            charged = True
        if index == 0 and finished is not None and finished.HasField("usage"):
            item.usage.CopyFrom(finished.usage)
        items.append(item)
    return items
