"""Fingerprints: what a job's stored data depends on, as 32 bytes. Equal ones mean that nothing has to be built again.

A fingerprint is the SHA-256 of the job's canonical form: JSON with sorted keys of

- the fields of its `JobSpec` that the contract marks `CHANGE_KIND_MATERIALIZATION`, defaults filled in, types of
  columns in their one spelling, and SQL as DuckDB's parse tree without positions, so that a comment or a line break
  changes nothing;
- instead of local paths the digests of their bundles: the place of a file changes nothing, its content does;
- the fingerprints of its inputs. So a change reaches everything downstream of it, and nothing else.

Not in it: the names of the DAG and the job, and columns that nobody declared. A change of this form is a new
CANON_VERSION; protos/testdata/fingerprints.json holds it still. An upgrade of DuckDB may change its parse tree: then
that test fails, and the answer is a new version too.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct

from dispatcher.dag.model import JobKind, KnownDatasets, ResolvedDag, ResolvedJob
from dispatcher.dag.operators import OPERATORS, ValueKind
from dispatcher.dag.sql import canonical_sql
from kernel.column_types import parse_column_type
from traceapi.types.v1.dag_pb2 import ExecutionStrategy, JobSpec
from traceapi.types.v1.options_pb2 import ChangeKind, change_kind

CANON_VERSION = 1


class MissingBundleError(LookupError):
    """A local path of the document has no bundle."""

    def __init__(self, job: str, path: str) -> None:
        super().__init__(f"job {job}: no bundle for the local path {path}")
        self.job, self.path = job, path


def fingerprints(dag: ResolvedDag, known: KnownDatasets, bundles: Mapping[str, str]) -> dict[str, bytes]:
    """The fingerprint of every job, by name. `bundles` maps local paths, as written, to digests in hexadecimal.

    Raises MissingBundleError.
    """
    return {job: hashlib.sha256(form).digest() for job, form in canonical_forms(dag, known, bundles).items()}


def canonical_forms(dag: ResolvedDag, known: KnownDatasets, bundles: Mapping[str, str]) -> dict[str, bytes]:
    """The bytes that are digested, for every job by name."""
    producers: dict[str, list[bytes]] = {}
    forms: dict[str, bytes] = {}
    for job in dag.jobs:
        inputs = {}
        for item in job.inputs:
            if not item.indirect:
                own = producers.get(item.dataset_id)
                digest = dataset_fingerprint(own) if own else known[item.dataset_id].fingerprint
                inputs[item.dataset_id] = digest.hex()
        forms[job.name] = _canonical_form(job, inputs, bundles)
        for output in job.outputs:
            producers.setdefault(output.dataset_id, []).append(hashlib.sha256(forms[job.name]).digest())
    return forms


def dataset_fingerprints(dag: ResolvedDag, fingerprints: Mapping[str, bytes]) -> dict[str, bytes]:
    """The fingerprint of the version of every dataset that the DAG produces; `fingerprints` by job."""
    return {
        dataset_id: dataset_fingerprint(fingerprints[name] for name in names)
        for dataset_id, names in _writers(dag).items()
    }


def version_keys(dag: ResolvedDag, fingerprints: Mapping[str, bytes]) -> dict[str, bytes]:
    """What tells the versions of a job apart, for every job by name: 32 bytes.

    It is the job's fingerprint. Jobs that write a dataset together have their versions together, for the dataset's
    version changes with each of them: their keys hold the names and fingerprints of all of its writers.
    """
    shared = {
        dataset_id: hashlib.sha256(b"".join(name.encode() + b"\0" + fingerprints[name] for name in sorted(names)))
        for dataset_id, names in _writers(dag).items()
        if len(names) > 1
    }
    keys = {}
    for job in dag.jobs:
        together = [shared[output.dataset_id].digest() for output in job.outputs if output.dataset_id in shared]
        own = fingerprints[job.name]
        keys[job.name] = hashlib.sha256(own + b"".join(together)).digest() if together else own
    return keys


def _writers(dag: ResolvedDag) -> dict[str, list[str]]:
    """The jobs that write each dataset."""
    found: dict[str, list[str]] = {}
    for job in dag.jobs:
        for output in job.outputs:
            found.setdefault(output.dataset_id, []).append(job.name)
    return found


def dataset_fingerprint(producers: Iterable[bytes]) -> bytes:
    """The fingerprint of a dataset version: that of its producing job, or one made of those of several."""
    parts = sorted(producers)
    return parts[0] if len(parts) == 1 else hashlib.sha256(b"".join(parts)).digest()


def _canonical_form(job: ResolvedJob, inputs: Mapping[str, str], bundles: Mapping[str, str]) -> bytes:
    sql = sql_of(job)
    form = {
        "canon_version": CANON_VERSION,
        "inputs": dict(inputs),
        "job": _materialization(normal_spec(job, bundles)),
        "sql": json.loads(job.canonical_sql or canonical_sql(sql)) if sql else None,
    }
    return json.dumps(form, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def normal_spec(job: ResolvedJob, bundles: Mapping[str, str]) -> JobSpec:
    """The job as a message again, with every default stated; its SQL is left out, and paths are digests.

    Raises MissingBundleError.
    """
    spec = JobSpec(ordered=job.ordered, late_scopes=job.late_scopes, runtime=job.runtime)
    if job.kind is JobKind.VIRTUAL:
        spec.virtual.SetInParent()
    else:
        setattr(spec, job.kind.value, job.operator)
    if job.kind is JobKind.OPERATOR:
        spec.execution_strategy = ExecutionStrategy.EXECUTION_STRATEGY_PER_UPDATE
        for item in job.inputs:
            if not item.indirect:
                options = spec.inputs[item.dataset_id]
                options.trigger, options.wait, options.lookback = item.trigger, item.wait, item.lookback
    for output in job.outputs:
        target = spec.outputs[output.dataset_id]
        target.CopyFrom(output.spec)
        target.schema.clear()
        if output.declared_schema:
            target.schema.update({name: parse_column_type(word).canonical for name, word in output.spec.schema.items()})
    if job.entrypoint:
        spec.code.entrypoint = job.entrypoint
        spec.code.digest = _digest(job, bundles)
    spec.config.CopyFrom(_normal_config(job, bundles))
    return spec


def _normal_config(job: ResolvedJob, bundles: Mapping[str, str]) -> Struct:
    config = Struct()
    config.CopyFrom(job.config)
    local = {item.path for item in job.local_paths if item.file}
    for key in OPERATORS[job.operator].config if job.operator else ():
        if key.name not in config.fields:
            continue
        if key.kind is ValueKind.SELECT:
            del config.fields[key.name]  # its parse tree stands beside the spec
        elif key.kind is ValueKind.PATH and config.fields[key.name].string_value in local:
            path = config.fields[key.name].string_value
            if path not in bundles:
                raise MissingBundleError(job.name, path)
            config.fields[key.name].string_value = f"sha256:{bundles[path]}"
    return config


def _digest(job: ResolvedJob, bundles: Mapping[str, str]) -> str:
    paths = [item.path for item in job.local_paths if not item.file]
    found = next((bundles[path] for path in paths if path in bundles), job.code_digest)
    if not found:
        raise MissingBundleError(job.name, paths[0] if paths else "")
    return found


def sql_of(job: ResolvedJob) -> str:
    """Its SELECT; empty where it has none."""
    if job.virtual_sql:
        return job.virtual_sql
    return job.config.fields["sql"].string_value if job.operator == "sql" else ""


def _materialization(message: Message) -> dict[str, Any]:
    """The fields of a message that decide what is stored, by name; those that are not set are left out."""
    found: dict[str, Any] = {}
    for field, value in message.ListFields():
        kind = field.GetOptions().Extensions[change_kind]
        if kind == ChangeKind.CHANGE_KIND_MATERIALIZATION:
            found[field.name] = _plain(field, value)
        elif kind != ChangeKind.CHANGE_KIND_EXECUTION:
            raise ValueError(f"{field.full_name} does not say whether it changes what is stored")
    return found


def _plain(field: Any, value: Any) -> Any:
    """A field's value as JSON has it: enums by name, maps with sorted keys, an integer as itself whatever its size."""
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        entry = field.message_type.fields_by_name["value"]
        return {key: _plain(entry, value[key]) for key in sorted(value)}
    if field.is_repeated and not isinstance(value, str | bytes):
        return [_one(field, item) for item in value]
    return _one(field, value)


def _one(field: Any, value: Any) -> Any:
    if isinstance(value, Struct):
        return MessageToDict(value)
    if isinstance(value, Message):
        return _materialization(value)
    return field.enum_type.values_by_number[value].name if field.enum_type is not None else value
