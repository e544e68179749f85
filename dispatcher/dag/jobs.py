"""Checks and resolves one job after another, producers first, each with what its inputs turned out to be.

A dataset of whose producer something is wrong is known as far as that goes: what is not certain is not held against its
readers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from google.protobuf.struct_pb2 import Struct

from dispatcher.dag.checks import check_execution, check_keys, check_operator, check_order, kind_of, operator_of
from dispatcher.dag.configs import check_config, normal_config
from dispatcher.dag.datasets import Relation
from dispatcher.dag.effective import (
    effective_execution,
    effective_late_scopes,
    effective_output,
    is_ordered,
    local_paths,
)
from dispatcher.dag.inputs import check_inputs, is_trigger, trigger_cursor_type
from dispatcher.dag.messages import enum_word
from dispatcher.dag.model import JobKind, ResolvedInput, ResolvedJob, ResolvedOutput
from dispatcher.dag.operators import Operator
from dispatcher.dag.outputs import check_columns, check_output, check_same_declaration
from dispatcher.dag.problems import Findings, Path, clip
from dispatcher.dag.queries import Query, bound_columns, check_declared
from dispatcher.dag.sql import Binder
from kernel.column_types import ordered_columns
from kernel.dataset_sql import scope_columns
from traceapi.types.v1.dag_pb2 import CursorSpec, DagSpec, JobSpec, OutputSpec, Storage
from traceapi.types.v1.scope_pb2 import CursorType


@dataclass(slots=True)
class _Part:
    """What is known about a job while it is being checked."""

    name: str
    job: JobSpec
    operator: Operator | None
    certain: bool  # it is known what kind of job it is, and which implementation it names
    cursor: CursorSpec | None = None  # what its outputs take over

    @property
    def path(self) -> Path:
        return ("jobs", self.name)


class JobResolver:
    """Checks and resolves one job after another; each finds the datasets of those before it in `relations`."""

    def __init__(
        self,
        spec: DagSpec,
        foreign: Mapping[str, Relation],
        queries: Mapping[str, Query],
        binder: Binder,
        findings: Findings,
    ) -> None:
        self._spec = spec
        self._relations = dict(foreign)
        self._written: dict[str, OutputSpec] = {}
        self._queries = queries
        self._binder = binder
        self._in_binder: set[str] = set()
        self._findings = findings

    def job(self, name: str) -> ResolvedJob | None:
        job = self._spec.jobs[name]
        kind = kind_of(job)
        operator = operator_of(job, self._findings)
        check_operator(name, job, operator, self._findings)
        part = _Part(name, job, operator, certain=kind is not None and not self._findings.faulty(("jobs", name, kind)))
        check_keys(name, job, operator, self._findings)
        check_execution(name, self._spec, operator, self._findings)
        self._check_output_count(part)
        cursor_type = CursorType.CURSOR_TYPE_UNSPECIFIED
        inputs: tuple[ResolvedInput, ...] = ()
        config = Struct()
        if operator is not None:
            cursor_type = self._check_operator(part, operator)
            inputs = self._inputs(part)
            config = normal_config(job.config, operator, self._config_cursor(part, cursor_type))
        outputs = self._outputs(part)
        if kind is None:
            return None
        query = self._queries.get(name)
        if kind is JobKind.VIRTUAL:
            inputs = tuple(self._input(item, indirect=False) for item in (query.names or () if query else ()))
        return ResolvedJob(
            name=name,
            kind=kind,
            operator=operator.name if operator else "",
            config=config,
            inputs=inputs,
            outputs=outputs,
            execution=effective_execution(self._spec.defaults.execution, job),
            ordered=is_ordered(job, operator),
            late_scopes=effective_late_scopes(job, operator),
            runtime=job.runtime,
            entrypoint=job.code.entrypoint,
            code_digest=job.code.digest,
            trigger_cursor_type=cursor_type,
            local_paths=local_paths(name, job, operator, self._findings.places),
            secrets=MappingProxyType(dict(job.secrets)),
            virtual_sql=job.virtual.sql,
            canonical_sql=query.canonical if query is not None else "",
        )

    def _check_output_count(self, part: _Part) -> None:
        path: Path = (*part.path, "outputs")
        count = len(part.job.outputs)
        what = f"`{part.operator.name}`" if part.operator else "a virtual node"
        exactly_one = part.operator is None or part.operator.one_output
        if self._findings.broken(path) or (count and not exactly_one) or count == 1:
            return
        if count == 0:
            self._findings.at_key(path, "it produces no dataset", "add `outputs: {name: {}}`")
            self._findings.mark_broken(path)
        else:
            self._findings.at_key(
                path, f"{what} produces one dataset, and these are {count}", "split it into several jobs"
            )

    def _check_operator(self, part: _Part, operator: Operator) -> CursorType.ValueType:
        """Checks inputs and config; answers the type of the trigger's cursor, unspecified where it is not known."""
        job, findings = part.job, self._findings
        cursor_type: CursorType.ValueType | None = None
        if operator.kind is JobKind.OPERATOR:
            check_inputs(part.name, job, operator, self._relations, findings)
            triggers = sorted(item for item in job.inputs if is_trigger(job, item, self._relations.get(item)))
            cursor_type = trigger_cursor_type(triggers, self._relations)
            part.cursor = self._trigger_cursor(part, triggers, cursor_type)
            check_order(part.name, job, operator, cursor_type, findings)
        trigger_type = cursor_type or CursorType.CURSOR_TYPE_UNSPECIFIED
        check_config(part.name, job, operator, self._config_cursor(part, trigger_type), findings)
        return trigger_type

    def _config_cursor(self, part: _Part, trigger_type: CursorType.ValueType) -> CursorType.ValueType:
        """The cursor type that values of `config` are of: a source's are its output's."""
        if part.operator is not None and part.operator.kind is JobKind.SOURCE:
            types = {output.cursor.type for output in part.job.outputs.values()}
            return types.pop() if len(types) == 1 else CursorType.CURSOR_TYPE_UNSPECIFIED
        return trigger_type

    def _trigger_cursor(
        self, part: _Part, triggers: list[str], cursor_type: CursorType.ValueType | None
    ) -> CursorSpec | None:
        """What outputs take over; reports outputs that would have to choose."""
        if cursor_type is None:
            return None
        cursors = [self._relations[item].spec.cursor for item in triggers if item in self._relations]
        columns = sorted({cursor.column for cursor in cursors})
        if len(columns) > 1:
            for dataset_id in sorted(part.job.outputs):
                if not part.job.outputs[dataset_id].HasField("cursor"):
                    shown = " and ".join(f"`{clip(column)}`" for column in columns)
                    message = f"its triggers have cursors in different columns, {shown}"
                    path: Path = (*part.path, "outputs", dataset_id)
                    self._findings.at_key(path, message, "state `cursor` for this output")
                    self._findings.mark_broken((*path, "cursor"))
        return cursors[0] if cursors else None

    def _inputs(self, part: _Part) -> tuple[ResolvedInput, ...]:
        job = part.job
        found: dict[str, ResolvedInput] = {}
        for dataset_id in sorted(job.inputs):
            options = job.inputs[dataset_id]
            trigger = is_trigger(job, dataset_id, self._relations.get(dataset_id))
            plain = self._input(dataset_id, indirect=False)
            found[dataset_id] = replace(plain, trigger=trigger, wait=options.wait, lookback=options.lookback)
        for dataset_id in sorted(job.inputs):
            wait = job.inputs[dataset_id].wait
            for item in self._behind(part, dataset_id):
                before = found.get(item) or self._input(item, indirect=True)
                found[item] = replace(before, wait=True) if wait and not before.wait else before
        return tuple(sorted(found.values(), key=lambda item: (item.indirect, item.dataset_id)))

    def _behind(self, part: _Part, dataset_id: str) -> list[str]:
        """The datasets that a virtual one reads, transitively; reports those that the job's scopes do not fit."""
        found: dict[str, None] = {}
        pending = list(self._dependencies(dataset_id))
        path: Path = (*part.path, "inputs", dataset_id)
        while pending:
            item = pending.pop()
            if item in found or item == dataset_id:
                continue
            found[item] = None
            pending += self._dependencies(item)
            relation = self._relations.get(item)
            if relation is None:
                continue
            own = relation.spec.cursor.type
            if part.cursor is not None and not relation.virtual_sql and relation.certain and own != part.cursor.type:
                words = [enum_word(CursorType.DESCRIPTOR, value) or "none" for value in (own, part.cursor.type)]
                shown = f"`{clip(dataset_id)}` reads `{clip(item)}`"
                message = f"{shown}, whose cursor is {words[0]}, and that of the trigger is {words[1]}"
                self._findings.at_key(path, message, "read a dataset with the same kind of cursor")
        return sorted(found)

    def _dependencies(self, dataset_id: str) -> tuple[str, ...]:
        relation = self._relations.get(dataset_id)
        return relation.dependencies if relation is not None and relation.virtual_sql else ()

    def _input(self, dataset_id: str, *, indirect: bool) -> ResolvedInput:
        relation = self._relations.get(dataset_id) or Relation(dataset_id, OutputSpec(), certain=False)
        return ResolvedInput(dataset_id, False, False, 0, indirect, relation.spec, relation.virtual_sql)

    def _outputs(self, part: _Part) -> tuple[ResolvedOutput, ...]:
        resolved = []
        for dataset_id in sorted(part.job.outputs):
            path: Path = (*part.path, "outputs", dataset_id)
            output = part.job.outputs[dataset_id]
            check_output(path, output, part.operator, self._findings)
            effective = effective_output(output, part.operator, part.cursor)
            self._check_cursor(part, path, effective)
            self._fill_schema(part, path, effective)
            check_columns(path, effective, self._findings)
            if dataset_id in self._written:
                check_same_declaration(path, self._written[dataset_id], effective, self._findings)
            self._written.setdefault(dataset_id, effective)
            self._relate(part, path, effective)
            resolved.append(ResolvedOutput(dataset_id, effective, bool(output.schema)))
        return tuple(resolved)

    def _check_cursor(self, part: _Part, path: Path, effective: OutputSpec) -> None:
        """A source states its cursor; what a range is made of has the cursor of the range."""
        operator, findings = part.operator, self._findings
        if operator is None or findings.broken((*path, "cursor")):
            return
        if operator.kind is JobKind.SOURCE:
            self._check_source_cursor(part, path, effective)
        elif operator.one_trigger and part.cursor is not None and effective.cursor.type != part.cursor.type:
            words = [enum_word(CursorType.DESCRIPTOR, value) for value in (effective.cursor.type, part.cursor.type)]
            message = f"the cursor of the output is {words[0] or 'none'}, and that of the trigger {words[1] or 'none'}"
            findings.at_key((*path, "cursor"), message, "take `cursor` out: the output takes over its trigger's")

    def _check_source_cursor(self, part: _Part, path: Path, effective: OutputSpec) -> None:
        findings = self._findings
        if not effective.HasField("cursor"):
            who = f"`{part.operator.name}`" if part.operator is not None and part.operator.known else "a source"
            message = f"{who} needs to know the cursor of its output"
            findings.at_key((*path, "cursor"), message, "add `cursor: {column: ..., type: int64}`")
            findings.mark_broken((*path, "cursor"))
            return
        fields = part.job.config.fields
        named = part.operator is not None and "cursor" in part.operator.key_names and "cursor" in fields
        column = fields["cursor"].string_value if named else ""
        if column and column != effective.cursor.column:
            message = (
                f"`config.cursor` is `{clip(column)}`, and the cursor of the output `{clip(effective.cursor.column)}`"
            )
            findings.at_value((*part.path, "config", "cursor"), message, "name the same column in both")

    def _fill_schema(self, part: _Part, path: Path, effective: OutputSpec) -> None:
        """Binds a query; fills in its columns where none are declared, and reports where they differ."""
        query = self._queries.get(part.name)
        if query is None or query.names is None or self._findings.faulty(query.path):
            return
        if not all(self._in_reach(item) for item in query.names):
            return
        columns = bound_columns(query, self._binder, self._findings)
        if columns is None:
            return
        if effective.schema:
            check_declared(path, effective, columns, self._findings)
        else:
            effective.schema.update(columns)
            effective.column_order.extend(columns)

    def _in_reach(self, dataset_id: str) -> bool:
        """The binder knows the dataset: its columns are known, and it has been added."""
        if dataset_id in self._in_binder:
            return True
        relation = self._relations.get(dataset_id)
        if relation is None:
            return False
        schema = ordered_columns(relation.spec.schema, relation.spec.column_order)
        if relation.spec.storage == Storage.STORAGE_NONE and relation.certain:
            schema = scope_columns(enum_word(CursorType.DESCRIPTOR, relation.spec.cursor.type))
        if not schema:
            return False
        self._binder.add(dataset_id, schema)
        self._in_binder.add(dataset_id)
        return True

    def _relate(self, part: _Part, path: Path, effective: OutputSpec) -> None:
        """Makes the dataset known to the jobs that come after."""
        query = self._queries.get(part.name)
        spec = OutputSpec()
        spec.CopyFrom(effective)
        if self._findings.faulty((*path, "schema")):
            spec.ClearField("schema")
            spec.ClearField("column_order")
        stored = part.operator is not None
        certain = part.certain and not self._findings.broken(path) and not self._findings.faulty(path)
        if stored and not spec.HasField("cursor") and part.cursor is None:
            certain = False
        dataset_id = str(path[-1])
        virtual_sql = "" if stored else part.job.virtual.sql
        names = (query.names or ()) if query is not None and not stored else ()
        self._relations[dataset_id] = Relation(dataset_id, spec, virtual_sql, names, certain)
