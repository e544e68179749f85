"""SQL over datasets: names, one SELECT, and relations under which texts run as they are written."""
# ruff: noqa: S608 -- SQL is what is tested

import os
import time

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel.dataset_sql import (
    SqlError,
    line_and_column,
    parse_select,
    quoted,
    relation_ddl,
    scope_columns,
    single_select_problem,
    table_names,
    without_end,
)


def names(sql: str) -> list[str]:
    return [name.dataset_id for name in table_names(sql)]


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ('select * from "eth.blocks"', ["eth.blocks"]),
        ("from eth.blocks b join t using (n)", ["eth.blocks", "t"]),
        ("select (select max(x) from u) from t where exists (from v)", ["u", "t", "v"]),
        ("with x as (select * from y) select * from x", ["y"]),
        ("with x as (select * from x) select * from x", ["x"]),
        ("with a as (from t), b as (from a) select * from b, c", ["t", "c"]),
        ("with b as (from a), a as (from t) select * from b", ["a", "t"]),
        ("with recursive x as (select 1 n from q union all select n + 1 from x) from x", ["q"]),
        ("with X as (select 1) from x", []),
        ("select * from (with x as (from t) from x), x", ["t", "x"]),
        ("from a union all from b except from c order by (select max(n) from d)", ["a", "b", "c", "d"]),
        ("select 1 from t pivot (sum(b) for c in (1, 2))", ["t"]),
        ("from t, lateral (from u where u.a = t.a)", ["t", "u"]),
        ("values (1), (2)", []),
        ("select * from range(-3, 1 + 2), unnest([1, 2]), t, unnest(string_split(t.x, ','))", ["t"]),
        ("select 'from nothing' -- from nobody", []),
    ],
)
def test_names_are_the_relations_that_a_text_does_not_define(sql: str, expected: list[str]) -> None:
    assert names(sql) == expected


def test_names_come_once_each_with_their_first_place() -> None:
    found = table_names("select 'ä',\n 1 from b, \"A\" where exists (from b)")
    assert [(name.parts, name.line, name.column) for name in found] == [(("b",), 2, 9), (("A",), 2, 12)]


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("from a.b", None),
        ('from "a.b.c"', None),
        ("from a.b.c", "catalog, schema and table"),
        ('from "a.b".c', "in more than one way"),
        ("from main.x", "a schema of the engine itself"),
        ("from TEMP.x", "a schema of the engine itself"),
        ("from information_schema.tables", "a schema of the engine itself"),
    ],
)
def test_bare_name_that_can_mean_more_than_one_thing_is_ambiguous(sql: str, reason: str | None) -> None:
    (name,) = table_names(sql)
    assert (name.ambiguity is None) if reason is None else reason in (name.ambiguity or "")


@pytest.mark.parametrize(
    ("sql", "place", "message"),
    [
        ("", (1, 1), "this is nothing"),
        ("select 1; select 2", (1, 1), "this is 2 statements"),
        ("select 1,\n  from from t", (2, 8), "syntax error"),
        ("drop table t", (1, 1), "not a SELECT"),
        ("with x as (copy t to 'f') from x", (1, 1), "holds copy"),
        ("with x as (insert into t values (1) returning *) from x", (1, 1), "holds insert"),
        ("with x as (delete from t returning *) from x", (1, 1), "holds delete"),
        ("select * from (show tables)", (1, 1), "DESCRIBE, SHOW and SUMMARIZE"),
        ("select 'ä'\nfrom read_csv('f')", (2, 6), "read_csv"),
        ("from duckdb_settings()", (1, 6), "duckdb_settings"),
        ("from query('from t')", (1, 6), "query"),
        ("from range(length(repeat('x', 3000000000)))", (1, 6), "are computed"),
        ("select " + "1+" * 900 + "1", (1, 1), "nested too deeply"),
        ("select " + "(" * 5000 + "1" + ")" * 5000, (1, 1), "nested too deeply"),
        ("\ud800", (1, 1), "cannot be read"),
    ],
)
def test_what_is_not_one_reading_select_is_refused_with_its_place(
    sql: str, place: tuple[int, int], message: str
) -> None:
    problem = single_select_problem(sql)
    assert problem is not None
    assert (problem.line, problem.column) == place, problem
    assert message in problem.message
    with pytest.raises(SqlError):
        parse_select(sql)


def test_one_select_has_no_problem() -> None:
    assert single_select_problem('with x as (from "t") select count(*) from x group by all; -- done') is None


@pytest.mark.parametrize(
    "dataset_id", ["blocks", "eth.blocks", "a.b.c", 'we"ird.na me', "main.x", "Ünï.cödé", ".x", "select"]
)
def test_text_runs_as_it_is_written_under_both_names(dataset_id: str) -> None:
    with duckdb.connect(":memory:") as connection:
        for statement in relation_ddl(dataset_id, "SELECT 7 AS n"):
            connection.execute(statement)
        assert connection.execute(f"SELECT n FROM {quoted(dataset_id)}").fetchall() == [(7,)]
        if dataset_id == "eth.blocks":
            assert connection.execute("SELECT eth.blocks.n FROM eth.blocks").fetchall() == [(7,)]


def test_relations_of_one_schema_stand_side_by_side() -> None:
    with duckdb.connect(":memory:") as connection:
        for statement in [
            *relation_ddl("eth.a", "SELECT 1 AS n"),
            *relation_ddl("ETH.b", 'SELECT n + 1 AS n FROM "eth.a"'),
        ]:
            connection.execute(statement)
        assert connection.execute('SELECT a.n, b.n FROM eth.a, eth.b, "ETH.b" c').fetchall() == [(1, 2)]


def test_columns_of_scopes_can_be_selected_by_their_plain_names() -> None:
    for cursor_type in ("int64", "timestamp", "string", ""):
        columns = scope_columns(cursor_type)
        assert single_select_problem(f"select {', '.join(columns)} from t") is None
    assert scope_columns("int64")["first"] == "int64"
    assert list(scope_columns("")) == ["partition_key", "revision"]


def test_place_counts_characters_of_the_line() -> None:
    sql = "sélect\n 'ü' x"
    assert line_and_column(sql, 0) == (1, 1)
    assert line_and_column(sql, len("sélect\n 'ü' ".encode())) == (2, 6)
    assert line_and_column(sql, 10**6) == (2, 7)


def test_names_agree_with_the_engine() -> None:
    queries = [
        "select * from a, b where y in (select z from c)",
        "with q as (from d) select * from q, e, (select * from f) g",
        'select * from "x.y" union select * from "Z"',
    ]
    with duckdb.connect(":memory:") as connection:
        for sql in queries:
            assert set(names(sql)) == {name.strip('"') for name in connection.get_table_names(sql)}


def test_parsing_works_in_a_forked_process() -> None:
    assert names("from t") == ["t"]
    child = os.fork()
    if child == 0:
        os._exit(0 if names("from u") == ["u"] else 1)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert status == 0
            return
    os.kill(child, 9)
    pytest.fail("the child did not answer")


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=st.sampled_from(list("selctfromwih*()\"'.,;-/ \n0123+xé\x00")), max_size=80))
def test_any_text_is_answered(sql: str) -> None:
    problem = single_select_problem(sql)
    if problem is None:
        table_names(sql)
    else:
        assert problem.line >= 1
        assert problem.column >= 1


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("select 1", "select 1"),
        ("select 1;", "select 1"),
        ("select 'é;' ; ; -- ü;\n", "select 'é;' "),
        ("select 1 -- one;", "select 1 -- one;"),
        ("select 1 /* ; */ ; /* ; */", "select 1 /* ; */ "),
        ("", ""),
    ],
)
def test_what_ends_a_statement_is_taken_off(sql: str, expected: str) -> None:
    assert without_end(sql) == expected


@pytest.mark.parametrize("end", ["", ";", " ; -- done", " -- done; or not", "/* ; */;"])
def test_a_statement_without_its_end_stands_in_parentheses(end: str) -> None:
    sql = without_end("select 1 as a, 2 as b" + end)
    assert duckdb.execute(f"select b, a from (\n{sql}\n)").fetchall() == [(2, 1)]
