"""docs/reference/types.md holds: each type that it names comes to a client as it says there."""

import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from kernel.column_types import parse_column_type
from queryd.flight.arrow_types import arrow_type
from tests.queryd.fake_datasets import FakeDatasets
from tests.queryd.harness import Client, QuerydProcess
from wrapper.outputs import columns

_PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "types.md").read_text(encoding="utf-8")
_ROW = re.compile(r"^\| `([^`]+)`[^|]*\| `([^`]+)` \|(?: `([^`]+)` \|)?$", re.MULTILINE)
_COLUMNS = [row for row in _ROW.findall(_PAGE) if row[2]]
_RESULTS = [row[:2] for row in _ROW.findall(_PAGE) if not row[2]]
_LARGEST = 2**256 - 1
_VALUES = (5, 10**18, 10**18 + 1, _LARGEST)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuerydProcess]:
    """One dataset with a column of each type, empty but for a row of nulls; one of large integers."""
    folder = tmp_path_factory.mktemp("types")
    datasets = FakeDatasets(folder / "artifacts")
    schema = {f"c{number}": word for number, (word, _, _) in enumerate(_COLUMNS)}
    datasets.add("t.columns", schema=schema)
    datasets.publish("t.columns", columns.arrow_schema(schema).empty_table())
    datasets.publish("t.columns", pa.Table.from_pylist([dict.fromkeys(schema)], columns.arrow_schema(schema)))
    datasets.add("eth.transfers")
    datasets.publish(
        "eth.transfers",
        pa.table({"value": list(map(str, _VALUES)), "bytes": [value.to_bytes(32, "big") for value in _VALUES]}),
    )
    with QuerydProcess(folder, datasets) as process:
        yield process


@pytest.fixture
def client(served: QuerydProcess) -> Iterator[Client]:
    client = served.client()
    with client.channel:
        yield client


def test_the_page_names_every_type() -> None:
    words = {re.sub(r"[(<].*", "", word) for word, _, _ in _COLUMNS}
    assert words == {"decimal", "list", *columns._PLAIN}
    assert len(_RESULTS) > 10


def test_a_column_comes_as_the_page_says(client: Client) -> None:
    table = client.query('select * from "t.columns"').table
    assert table.num_rows == 1
    for field, (word, sql, arrow) in zip(table.schema, _COLUMNS, strict=True):
        assert (parse_column_type(word).duckdb, str(field.type)) == (sql, arrow)
        assert arrow_type(parse_column_type(word)).equals(field.type), "as the catalogue says"


@pytest.mark.parametrize(("sql", "arrow"), _RESULTS)
def test_what_sql_makes_comes_as_the_page_says(client: Client, sql: str, arrow: str) -> None:
    assert str(client.query(f"select {sql} as x").table.schema.field("x").type) == arrow


def test_integers_of_256_bits_are_exact_as_the_page_does_it(client: Client) -> None:
    [sql] = re.findall(r"```sql\n(.*?)```", _PAGE, re.DOTALL)
    [row] = client.query(sql).table.to_pylist()
    total = sum(value for value in _VALUES if value > 10**18)
    assert (row["largest"], row["total"], row["about"]) == (str(_LARGEST), str(total), float(total))
    ordered = client.query('select bytes from "eth.transfers" order by bytes').table
    assert [int.from_bytes(row["bytes"], "big") for row in ordered.to_pylist()] == sorted(_VALUES)
