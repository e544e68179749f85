"""The job that a process serves: what the wrapper's answer to Attach says, parsed once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from google.protobuf.struct_pb2 import Struct, Value

from traceapi.types.v1.dag_pb2 import Storage
from traceapi.types.v1.job_pb2 import JobDetails, JobInput, JobOutput
from tracesdk.errors import InvalidOutput
from tracesdk.scopes import CursorType

_DEFAULT_MAX_EVENTS = 1000
_MOST_EVENTS = 5000  # the contract's limit of one emit
_EXACT_INTEGER = 2**53


@dataclass(frozen=True, slots=True)
class Input:
    """A dataset that the job reads. `virtual_sql` is empty but for a virtual dataset. `schema` is in the order of the
    columns; `column_order` has their names where that order is on record, and is empty where it is by name."""

    dataset: str
    trigger: bool
    schema: Mapping[str, str]
    cursor_column: str
    virtual_sql: str
    column_order: tuple[str, ...] = ()

    @classmethod
    def from_message(cls, message: JobInput) -> Self:
        schema = _ordered(message.schema, message.column_order)
        column, sql, order = message.cursor.column, message.virtual_sql, tuple(message.column_order)
        return cls(message.dataset_id, message.trigger, schema, column, sql, order)


@dataclass(frozen=True, slots=True)
class OutputDataset:
    """A dataset that the job produces. `schema` is in the order of the columns, and empty where nothing is declared."""

    dataset: str
    stored: bool
    schema: Mapping[str, str]
    cursor_column: str
    cursor_type: CursorType

    @classmethod
    def from_message(cls, message: JobOutput) -> Self:
        spec = message.spec
        stored = spec.storage != Storage.STORAGE_NONE
        cursor = spec.cursor
        return cls(
            message.dataset_id,
            stored,
            _ordered(spec.schema, spec.column_order),
            cursor.column,
            CursorType.from_message(cursor.type),
        )


@dataclass(frozen=True, slots=True)
class Job:
    """A job version, as its operator sees it."""

    dag: str
    name: str
    operator: str
    config: Mapping[str, Any]
    inputs: Mapping[str, Input]
    outputs: Mapping[str, OutputDataset]
    ordered: bool
    trigger_cursor_type: CursorType
    max_events_per_emit: int
    memory_bytes: int  # what its code may allocate; 0 for no limit
    local_paths: Mapping[str, str]
    secrets: Mapping[str, str]

    @classmethod
    def from_message(
        cls, details: JobDetails, local_paths: Mapping[str, str] | None = None, secrets: Mapping[str, str] | None = None
    ) -> Self:
        return cls(
            dag=details.dag,
            name=details.job,
            operator=details.operator,
            config=_plain_struct(details.config),
            inputs={one.dataset_id: Input.from_message(one) for one in details.inputs},
            outputs={one.dataset_id: OutputDataset.from_message(one) for one in details.outputs},
            ordered=details.ordered,
            trigger_cursor_type=CursorType.from_message(details.trigger_cursor_type),
            max_events_per_emit=min(details.max_events_per_emit or _DEFAULT_MAX_EVENTS, _MOST_EVENTS),
            memory_bytes=details.memory_bytes,
            local_paths=dict(local_paths or {}),
            secrets=dict(secrets or {}),
        )

    def output(self, dataset: str) -> OutputDataset:
        """The output of that name; InvalidOutput where the job has none."""
        found = self.outputs.get(dataset)
        if found is None:
            raise InvalidOutput(f"the job {self.name!r} has no output {dataset!r}; it has {_listed(self.outputs)}")
        return found

    def only_output(self) -> OutputDataset:
        """The output of a job that has one."""
        if len(self.outputs) != 1:
            raise InvalidOutput(f"the job {self.name!r} must have one output; it has {_listed(self.outputs)}")
        return next(iter(self.outputs.values()))

    def only_stored_output(self) -> OutputDataset:
        """The one output that keeps rows."""
        stored = [output for output in self.outputs.values() if output.stored]
        if len(stored) != 1:
            names = _listed({output.dataset: output for output in stored})
            raise InvalidOutput(
                f"a returned table goes to the only output with files, and the job {self.name!r} has {names}: "
                "use task.write(dataset, table) and task.emit(dataset, output=...)"
            )
        return stored[0]


def _ordered(schema: Mapping[str, str], order: Sequence[str]) -> dict[str, str]:
    """The columns in their order; a message's map has none, so by name where none is said."""
    return {name: schema[name] for name in order or sorted(schema) if name in schema}


def _listed(outputs: Mapping[str, OutputDataset]) -> str:
    return ", ".join(sorted(outputs)) or "none"


def _plain_struct(struct: Struct) -> dict[str, Any]:
    return {name: _plain(value) for name, value in struct.fields.items()}


def _plain(value: Value) -> Any:
    """The value in Python's own types. A Struct knows doubles only: whole numbers become integers again."""
    kind = value.WhichOneof("kind")
    if kind == "number_value":
        number = value.number_value
        return int(number) if number.is_integer() and abs(number) <= _EXACT_INTEGER else number
    if kind == "string_value":
        return value.string_value
    if kind == "bool_value":
        return value.bool_value
    if kind == "struct_value":
        return _plain_struct(value.struct_value)
    if kind == "list_value":
        return [_plain(item) for item in value.list_value.values]
    return None
