"""Faults of SQL in documents: at their line and column within the text, wherever the text stands as it is written."""
# ruff: noqa: S608 -- documents that hold SQL, not statements

import pytest

from tests.dispatcher.dag.documents import BLOCKS, expect, job_of, read

RAW = "  raw: {source: replay, config: {path: p, cursor: n}, outputs: {raw: {cursor: {column: n, type: int64}}}}\n"


def sql_job(sql: str, output: str = "{}", inputs: str = "{ranges: {}, blocks: {trigger: false}}") -> str:
    indented = "\n".join(f"        {line}" for line in sql.split("\n"))
    return (
        f"{BLOCKS}{RAW}  a:\n    operator: sql\n    config:\n      sql: |\n{indented}\n"
        f"    inputs: {inputs}\n    outputs:\n      r: {output}\n"
    )


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        (
            "select number,\n  ‸hahs\nfrom blocks",
            'Referenced column "hahs" not found in FROM clause; candidate bindings: "hash"',
        ),
        ("select 'äö' as t,\n  number, ‸nope(hash)\nfrom blocks", "Scalar Function with name nope does not exist"),
        ("‸selec number from blocks", "syntax error at or near"),
        ("select number from blocks\nwhere ‸block.hash = ''", 'Referenced table "block" not found'),
        ("select * from ‸blokcs", "`blokcs` is no input of this job; did you mean `blocks`?"),
        ("select * from ‸raw", '`raw` is no input of this job; add it: `inputs: {"raw": {trigger: false}}`'),
        ("‸insert into blocks values (1)", "this is not a SELECT; write one SELECT"),
        ("‸select 1; select 2", "one SELECT is wanted, and this is 2 statements"),
        ("‸with x as (copy blocks to 'f') from x", "a SELECT may only read, and this one holds copy"),
        ("from ‸read_csv('/etc/passwd')", "the table function read_csv reads something else than datasets"),
        ("from ‸query_table('raw')", "the table function query_table reads something else"),
        ("from ‸range(length(repeat('x', 3000000000)))", "the arguments of range are computed"),
        ("from ‸'/etc/passwd'", "`/etc/passwd` is no input of this job"),
        ("‸describe blocks", "DESCRIBE, SHOW and SUMMARIZE look at the engine"),
        (
            "from ‸main.blocks",
            '`main` is a schema of the engine itself, so `main.blocks` can mean two datasets; write "main.blocks"',
        ),
        ("from ‸a.b.c", 'SQL reads `a.b.c` as catalog, schema and table; write "a.b.c" in quotes'),
        (
            "‸select number, interval 1 day as i from blocks",
            "the column `i` has the type INTERVAL, which a dataset cannot keep; cast",
        ),
        (
            "‸select number, timestamp '2020-01-01' as t from blocks",
            "the type TIMESTAMP, which a dataset cannot keep; say in which zone",
        ),
        ("‸select number, hash, hash from blocks", "the SELECT gives the column `hash` twice"),
        ("‸select number, null as x from blocks", "the column `x` has the type"),
    ],
)
def test_fault_of_a_query_is_reported_within_its_text(sql: str, message: str) -> None:
    expect(sql_job(sql), [message])


def test_several_unknown_names_are_all_reported() -> None:
    expect(sql_job("select * from ‸foo\njoin ‸bar using (number)"), ["`foo` is no input", "`bar` is no input"])


@pytest.mark.parametrize(
    ("output", "messages"),
    [
        ("{schema: {number: int64, gas: ‸int64}}", ["gives `gas` as decimal(38,0), and int64 is declared; cast it"]),
        ("{schema: {number: int64, gas: 'decimal(38, 0)', ‸hash: string}}", ["the SELECT gives no column `hash`"]),
        ("{‸schema: {number: int64}}", ["the SELECT also gives `gas`; declare all of its columns"]),
        ("{cursor: {column: ‸height, type: int64}}", ["the dataset has no column `height`"]),
    ],
)
def test_declared_columns_must_be_those_of_the_query(output: str, messages: list[str]) -> None:
    expect(sql_job("select number, sum(gas) as gas from blocks group by number", output), messages)


def test_cursor_column_must_be_among_the_columns_of_the_query() -> None:
    expect(sql_job("select hash from blocks").replace("r: {}", "‸r: {}"), ["the dataset has no column `number`"])


@pytest.mark.parametrize(
    "text",
    [
        "'select ‸nope from blocks'",
        '"select ‸nope from blocks"',
        "select ‸nope from blocks",
        "‸>\n        select\n        nope from blocks",
        '‸"select \\n nope from blocks"',
    ],
)
def test_place_within_a_query_is_found_in_every_style_of_text(text: str) -> None:
    expect(f"{BLOCKS}  a:\n    virtual:\n      sql: {text}\n    outputs: {{v: {{}}}}\n", ['column "nope" not found'])


def test_query_sees_the_scopes_of_a_dataset_that_keeps_events_only() -> None:
    reading = read(sql_job("select first as number, last, unit_count, revision from ranges"))
    assert not reading.problems
    schema = job_of(reading, "a").outputs[0].spec.schema
    assert dict(schema) == {"number": "int64", "last": "int64", "unit_count": "uint64", "revision": "uint64"}


def test_columns_that_nobody_knows_yet_are_not_checked() -> None:
    text = sql_job("select whatever from raw", inputs="{raw: {}}")
    reading = read(text)
    assert not reading.problems
    assert not job_of(reading, "a").outputs[0].spec.schema


def test_virtual_columns_are_checked_through_several_virtual_datasets() -> None:
    expect(
        BLOCKS
        + "  a: {virtual: {sql: select hash as h from blocks}, outputs: {va: {}}}\n"
        + "  b: {virtual: {sql: select * from va}, outputs: {vb: {}}}\n"
        + "  c: {virtual: {sql: select ‸hash from vb}, outputs: {vc: {}}}\n",
        ['column "hash" not found'],
    )


def test_a_faulty_query_is_not_held_against_its_readers() -> None:
    expect(
        BLOCKS
        + "  a: {virtual: {sql: select ‸h from blocks}, outputs: {va: {}}}\n"
        + "  b: {virtual: {sql: select anything from va}, outputs: {vb: {}}}\n",
        ['column "h" not found'],
    )


def test_a_name_of_this_process_is_no_relation() -> None:
    numbers = [1, 2, 3]
    expect(f"{BLOCKS}  a: {{virtual: {{sql: from ‸numbers}}, outputs: {{v: {{}}}}}}\n", ["no DAG produces `numbers`"])
    assert numbers


def test_names_with_dots_are_read_quoted_and_bare() -> None:
    text = BLOCKS.replace("blocks: {", "eth.blocks: {")
    for form in ('"eth.blocks"', "eth.blocks", '"ETH.Blocks"', "Eth.BLOCKS b"):
        job = f"  a: {{virtual: {{sql: 'select number from {form}'}}, outputs: {{v: {{}}}}}}\n"
        reading = read(text + job)
        assert [item.dataset_id for item in job_of(reading, "a").inputs] == ["eth.blocks"]
