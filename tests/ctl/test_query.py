"""`tracectl query`: what comes out is what went in, to the last digit, in each form."""

import csv
import io
import json
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from ctl import rows
from tests.ctl.conftest import Run
from tests.ctl.fake_control import Canned

_ALL_TYPES = """
select 9007199254740993::bigint as i, 18446744073709551615::ubigint as u, true as b, null as n, '' as empty,
       12345678901234567890123456789012345678::decimal(38,0) as d, 0.10::decimal(4,2) as cents,
       'a "quoted", line' || chr(10) || 'and ü' as s, [1, 2] as l, {'x': 1.5::decimal(3,1)} as o,
       '2024-05-01 12:00:00.123456'::timestamp as t, '2024-05-01 12:00:00'::timestamptz as z,
       '2024-05-01'::date as day, 'ab'::blob as raw, 'nan'::double as nan, 0.1::double as f,
       '2024-05-01 12:00:00.123456789'::timestamp_ns as ns
"""


def test_json_lines_are_typed_and_exact(run: Run, canned: Canned) -> None:
    result = run("query", _ALL_TYPES, "--output", "json")
    assert result.exit_code == 0, result.stderr
    row = json.loads(result.stdout, parse_float=Decimal)
    assert row["i"] == 9007199254740993
    assert row["u"] == 18446744073709551615
    assert (row["b"], row["n"], row["empty"]) == (True, None, "")
    assert row["d"] == "12345678901234567890123456789012345678"
    assert row["cents"] == "0.10"
    assert row["s"] == 'a "quoted", line\nand ü'
    assert (row["l"], row["o"]) == ([1, 2], {"x": "1.5"})
    assert row["t"] == "2024-05-01T12:00:00.123456"
    assert row["z"].endswith("Z") or "+" in row["z"]
    assert (row["day"], row["raw"], row["nan"], row["f"]) == ("2024-05-01", "YWI=", "NaN", Decimal("0.1"))
    assert row["ns"].endswith("12:00:00.123456789")


def test_csv_reads_back(run: Run, canned: Canned) -> None:
    result = run("query", _ALL_TYPES, "--output", "csv")
    assert result.exit_code == 0, result.stderr
    header, values = list(csv.reader(io.StringIO(result.stdout)))
    row = dict(zip(header, values, strict=True))
    assert row["d"] == "12345678901234567890123456789012345678"
    assert row["s"] == 'a "quoted", line\nand ü'
    assert row["cents"] == "0.10"
    assert result.stdout.split("\n", 1)[1].startswith('9007199254740993,18446744073709551615,true,,"",')


def test_a_table_says_what_it_was_read_at(run: Run, canned: Canned) -> None:
    result = run("query", "select 42 as answer, null as nothing")
    assert "answer" in result.stdout
    assert "42" in result.stdout
    assert "NULL" in result.stdout
    assert "1 row · 12 ms · read at deploy 3: eth.blocks@12" in result.stdout


def test_a_table_stops_at_its_limit_and_stops_the_query(run: Run, canned: Canned) -> None:
    result = run("query", "select unnest(range(1000000)) as n", "--limit", "5")
    assert result.exit_code == 0
    assert "the first 5 rows" in result.stdout
    assert canned.queries_cancelled.wait(30)


@pytest.mark.parametrize("count", [4, 1000, 2500])
def test_all_batches_arrive(run: Run, canned: Canned, count: int) -> None:
    result = run("query", f"select unnest(range({count})) as n", "--output", "csv")
    assert result.stdout.splitlines() == ["n", *(str(number) for number in range(count))]


def test_a_limit_that_is_met_exactly_is_no_cut(run: Run, canned: Canned) -> None:
    assert "2 rows" in run("query", "select unnest(range(2)) as n", "--limit", "2").stdout


def test_an_empty_answer_has_its_columns(run: Run, canned: Canned) -> None:
    assert run("query", "select 1 as one where false", "--output", "csv").stdout == "one\n"
    assert "0 rows" in run("query", "select 1 as one where false").stdout


def test_repeated_column_names_stay_apart_in_json(run: Run, canned: Canned) -> None:
    result = run("query", "select 1 as a, 2 as a, 3 as a_1", "--output", "json")
    assert sorted(json.loads(result.stdout).values()) == [1, 2, 3]


def test_sql_from_standard_input(run: Run, canned: Canned) -> None:
    result = run("query", "-", "--output", "json", stdin="select 7 as n\n")
    assert json.loads(result.stdout) == {"n": 7}
    assert run("query", "-", stdin=" \n").exit_code == 2


def test_what_the_engine_refuses_is_the_works_fault(run: Run, canned: Canned) -> None:
    result = run("query", "select nonsense")
    assert result.exit_code == 1
    assert "nonsense" in result.stderr
    assert "Correct the query" in result.stderr
    assert result.stdout == ""


def test_markup_in_data_is_data(run: Run, canned: Canned) -> None:
    assert "[bold]x[/bold]" in run("query", "select '[bold]x[/bold]' as s").stdout


def test_times_with_a_zone_are_said_in_utc() -> None:
    assert rows.json_value(datetime(2024, 5, 1, 12, tzinfo=UTC)) == "2024-05-01T12:00:00Z"
