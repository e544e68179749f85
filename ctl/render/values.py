"""Single values as people read them: cursors, scopes, times, counts, states. Colours by the meaning of the state."""

import math
from collections.abc import Iterable
from datetime import UTC, datetime

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from rich.text import Text

from kernel.scopes import format_cursor, format_scope
from traceapi.control.v1 import deployment_pb2
from traceapi.control.v1.deployment_pb2 import DeploymentState, TaskCount
from traceapi.types.v1 import dag_pb2, scope_pb2, task_pb2

NOTHING = "–"

TASK_STYLES = {
    task_pb2.TASK_STATE_QUEUED: "waiting",
    task_pb2.TASK_STATE_RELEASED: "active",
    task_pb2.TASK_STATE_RUNNING: "active",
    task_pb2.TASK_STATE_BACKOFF: "waiting",
    task_pb2.TASK_STATE_SUCCEEDED: "good",
    task_pb2.TASK_STATE_DEAD: "bad",
    task_pb2.TASK_STATE_CANCELED: "gone",
    task_pb2.TASK_STATE_SKIPPED: "gone",
}

FINAL_STATES = (
    task_pb2.TASK_STATE_SUCCEEDED,
    task_pb2.TASK_STATE_DEAD,
    task_pb2.TASK_STATE_CANCELED,
    task_pb2.TASK_STATE_SKIPPED,
)

_DEPLOYMENT_STYLES = {
    deployment_pb2.DEPLOYMENT_STATE_BUILDING: "active",
    deployment_pb2.DEPLOYMENT_STATE_HELD: "waiting",
    deployment_pb2.DEPLOYMENT_STATE_ACTIVE: "good",
}

_OUTCOME_STYLES = {
    task_pb2.ATTEMPT_OUTCOME_UNSPECIFIED: "active",
    task_pb2.ATTEMPT_OUTCOME_SUCCEEDED: "good",
    task_pb2.ATTEMPT_OUTCOME_FAILED: "bad",
    task_pb2.ATTEMPT_OUTCOME_LEASE_LOST: "bad",
    task_pb2.ATTEMPT_OUTCOME_CANCELED: "gone",
}


def word(name: str, prefix: str) -> str:
    """An enum value's name in lower case, without its enum's prefix."""
    return name.removeprefix(prefix).lower().replace("_", " ")


def task_state(state: task_pb2.TaskState.ValueType) -> Text:
    return Text(word(task_pb2.TaskState.Name(state), "TASK_STATE_"), TASK_STYLES.get(state, ""))


def deployment_state(state: DeploymentState.ValueType) -> Text:
    return Text(word(DeploymentState.Name(state), "DEPLOYMENT_STATE_"), _DEPLOYMENT_STYLES.get(state, "gone"))


def attempt_outcome(attempt: task_pb2.Attempt) -> Text:
    name = word(task_pb2.AttemptOutcome.Name(attempt.outcome), "ATTEMPT_OUTCOME_")
    return Text("running" if name == "unspecified" else name, _OUTCOME_STYLES.get(attempt.outcome, ""))


def error_class(failure: task_pb2.TaskFailure) -> str:
    return word(task_pb2.ErrorClass.Name(failure.error_class), "ERROR_CLASS_")


def origin(task: task_pb2.Task) -> str:
    return word(task_pb2.TaskOrigin.Name(task.origin), "TASK_ORIGIN_")


def storage(spec: dag_pb2.OutputSpec, virtual_sql: str = "") -> str:
    """Where the rows are; what is not stated is Parquet."""
    if virtual_sql:
        return "virtual"
    stated = spec.storage or dag_pb2.STORAGE_PARQUET
    return "events only" if stated == dag_pb2.STORAGE_NONE else word(dag_pb2.Storage.Name(stated), "STORAGE_")


def scope(of: scope_pb2.Scope) -> str:
    """`500000`, `500000..500099` or the key; a later revision is said."""
    if of.WhichOneof("extent") is None:
        return NOTHING
    return f"{format_scope(of)} (revision {of.revision})" if of.revision else format_scope(of)


def task_scope(task: task_pb2.Task) -> str:
    if task.origin == task_pb2.TASK_ORIGIN_SOURCE_RUN:
        return "source run"
    return scope(task.scope) if task.HasField("scope") else NOTHING


def cursor(value: scope_pb2.CursorValue) -> str:
    return format_cursor(value) if value.WhichOneof("value") else NOTHING


def members(manifest: scope_pb2.RangeManifest) -> str:
    """`500000..500099: 100 units in 1 run`."""
    first, last = cursor(manifest.boundaries.first), cursor(manifest.boundaries.last)
    runs = len(manifest.members)
    return f"{first}..{last}: {count(manifest.unit_count)} units in {runs} run{'s' if runs != 1 else ''}"


def count(number: int) -> str:
    return f"{number:,}"


def byte_size(number: int) -> str:
    """In powers of 1,024: `531 B`, `1.4 MiB`."""
    if number < 1024:
        return f"{number} B"
    exponent = min(int(math.log(number, 1024)), 5)
    return f"{number / 1024**exponent:.1f} {'KMGTP'[exponent - 1]}iB"


def duration(seconds: float) -> str:
    """`12 ms`, `3.4 s`, `2 min 05 s`, `1 h 04 min`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def seconds_of(value: Duration) -> float:
    return value.seconds + value.nanos / 1e9


def time(value: Timestamp) -> str:
    """UTC, to the second."""
    if not value.seconds:
        return NOTHING
    return datetime.fromtimestamp(value.seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def took(start: Timestamp, end: Timestamp) -> str:
    """How long something took; nothing where it has not ended."""
    if not start.seconds or not end.seconds:
        return NOTHING
    return duration(max(0.0, (end.ToNanoseconds() - start.ToNanoseconds()) / 1e9))


def task_counts(counts: Iterable[TaskCount]) -> Text:
    """`1,001 succeeded  3 running`, each in its colour."""
    parts = [
        Text(f"{count(entry.count)} ", TASK_STYLES.get(entry.state, "")) + task_state(entry.state)
        for entry in sorted(counts, key=lambda entry: entry.state)
        if entry.count
    ]
    return Text("  ").join(parts) if parts else Text(NOTHING, "hint")
