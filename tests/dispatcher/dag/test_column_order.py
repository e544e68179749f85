"""The order of a dataset's columns: where a document says it, what follows from it, and what is no order."""
# ruff: noqa: S608 -- documents that hold SQL, not statements

import pytest

from dispatcher.dag import Reading, read_spec
from dispatcher.dag.diff import FieldChange
from dispatcher.dag.model import KnownDataset, KnownDatasets
from dispatcher.deploy.comparison import Change
from tests.dispatcher.comparing import compared, deployable
from tests.dispatcher.dag.documents import BLOCKS, NOTHING_KNOWN, expect, job_of, read
from traceapi.types.v1.dag_pb2 import DagSpec, OutputSpec, Storage

WRITTEN = ["number", "hash", "gas"]
SCHEMA = "schema: {number: int64, hash: string, gas: int64}"


def order_of(reading: Reading, job: str) -> list[str]:
    """Of the one output of a job, once all that follows from the document is filled in."""
    (output,) = job_of(reading, job).outputs
    return list(output.spec.column_order)


def with_sql(sql: str, declared: str = "") -> str:
    return BLOCKS + f"  a: {{virtual: {{sql: '{sql}'}}, outputs: {{r: {{{declared}}}}}}}\n"


def test_it_is_the_order_in_which_the_columns_are_written() -> None:
    reading = read(BLOCKS)
    assert order_of(reading, "blocks") == WRITTEN
    assert reading.spec is not None
    assert list(reading.spec.jobs["blocks"].outputs["blocks"].column_order) == WRITTEN, "and it travels with the spec"


def test_what_is_merged_in_comes_last_and_an_alias_is_what_it_stands_for() -> None:
    merged = BLOCKS.replace(SCHEMA, "schema: {<<: {hash: string, gas: int64}, number: int64}")
    assert order_of(read(merged), "blocks") == WRITTEN
    aliased = BLOCKS.replace(SCHEMA, "schema: &columns {number: int64, hash: string, gas: int64}")
    aliased += "  a: {virtual: {sql: 'select gas, hash, number from blocks'}, outputs: {r: {schema: *columns}}}\n"
    assert order_of(read(aliased), "a") == WRITTEN


def test_a_stated_order_is_the_one() -> None:
    stated = BLOCKS.replace(SCHEMA, f"column_order: [gas, number, hash], {SCHEMA}")
    assert order_of(read(stated), "blocks") == ["gas", "number", "hash"]


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ("column_order: [gas, number, hash, ‸has]", "the dataset has no column `has`; did you mean `hash`?"),
        ("column_order: [gas, number, hash, ‸gas]", "the column `gas` stands twice in the order; name it once"),
        ("‸column_order: [gas]", "the order leaves out `hash`, `number`; name every column, or take it out"),
    ],
)
def test_an_order_names_each_column_once(stated: str, message: str) -> None:
    expect(BLOCKS.replace(SCHEMA, f"{SCHEMA}, {stated}"), [message])


def test_columns_that_nobody_declared_cannot_be_ordered() -> None:
    expect(with_sql("select 1 as n", "‸column_order: [n]"), ["orders the columns of `schema`, and none are declared"])


def test_a_message_says_it_or_has_none() -> None:
    spec = DagSpec()
    spec.CopyFrom(read(BLOCKS).spec or spec)
    output = spec.jobs["blocks"].outputs["blocks"]
    assert order_of(read_spec(spec, NOTHING_KNOWN), "blocks") == WRITTEN
    output.column_order[:] = ["gas", "number"]
    (problem,) = read_spec(spec, NOTHING_KNOWN).problems
    assert "leaves out `hash`" in problem.message
    output.ClearField("column_order")
    assert order_of(read_spec(spec, NOTHING_KNOWN), "blocks") == []


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("select * from blocks", WRITTEN),
        ("select gas, * exclude (gas) from blocks", ["gas", "number", "hash"]),
        ("select * from ranges", ["first", "last", "unit_count", "revision"]),
        ("select * from (select hash, gas from blocks)", ["hash", "gas"]),
    ],
)
def test_columns_of_a_text_have_its_order(sql: str, expected: list[str]) -> None:
    assert order_of(read(with_sql(sql)), "a") == expected


def test_what_a_text_declares_is_the_order_and_that_of_its_readers() -> None:
    document = with_sql("select hash, gas from blocks", "schema: {gas: int64, hash: string}")
    reading = read(document + "  b: {virtual: {sql: select * from r}, outputs: {s: {}}}\n")
    assert order_of(reading, "a") == order_of(reading, "b") == ["gas", "hash"]


@pytest.mark.parametrize(("recorded", "expected"), [(["z", "a", "m"], ["z", "a", "m"]), ([], ["a", "m", "z"])])
def test_a_star_over_anothers_dataset_has_its_order(recorded: list[str], expected: list[str]) -> None:
    spec = OutputSpec(storage=Storage.STORAGE_PARQUET, schema=dict.fromkeys("maz", "int64"), column_order=recorded)
    known = KnownDatasets([KnownDataset("theirs", "other", spec)])
    assert order_of(read(with_sql("select * from theirs"), known), "a") == expected


def test_another_order_alone_builds_nothing_and_is_shown() -> None:
    before = deployable(with_sql("select * from blocks"))
    after = deployable(
        with_sql("select * from blocks").replace(SCHEMA, "schema: {hash: string, number: int64, gas: int64}")
    )
    assert after.version_keys == before.version_keys
    assert after.dataset_fingerprints == before.dataset_fingerprints
    jobs = compared(before, after)
    assert {job.change for job in jobs.values()} == {Change.SHARED}
    shown = FieldChange(
        "outputs.blocks.column_order", '["number", "hash", "gas"]', '["hash", "number", "gas"]', materialization=False
    )
    assert {name: list(job.field_changes) for name, job in jobs.items() if job.field_changes} == {"blocks": [shown]}


def test_the_order_of_other_columns_is_no_change_of_its_own() -> None:
    jobs = compared(deployable(BLOCKS), deployable(BLOCKS.replace("hash: string, ", "")))
    assert [change.path for change in jobs["blocks"].field_changes] == ["outputs.blocks.schema.hash"]


def test_an_order_that_was_not_stated_is_that_of_the_names() -> None:
    by_name = BLOCKS.replace(SCHEMA, "schema: {gas: int64, hash: string, number: int64}")
    spec = DagSpec()
    spec.CopyFrom(deployable(by_name).dag.spec)
    spec.jobs["blocks"].outputs["blocks"].ClearField("column_order")
    assert not compared(deployable(spec), deployable(by_name))["blocks"].field_changes


def test_several_writers_of_a_dataset_may_write_its_columns_in_several_orders() -> None:
    job = "  {}: {{operator: python, runtime: python3.11, code: {{bundle: ./code, entrypoint: 'm:f'}},"
    job += " inputs: {{blocks: {{}}}}, outputs: {{both: {{writers: many, schema: {}}}}}}}\n"
    orders = [job.format("a", "{number: int64, x: int64}"), job.format("b", "{x: int64, number: int64}")]
    assert not read(BLOCKS + "".join(orders)).problems
