"""Fingerprints: the published vectors, what changes them, and what never does."""
# ruff: noqa: S608 -- documents that hold SQL, not statements

import json
from functools import cache
from pathlib import Path
from random import Random

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher.dag import KnownDataset, KnownDatasets, read_spec
from dispatcher.dag.fingerprint import (
    CANON_VERSION,
    MissingBundleError,
    dataset_fingerprint,
    dataset_fingerprints,
    fingerprints,
    version_keys,
)
from tests.dispatcher.dag.documents import BLOCKS, NOTHING_KNOWN, foreign, known, read
from traceapi.types.v1.dag_pb2 import DagSpec, ExecutionSpec, OutputSpec, Storage
from traceapi.types.v1.options_pb2 import ChangeKind, change_kind
from traceapi.types.v1.scope_pb2 import CursorType

VECTORS = Path(__file__).parents[3] / "protos/testdata/fingerprints.json"

CHAIN = (
    BLOCKS
    + """\
  sums:
    operator: sql
    config: {sql: 'select max(number) as number, sum(gas) as gas from "blocks"'}
    inputs: {ranges: {}, blocks: {trigger: false}}
    outputs: {sums: {}}
  checks:
    operator: python
    runtime: python3.11
    code: {bundle: ./code, entrypoint: "m:f"}
    config: {a: 1, b: [x, {c: true}]}
    inputs: {ranges: {}, total: {}}
    outputs: {checks: {schema: {number: int64}}}
  total: {virtual: {sql: select sum(gas) as gas from sums}, outputs: {total: {}}}
"""
)
BUNDLES = {"blocks.csv": "1" * 64, "./code": "2" * 64}


def of(text: str, bundles: dict[str, str] | None = None, datasets: KnownDatasets = NOTHING_KNOWN) -> dict[str, str]:
    reading = read(text, datasets)
    assert reading.resolved is not None, [str(problem) for problem in reading.problems]
    found = fingerprints(reading.resolved, datasets, BUNDLES if bundles is None else bundles)
    return {job: digest.hex() for job, digest in found.items()}


@cache
def of_chain() -> dict[str, str]:
    return of(CHAIN)


def changed(text: str, bundles: dict[str, str] | None = None) -> set[str]:
    before, after = of_chain(), of(text, bundles)
    return {job for job in before if before[job] != after[job]}


def test_vectors_hold() -> None:
    published = json.loads(VECTORS.read_text())
    assert published["canon_version"] == CANON_VERSION
    for vector in published["vectors"]:
        assert of(vector["document"], vector["bundles"]) == vector["fingerprints"], vector["name"]


@pytest.mark.parametrize(
    ("old", "new", "jobs"),
    [
        ("type: int64}, schema", "type: int64}, sort: [hash], schema", {"blocks", "ranges", "sums", "checks", "total"}),
        ("size: 100", "size: 1000", {"ranges", "sums", "checks"} | {"total"}),
        ('sum(gas) as gas from "blocks"', 'min(gas) as gas from "blocks"', {"sums", "total", "checks"}),
        ("sum(gas) as gas from sums", "max(gas) as gas from sums", {"total", "checks"}),
        ("a: 1", "a: 2", {"checks"}),
        ("m:f", "m:g", {"checks"}),
        ("runtime: python3.11", "runtime: python3.12", {"checks"}),
        ("inputs: {ranges: {}, total: {}}", "inputs: {ranges: {wait: true}, total: {}}", {"checks"}),
        ("inputs: {ranges: {}, total: {}}", "ordered: true\n    inputs: {ranges: {}, total: {}}", {"checks"}),
        ("{checks: {schema: {number: int64}}}", "{checks: {schema: {number: int32}}}", {"checks"}),
        ("{checks: {schema: {number: int64}}}", "{checks2: {schema: {number: int64}}}", {"checks"}),
    ],
)
def test_change_of_what_is_stored_reaches_the_job_and_all_downstream(old: str, new: str, jobs: set[str]) -> None:
    assert old in CHAIN
    assert changed(CHAIN.replace(old, new, 1)) == jobs


def test_content_of_a_bundle_counts_and_its_place_does_not() -> None:
    assert changed(CHAIN, BUNDLES | {"./code": "3" * 64}) == {"checks"}
    assert changed(CHAIN, BUNDLES | {"blocks.csv": "3" * 64}) == {"blocks", "ranges", "sums", "checks", "total"}
    moved = CHAIN.replace("./code", "elsewhere").replace("blocks.csv", "there.csv")
    assert not changed(moved, {"there.csv": "1" * 64, "elsewhere": "2" * 64})
    with pytest.raises(MissingBundleError, match=r"checks.*\./code"):
        of(CHAIN, {"blocks.csv": "1" * 64})


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("dag: chain", "dag: other\ndescription: of another name"),
        ("jobs:", "defaults: {execution: {timeout: 1h, queue: large}}\njobs:"),
        ("  sums:\n", "  summed:\n"),
        ("inputs: {ranges: {}, total: {}}", "inputs: {ranges: {trigger: true}, total: {trigger: false, wait: false}}"),
        (
            "outputs: {sums: {}}",
            "outputs: {sums: {storage: parquet, update: replace, writers: one, description: sums}}",
        ),
        ("outputs: {sums: {}}", "outputs: {sums: {cursor: {column: number, type: int64}}}"),
        ("outputs: {sums: {}}", "outputs: {sums: {}}\n    execution_strategy: per_update"),
        ("select sum(gas) as gas from sums", "'SELECT  sum(gas) /* all */ AS gas FROM sums -- end'"),
        ("{number: int64, hash: string, gas: int64}", "{gas: int64, number: int64, hash: string}"),
        ("config: {a: 1, b: [x, {c: true}]}", "config: {b: [x, {c: yes}], a: 1}"),
        ("config: {size: 100}", "ordered: true, config: {size: 100}"),
    ],
)
def test_change_of_words_only_changes_nothing(old: str, new: str) -> None:
    assert old in CHAIN
    before, after = of_chain(), of(CHAIN.replace(old, new, 1))
    assert sorted(before.values()) == sorted(after.values())


EXECUTIONS = st.builds(
    ExecutionSpec,
    max_attempts=st.none() | st.integers(1, 100),
    max_concurrency=st.none() | st.integers(1, 1000),
    queue=st.none() | st.sampled_from(["default", "large", "gpu"]),
    memory_bytes=st.none() | st.integers(0, 2**40),
    max_run_tasks=st.none() | st.integers(1, 1000),
)


@settings(max_examples=25, deadline=None)
@given(
    st.dictionaries(st.sampled_from(["blocks", "ranges", "sums", "checks"]), EXECUTIONS),
    EXECUTIONS,
    st.text(max_size=20),
)
def test_execution_settings_never_change_a_fingerprint(
    settings_of: dict[str, ExecutionSpec], defaults: ExecutionSpec, description: str
) -> None:
    reading = read(CHAIN)
    assert reading.spec is not None
    spec = DagSpec()
    spec.CopyFrom(reading.spec)
    spec.description = description
    spec.defaults.execution.CopyFrom(defaults)
    for job, execution in settings_of.items():
        spec.jobs[job].execution.CopyFrom(execution)
        spec.jobs[job].description = description
        for output in spec.jobs[job].outputs.values():
            output.description = description
    assert {job: digest.hex() for job, digest in _of_spec(spec).items()} == of_chain()


@settings(max_examples=25, deadline=None)
@given(st.randoms(use_true_random=False))
def test_order_of_keys_never_changes_a_fingerprint(random: Random) -> None:
    def shuffled(value: object) -> object:
        if isinstance(value, dict):
            keys = list(value)
            random.shuffle(keys)
            return {key: shuffled(value[key]) for key in keys}
        return value

    text = yaml.safe_dump(shuffled(yaml.safe_load(CHAIN)), sort_keys=False)
    assert of(text) == of_chain()


def test_dataset_of_another_dag_counts_by_its_served_version() -> None:
    spec = OutputSpec(storage=Storage.STORAGE_PARQUET, schema={"n": "int64"})
    spec.cursor.column, spec.cursor.type = "n", CursorType.CURSOR_TYPE_INT64
    text = "dag: x\njobs:\n  a: {operator: sql, config: {sql: from theirs}, inputs: {theirs: {}}, outputs: {a: {}}}\n"
    first = foreign("theirs", spec)
    second = KnownDataset("theirs", "other", spec, fingerprint=b"g" * 32)
    assert of(text, {}, known(first)) != of(text, {}, known(second))
    assert of(text, {}, known(first)) == of(text, {}, known(first))


def test_dataset_of_several_producers_has_one_fingerprint_whatever_their_order() -> None:
    assert dataset_fingerprint([b"a" * 32]) == b"a" * 32
    assert dataset_fingerprint([b"a" * 32, b"b" * 32]) == dataset_fingerprint([b"b" * 32, b"a" * 32])
    assert dataset_fingerprint([b"a" * 32, b"b" * 32]) != dataset_fingerprint([b"a" * 32])


def test_every_field_of_a_document_says_whether_it_changes_what_is_stored() -> None:
    pending, seen = [DagSpec.DESCRIPTOR], set()
    while pending:
        descriptor = pending.pop()
        if descriptor.full_name in seen or descriptor.full_name.startswith("google.protobuf."):
            continue
        seen.add(descriptor.full_name)
        for field in descriptor.fields:
            if not descriptor.GetOptions().map_entry:
                assert field.GetOptions().Extensions[change_kind] != ChangeKind.CHANGE_KIND_UNSPECIFIED, field.full_name
            if field.message_type is not None:
                pending.append(field.message_type)
    assert len(seen) > 8


def _of_spec(spec: DagSpec) -> dict[str, bytes]:
    reading = read_spec(spec, NOTHING_KNOWN)
    assert reading.resolved is not None, [str(problem) for problem in reading.problems]
    return fingerprints(reading.resolved, NOTHING_KNOWN, BUNDLES)


def _keys(text: str) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """The version keys of the jobs, and the fingerprints of the datasets."""
    dag = read(text).resolved
    assert dag is not None
    by_job = fingerprints(dag, NOTHING_KNOWN, BUNDLES)
    return version_keys(dag, by_job), dataset_fingerprints(dag, by_job)


def test_versions_of_jobs_that_share_a_dataset_change_together() -> None:
    many = "outputs: {parts: {storage: none, writers: many}}"
    text = BLOCKS + "".join(
        f"  {name}: {{operator: aggregator, inputs: {{blocks: {{}}}}, config: {{size: {size}}}, {many}}}\n"
        for name, size in (("left", 10), ("right", 20))
    )
    before, datasets = _keys(text)
    after, _ = _keys(text.replace("size: 20", "size: 30"))
    assert {job for job in before if before[job] != after[job]} == {"left", "right"}
    renamed, same_datasets = _keys(text.replace("right", "other"))
    assert renamed["left"] != before["left"], "its versions are made in the order of the writers' names"
    assert same_datasets == datasets
    by_job = of(text)
    assert datasets["parts"] == dataset_fingerprint(bytes.fromhex(by_job[name]) for name in ("left", "right"))
    assert before["ranges"].hex() == datasets["ranges"].hex() == by_job["ranges"]
