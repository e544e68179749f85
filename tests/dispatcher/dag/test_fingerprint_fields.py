"""Every field of a job, found by the contract's own descriptors: an edit of one that is marked MATERIALIZATION always
changes the job's fingerprint, an edit of one that is marked EXECUTION never does.

A field that is added to the contract is tried here without being named. Where no edit of it makes a document without
problems, its test fails as unsatisfiable: then BASE has to state it.
"""

import hashlib
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from dispatcher.dag import read_spec
from dispatcher.dag.fingerprint import fingerprints
from dispatcher.dag.model import ResolvedDag
from dispatcher.dag.operators import OPERATORS, PYTHON_RUNTIMES, Ordering
from tests.dispatcher.dag.documents import NOTHING_KNOWN, read
from traceapi.types.v1.dag_pb2 import DagSpec, JobSpec
from traceapi.types.v1.options_pb2 import ChangeKind, change_kind

# Every field is stated somewhere, and somewhere in a way that leaves it room for another value.
BASE = """\
dag: chain
jobs:
  blocks:
    description: a source
    source: replay
    config: {path: blocks.csv, cursor: number, rate: 5}
    outputs:
      blocks:
        description: blocks
        column_descriptions: {gas: what it used}
        storage: parquet
        update: replace
        writers: one
        sort: [number]
        cursor: {column: number, type: int64}
        schema: {number: int64, hash: string, gas: int64}
  ranges:
    operator: aggregator
    late_scopes: refuse
    inputs: {blocks: {}}
    config: {size: 100}
    outputs: {ranges: {storage: none}}
  units: {operator: splitter, inputs: {ranges: {}}, outputs: {units: {storage: none}}}
  nothing: {operator: noop, inputs: {ranges: {}}, outputs: {nothing: {storage: none}}}
  sums:
    operator: sql
    execution_strategy: per_update
    config: {sql: 'select max(number) as number, sum(gas) as gas from "blocks"'}
    inputs: {ranges: {}, blocks: {trigger: false, wait: true, lookback: 3}}
    outputs: {sums: {}}
  checks:
    operator: python
    runtime: python3.11
    ordered: true
    code: {bundle: ./code, entrypoint: "m:f"}
    config: {a: 1, b: x, c: true}
    inputs: {ranges: {}, blocks: {trigger: true}, total: {}}
    outputs:
      checks: {schema: {number: int64, hash: string}, update: append, unique_key: [number]}
      free: {storage: parquet, cursor: {column: number, type: int64}}
    execution:
      {max_attempts: 4, timeout: 60s, max_concurrency: 5, queue: large, retry_backoff: 2s, max_retry_backoff: 90s,
       memory_bytes: 1000000000, max_run_tasks: 50}
  packed:
    operator: python
    runtime: python3.11
    code: {bundle: ./packed, digest: "DIGEST", entrypoint: "m:f"}
    inputs: {ranges: {}}
    outputs: {packed: {}}
  total: {virtual: {sql: select sum(gas) as gas from sums}, outputs: {total: {}}}
""".replace("DIGEST", "4" * 64)

# What words are replaced by: others of their kind, of which one may make no document; a word of no kind grows longer.
KINDS = (
    tuple(OPERATORS),
    PYTHON_RUNTIMES,
    ("m:f", "m:g", "n:f"),
    ("./code", "./elsewhere"),
    ("./packed", "./moved"),
    ("blocks.csv", "other.csv"),
    ("4" * 64, "5" * 64),
    ("int64", "int32", "string", "double"),
    ("number", "hash", "gas"),
    ("blocks", "ranges", "sums", "checks", "units", "total"),
    ("select sum(gas) as gas from sums", "select min(gas) as gas from sums", "select 1 as gas"),
    (
        'select max(number) as number, sum(gas) as gas from "blocks"',
        'select min(number) as number, sum(gas) as gas from "blocks"',
    ),
)
ONLY_ONE = {
    "source": "there is one implementation of a source",
    "execution_strategy": "of the two that the contract has, one is refused",
    "env": "no operator of this release may ask for secrets",
    "file": "no operator of this release may ask for secrets",
    "secrets": "no operator of this release may ask for secrets",
}
"""Fields of which there is no other value that a document may state."""


def fields_of(descriptor: Descriptor, kind: int = 0) -> Iterator[tuple[FieldDescriptor, int]]:
    """Every field that holds a value or entries, with what its change does. What is below an EXECUTION field is one."""
    for field in descriptor.fields:
        own = kind or field.GetOptions().Extensions[change_kind]
        below = field.message_type
        if below is not None and below.GetOptions().map_entry:
            yield field, own
            below = below.fields_by_name["value"].message_type
        elif below is None or below.full_name.startswith("google.protobuf."):
            yield field, own
            below = None
        if below is not None:
            yield from fields_of(below, ChangeKind.CHANGE_KIND_EXECUTION if own != MATERIALIZATION else 0)


MATERIALIZATION = ChangeKind.CHANGE_KIND_MATERIALIZATION
FIELDS = {field.full_name: (field, kind) for field, kind in fields_of(JobSpec.DESCRIPTOR)}


def of_kind(materialization: bool) -> list[str]:
    return sorted(
        name
        for name, (field, kind) in FIELDS.items()
        if (kind == MATERIALIZATION) is materialization and field.name not in ONLY_ONE
    )


def messages(message: Message, of: Descriptor | None) -> Iterator[Any]:
    """All messages of a type, in it and below."""
    if of is not None and message.DESCRIPTOR.full_name == of.full_name:
        yield message
    for field, value in message.ListFields():
        if field.message_type is None or field.message_type.full_name.startswith("google.protobuf."):
            continue
        if field.message_type.GetOptions().map_entry:
            if field.message_type.fields_by_name["value"].message_type is not None:
                for entry in value.values():
                    yield from messages(entry, of)
        else:
            yield from messages(value, of)


def edit(draw: st.DrawFn, message: Any, field: FieldDescriptor) -> None:
    """Gives the field, which is stated, another value than it has."""
    value = getattr(message, field.name)
    if field.name == "schema":
        message.ClearField("column_order")  # it is that of exactly these columns
    if field.name == "column_order":
        value[:] = value[::-1]
    elif field.message_type is not None and field.message_type.GetOptions().map_entry:
        _edit_map(draw, value)
    elif field.message_type is not None and field.message_type.name == "Struct":
        _edit_config(draw, value)
    elif field.message_type is not None:  # a duration
        value.seconds += draw(st.integers(1, 9))
    elif field.is_repeated:
        value.append(_another(draw, value[0]))
    elif field.type == FieldDescriptor.TYPE_BOOL:
        setattr(message, field.name, not value)
    elif field.enum_type is not None:
        others = [number for number in field.enum_type.values_by_number if number not in (0, value)]
        setattr(message, field.name, draw(st.sampled_from(others)))
    elif field.type == FieldDescriptor.TYPE_STRING:
        setattr(message, field.name, _another(draw, value))
    else:
        setattr(message, field.name, value + draw(st.integers(1, 9)))


def _another(draw: st.DrawFn, word: str) -> str:
    kind = next((kind for kind in KINDS if word in kind), (word, f"{word}x"))
    return draw(st.sampled_from([other for other in kind if other != word]))


def _edit_map(draw: st.DrawFn, entries: Any) -> None:
    """Takes an entry out, or gives it another key or, where it is a word, another word."""
    key = draw(st.sampled_from(sorted(entries)))
    plain = isinstance(entries[key], str)
    how = draw(st.sampled_from(["out", "renamed", *(["changed"] if plain else [])]))
    if how == "changed":
        entries[key] = _another(draw, entries[key])
        return
    if how == "renamed" and plain:
        entries[f"{key}x"] = entries[key]
    elif how == "renamed":
        entries[f"{key}x"].CopyFrom(entries[key])
    del entries[key]


def _edit_config(draw: st.DrawFn, config: Any) -> None:
    value = config.fields[draw(st.sampled_from(sorted(config.fields)))]
    match value.WhichOneof("kind"):
        case "number_value":
            value.number_value += draw(st.integers(1, 9))
        case "bool_value":
            value.bool_value = not value.bool_value
        case _:
            value.string_value = _another(draw, value.string_value)


@st.composite
def edited(draw: st.DrawFn, field: FieldDescriptor) -> tuple[str, ResolvedDag]:
    """A document with one edit, and the job that it is in. Where it takes another field of the same message to be
    taken out, for the two go together, that is done too: but not for how it runs, where the other might be stored."""
    spec = DagSpec()
    spec.CopyFrom(_BASE_SPEC)
    job, message = draw(st.sampled_from(_places(spec, field)))
    edit(draw, message, field)
    reading = read_spec(spec, NOTHING_KNOWN)
    if reading.resolved is None:
        assume(field.GetOptions().Extensions[change_kind] == ChangeKind.CHANGE_KIND_MATERIALIZATION)
        others = [other.name for other, _ in message.ListFields() if other.name != field.name]
        assume(others)
        message.ClearField(draw(st.sampled_from(others)))
        reading = read_spec(spec, NOTHING_KNOWN)
    assume(reading.resolved is not None)
    assert reading.resolved is not None
    return job, reading.resolved


def _places(spec: DagSpec, field: FieldDescriptor) -> list[tuple[str, Any]]:
    """Messages in which an edit of the field is one, by job: not where nobody stated a value, for stating the default
    changes nothing; and not where the operator decides what it is, whatever the document states."""
    decided = {
        name
        for name, job in spec.jobs.items()
        if field.name == "ordered" and job.operator and OPERATORS[job.operator].ordering is not Ordering.ON_REQUEST
    }
    plain_bool = field.type == FieldDescriptor.TYPE_BOOL and not field.has_presence  # false is stated by not stating it
    return [
        (name, message)
        for name in sorted(set(spec.jobs) - decided)
        for message in messages(spec.jobs[name], field.containing_type)
        if plain_bool or any(stated.full_name == field.full_name for stated, _ in message.ListFields())
    ]


def digests(dag: ResolvedDag, *, same: bool) -> dict[str, str]:
    """Of what the document names: each path holds something else, or all the same. A digest that the document states
    stands for its bundle."""
    paths = {path.path for job in dag.jobs for path in job.local_paths if path.file or not job.code_digest}
    return {path: hashlib.sha256(b"" if same else path.encode()).hexdigest() for path in paths}


def of(dag: ResolvedDag, *, same_content: bool) -> dict[str, bytes]:
    return fingerprints(dag, NOTHING_KNOWN, digests(dag, same=same_content))


_READING = read(BASE)
assert _READING.spec is not None
assert _READING.resolved is not None, [str(problem) for problem in _READING.problems]
_BASE_SPEC, _BASE = _READING.spec, _READING.resolved
_BEFORE = {same: of(_BASE, same_content=same) for same in (True, False)}

searching = settings(
    max_examples=10,
    deadline=None,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)


@pytest.mark.parametrize("name", of_kind(materialization=True))
@searching
@given(st.data())
def test_an_edit_of_what_is_stored_always_changes_it(name: str, data: st.DataObject) -> None:
    job, dag = data.draw(edited(FIELDS[name][0]))
    after = of(dag, same_content=False)
    assert job not in after or after[job] != _BEFORE[False][job]


@pytest.mark.parametrize("name", of_kind(materialization=False))
@searching
@given(st.data())
def test_an_edit_of_how_it_runs_never_changes_it(name: str, data: st.DataObject) -> None:
    _, dag = data.draw(edited(FIELDS[name][0]))
    assert of(dag, same_content=True) == _BEFORE[True]


def test_of_a_field_that_is_not_tried_there_is_no_other_value() -> None:
    names = {field.name for field, _ in FIELDS.values()}
    assert set(ONLY_ONE) <= names
    assert [operator.name for operator in OPERATORS.values() if operator.kind.value == "source"] == ["replay"]
    bulk = BASE.replace("execution_strategy: per_update", "execution_strategy: bulk")
    assert read(bulk).resolved is None
    for place in ("{env: KEY}", "{file: /key}"):
        secret = BASE.replace("    ordered: true\n", f"    ordered: true\n    secrets: {{KEY: {place}}}\n")
        assert read(secret).resolved is None
