"""Which fields of a job differ between two documents, and which of them force a rebuild. Pure.

Compared is what the documents mean: defaults are filled in, SQL of one parse tree is the same SQL, code and files are
their digests. So a field that forces a rebuild differs here exactly where the job's own part of its fingerprint does,
but for what a job takes over from what it reads, such as a cursor: that is a change there. Which fields force a rebuild
is the contract's option on each, read from the descriptors.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct

from dispatcher.dag.checks import kind_of, operator_of
from dispatcher.dag.configs import normal_config
from dispatcher.dag.effective import (
    effective_execution,
    effective_late_scopes,
    effective_output,
    is_ordered,
    local_paths,
)
from dispatcher.dag.fingerprint import normal_spec, sql_of
from dispatcher.dag.messages import enum_word
from dispatcher.dag.model import JobKind, ResolvedInput, ResolvedJob, ResolvedOutput
from dispatcher.dag.problems import Findings, Path, Places, shown_path
from dispatcher.dag.scalars import duration_text
from dispatcher.dag.sql import canonical_sql
from traceapi.types.v1.dag_pb2 import DagSpec, JobSpec, OutputSpec
from traceapi.types.v1.options_pb2 import ChangeKind, change_kind
from traceapi.types.v1.scope_pb2 import CursorType

_UNKNOWN = OutputSpec()
_MAX_SHOWN = 400
_BEFORE_THE_DIFFERENCE = 60


@dataclass(frozen=True, slots=True)
class FieldChange:
    """A field that differs: `path` within the job; both values as a document writes them, empty where there is none."""

    path: str
    before: str
    after: str
    materialization: bool


class Document:
    """A document with what travels with it, whose jobs can be compared one by one.

    `bundles` are digests by local path, `virtual` the datasets that are known to be virtual and no job of it produces.
    """

    def __init__(self, spec: DagSpec, bundles: Mapping[str, str], virtual: Collection[str] = ()) -> None:
        self.spec, self.bundles = spec, bundles
        own = {dataset_id for job in spec.jobs.values() if job.HasField("virtual") for dataset_id in job.outputs}
        self._virtual = own | set(virtual)

    def meant(self, name: str) -> JobSpec:
        """The job with every default stated, as far as it says itself what it is."""
        job = self._alone(name)
        bundles = {path.path: self.bundles.get(path.path, "") for path in job.local_paths}
        spec = normal_spec(job, bundles)
        if job.kind is JobKind.VIRTUAL:
            spec.virtual.sql = sql_of(job)
        elif sql := sql_of(job):
            spec.config["sql"] = sql
        written = self.spec.jobs[name]
        spec.description = written.description
        spec.execution.CopyFrom(job.execution)
        for secret, place in written.secrets.items():
            spec.secrets[secret].CopyFrom(place)
        if written.code.bundle:
            spec.code.bundle = written.code.bundle
        return spec

    def _alone(self, name: str) -> ResolvedJob:
        """The job without what it takes over from the datasets that it reads."""
        job = self.spec.jobs[name]
        operator = operator_of(job, Findings(Places()))
        inputs = (
            ResolvedInput(
                dataset_id, self._triggers(job, dataset_id), options.wait, options.lookback, False, _UNKNOWN, ""
            )
            for dataset_id, options in job.inputs.items()
        )
        outputs = (
            ResolvedOutput(dataset_id, effective_output(output, operator, None), bool(output.schema))
            for dataset_id, output in job.outputs.items()
        )
        # Only widths over timestamps are durations, so nothing else is read as one.
        width = CursorType.CURSOR_TYPE_TIMESTAMP
        return ResolvedJob(
            name=name,
            kind=kind_of(job) or JobKind.OPERATOR,
            operator=operator.name if operator else "",
            config=normal_config(job.config, operator, width) if operator else Struct(),
            inputs=tuple(inputs),
            outputs=tuple(outputs),
            execution=effective_execution(self.spec.defaults.execution, job),
            ordered=is_ordered(job, operator),
            late_scopes=effective_late_scopes(job, operator),
            runtime=job.runtime,
            entrypoint=job.code.entrypoint,
            code_digest=job.code.digest,
            trigger_cursor_type=CursorType.CURSOR_TYPE_UNSPECIFIED,
            local_paths=local_paths(name, job, operator, Places()),
            secrets={},
            virtual_sql=job.virtual.sql,
        )

    def _triggers(self, job: JobSpec, dataset_id: str) -> bool:
        options = job.inputs[dataset_id]
        return options.trigger if options.HasField("trigger") else dataset_id not in self._virtual


def field_changes(before: Document, after: Document, job: ResolvedJob) -> list[FieldChange]:
    """What differs of a job that both documents have; `job` is what it is in `after`."""
    left, right = before.meant(job.name), after.meant(job.name)
    _same_sql(left, right)
    _same_order(left, right)
    _leave_out_taken_over(before.spec.jobs[job.name], after.spec.jobs[job.name], left, right, job)
    return list(_of_messages(left, right, (), materialization=True))


def _same_sql(left: JobSpec, right: JobSpec) -> None:
    """SQL that means the same is spelled the same."""
    before, after = _sql(left), _sql(right)
    if before and after and before != after and canonical_sql(before) == canonical_sql(after):
        if left.HasField("virtual"):
            left.virtual.sql = after
        else:
            left.config["sql"] = after


def _same_order(left: JobSpec, right: JobSpec) -> None:
    """The order of other columns is no change of its own, nor is one beside none: documents from before orders were
    kept have none."""
    for dataset_id in set(left.outputs) & set(right.outputs):
        outputs = left.outputs[dataset_id], right.outputs[dataset_id]
        same_columns = outputs[0].schema.keys() == outputs[1].schema.keys()
        if not same_columns or not all(output.column_order for output in outputs):
            for output in outputs:
                output.ClearField("column_order")


def _leave_out_taken_over(before: JobSpec, after: JobSpec, left: JobSpec, right: JobSpec, job: ResolvedJob) -> None:
    """What follows from the datasets that the job reads is no change of its own: whether an unstated input triggers,
    and the cursor of an output, also where one document states the one that it would have anyway."""
    for output in job.outputs:
        if output.dataset_id in left.outputs:
            for spec in (left.outputs[output.dataset_id], right.outputs[output.dataset_id]):
                if spec.cursor == output.spec.cursor:
                    spec.ClearField("cursor")
    for dataset_id in set(left.inputs) & set(right.inputs):
        if not (before.inputs[dataset_id].HasField("trigger") or after.inputs[dataset_id].HasField("trigger")):
            left.inputs[dataset_id].ClearField("trigger")
            right.inputs[dataset_id].ClearField("trigger")


def _sql(spec: JobSpec) -> str:
    if spec.HasField("virtual"):
        return spec.virtual.sql
    return spec.config.fields["sql"].string_value if spec.operator == "sql" and "sql" in spec.config.fields else ""


def _of_messages(before: Message, after: Message, path: Path, *, materialization: bool) -> Iterator[FieldChange]:
    for field in before.DESCRIPTOR.fields:
        kind = field.GetOptions().Extensions[change_kind]
        decides = materialization and kind == ChangeKind.CHANGE_KIND_MATERIALIZATION
        left, right, here = getattr(before, field.name), getattr(after, field.name), (*path, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            yield from _of_maps(field.message_type.fields_by_name["value"], left, right, here, materialization=decides)
        elif isinstance(left, Struct):
            yield from _of_values(MessageToDict(left), MessageToDict(right), here, materialization=decides)
        elif isinstance(left, Message) and not isinstance(left, Duration):
            yield from _of_messages(left, right, here, materialization=decides)
        else:
            yield from _change(_text(before, field), _text(after, field), here, materialization=decides)


def _of_maps(entry: Any, before: Any, after: Any, path: Path, *, materialization: bool) -> Iterator[FieldChange]:
    """Entries by name; one that only one of them has is one change."""
    for key in sorted({*before, *after}):
        here = (*path, key)
        if key in before and key in after and entry.message_type is not None:
            yield from _of_messages(before[key], after[key], here, materialization=materialization)
            continue
        left, right = (_shown(entry, each[key]) if key in each else "" for each in (before, after))
        yield from _change(left, right, here, materialization=materialization)


def _of_values(before: Any, after: Any, path: Path, *, materialization: bool) -> Iterator[FieldChange]:
    """Values of a `config`, whose keys only the implementation knows."""
    for key in sorted({*before, *after}):
        left, right, here = before.get(key), after.get(key), (*path, key)
        if isinstance(left, dict) and isinstance(right, dict):
            yield from _of_values(left, right, here, materialization=materialization)
            continue
        texts = [_value_text(each[key]) if key in each else "" for each in (before, after)]
        yield from _change(texts[0], texts[1], here, materialization=materialization)


def _change(before: str, after: str, path: Path, *, materialization: bool) -> Iterator[FieldChange]:
    if before != after:
        yield FieldChange(shown_path(path), *_clipped(before, after), materialization)


def _text(message: Message, field: Any) -> str:
    """A field's value as a document writes it; empty where it is not set."""
    value = getattr(message, field.name)
    if field.is_repeated:
        return _value_text(list(value)) if value else ""
    if field.has_presence and not message.HasField(field.name):
        return ""
    return _shown(field, value)


def _shown(field: Any, value: Any) -> str:
    if isinstance(value, Duration):
        return duration_text(value.seconds * 10**9 + value.nanos)
    if isinstance(value, Message):
        parts = ((set_field.name, _part(value, set_field)) for set_field, _ in value.ListFields())
        return "{" + ", ".join(f"{name}: {text}" for name, text in parts if text) + "}"
    if field.enum_type is not None:
        return enum_word(field.enum_type, value)
    return _value_text(value)


def _part(message: Message, field: Any) -> str:
    value = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        entry = field.message_type.fields_by_name["value"]
        return "{" + ", ".join(f"{key}: {_shown(entry, value[key])}" for key in sorted(value)) + "}"
    return _text(message, field)


def _value_text(value: Any) -> str:
    """Text as it is, everything else as JSON; a whole number has no point."""
    return value if isinstance(value, str) else json.dumps(_whole(value), ensure_ascii=False, sort_keys=True)


def _whole(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_whole(item) for item in value]
    return value


def _clipped(before: str, after: str) -> tuple[str, str]:
    """Both short enough to be read, and so that the first difference is seen."""
    if max(len(before), len(after)) <= _MAX_SHOWN:
        return before, after
    same = next(
        (place for place, (left, right) in enumerate(zip(before, after, strict=False)) if left != right),
        min(len(before), len(after)),
    )
    start = max(0, same - _BEFORE_THE_DIFFERENCE)
    return _window(before, start), _window(after, start)


def _window(text: str, start: int) -> str:
    shown = text[start : start + _MAX_SHOWN]
    return ("…" if start and text else "") + shown + ("…" if start + _MAX_SHOWN < len(text) else "")
