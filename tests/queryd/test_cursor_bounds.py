"""Which files a text needs: bounds on the cursor from its WHERE, and that no row that counts is ever left out."""

from collections.abc import Iterator

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from queryd.cursor_bounds import cursor_bounds, may_be_bounded
from queryd.gate import check
from queryd.terms import Constant
from traceapi.types.v1.dag_pb2 import CursorSpec
from traceapi.types.v1.dataset_pb2 import CursorBounds
from traceapi.types.v1.scope_pb2 import CURSOR_TYPE_INT64, CURSOR_TYPE_STRING, CURSOR_TYPE_TIMESTAMP

_NUMBER = CursorSpec(column="Number", type=CURSOR_TYPE_INT64)
_TIME = CursorSpec(column="time", type=CURSOR_TYPE_TIMESTAMP)


def _bounds(sql: str, cursor: CursorSpec = _NUMBER, values: dict[str, Constant] | None = None) -> CursorBounds | None:
    """Of the dataset `t`, under all names by which it is mentioned."""
    with duckdb.connect() as parser:
        checked = check(parser, sql, values or {})
    found = [terms for name in checked.names if name.dataset_id == "t" for terms in checked.mentions[name.parts]]
    return cursor_bounds(found, cursor)


def _ends(bounds: CursorBounds | None) -> tuple[int | None, int | None]:
    if bounds is None:
        return None, None
    lower = bounds.lower.int64_value if bounds.HasField("lower") else None
    return lower, bounds.upper.int64_value if bounds.HasField("upper") else None


@pytest.mark.parametrize(
    ("sql", "ends"),
    [
        ("select * from t where number = 5", (5, 5)),
        ('select * from "t" where "NUMBER" = 5', (5, 5)),
        ("select * from t where number > 5 and 9 >= number and x = 1", (5, 9)),
        ("select * from t where number between -3 and 10 and number < 7", (-3, 7)),
        ("select * from t where number in (3, 1, 2)", (1, 3)),
        ("select * from t where number >= 1.5 and number <= 2.5", (1, 3)),
        ("select * from t where number = '7' and number = 7::bigint", (7, 7)),
        ("select * from t a where a.number = 5", (5, 5)),
        ("select * from t a join u on a.x = u.x where a.number = 5", (5, 5)),
        ("select * from u left join t on t.x = u.x where t.number >= 5", (5, None)),
        ("with c as (select * from t where number = 5) select * from c where number = 6", (5, 5)),
        ("select * from t where number = 5 union all select * from t where number = 9", (5, 9)),
        ("select (select max(x) from t where number = 3) from u", (3, 3)),
        ("select * from t where number >= 5 limit 3", (5, None)),
        ("select count(*) over () from t where number <= 5", (None, 5)),
        ("select * from t where number = $1", (8, 8)),
        ("select * from (from t) s where s.number = 5", (5, 5)),
        ("select * from (select number as n, x from (select * exclude (y) from t)) where n >= 5", (5, None)),
        ("select * from (select distinct number, x from t order by x) where number = 5", (5, 5)),
        ("select * from (select number, count(*) c from t group by all) where number = 5 and c = 6", (5, 5)),
        ("select * from (select a.number, u.x from t a join u on a.x = u.x) where number = 5", (5, 5)),
        ("select * from (select a.*, u.x as ux from t a join u on a.x = u.x) where number = 5", (5, 5)),
        ("select * from (select * from t where number >= 3) where number <= 5", (3, 5)),
        ("select * from (select * from t where number >= 3) join u using (x)", (3, None)),
        # nothing is known, or not enough
        ("select * from (from t limit 3) where number = 5", (None, None)),
        ("select * from (select distinct on (x) * from t) where number = 5", (None, None)),
        ("select * from (select *, row_number() over () r from t) where number = 5", (None, None)),
        ("select * from (select * from t qualify row_number() over () = 1) where number = 5", (None, None)),
        ("select * from (select * from t using sample 3) where number = 5", (None, None)),
        ("select * from (select number from t group by rollup (number)) where number = 5", (None, None)),
        ("select * from (select number + 1 as number from t) where number = 5", (None, None)),
        ("select * from (select x as number from t) where number = 5", (None, None)),
        ("select * from (select s.number, number from t) where number = 5", (None, None)),
        ("select * from (select x as number, * from t) where number = 5", (None, None)),
        ("select * from (select * replace (x as number) from t) where number = 5", (None, None)),
        ("select * from (select * rename (number as n, x as number) from t) where number = 5", (None, None)),
        ("select * from (select * exclude (number), x from t) where number = 5", (None, None)),
        ("select * from (from t) as s(x, number) where s.number = 5", (None, None)),
        ("select * from (from t union all from t) where number = 5", (None, None)),
        ("select * from (select number from t join u using (number)) where number = 5", (None, None)),
        ("select * from t", (None, None)),
        ("select * from t where number = 5 or x = 1", (None, None)),
        ("select * from t where not (number = 5)", (None, None)),
        ("select * from t where number <> 5", (None, None)),
        ("select * from t where number + 0 = 5", (None, None)),
        ("select * from t where x = 5", (None, None)),
        ("select * from t where number = 5 union all select * from t", (None, None)),
        ("select * from t join u using (x) where number = 5", (None, None)),
        ("select * from u where number = 5 and exists (from t where t.x = u.x)", (None, None)),
        ("select * from t as a(number, x) where a.number = 5", (None, None)),
        ("select * from t tablesample 10 rows where number = 5", (None, None)),
        ("select * from t where number = 5 using sample 3", (None, None)),
        ("select * from u asof join t on u.x >= t.number where t.number <= 5", (None, None)),
        ("select * from t positional join u where t.number = 5", (None, None)),
        ("select number from t group by number having number = 5", (None, None)),
        ("select * from t where number in (1, x)", (None, None)),
        ("select * from t where number = 99999999999999999999", (None, None)),
        ("select * from t where number = 1e999999999", (None, None)),
        ("select * from t where number >= -1e999999999 and number <= 7", (None, 7)),
        ("select * from t where number = 1e-999999999", (0, 1)),
        ("select * from t where number = '5x'", (None, None)),
        ("select * from t where number = 5.4::int", (None, None)),
        ("select * from t where number is distinct from 5", (None, None)),
        # the engine compares as DOUBLE, to which a cursor's neighbours are equal
        ("select * from t where number >= 1e3 and number < 2.5e3", (1000, 2500)),
        ("select * from t where number >= 1.7e18", (None, None)),
        ("select * from t where number = 1700000000000000000.00000000000000000001", (None, None)),
        ("select * from t where number between 1700000000000000000 and 1.8e18", (None, None)),
        ("select * from t where number between 5 and x", (None, None)),
        ("select * from t where number in (1700000000000000000, 3e0)", (None, None)),
        ("select * from t where number = 1700000000000000001e0::bigint", (None, None)),
        ("select * from t where number >= 1700000000000000000", (1_700_000_000_000_000_000, None)),
        # WHERE does not see what is joined
        ("select * from t semi join u using (x) where t.number = 5", (5, 5)),
        ("select * from u semi join t using (x) where t.number = 5", (None, None)),
        ("select * from u t where exists (from u anti join t using (x) where t.number = 5)", (None, None)),
    ],
)
def test_bounds_of_a_text(sql: str, ends: tuple[int | None, int | None]) -> None:
    assert _ends(_bounds(sql, values={"1": Constant("INTEGER", "8")})) == ends


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("timestamptz '2024-02-29 00:00:00Z'", 1_709_164_800),
        ("'2024-02-29 01:00:00+01:00'", 1_709_164_800),
        ("'2024-02-29'::date", 1_709_164_800),
        ("'2024-02-29T00:00:00'", 1_709_164_800),
        ("'2024-02-29 00:00:00.6'::datetime(0)", None),  # rounds
        ("'2024-02-29 12:00:00'::date", None),  # the cast takes the hours away
        ("'today'", None),
        ("'2024-02-30'", None),
        ("now()", None),
        ("5", None),
    ],
)
def test_bounds_of_times(text: str, seconds: int | None) -> None:
    bounds = _bounds(f"select * from t where time >= {text}", _TIME)  # noqa: S608 - texts of this test
    assert (None if bounds is None else bounds.lower.timestamp_value.seconds) == seconds


def test_strings_have_none() -> None:
    assert _bounds("select * from t where s = 'x'", CursorSpec(column="s", type=CURSOR_TYPE_STRING)) is None


@pytest.mark.parametrize(
    ("schema", "whether"),
    [
        ({"number": "int64"}, True),
        ({"NUMBER": "int32", "x": "string"}, True),
        ({"number": "double"}, False),
        ({"number": "string"}, False),
        ({"x": "int64"}, False),
        ({}, False),
    ],
)
def test_only_rows_that_have_their_cursor_are_told_by_it(schema: dict[str, str], whether: bool) -> None:
    assert may_be_bounded(_NUMBER, schema) is whether


# Around where DOUBLE loses integers: those of the rows below, written in ways that have other types.
_LARGE = 2**53
_WRITTEN = st.builds(
    lambda near, form: form.format(_LARGE + near),
    st.integers(-9, 40),
    st.sampled_from(
        ["{}", "{}.0", "{}e0", "{}::double", "'{}'", "{}.5", "{}.00000000000000000000001", "{}::decimal(20,1)"]
    ),
)
_OF_LARGE = st.one_of(
    st.builds("number {} {}".format, st.sampled_from(["=", "<", "<=", ">", ">="]), _WRITTEN),
    st.builds("{} {} number".format, _WRITTEN, st.sampled_from(["=", "<", "<=", ">", ">="])),
    st.builds("number between {} and {}".format, _WRITTEN, _WRITTEN | st.just("x")),
    st.lists(_WRITTEN, min_size=1, max_size=3).map(lambda values: f"number in ({', '.join(values)})"),
)

_COMPARISON = st.builds(
    "{}{} {} {}".format,
    st.sampled_from(["a.", "b."]),
    st.sampled_from(["number", "x"]),
    st.sampled_from(["=", "<", "<=", ">", ">=", "<>"]),
    st.integers(-2, 42).map(str),
)
_BETWEEN = st.builds("a.number between {} and {}".format, st.integers(-2, 42), st.integers(-2, 42))
_IN = st.lists(st.integers(-2, 42).map(str), min_size=1, max_size=3).map(lambda ns: f"b.number in ({', '.join(ns)})")
_CONDITION = st.recursive(
    _COMPARISON | _BETWEEN | _IN,
    lambda inner: (
        st.builds("({} {} {})".format, inner, st.sampled_from(["and", "and", "or"]), inner)
        | st.builds("not ({})".format, inner)
    ),
    max_leaves=5,
)
_JOIN = st.sampled_from(
    [
        *("join", "left join", "right join", "full join", "cross join"),
        *("asof join", "asof left join", "semi join", "anti join"),
    ]
)


@pytest.fixture(scope="module")
def engine() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute(
            f"create table large as select {_LARGE} + range as number, range * 1.5e15 as x from range(40)"  # noqa: S608 - a number
        )
        connection.execute("create table u as select range * 3 as number, range % 7 as x from range(12)")
        connection.execute("create table whole as select range as number, range // 7 as x from range(40)")
        yield connection


@given(join=_JOIN, condition=_CONDITION, t_is_a=st.booleans())
def test_files_that_are_left_out_have_no_row_that_counts(
    engine: duckdb.DuckDBPyConnection, join: str, condition: str, t_is_a: bool
) -> None:
    """Files of ten rows each: the answer over those within the bounds is the answer over all."""
    on = {"cross join": "", "asof join": "on a.number >= b.number", "asof left join": "on a.number >= b.number"}
    a, b = ("t", "u") if t_is_a else ("u", "t")
    sql = f"select * from {a} a {join} {b} b {on.get(join, 'on a.x = b.x')} where {condition}"  # noqa: S608
    assert _over(engine, sql, bounded=True) == _over(engine, sql, bounded=False)


@given(
    join=st.sampled_from(["join", "left join", "semi join", "anti join"]),
    condition=_COMPARISON,
    kind=st.sampled_from(["exists", "not exists"]),
)
def test_nor_has_a_correlated_one(engine: duckdb.DuckDBPyConnection, join: str, condition: str, kind: str) -> None:
    """A name that is seen within may be that of a relation around it."""
    within = f"from u c {join} t b on c.x = b.x where {condition} and c.number = a.number"
    sql = f"select * from u a, u b where a.number <= b.number and {kind} ({within})"  # noqa: S608
    assert _over(engine, sql, bounded=True) == _over(engine, sql, bounded=False)


@given(condition=_OF_LARGE)
def test_nor_has_one_whose_numbers_a_double_does_not_tell_apart(
    engine: duckdb.DuckDBPyConnection, condition: str
) -> None:
    sql = f"select * from t where {condition}"  # noqa: S608
    assert _over(engine, sql, bounded=True, of="large", size=1) == _over(engine, sql, bounded=False, of="large")


def _over(
    engine: duckdb.DuckDBPyConnection, sql: str, *, bounded: bool, of: str = "whole", size: int = 10
) -> list[str]:
    """The answer over files within the bounds, of so many rows each, or over all; nothing where the text is none."""
    lower, upper = _ends(_bounds(sql)) if bounded else (None, None)
    low = "-1000" if lower is None else f"{lower} // {size} * {size}"
    high = f"{2**62}" if upper is None else f"{upper} // {size} * {size} + {size - 1}"
    engine.execute(f"create or replace view t as select * from {of} where number between {low} and {high}")  # noqa: S608
    try:
        return sorted(map(str, engine.sql(sql).fetchall()))
    except (duckdb.BinderException, duckdb.ConversionException):
        return []


@pytest.mark.parametrize(
    "sql",
    ['select * from t where "\u212a" = 5', 'select * from t k, u "\u212a" where "\u212a".k = 5 and "\u212a".x = k.x'],
)
def test_names_that_only_python_takes_for_equal_are_two(sql: str) -> None:
    """The Kelvin sign is `k` in lower case, to Python; to the engine it is another column."""
    assert _ends(_bounds(sql, CursorSpec(column="k", type=CURSOR_TYPE_INT64))) == (None, None)
