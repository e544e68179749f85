"""`sql`: how datasets are named, what the text can reach, casts of the result, and a real process over the socket."""

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from traceapi.types.v1.job_pb2 import JobDetails
from traceapi.types.v1.task_pb2 import ErrorClass
from tracesdk import Job, OperatorError, SchemaMismatch, Scope
from tracesdk.testing import OperatorHarness, TaskResult, job_details, operator_task, run_task
from wrapper.operators.sql import Sql, mentioned_inputs

_BLOCKS = pa.table(
    {
        "number": pa.array([1, 2, 3, 4]),
        "miner": ["a", "b", "a", "c"],
        "gas": pa.array([Decimal(10**30), Decimal(2), Decimal(3), None], pa.decimal128(38, 0)),
    }
)
_INPUTS = {"eth.blocks": _BLOCKS, "other.thing": pa.table({"x": [1]})}


def job(sql: str, schema: Mapping[str, str] | None = None, **more: Any) -> JobDetails:
    return job_details(
        inputs=_INPUTS, outputs={"out": schema or {}}, config={"sql": sql}, operator="sql", cursor="number", **more
    )


def run(sql: str, schema: Mapping[str, str] | None = None, **more: Any) -> TaskResult:
    return run_task(Sql, scope=Scope.between(1, 4), inputs=_INPUTS, job=job(sql, schema, **more))


def rows(sql: str, **more: Any) -> list[dict[str, Any]]:
    return run(sql, **more).outputs["out"].to_pylist()


@pytest.mark.parametrize("name", ['"eth.blocks"', "eth.blocks", '"eth"."blocks"', "ETH.Blocks", '"Eth.Blocks"'])
def test_a_dataset_may_be_written_in_either_form(name: str) -> None:
    assert rows(" ".join(["select count(*) n from", name])) == [{"n": 4}]


def test_a_dataset_may_be_read_several_times_and_beside_others() -> None:
    sql = 'select a.number, b.miner from "eth.blocks" a join eth.blocks b using (number), other.thing where number > 2'
    assert rows(sql + " order by number;") == [{"number": 3, "miner": "a"}, {"number": 4, "miner": "c"}]


def test_a_virtual_input_has_its_recorded_order_and_not_that_of_its_text() -> None:
    details = job("select * from v.x", virtual={"v.x": "select 1 as a, 2 as b;", "v.y": "select 1"})
    (virtual,) = (one for one in details.inputs if one.dataset_id == "v.x")

    def names() -> list[str]:
        return run_task(Sql, scope=Scope.between(1, 4), inputs=_INPUTS, job=details).outputs["out"].schema.names

    assert names() == ["a", "b"], "where none is recorded, as the text has it"
    virtual.schema.update({"a": "int32", "b": "int32"})
    virtual.column_order[:] = ["b", "a"]
    assert names() == ["b", "a"]


def test_the_output_is_one_file_about_the_tasks_scope() -> None:
    result = run("select * from eth.blocks")
    (event,) = result.events
    assert (event.scope.first, event.scope.last, event.dataset) == (1, 4, "out")
    assert result.outputs["out"].equals(_BLOCKS)


def test_virtual_inputs_are_views_whatever_their_order() -> None:
    virtual = {
        "a.last": 'select sum(gas) gas from "b.first"',
        "b.first": "select gas from eth.blocks where number = 2 -- the second",
    }
    assert rows("select gas from a.last", virtual=virtual) == [{"gas": Decimal(2)}]
    with pytest.raises(OperatorError, match=r"'v\.broken' cannot be read.*nowhere"):
        rows("select * from v.broken", virtual={"v.broken": "select * from nowhere"})


def test_the_result_is_cast_to_the_declared_columns() -> None:
    schema = {"miner": "string", "blocks": "int32", "gas": "decimal(38,0)"}
    sql = "select count(*) blocks, miner, sum(gas) gas from eth.blocks group by miner order by miner"
    table = run(sql, schema).outputs["out"]
    assert table["miner"].to_pylist() == ["a", "b", "c"]
    assert table.schema.field("blocks").type == pa.int32()
    assert table["gas"].to_pylist() == [Decimal(10**30 + 3), Decimal(2), None]


def test_a_sum_that_does_not_fit_and_a_column_too_many_are_refused() -> None:
    with pytest.raises(SchemaMismatch, match="int64"):
        run("select sum(gas) gas from eth.blocks", {"gas": "int64"})
    with pytest.raises(SchemaMismatch, match="'miner'"):
        run("select gas, miner from eth.blocks", {"gas": "decimal(38,0)"})


def test_times_are_utc_whatever_the_machine_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    (row,) = rows("select '2020-01-01 00:00:00'::timestamptz at time zone 'UTC' = timestamp '2020-01-01' same")
    assert row == {"same": True}


@pytest.mark.parametrize(
    "sql",
    [
        "select * from read_csv('{secret}')",
        "select * from '{secret}'",
        "select content from read_text('{secret}')",
        "with x as (copy (select 1) to '{secret}') select 1",
        "select getenv('HOME')",
        "select * from _BLOCKS",
    ],
)
def test_the_text_reaches_nothing_but_its_inputs(tmp_path: Path, sql: str) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")
    with pytest.raises(OperatorError):
        rows(sql.format(secret=secret))
    assert secret.read_text() == "a\n1\n"


@pytest.mark.parametrize(
    "sql", ["", "select 1; select 2", "create table t (a int)", "set threads = 1", "attach ':memory:' as x", "selec 1"]
)
def test_anything_but_one_select_is_refused(sql: str) -> None:
    with pytest.raises(OperatorError):
        Sql(Job.from_message(job(sql)))


def test_only_inputs_that_the_text_may_read_are_opened() -> None:
    inputs = Job.from_message(job("", virtual={"v.x": "select * from other.thing", "v.y": "select 1"})).inputs
    assert set(mentioned_inputs("select * from eth.blocks", inputs)) == {"eth.blocks"}
    assert set(mentioned_inputs('select * from "V.X"', inputs)) == {"v.x", "other.thing"}


def test_an_input_that_cannot_be_read_is_told_by_its_own_error() -> None:
    with pytest.raises(OperatorError, match=r"no input .other\.thing"):
        run_task(Sql, scope=Scope.at(1), inputs={}, job=job("select * from other.thing"))


def test_a_process_streams_a_scope_through_and_tells_what_is_wrong() -> None:
    big = pa.table({"number": range(200_000), "text": ["x" * 100] * 200_000})
    details = job_details(
        inputs=["eth.blocks"],
        outputs={"out": {"number": "int64", "text": "string"}},
        config={"sql": "select number, case when number = 7 then error('seven') else text end as text from eth.blocks"},
        operator="sql",
        cursor="number",
    )
    with OperatorHarness(details, inputs={"eth.blocks": big}) as harness:
        bad = harness.add_unit(operator_task(Scope.between(0, 9)))
        good = harness.add_unit(operator_task(Scope.between(10, 199_999)))
        harness.start_host("wrapper.operators.sql:Sql")
        failed = harness.wait_finished(bad).failed
        assert (failed.error_class, "seven" in failed.message) == (ErrorClass.ERROR_CLASS_USER, True)
        assert harness.wait_finished(good).WhichOneof("outcome") == "succeeded"
        assert harness.record.table("out").equals(big.slice(10))


def test_a_query_that_never_ends_is_canceled() -> None:
    details = job("select sum(a.range * b.range) s from range(1000000000) a, range(1000000000) b, eth.blocks")
    with OperatorHarness(details, inputs=_INPUTS) as harness:
        unit = harness.add_unit(operator_task(Scope.between(1, 4)))
        harness.start_host("wrapper.operators.sql:Sql")
        harness.wait_for(lambda: harness.reads > 0)
        harness.cancel(unit)
        assert harness.wait_finished(unit).WhichOneof("outcome") == "canceled"
