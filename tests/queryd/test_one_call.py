"""What a query reads comes with its pin, in one call, where it is little; and is the same where it comes after it."""

import pyarrow as pa
import pytest

from queryd.cursor_bounds import bounds_by_column
from queryd.terms import Constant, Term
from tests.queryd.conftest import BLOCKS, blocks
from tests.queryd.fake_datasets import FakeDatasets
from tests.queryd.harness import Client

_TWO_SPELLINGS = "select count(*) from eth.blocks a, ETH.Blocks b where a.number = 1 and b.number = 8"


@pytest.fixture(params=[100, 0], ids=["with the pin", "after it"])
def calls(request: pytest.FixtureRequest, datasets: FakeDatasets) -> int:
    """How many calls follow that for the pin: those of texts over more files than are few."""
    datasets.few = request.param
    return 0 if request.param else 1


@pytest.mark.parametrize(
    ("sql", "values", "files"),
    [
        ("select number from eth.blocks where number = 3", [(3,)], 1),
        ('select count(*) from "eth.blocks" where NUMBER between 4 and 5', [(2,)], 2),
        ("select count(*) from eth.blocks where number = 30", [(0,)], 0),
        ("select count(*) from eth.blocks a, eth.blocks b where a.number = 1 and b.number = 8", [(1,)], 2),
        ("select count(*) from eth.blocks where miner = '5'", [(0,)], 2),
        ("select count(*), max(last) from eth.block_ranges", [(2, 9)], 0),
        ('select count(*) from eth.blocks, eth.transactions, "Größe" where number < 2', [(8,)], 4),
        ("select count(*) from eth.empty", [(0,)], 0),
    ],
)
def test_the_files_are_the_same_in_one_call_and_in_two(
    client: Client, datasets: FakeDatasets, calls: int, sql: str, values: list[tuple[int, ...]], files: int
) -> None:
    before = datasets.resolving_calls
    answer = client.query(sql)
    assert (answer.values, answer.started.file_count) == (values, files)
    # With no file, or none within the bounds, there is nothing that could be too much.
    assert datasets.resolving_calls - before == (calls if files or "ranges" in sql else 0)


def test_a_name_of_no_column_of_a_dataset_is_that_of_a_relation_around(
    client: Client, datasets: FakeDatasets, calls: int
) -> None:
    """Its files are not chosen by it, though its cursor has that name."""
    datasets.add("bare")
    for x in (1, 2):
        datasets.publish("bare", pa.table({"x": [x]}))
    sql = "select b.number from eth.blocks b where exists (select 1 from bare where number = 7 and x = 2)"
    answer = client.query(sql)
    assert (answer.values, answer.started.file_count) == ([(7,)], 4)


@pytest.mark.parametrize(
    ("sql", "files"),
    [
        (_TWO_SPELLINGS, 2),
        ("select * from eth.miners", 2),
        ("with chosen as (from eth.miners) select * from chosen, eth.blocks where number = 3", 2),
    ],
)
def test_demands_that_the_pin_cannot_know_take_a_second_call(
    client: Client, datasets: FakeDatasets, sql: str, files: int
) -> None:
    """Of two spellings, and of virtual datasets."""
    before = datasets.resolving_calls
    assert client.query(sql).started.file_count == files
    assert datasets.resolving_calls - before == 1


@pytest.mark.parametrize(
    "union",
    [
        "select number, miner from eth.blocks union all select number, miner from other_blocks",
        "from eth.blocks union all by name from other_blocks",
        "from eth.blocks union all from other_blocks",
        "select * from other_blocks union all select * from eth.blocks",
    ],
)
def test_a_union_is_read_only_where_its_rows_count(client: Client, datasets: FakeDatasets, union: str) -> None:
    spec = datasets.versions["eth.blocks"].dataset.spec
    datasets.add("other_blocks", schema=dict(spec.schema), column_order=spec.column_order)
    for first in (0, 5):
        datasets.publish("other_blocks", blocks(first, 5))
    datasets.add("all_blocks", virtual_sql=union)
    few = client.query("select count(*) from all_blocks where number = 3")
    all_ = client.query("select count(*) from all_blocks where number >= 0")
    assert (few.values, few.started.file_count) == ([(2,)], 2)
    assert (all_.values, all_.started.file_count) == ([(20,)], 4)


def test_an_answer_at_a_pin_is_that_of_then(client: Client, datasets: FakeDatasets, calls: int) -> None:
    datasets.add("growing")
    datasets.publish("growing", blocks(0, BLOCKS))
    first = client.query("select count(*) from growing where number >= 5")
    datasets.publish("growing", blocks(BLOCKS, BLOCKS))
    again = client.as_of("select count(*) from growing where number >= 5", first.started.pin)
    now = client.query("select count(*) from growing where number >= 5")
    assert [answer.values for answer in (first, again, now)] == [[(5,)], [(5,)], [(15,)]]


def test_values_of_parameters_bound_the_files_that_come_with_the_pin(client: Client, datasets: FakeDatasets) -> None:
    sink = pa.BufferOutputStream()
    table = pa.table({"0": [7]})
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    answer = client.query("select number from eth.blocks where number = ?", parameters=sink.getvalue().to_pybytes())
    assert (answer.values, answer.started.file_count) == ([(7,)], 1)


def test_bounds_are_told_by_column_and_type_before_the_cursor_is_known() -> None:
    five, day = Constant("INTEGER", "5"), Constant("STRING", "2024-05-01")
    terms = (Term("number", ">=", (five,)), Term("at", "<=", (day,)), Term("miner", "in", (Constant("STRING", "m"),)))
    found = dict(bounds_by_column([terms]))
    assert sorted(found) == ["at", "number"]
    assert found["number"].lower.int64_value == 5
    assert found["at"].upper.timestamp_value.ToJsonString() == "2024-05-01T00:00:00Z"
    # Another mention, of which every row may count.
    assert list(bounds_by_column([terms, ()])) == []
    assert list(bounds_by_column([(), terms])) == []
    assert list(bounds_by_column([])) == []
