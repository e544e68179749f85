"""What a cell has the engine bind: each text once, and no view that nobody names."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import duckdb
import pyarrow as pa
import pytest

from queryd.engine import messages
from queryd.engine.answers import AnswerWriter
from queryd.engine.cell import _Cell, prepared
from queryd.engine.frames import Kind, read_frame
from queryd.engine.messages import CellLimits, Job, Relation

_LIMITS = CellLimits(512 << 20, 1, 1 << 30)


class Counting:
    """A connection that counts the texts that are bound as queries."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self.bound: list[str] = []

    def sql(self, text: str, **more: Any) -> Any:
        self.bound.append(text)
        return self._connection.sql(text, **more)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Counting]:
    with prepared(_LIMITS, tmp_path) as opened:
        yield Counting(opened)


def _answers(connection: Counting, sql: str, relations: tuple[Relation, ...], *, run: bool = True) -> list[Kind]:
    written = io.BytesIO()
    cell = _Cell(cast("Any", connection), AnswerWriter(written, io.BytesIO(), cast("Any", None)), cast("Any", None))
    assert cell.answer(Kind.CHECK, sql.encode())
    assert cell.answer(Kind.DESCRIBE, messages.pack_job(Job(sql, relations, 100)))
    if run:
        cell.answer(Kind.RUN, b"")
    frames = io.BytesIO(written.getvalue())
    return [kind for kind, _ in iter(lambda: read_frame(frames, 1 << 20), None)]


def test_a_text_is_bound_once_for_its_columns_and_its_rows(connection: Counting) -> None:
    kinds = _answers(connection, "select 7 as x", ())
    assert kinds == [Kind.CHECKED, Kind.SCHEMA, Kind.ARROW, Kind.FINISHED]
    assert connection.bound == ["select 7 as x"]


@pytest.mark.parametrize("values", [{"0": [3]}, {"0": [None]}])
def test_a_text_with_values_too(connection: Counting, values: dict[str, list[Any]]) -> None:
    sink = pa.BufferOutputStream()
    table = pa.table({name: pa.array(column, pa.int64()) for name, column in values.items()})
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    written, sql = io.BytesIO(), "select range + ?::bigint as x from range(3)"
    cell = _Cell(cast("Any", connection), AnswerWriter(written, io.BytesIO(), cast("Any", None)), cast("Any", None))
    cell.answer(Kind.PARAMETERS, sink.getvalue().to_pybytes())
    cell.answer(Kind.CHECK, sql.encode())
    cell.answer(Kind.DESCRIBE, messages.pack_job(Job(sql, (), 100)))
    cell.answer(Kind.RUN, b"")
    frames = io.BytesIO(written.getvalue())
    found = dict(iter(lambda: read_frame(frames, 1 << 20), None))
    rows = pa.ipc.open_stream(found[Kind.SCHEMA] + found[Kind.ARROW][8:]).read_all()
    given = values["0"][0]
    assert rows["x"].to_pylist() == [None if given is None else given + number for number in range(3)]
    assert connection.bound[-1] == sql
    assert connection.bound.count(sql) == 1


_VIEWS = "select schema_name || '/' || view_name from duckdb_views() where not internal order by 1"
_BLOCKS = Relation(("eth.blocks",), columns=(("n", "BIGINT"),))
_OTHERS = Relation(("eth.others",), columns=(("n", "BIGINT"),))
_BOTH = ["eth/blocks", "main/eth.blocks"]


@pytest.mark.parametrize(
    ("sql", "virtual", "views"),
    [
        ('select * from "eth.blocks"', (), ["main/eth.blocks"]),
        ("select * from eth.blocks", (), _BOTH),
        ('select * from ETH."Blocks"', (), _BOTH),
        ('with x as (from eth.blocks) select * from x, "eth.blocks"', (), _BOTH),
        ("select * from v", (Relation(("v",), sql='from "eth.blocks"'),), ["main/eth.blocks", "main/v"]),
        ("select * from v", (Relation(("v",), sql="from eth.blocks"),), [*_BOTH, "main/v"]),
    ],
)
def test_a_bare_name_is_made_where_a_text_has_it(
    connection: Counting, sql: str, virtual: tuple[Relation, ...], views: list[str]
) -> None:
    assert Kind.SCHEMA in _answers(connection, sql, (_BLOCKS, _OTHERS, *virtual), run=False)
    found = [name for (name,) in connection.execute(_VIEWS).fetchall()]
    assert found == sorted([*views, "main/eth.others"])
