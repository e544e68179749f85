"""What virtual datasets pass on to the files behind them, and that no row that counts is ever left out."""

from collections.abc import Iterator

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel.dataset_sql import folded
from queryd import demands
from queryd.cursor_bounds import cursor_bounds
from queryd.demands import passed_on
from queryd.gate import check, parsed
from queryd.set_operations import Columns
from traceapi.types.v1.dag_pb2 import CursorSpec
from traceapi.types.v1.scope_pb2 import CURSOR_TYPE_INT64

_NUMBER = CursorSpec(column="number", type=CURSOR_TYPE_INT64)
_STORED = {
    "t": Columns({"number": "int64", "x": "int64"}, ("number", "x")),
    "u": Columns({"number": "int64", "x": "int64"}, ("x", "number")),
    "s": Columns({"number": "string", "x": "int64"}, ("number", "x")),
    "w_in_no_order": Columns({"number": "int64", "x": "int64"}),
}


@pytest.fixture(scope="module")
def parser() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        yield connection


def _bounds(parser: duckdb.DuckDBPyConnection, sql: str, **virtual: str) -> tuple[int | None, int | None]:
    """Of the dataset `t`, when `sql` is run over it and the virtual datasets."""
    checked = check(parser, sql)
    named = {folded(name.dataset_id): checked.mentions[name.parts] for name in checked.names}
    statements = {dataset_id: parsed(parser, text) for dataset_id, text in virtual.items()}
    known = {dataset_id: dataset_id for dataset_id in (*_STORED, *virtual)}
    bounds = cursor_bounds(passed_on(named, statements, known, _STORED).get("t", ()), _NUMBER)
    if bounds is None:
        return None, None
    lower = bounds.lower.int64_value if bounds.HasField("lower") else None
    return lower, bounds.upper.int64_value if bounds.HasField("upper") else None


@pytest.mark.parametrize(
    ("sql", "virtual", "ends"),
    [
        ("from v where number = 5", {"v": "select number, x from t"}, (5, 5)),
        ("from V where NUMBER = 5", {"v": 'select * from "T" where number > 3'}, (5, 5)),
        ("from v where n < 5", {"v": "select number as n from w", "w": "select * from t where number >= 2"}, (2, 5)),
        ("from v", {"v": "select * from t where number between 2 and 4"}, (2, 4)),
        # each mention, and all of them
        ("from v where number = 5 union all from t where number = 9", {"v": "from t"}, (5, 9)),
        ("from v a, v b where a.number = 5 and b.number = 7", {"v": "from t"}, (5, 7)),
        ("from v a, v b where a.number = 5", {"v": "from t"}, (None, None)),
        ("from v where number = 5", {"v": "select a.* from t a, t b where b.number = 9"}, (5, 9)),
        ("from v where number = 5", {"v": "select * from t where x > (select max(x) from t)"}, (None, None)),
        ("from v where number = 5", {"v": "with t as (from u) select * from t"}, (5, 5)),
        ("from v, w where v.number = 5", {"v": "from t", "w": "from u"}, (5, 5)),
        ("from v, w where v.number = 5", {"v": "from t", "w": "from t"}, (None, None)),
        # set operations, whose branches have the column at the same place, or under the same name, in one type
        ("from v where number = 5", {"v": "from t union all from t where x > 3"}, (5, 5)),
        ("from v where n = 5", {"v": "select number as n from t except select number from u"}, (5, 5)),
        ("from v where number = 5", {"v": "from t intersect all from t order by 1"}, (5, 5)),
        ("from v where number = 5", {"v": "from t union all by name from u"}, (5, 5)),
        ("from v where number = 5", {"v": "select x from u union by name from t"}, (5, 5)),
        ("from v where n = 5", {"v": "select x as n from u union select x from u union select number from t"}, (5, 5)),
        (
            "from v where n = 5",
            {"v": "(select number as n, x from t union from t) union all select x as k, number from u"},
            (5, 5),
        ),
        ("from v where n = 5", {"v": "select a.number as n from t a, u b union select b.x from u b"}, (5, 5)),
        ("from v where n = 5", {"v": "select number as n from w union select x from u", "w": "from t"}, (5, 5)),
        ("from v where n = 5", {"v": "select number as n from (from t) union select 7 from t"}, (None, None)),
        ("from v where number = 5", {"v": "from t union all from u"}, (5, 5)),
        ("from v where x = 5", {"v": "from u union all from t"}, (5, 5)),
        ("from v where number = 5", {"v": "from t union all from s"}, (None, None)),
        ("from v where number = 5", {"v": "from w_in_no_order union all by name from t"}, (5, 5)),
        ("from v where number = 5", {"v": "from t union all by name from s"}, (None, None)),
        ("from v where number = 5", {"v": "from w_in_no_order union all from t"}, (None, None)),
        ("from v where number = 5", {"v": "from t union all from t limit 9"}, (None, None)),
        ("from v where number = 5", {"v": "from t union all (from t limit 9)"}, (None, None)),
        ("from v where number = 5", {"v": "select number, number from t union all from t"}, (None, None)),
        (
            "from v where number = 5",
            {"v": "with u as (select x::varchar as number, 1 as x from t) from t union from u"},
            (None, None),
        ),
        # items that may be several columns, of whatever names
        ("from v where number = 5", {"v": "select abs(columns(*)), * from t"}, (None, None)),
        ("from v where number = 5", {"v": "select unnest({'number': x}), number from t"}, (None, None)),
        ("from v where number = 5", {"v": "select unnest([x]) as y, number from t"}, (None, None)),
        (
            "from v where number = 5",
            {"v": "select unnest({'a': x}), number from t union all select x, unnest({'number': x}) from t"},
            (None, None),
        ),
        ("from v where number = 5", {"v": "select (select max(x) from (select * from u)) as y, number from t"}, (5, 5)),
        # what it reads is not known
        ("from v where number = 5", {"v": "from t, elsewhere where t.number = 6"}, (None, None)),
        ("from v where number = 5", {"v": "with v as (from t) from v"}, (None, None)),
    ],
)
def test_bounds_behind_virtual_datasets(
    parser: duckdb.DuckDBPyConnection, sql: str, virtual: dict[str, str], ends: tuple[int | None, int | None]
) -> None:
    assert _bounds(parser, sql, **virtual) == ends


def test_datasets_upon_datasets_that_read_others_twice_are_not_followed_for_ever(
    parser: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns, where = "select a.number, b.x", "where a.x > {0} and b.number > {0}"
    virtual = {f"v{n}": f"{columns} from v{n - 1} a, v{n - 1} b {where.format(n)}" for n in range(1, 80)}
    assert _bounds(parser, "from v9 where number = 5", v0="from t", **virtual) == (1, None)
    assert _bounds(parser, "from v79 where number = 5", v0="from t", **virtual) == (1, None)
    monkeypatch.setattr(demands, "_MOST", 20)
    assert _bounds(parser, "from v79 where number = 5", v0="from t", **virtual) == (None, None)


_COLUMNS = st.sampled_from(
    [
        *("*", "number, x", "x as number, number as x", "x, a.number", "a.*, b.x as bx", "number + 1 as number, x"),
        *("distinct number, x", "distinct on (x) number, x", "number, max(x) as x", "min(number) as number, 1 as x"),
        *("number, x, row_number() over (order by number) as r", "* exclude (x), 3 as x", "* replace (x as number)"),
        *("abs(columns(a.*)), a.*", "unnest({'number': a.x}), a.number, a.x", "a.number, a.x, -columns(a.*)"),
    ]
)
_FROM = st.sampled_from(
    ["READ a", "READ a join u b on a.x = b.x", "READ a left join u b using (number)", "u b, READ a"]
)
_TAIL = st.sampled_from(
    ["", "group by all", "order by all limit 7", "order by all", "qualify row_number() over () < 9"]
)
_WHERE = st.sampled_from(["", "where a.number >= 7", "where a.x < 4", "where a.number < 31 or a.x = 1"])
_VIEW = st.builds("select {} from {} {} {}".format, _COLUMNS, _FROM, _WHERE, _TAIL)
_CONDITION = st.builds(
    "{} {} {}".format,
    st.sampled_from(["number", "x", "r", "bx"]),
    st.sampled_from(["=", "<", ">="]),
    st.integers(-2, 42),
)


_BRANCH = st.builds(
    "(select {} from {} {} {})".format,
    st.sampled_from(
        [
            *["a.number, a.x"] * 4,
            *["a.x as number, a.number as x"] * 2,
            *("a.number as x, a.x as number", "a.number, 7 as x", "a.number::double as number, a.x", "*"),
            *("unnest({'number': a.x, 'x': a.number})", "-columns(a.*)"),
        ]
    ),
    st.sampled_from([*["t a"] * 4, *["u a"] * 2, "s a", "t a join u b on a.x = b.x"]),
    st.sampled_from(["", "", "where a.x < 4"]),
    st.sampled_from(["", "", "", "order by all desc limit 7"]),
)
_OPERATION = st.sampled_from(
    [
        *("union", "union all", "intersect", "intersect all", "except", "except all"),
        *("union all by name", "union by name"),
    ]
)
_SET = st.builds(
    lambda first, rest, tail: f"{first} {' '.join(' '.join(pair) for pair in rest)} {tail}",
    _BRANCH,
    st.lists(st.tuples(_OPERATION, _BRANCH), min_size=1, max_size=2),
    st.sampled_from(["", "order by all", "order by all desc limit 9"]),
)


@pytest.fixture(scope="module")
def engine() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute("create table u as select range % 7 as x, range * 3 as number from range(12)")
        connection.execute("create table s as select (range * 3)::varchar as number, range % 7 as x from range(12)")
        connection.execute("create table whole as select range as number, range // 7 as x from range(40)")
        connection.execute("set threads = 1")
        yield connection


@given(views=st.lists(_VIEW, min_size=1, max_size=3), condition=_CONDITION, twice=st.booleans())
def test_files_that_are_left_out_have_no_row_that_counts(
    engine: duckdb.DuckDBPyConnection,
    parser: duckdb.DuckDBPyConnection,
    views: list[str],
    condition: str,
    twice: bool,
) -> None:
    """Files of ten rows each: the answer over those within the bounds is the answer over all."""
    virtual = {f"v{at}": text.replace("READ", f"v{at - 1}" if at else "t") for at, text in enumerate(views)}
    top = f"v{len(views) - 1}"
    sql = f"select * from {top} where {condition}"  # noqa: S608 - texts of this test
    if twice:
        sql += f" union all select * from {top} where number = 20"  # noqa: S608
    _check(engine, parser, sql, virtual)


@settings(max_examples=300)
@given(text=_SET, column=st.sampled_from(["number", "x"]), value=st.integers(-2, 42), operator=st.sampled_from("=<>"))
def test_nor_have_those_behind_set_operations(
    engine: duckdb.DuckDBPyConnection,
    parser: duckdb.DuckDBPyConnection,
    text: str,
    column: str,
    value: int,
    operator: str,
) -> None:
    _check(engine, parser, f"select * from v where {column} {operator} {value}", {"v": text})  # noqa: S608


def _check(
    engine: duckdb.DuckDBPyConnection, parser: duckdb.DuckDBPyConnection, sql: str, virtual: dict[str, str]
) -> None:
    answers = []
    for bounded in (False, True):
        lower, upper = _bounds(parser, sql, **virtual) if bounded else (None, None)
        low, high = (-100 if lower is None else lower) // 10 * 10, (100 if upper is None else upper) // 10 * 10 + 9
        engine.execute(f"create or replace view t as from whole where number between {low} and {high}")
        try:
            for name, text in virtual.items():
                engine.execute(f"create or replace view {name} as {text}")
            answers.append(sorted(engine.sql(sql).fetchall(), key=str))
        except (duckdb.BinderException, duckdb.CatalogException, duckdb.ConversionException):
            return  # a text that is none: whether it is does not depend on rows
    assert answers[0] == answers[1]
