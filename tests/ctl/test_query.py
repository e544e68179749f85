"""`tracectl query`: what comes out is what went in, to the last digit, in each form."""

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import Result

from ctl import rows
from ctl.exact import exact_value
from kernel.pin_text import pin_text
from tests.ctl.canned import Canned, task_id
from tests.ctl.conftest import Run
from traceapi.query.v1 import query_service_pb2
from traceapi.types.v1.dataset_pb2 import DatasetPin, Pin

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


def test_long_values_are_shortened_in_a_table_with_their_size_and_whole_elsewhere(run: Run, canned: Canned) -> None:
    sql = "select repeat('x', 5000000) as s, range(100000) as l, repeat('ab', 100000)::blob as b"
    table = run("query", sql)
    assert len(table.stdout) < 5_000
    said = "".join(table.stdout.split())
    for size in ("(5,000,000characters)", "(100,000items)", "(200,000bytes)"):
        assert f"…{size}" in said
    assert "--output csv or json give them whole" in " ".join(table.stdout.split())
    row = json.loads(run("query", sql, "--output", "json").stdout)
    assert (len(row["s"]), row["l"]) == (5_000_000, list(range(100_000)))
    csv.field_size_limit(6_000_000)
    [_, fields] = _csv(run("query", sql, "--output", "csv"))
    assert (len(fields[0]), fields[2]) == (5_000_000, "0x" + "6162" * 100_000)


_HOSTILE = "\x1b]0;title\x07\x1b[2J\x9b31m\u202etxt\r\n\tend\x00"


def test_escape_sequences_reach_no_terminal(run: Run, canned: Canned, monkeypatch: pytest.MonkeyPatch) -> None:
    for width in ("40", "160"):
        monkeypatch.setenv("COLUMNS", width)
        table = run("query", f'select {_letters(_HOSTILE)} as s, 1 as "a\x1b[31mb"')
        assert table.exit_code == 0, table.stderr
        assert all(letter.isprintable() or letter == "\n" for letter in table.stdout)
        assert r"a\x1b[31mb" in table.stdout
    assert r"\x1b]0;title\x07\x1b[2J\x9b31m\u202etxt\r\n\tend\x00 " in table.stdout


def test_control_characters_are_exact_in_csv_and_json(run: Run, canned: Canned) -> None:
    sql = f"select {_letters(_HOSTILE)} as s"
    assert json.loads(run("query", sql, "--output", "json").stdout) == {"s": _HOSTILE}
    assert _csv(run("query", sql, "--output", "csv")) == [["s"], [_HOSTILE]]


def test_an_error_that_quotes_escape_sequences_is_printable(run: Run, canned: Canned) -> None:
    said = run("query", 'select * from "\x1b[2Jnone"').stderr
    assert r"\x1b[2Jnone" in said
    assert "\x1b" not in said


@pytest.mark.parametrize("width", ["40", "160", "4000"])
def test_many_columns_stand_below_each_other(
    run: Run, canned: Canned, monkeypatch: pytest.MonkeyPatch, width: str
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    columns = ", ".join(f"{number} as column_{number}" for number in range(500))
    lines = run("query", f"select {columns}").stdout.splitlines()
    assert lines[0].strip() == "1."
    assert lines[500].split() == ["column_499", "499"]
    assert max(map(len, lines)) <= int(width)


def test_few_columns_stand_side_by_side_on_a_narrow_terminal(
    run: Run, canned: Canned, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    lines = run("query", "select 1 as one, 'a text that is folded as it has to be' as two").stdout.splitlines()
    assert ["one", "two"] in [line.split() for line in lines]
    assert max(map(len, lines)) <= 40


def test_a_table_never_has_more_rows_than_it_says(run: Run, canned: Canned) -> None:
    result = run("query", "select unnest(range(100000)) as n", "--limit", "0")
    assert "the first 10,000 rows; --output csv or json give all" in result.stdout
    assert len(result.stdout.splitlines()) < 10_010


@pytest.mark.parametrize("form", ["csv", "json"])
def test_a_limit_counts_in_every_form(run: Run, canned: Canned, form: str) -> None:
    result = run("query", "select unnest(range(1000000)) as n", "--limit", "2", "--output", form)
    assert [line for line in result.stdout.splitlines() if line != "n"] in (["0", "1"], ['{"n": 0}', '{"n": 1}'])
    assert "the first 2 rows" in result.stderr
    assert canned.queries_cancelled.wait(30)


_TIMES = {
    "'294247-01-10 04:00:54.5'::timestamp": "+294247-01-10T04:00:54.500000",
    "'0044-03-15 (BC)'::date": "-0043-03-15",
    "'290000-01-10 04:00:54+00'::timestamptz": "+290000-01-10T04:00:54Z",
    "'2024-05-01 12:00:00+02'::timestamptz": "2024-05-01T10:00:00Z",
    "'-infinity'::timestamp": "-infinity",
    "'infinity'::date": "infinity",
    "'2024-05-01 12:00:00.000000001'::timestamp_ns": "2024-05-01T12:00:00.000000001",
    "'24:00:00'::time": "24:00:00",
    "['24:00:00'::time]": ["24:00:00"],
    "['10000-01-01'::date]": ["+10000-01-01"],
    "{'t': '10000-01-01'::timestamp, 'n': null}": {"t": "+10000-01-01T00:00:00", "n": None},
    "map {1: '10000-01-01'::date}": [[1, "+10000-01-01"]],
    "interval '14 months -3 days -1 second'": "P1Y2M-3DT-1S",
    "interval '1 hour 2 minutes 0.25 seconds'": "PT1H2M0.25S",
    "interval '0 days'": "PT0S",
}


@pytest.mark.parametrize(("value", "expected"), _TIMES.items())
def test_times_that_python_cannot_hold_are_exact(run: Run, canned: Canned, value: str, expected: Any) -> None:
    assert json.loads(run("query", f"select {value} as t", "--output", "json").stdout) == {"t": expected}
    if isinstance(expected, str):
        [_, [field]] = _csv(run("query", f"select {value} as t", "--output", "csv"))
        assert field == (expected if expected.startswith("P") else expected.replace("T", " "))


@given(st.datetimes(), st.integers(-500, 500))
def test_dates_repeat_themselves_every_four_hundred_years(moment: datetime, cycles: int) -> None:
    whole = (moment - datetime(1970, 1, 1)) // timedelta(microseconds=1)  # noqa: DTZ001
    assert rows.json_value(exact_value(pa.scalar(whole, pa.timestamp("us")))) == moment.isoformat()
    shifted = pa.scalar(whole + cycles * 146_097 * 86_400 * 10**6, pa.timestamp("us"))
    year, rest = rows.json_value(exact_value(shifted)).split("-", 1) if cycles >= 0 else ("", "")
    assert cycles < 0 or (int(year), rest) == (moment.year + 400 * cycles, moment.isoformat().split("-", 1)[1])


def _csv(result: Result) -> list[list[str]]:
    """From the bytes: `stdout` has other ends of lines."""
    return list(csv.reader(io.StringIO(result.stdout_bytes.decode(), newline="")))


def _letters(text: str) -> str:
    """As SQL that holds none of them."""
    return " || ".join(f"chr({ord(letter)})" for letter in text)


def test_times_with_a_zone_are_said_in_utc() -> None:
    assert rows.json_value(datetime(2024, 5, 1, 12, tzinfo=UTC)) == "2024-05-01T12:00:00Z"


def test_what_would_be_read_is_told_before(run: Run, canned: Canned) -> None:
    result = run("query", "select 1", "--explain", "--as-of", "3")
    assert result.exit_code == 0, result.stderr
    assert "eth.blocks" in result.stdout
    assert "publication 12" in result.stdout
    assert "at most 3 files, 1.0 MiB, would be read" in result.stdout
    assert "SEQ_SCAN at 3" in result.stdout
    document = json.loads(run("query", "select 1", "--explain", "--output", "json").stdout)
    assert document["datasets"][0]["fileCount"] == "3"
    assert run("query", "select 1", "--explain", "--output", "csv").exit_code == 2


def test_the_state_of_a_pin_is_read_again(run: Run, canned: Canned) -> None:
    read = DatasetPin(dataset_id="eth.blocks", dataset_version_id=task_id(9), publication_number=1204)
    pin = Pin(pin_id=task_id(1), deploy_number=4, datasets=[read])
    assert run("query", "select 1", "--as-of", pin_text(pin)).exit_code == 0
    assert canned.asked(query_service_pb2.QueryRequest).pin == pin
    assert run("query", "select 1", "--as-of", pin_text(pin), "--explain").exit_code == 0
    assert canned.asked(query_service_pb2.ExplainQueryRequest).pin == pin


@pytest.mark.parametrize("text", ["yesterday", "0", "-1", "1.5", "AAAA", "=", "9" * 400])
def test_what_is_no_state_to_read_is_refused(run: Run, canned: Canned, text: str) -> None:
    refused = run("query", "select 1", f"--as-of={text}")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "`tracectl dag history` has the numbers" in refused.stderr


@pytest.mark.parametrize("option", [("--limit", "3"), ("--timeout", "5"), ("--min-watermark", "eth.blocks=3")])
def test_what_a_query_that_is_not_run_cannot_do_is_refused(run: Run, canned: Canned, option: tuple[str, str]) -> None:
    refused = run("query", "select 1", "--explain", *option)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert f"--explain has no {option[0]}" in refused.stderr


def test_running_queries_are_listed_and_stopped(run: Run, canned: Canned) -> None:
    query_id = "0192b0c4-0000-7000-8000-000000000001"
    canned.running_queries[query_id] = "select\n  count(*) from range(1000000000)"
    shown = run("queries", "ls").stdout
    assert query_id in shown
    assert "user:alice" in shown
    assert "select count(*) from range" in shown
    assert run("queries", "stop", query_id).stdout == f"stopped query {query_id}\n"
    assert "no queries that run" in run("queries", "ls").stderr
    again = run("queries", "stop", query_id)
    assert again.exit_code != 0
    assert "is running" in again.stderr
