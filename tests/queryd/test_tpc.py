"""Honest SQL: the queries of TPC-H and TPC-DS pass the gate as they are, and answer as a plain engine does."""

import json
from collections.abc import Iterator
from math import isclose
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from queryd.gate import check
from tests.queryd.extensions import environment
from tests.queryd.fake_datasets import FakeDatasets
from tests.queryd.harness import QuerydProcess

_SCALE = "0.01"
_QUERIES = {"tpch": 22, "tpcds": 99}


@pytest.fixture(scope="module", params=sorted(_QUERIES))
def benchmark(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A folder with a Parquet file for each table, and the queries by number."""
    folder = tmp_path_factory.mktemp(request.param)
    environment.run("tpc", str(folder), request.param, _SCALE)
    queries: dict[str, str] = json.loads((folder / "queries.json").read_text())
    assert len(queries) == _QUERIES[request.param]
    return folder, queries


@pytest.fixture
def plain(benchmark: tuple[Path, dict[str, str]]) -> Iterator[duckdb.DuckDBPyConnection]:
    """The engine that cells have, without anything of queryd."""
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute("set TimeZone = 'UTC'")
        for path in benchmark[0].glob("*.parquet"):
            connection.execute(f"create view {path.stem} as from read_parquet('{path}')")
        yield connection


def test_every_query_passes_the_gate_and_names_its_tables(benchmark: tuple[Path, dict[str, str]]) -> None:
    folder, queries = benchmark
    tables = {path.stem for path in folder.glob("*.parquet")}
    with duckdb.connect() as connection:
        named = {name.dataset_id for text in queries.values() for name in check(connection, text).names}
    assert named <= tables
    assert len(named) >= len(tables) - 1  # TPC-DS has a table that no query reads


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_query_answers_as_the_plain_engine_does(
    benchmark: tuple[Path, dict[str, str]], plain: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    folder, queries = benchmark
    datasets = FakeDatasets(tmp_path / "artifacts")
    for path in folder.glob("*.parquet"):
        datasets.add(path.stem)
        datasets.publish(path.stem, pq.read_table(path))
    wrong, with_rows = [], 0
    with QuerydProcess(tmp_path, datasets, query_threads="1") as queryd:
        client = queryd.client()
        with client.channel:
            for number, text in queries.items():
                answer, expected = client.query(text).table, plain.sql(text).to_arrow_table()
                with_rows += answer.num_rows > 0
                if answer.schema != expected.schema or not _alike(_rows(answer), _rows(expected)):
                    wrong.append(number)
    assert not wrong
    assert with_rows > len(queries) / 2


def _rows(table: Any) -> list[tuple[Any, ...]]:
    """In an order of their own: queries leave some of it open."""
    return sorted((tuple(row.values()) for row in table.to_pylist()), key=lambda row: [str(value) for value in row])


def _alike(one: list[tuple[Any, ...]], other: list[tuple[Any, ...]]) -> bool:
    return len(one) == len(other) and all(
        len(left) == len(right) and all(map(_same, left, right)) for left, right in zip(one, other, strict=True)
    )


def _same(left: object, right: object) -> bool:
    """Sums of floats depend on the order in which they are added."""
    if isinstance(left, float) and isinstance(right, float):
        return isclose(left, right, rel_tol=1e-9, abs_tol=1e-12)
    return left == right
