"""What a job's declarations mean once every default is filled in. Assumes that they have been checked."""

from google.protobuf.duration_pb2 import Duration

from dispatcher.dag.model import JobKind, LocalPath
from dispatcher.dag.operators import Operator, Ordering, ValueKind
from dispatcher.dag.problems import Path, Places, shown_path
from traceapi.types.v1.dag_pb2 import CursorSpec, ExecutionSpec, JobSpec, LateScopes, OutputSpec, UpdateMode, Writers

DEFAULT_QUEUE = "default"
_DEFAULT_EXECUTION = ExecutionSpec(
    max_attempts=10,
    timeout=Duration(seconds=300),
    queue=DEFAULT_QUEUE,
    retry_backoff=Duration(seconds=1),
    max_retry_backoff=Duration(seconds=60),
    max_run_tasks=500,
)


def effective_execution(defaults: ExecutionSpec, job: JobSpec) -> ExecutionSpec:
    """The job's own settings over the DAG's over the contract's. A source has no time limit."""
    execution = ExecutionSpec()
    execution.CopyFrom(_DEFAULT_EXECUTION)
    for layer in (defaults, job.execution):
        for field, value in layer.ListFields():
            if field.message_type is not None:
                getattr(execution, field.name).CopyFrom(value)  # a duration replaces the earlier one, parts and all
            else:
                setattr(execution, field.name, value)
    stated = defaults.HasField("max_retry_backoff") or job.execution.HasField("max_retry_backoff")
    if not stated and _nanos(execution.retry_backoff) > _nanos(execution.max_retry_backoff):
        execution.max_retry_backoff.CopyFrom(execution.retry_backoff)
    if job.source:
        execution.ClearField("timeout")
    return execution


def effective_output(output: OutputSpec, operator: Operator | None, cursor: CursorSpec | None) -> OutputSpec:
    """The output with storage, cursor (the trigger's where none is stated), update and writers filled in."""
    effective = OutputSpec()
    effective.CopyFrom(output)
    if operator is None:
        return effective
    effective.storage = output.storage or operator.storages[0]
    effective.update = output.update or UpdateMode.UPDATE_MODE_REPLACE
    effective.writers = output.writers or Writers.WRITERS_ONE
    if cursor is not None and cursor.type and not output.HasField("cursor"):
        effective.cursor.CopyFrom(cursor)
    return effective


def is_ordered(job: JobSpec, operator: Operator | None) -> bool:
    if operator is None or operator.kind is not JobKind.OPERATOR:
        return False
    return operator.ordering is Ordering.ALWAYS or (operator.ordering is Ordering.ON_REQUEST and job.ordered)


def effective_late_scopes(job: JobSpec, operator: Operator | None) -> LateScopes.ValueType:
    """Unspecified where the job is not ordered."""
    if not is_ordered(job, operator):
        return LateScopes.LATE_SCOPES_UNSPECIFIED
    return job.late_scopes or LateScopes.LATE_SCOPES_REFUSE


def local_paths(name: str, job: JobSpec, operator: Operator | None, places: Places) -> tuple[LocalPath, ...]:
    """The paths that travel as bundles: code, and relative paths of a config. Absolute ones are read in place."""
    if operator is None:
        return ()

    def at(path: Path, value: str, *, file: bool) -> LocalPath:
        position = places.value(path)
        return LocalPath(value, name, file, position.line, position.column, shown_path(path))

    found = []
    if operator.code and job.code.bundle:
        found.append(at(("jobs", name, "code", "bundle"), job.code.bundle, file=False))
    for key in operator.config:
        if key.kind is ValueKind.PATH and key.name in job.config.fields:
            path = job.config.fields[key.name].string_value
            if path and not path.startswith("/"):
                found.append(at(("jobs", name, "config", key.name), path, file=True))
    return tuple(found)


def _nanos(duration: Duration) -> int:
    return duration.seconds * 10**9 + duration.nanos
