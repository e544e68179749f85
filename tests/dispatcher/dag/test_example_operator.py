"""The example's Python operator over the example's real data, and over data that is not as it should be."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pyarrow import csv

import tracesdk
from tests.dispatcher.dag.documents import EXAMPLE, job_of, read

FOLDER = (Path(__file__).parents[3] / EXAMPLE).parent
FIRST, LAST = 500_000, 500_999


class TaskOfRange:
    """What `links` asks of a task, over two tables: rows within the scope, of blocks also the one before it."""

    def __init__(self, first: int, blocks: pa.Table, transactions: pa.Table) -> None:
        self.scope = tracesdk.Scope.between(first, first + 99)
        within = {"eth.blocks": (blocks, "number", 1), "eth.transactions": (transactions, "block_number", 0)}
        self._tables = {
            name: table.filter((pc.field(column) >= first - lookback) & (pc.field(column) <= first + 99))
            for name, (table, column, lookback) in within.items()
        }

    def read(self, dataset: str) -> pa.Table:
        return self._tables[dataset]


@pytest.fixture(scope="module")
def links() -> Callable[[tracesdk.Task], pa.Table]:
    (path,) = [item.path for item in read((FOLDER / "dag.yaml").read_text()).local_paths if not item.file]
    module, function = job_of(read((FOLDER / "dag.yaml").read_text()), "checked").entrypoint.split(":")
    spec = importlib.util.spec_from_file_location(module, FOLDER / path / f"{module}.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return cast(Callable[[tracesdk.Task], pa.Table], getattr(loaded, function))


@pytest.fixture(scope="module")
def blocks() -> pa.Table:
    return rows_of("blocks")


@pytest.fixture(scope="module")
def transactions() -> pa.Table:
    return rows_of("transactions")


def rows_of(name: str) -> pa.Table:
    options = csv.ConvertOptions(column_types={"value": pa.string(), "difficulty": pa.string()})
    return csv.read_csv(FOLDER / "data" / f"{name}.csv.gz", convert_options=options)


def check(links: Callable[[tracesdk.Task], pa.Table], first: int, blocks: pa.Table, transactions: pa.Table) -> pa.Table:
    return links(cast(tracesdk.Task, TaskOfRange(first, blocks, transactions)))


def faulty(table: pa.Table, column: str) -> list[Any]:
    return [row["number"] for row in table.to_pylist() if row[column] is False]


def test_every_block_of_the_example_is_linked_and_counted(links: Any, blocks: pa.Table, transactions: pa.Table) -> None:
    tables = [check(links, first, blocks, transactions) for first in range(FIRST, LAST, 100)]
    whole = pa.concat_tables(tables)
    assert whole.column("number").to_pylist() == list(range(FIRST, LAST + 1))
    assert faulty(whole, "linked") == []
    assert faulty(whole, "counted") == []
    unlinked = [row["number"] for row in whole.to_pylist() if row["linked"] is None]
    assert unlinked == [FIRST], "only the first block of all has no parent here; links cross the borders of ranges"
    assert sum(row["transaction_rows"] == 0 for row in whole.to_pylist()) == 499


def test_broken_link_missing_block_and_missing_transaction_are_found(
    links: Any, blocks: pa.Table, transactions: pa.Table
) -> None:
    broken = blocks.to_pylist()
    broken[150]["parent_hash"] = "0xfeed"
    del broken[170]
    lost = transactions.slice(0, 0).schema.empty_table()
    found = check(links, FIRST + 100, pa.Table.from_pylist(broken), transactions)
    assert faulty(found, "linked") == [FIRST + 150, FIRST + 171]
    assert faulty(found, "counted") == []
    uncounted = faulty(check(links, FIRST + 100, blocks, lost), "counted")
    assert len(uncounted) == len({row["number"] for row in blocks.to_pylist()[100:200] if row["transaction_count"]})


def test_its_columns_are_the_declared_ones(links: Any, blocks: pa.Table, transactions: pa.Table) -> None:
    (output,) = job_of(read((FOLDER / "dag.yaml").read_text()), "checked").outputs
    words = {"int64": "int64", "bool": "bool"}
    schema = check(links, FIRST, blocks, transactions).schema
    assert {name: str(schema.field(name).type) for name in schema.names} == {
        name: words[word] for name, word in output.spec.schema.items()
    }
