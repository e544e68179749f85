"""What a document changes: each kind of change, and what holds for every edit."""
# ruff: noqa: S608 -- documents that hold SQL, not statements

from collections.abc import Callable
from random import Random

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher.dag import KnownDataset
from dispatcher.dag.diff import FieldChange
from dispatcher.deploy.comparison import Change, Job
from dispatcher.deploy.deployable import Deployable
from tests.dispatcher.comparing import BUNDLES, built, compared, deployable
from tests.dispatcher.dag.documents import BLOCKS, known
from tests.dispatcher.dag.test_fingerprint import CHAIN, EXECUTIONS
from traceapi.types.v1.dag_pb2 import DagSpec, ExecutionSpec, JobSpec, OutputSpec, Storage
from traceapi.types.v1.scope_pb2 import CursorType

ACTIVE = deployable(CHAIN)
DOWNSTREAM = {
    "blocks": {"ranges", "sums", "checks", "total"},
    "ranges": {"sums", "checks", "total"},
    "sums": {"total", "checks"},
    "total": {"checks"},
    "checks": set(),
}


def edited(old: str, new: str) -> Deployable:
    assert old in CHAIN
    return deployable(CHAIN.replace(old, new, 1))


def kinds(jobs: dict[str, Job]) -> dict[str, Change]:
    return {name: job.change for name, job in jobs.items()}


def by_kind(jobs: dict[str, Job], kind: Change) -> set[str]:
    return {name for name, job in jobs.items() if job.change is kind}


def test_the_same_document_shares_everything() -> None:
    jobs = compared(ACTIVE, deployable(CHAIN + "# a comment\n"))
    assert by_kind(jobs, Change.SHARED) == set(DOWNSTREAM)
    assert not any(job.field_changes for job in jobs.values())
    assert jobs["sums"].job_version_id == "sums@1"


def test_jobs_come_in_the_order_in_which_they_are_built_and_removed_ones_last() -> None:
    without = DagSpec()
    without.CopyFrom(ACTIVE.dag.spec)
    del without.jobs["checks"]
    jobs = compared(ACTIVE, deployable(without))
    assert list(jobs) == ["blocks", "ranges", "sums", "total", "checks"]
    assert jobs["checks"].change is Change.REMOVED
    assert (jobs["checks"].job_version_id, jobs["checks"].key) == ("checks@1", b"")


def test_a_first_version_adds_everything() -> None:
    nothing = deployable(BLOCKS.replace("dag: chain", "dag: other"))
    jobs = compared(nothing, ACTIVE)
    assert by_kind(jobs, Change.ADDED) == {"sums", "checks", "total"}
    assert by_kind(jobs, Change.CHANGED) == set()


@pytest.mark.parametrize(
    ("job", "old", "new", "path", "before", "after"),
    [
        ("ranges", "size: 100", "size: 200", "config.size", "100", "200"),
        ("checks", "a: 1", "a: 2", "config.a", "1", "2"),
        ("checks", "[x, {c: true}]", "[x, {c: false}]", "config.b", '["x", {"c": true}]', '["x", {"c": false}]'),
        ("checks", "config: {a: 1, b: [x, {c: true}]}", "config: {a: 1}", "config.b", '["x", {"c": true}]', ""),
        ("checks", "m:f", "m:g", "code.entrypoint", "m:f", "m:g"),
        ("checks", "runtime: python3.11", "runtime: python3.12", "runtime", "python3.11", "python3.12"),
        ("total", "sum(gas) as gas from sums", "max(gas) as gas from sums", "virtual.sql", None, None),
        ("sums", 'sum(gas) as gas from "blocks"', 'min(gas) as gas from "blocks"', "config.sql", None, None),
        ("blocks", "type: int64}, schema", "type: int64}, sort: [hash], schema", "outputs.blocks.sort", "", '["hash"]'),
        ("blocks", "hash: string", "hash: binary", "outputs.blocks.schema.hash", "string", "binary"),
        ("blocks", "hash: string, gas", "gas", "outputs.blocks.schema.hash", "string", ""),
        (
            "checks",
            "{ranges: {}, total: {}}",
            "{ranges: {wait: true}, total: {}}",
            "inputs.ranges.wait",
            "false",
            "true",
        ),
        ("checks", "{ranges: {}, total: {}}", "{ranges: {}}", "inputs.total", "{trigger: false}", ""),
        (
            "checks",
            "inputs: {ranges: {}, total",
            "ordered: true\n    inputs: {ranges: {}, total",
            "ordered",
            "false",
            "true",
        ),
    ],
)
def test_a_changed_field_is_named_with_both_values(
    job: str, old: str, new: str, path: str, before: str | None, after: str | None
) -> None:
    jobs = compared(ACTIVE, edited(old, new))
    assert by_kind(jobs, Change.CHANGED) == {job}
    assert by_kind(jobs, Change.DOWNSTREAM) == DOWNSTREAM[job]
    found = next(change for change in jobs[job].field_changes if change.path == path)
    assert found.materialization
    if before is not None:
        assert (found.before, found.after) == (before, after)
    assert not any(jobs[name].field_changes for name in DOWNSTREAM[job])


def test_code_and_files_count_by_their_content() -> None:
    coded = compared(ACTIVE, deployable(CHAIN, BUNDLES | {"./code": "3" * 64}))
    assert by_kind(coded, Change.CHANGED) == {"checks"}
    assert coded["checks"].field_changes == [FieldChange("code.digest", "2" * 64, "3" * 64, materialization=True)]
    filed = compared(ACTIVE, deployable(CHAIN, BUNDLES | {"blocks.csv": "3" * 64}))
    assert by_kind(filed, Change.CHANGED) == {"blocks"}
    assert [change.path for change in filed["blocks"].field_changes] == ["config.path"]


def test_a_moved_folder_of_the_same_code_is_no_rebuild() -> None:
    moved = deployable(CHAIN.replace("./code", "elsewhere"), {"blocks.csv": "1" * 64, "elsewhere": "2" * 64})
    jobs = compared(ACTIVE, moved)
    assert by_kind(jobs, Change.SHARED) == set(DOWNSTREAM)
    assert jobs["checks"].field_changes == [FieldChange("code.bundle", "./code", "elsewhere", materialization=False)]


def test_what_is_spelled_otherwise_and_means_the_same_is_no_change_of_a_changed_job() -> None:
    text = CHAIN.replace("select max(number)", "SELECT /* newest */ max(number)").replace(
        "outputs: {sums: {}}", "outputs: {sums: {storage: parquet, sort: [gas]}}"
    )
    jobs = compared(ACTIVE, deployable(text))
    assert [change.path for change in jobs["sums"].field_changes] == ["outputs.sums.sort"]


def test_what_a_job_takes_over_from_upstream_is_no_change_of_its_own() -> None:
    """The cursor of `ranges` is that of `blocks`."""
    text = BLOCKS.replace("cursor: {column: number", "cursor: {column: gas").replace("cursor: number", "cursor: gas")
    for edit in ("description: wide, ", "description: wide, outputs: {ranges: {cursor: {column: gas, type: int64}}}, "):
        after = text.replace("aggregator,", f"aggregator, {edit}")
        after = after.replace(", outputs: {ranges: {}}}", "}") if "outputs" in edit else after
        jobs = compared(deployable(BLOCKS), deployable(after))
        assert kinds(jobs) == {"blocks": Change.CHANGED, "ranges": Change.DOWNSTREAM}
        assert [change.path for change in jobs["ranges"].field_changes] == ["description"]


def test_a_version_that_was_built_before_is_reused_and_says_why_it_differs() -> None:
    after = edited("size: 100", "size: 200")
    jobs = compared(ACTIVE, after, built(after, "ranges", "sums"))
    assert kinds(jobs) == {
        "blocks": Change.SHARED,
        "ranges": Change.REUSED,
        "sums": Change.REUSED,
        "total": Change.DOWNSTREAM,
        "checks": Change.DOWNSTREAM,
    }
    assert jobs["ranges"].job_version_id == "ranges@0"
    assert [change.path for change in jobs["ranges"].field_changes] == ["config.size"]


def test_a_job_that_writes_together_with_a_changed_one_is_downstream() -> None:
    many = "outputs: {parts: {storage: none, writers: many}}"
    text = BLOCKS + "".join(
        f"  {name}: {{operator: aggregator, inputs: {{blocks: {{}}}}, config: {{size: {size}}}, {many}}}\n"
        for name, size in (("left", 10), ("right", 20))
    )
    jobs = compared(deployable(text), deployable(text.replace("size: 20", "size: 30")))
    assert (jobs["left"].change, jobs["right"].change) == (Change.DOWNSTREAM, Change.CHANGED)


def test_another_version_of_a_dataset_of_others_makes_its_readers_downstream() -> None:
    spec = OutputSpec(storage=Storage.STORAGE_PARQUET, schema={"n": "int64"})
    spec.cursor.column, spec.cursor.type = "n", CursorType.CURSOR_TYPE_INT64
    text = "dag: x\njobs:\n  a: {operator: sql, config: {sql: from theirs}, inputs: {theirs: {}}, outputs: {a: {}}}\n"
    versions = [
        known(KnownDataset("theirs", "other", spec, fingerprint=digit * 32, version_id="v")) for digit in (b"f", b"g")
    ]
    before, after = (deployable(text, {}, each) for each in versions)
    assert kinds(compared(before, after)) == {"a": Change.DOWNSTREAM}


def test_a_base_that_cannot_be_read_any_more_is_compared_all_the_same() -> None:
    spec = OutputSpec(storage=Storage.STORAGE_PARQUET, schema={"n": "int64"})
    spec.cursor.column, spec.cursor.type = "n", CursorType.CURSOR_TYPE_INT64
    text = "dag: x\njobs:\n  a: {operator: sql, config: {sql: from theirs}, inputs: {theirs: {}}, outputs: {a: {}}}\n"
    before = deployable(text, {}, known(KnownDataset("theirs", "other", spec, fingerprint=b"f" * 32, version_id="v")))
    after = deployable(
        BLOCKS.replace("dag: chain", "dag: x")
        + "  a: {operator: sql, config: {sql: from blocks}, inputs: {blocks: {}}, outputs: {a: {}}}\n"
    )
    jobs = compared(before, after)
    assert jobs["a"].change is Change.CHANGED
    assert FieldChange("config.sql", "from theirs", "from blocks", materialization=True) in jobs["a"].field_changes


def test_a_long_text_is_shown_where_it_differs() -> None:
    columns = ", ".join(f"number + {number} as n{number}" for number in range(200))
    text = CHAIN.replace(
        'select max(number) as number, sum(gas) as gas from "blocks"',
        f"select sum(gas) as gas, number, {columns} from blocks group by number",
    )
    jobs = compared(deployable(text), deployable(text.replace("number + 180", "number + 181")))
    (change,) = jobs["sums"].field_changes
    assert "number + 180 as n180" in change.before
    assert "number + 181 as n180" in change.after
    assert max(len(change.before), len(change.after)) < 500


MATERIALIZATIONS: dict[str, Callable[[JobSpec, int], object]] = {
    "blocks": lambda job, number: job.outputs["blocks"].sort.append(f"c{number}"),
    "ranges": lambda job, number: job.config.update({"size": 1000 + number}),
    "sums": lambda job, number: job.outputs["sums"].sort.append(["gas", "number"][number % 2]),
    "total": lambda job, number: setattr(job.virtual, "sql", f"select sum(gas) + {number} as gas from sums"),
    "checks": lambda job, number: job.config.update({"a": 1000 + number}),
}
_JOBS = st.sampled_from(sorted(MATERIALIZATIONS))


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(_JOBS.filter(lambda job: job != "total"), EXECUTIONS),
    EXECUTIONS,
    st.dictionaries(_JOBS, st.integers(0, 3)),
)
def test_every_edit_is_told_for_what_it_costs(
    executions: dict[str, ExecutionSpec], defaults: ExecutionSpec, rebuilds: dict[str, int]
) -> None:
    """EXECUTION-only edits share; a MATERIALIZATION edit changes its job, all downstream of it, and nothing else."""
    spec = DagSpec()
    spec.CopyFrom(ACTIVE.dag.spec)
    spec.defaults.execution.CopyFrom(defaults)
    for name, execution in executions.items():
        spec.jobs[name].execution.CopyFrom(execution)
        spec.jobs[name].description = "edited"
    for name, number in rebuilds.items():
        MATERIALIZATIONS[name](spec.jobs[name], number)
    if "blocks" in rebuilds:
        output, column = spec.jobs["blocks"].outputs["blocks"], f"c{rebuilds['blocks']}"
        output.schema[column] = "int64"
        output.column_order.append(column)
    jobs = compared(ACTIVE, deployable(spec))
    below = {name for job in rebuilds for name in DOWNSTREAM[job]} - set(rebuilds)
    assert by_kind(jobs, Change.CHANGED) == set(rebuilds)
    assert by_kind(jobs, Change.DOWNSTREAM) == below
    assert by_kind(jobs, Change.SHARED) == set(DOWNSTREAM) - set(rebuilds) - below
    for name, job in jobs.items():
        assert any(change.materialization for change in job.field_changes) == (name in rebuilds)
        if name in executions:
            assert FieldChange("description", "", "edited", materialization=False) in job.field_changes


@settings(max_examples=25, deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_order_of_keys_is_no_change_but_for_that_of_columns(random: Random) -> None:
    def shuffled(value: object) -> object:
        if isinstance(value, dict):
            keys = list(value)
            random.shuffle(keys)
            return {key: shuffled(value[key]) for key in keys}
        return value

    jobs = compared(ACTIVE, deployable(yaml.safe_dump(shuffled(yaml.safe_load(CHAIN)), sort_keys=False)))
    assert by_kind(jobs, Change.SHARED) == set(DOWNSTREAM)
    changes = [change for job in jobs.values() for change in job.field_changes]
    assert not any(change.materialization for change in changes)
    assert all(change.path.endswith(".column_order") for change in changes)
