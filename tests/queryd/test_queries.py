"""What a query answers: types, names, virtual datasets, datasets without rows or files, pins."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from queryd.engine.slots import MAX_ARROW_BYTES
from tests.queryd.conftest import BLOCKS, blocks
from tests.queryd.fake_datasets import FakeDatasets
from tests.queryd.harness import Client, QuerydProcess, reason
from traceapi.types.v1.dag_pb2 import Storage
from traceapi.types.v1.event_pb2 import Event, Watermark
from traceapi.types.v1.scope_pb2 import (
    CURSOR_TYPE_STRING,
    CURSOR_TYPE_TIMESTAMP,
    CURSOR_TYPE_UNSPECIFIED,
    CursorValue,
    Scope,
)


def test_decimals_and_timestamps_come_exactly(client: Client) -> None:
    answer = client.query('select difficulty, time from "eth.blocks" order by number limit 1')
    assert answer.values == [(Decimal(10**37), datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC))]
    assert answer.table.schema.types == [pa.decimal128(38, 0), pa.timestamp("us", tz="UTC")]


def test_a_join_reads_all_files_of_both_datasets(client: Client) -> None:
    sql = """
        select b.number, sum(t.value)::bigint as value
        from eth.blocks b join "eth.transactions" t on t.block = b.number
        group by all order by 1
    """
    answer = client.query(sql)
    assert answer.values == [(0, 3), (3, 3), (9, 4)]
    assert (answer.started.file_count, answer.finished.row_count) == (3, 3)


@pytest.mark.parametrize("name", ["eth.blocks", '"eth.blocks"', "ETH.Blocks", '"Eth.BLOCKS"', 'eth."blocks"'])
def test_a_dataset_is_found_under_every_way_of_writing_it(client: Client, name: str) -> None:
    assert client.query(f"select count(*) from {name}").values == [(BLOCKS,)]  # noqa: S608


@pytest.mark.parametrize("column", ["number", "blocks.number", "eth.blocks.number"])
def test_columns_may_be_qualified_by_the_bare_name(client: Client, column: str) -> None:
    assert client.query(f"select max({column}) from eth.blocks").values == [(9,)]  # noqa: S608


def test_a_name_without_dots_and_one_beyond_ascii(client: Client) -> None:
    assert client.query('select plain.x as a, "GRÖSSE".x as b from plain, "GRÖSSE"').values == [(1, 2)]


@pytest.mark.parametrize("name", ["a.b.c", '"a.b".c', "main.plain", "memory.eth", "information_schema.tables"])
def test_an_ambiguous_bare_name_is_refused_with_its_place(client: Client, name: str) -> None:
    error = client.refused(f"select *\nfrom {name}")
    assert reason(error) == "NAME_AMBIGUOUS"
    assert error.message.startswith("line 2, column 6: ")
    assert "in double quotes" in error.message


def test_an_unknown_dataset_is_refused_with_its_place_and_the_nearest(client: Client) -> None:
    error = client.refused("select *\nfrom plain, eth.block")
    assert reason(error) == "DATASET_NOT_FOUND"
    assert error.message == "line 2, column 13: no dataset is called eth.block; did you mean eth.blocks?"
    assert (error.metadata["line"], error.metadata["column"]) == ("2", "13")


def test_a_common_table_expression_hides_a_dataset_but_not_from_itself(client: Client) -> None:
    sql = 'with "eth.blocks" as (select number from "eth.blocks" where number < 3) select count(*) from "eth.blocks"'
    assert client.query(sql).values == [(3,)]


def test_virtual_datasets_are_read_through_each_other(client: Client, datasets: FakeDatasets) -> None:
    assert client.query("select miner, blocks from eth.busiest").values == [("m0", 4)]
    assert client.query("select sum(blocks)::int from eth.miners").values == [(BLOCKS,)]


def test_a_text_that_names_no_dataset_has_no_pin(client: Client) -> None:
    answer = client.query("select 1 as one union all select 2 order by 1")
    assert answer.values == [(1,), (2,)]
    assert not answer.started.HasField("pin")


def test_a_dataset_without_rows_has_its_declared_columns(client: Client) -> None:
    table = client.query("select * from eth.empty").table
    assert table.num_rows == 0
    assert dict(zip(table.schema.names, table.schema.types, strict=True)) == {
        "at": pa.timestamp("us", tz="UTC"),
        "fee": pa.decimal128(20, 2),
        "number": pa.int64(),
        "tags": pa.list_(pa.field("l", pa.string())),
    }


def test_a_dataset_without_rows_and_columns_says_so(client: Client) -> None:
    error = client.refused("select count(*) from eth.unknown")
    assert reason(error) == "QUERY_FAILED"
    assert '"eth.unknown" has no rows yet' in error.message


def test_a_dataset_without_files_is_a_relation_of_its_newest_scopes(client: Client) -> None:
    answer = client.query("select * from eth.block_ranges")
    assert answer.rows == [
        {"first": 0, "last": 4, "unit_count": 5, "revision": 0},
        {"first": 5, "last": 9, "unit_count": 4, "revision": 1},
    ]
    assert answer.table.schema.field("first").type == pa.int64()


def test_scopes_have_the_type_of_their_cursor(client: Client, datasets: FakeDatasets) -> None:
    moment = CursorValue()
    moment.timestamp_value.FromDatetime(datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC))
    datasets.add("hours", storage=Storage.STORAGE_NONE, cursor_type=CURSOR_TYPE_TIMESTAMP)
    datasets.add("names", storage=Storage.STORAGE_NONE, cursor_type=CURSOR_TYPE_STRING)
    datasets.add("parts", storage=Storage.STORAGE_NONE, cursor_type=CURSOR_TYPE_UNSPECIFIED)
    datasets.emit("hours", [Event(scope=Scope(cursor=moment))])
    datasets.emit("names", [Event(scope=Scope(cursor=CursorValue(string_value="ä")))])
    datasets.emit("parts", [Event(scope=Scope(partition_key="de"))])
    answer = client.query("select h.first, n.last, n.unit_count, partition_key from hours h, names n, parts")
    assert answer.values == [(datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC), "ä", 1, "de")]


def test_a_dataset_in_postgres_is_refused_by_name(client: Client, datasets: FakeDatasets) -> None:
    datasets.add("in_postgres", storage=Storage.STORAGE_POSTGRES)
    error = client.refused("select * from in_postgres")
    assert reason(error) == "NOT_IMPLEMENTED"
    assert "in_postgres" in error.message


def test_long_expressions_are_no_deep_ones(client: Client) -> None:
    assert client.query(f"select {' + '.join(['1'] * 900)} as sum").values == [(900,)]


def test_a_large_answer_comes_in_parts_of_bounded_size(client: Client) -> None:
    answer = client.query("select i, repeat('x', 100) as filler from range(100_000) t(i)")
    assert answer.table.num_rows == 100_000
    assert answer.parts > answer.finished.arrow_bytes / MAX_ARROW_BYTES


def test_one_row_may_be_larger_than_a_part(client: Client) -> None:
    answer = client.query("select repeat('x', 2 * 3_145_728) as filler")
    assert len(answer.rows[0]["filler"]) == 2 * MAX_ARROW_BYTES
    assert answer.parts >= 3


def test_a_pin_given_again_reads_the_same_state(client: Client, datasets: FakeDatasets) -> None:
    datasets.add("growing")
    datasets.publish("growing", pa.table({"x": [1]}))
    before = client.query("select sum(x)::int from growing")
    datasets.publish("growing", pa.table({"x": [10]}))
    assert client.query("select sum(x)::int from growing").values == [(11,)]
    assert client.as_of("select sum(x)::int from growing", before.started.pin).values == [(1,)]
    assert reason(client.refused("select * from plain", pin=before.started.pin)) == "PIN_COLLECTED"


def test_a_query_pins_once_and_says_where_its_datasets_are_complete(client: Client, datasets: FakeDatasets) -> None:
    count = len(datasets.pin_requests)
    started = client.query('select count(*) from eth.blocks a, "eth.blocks" b, eth.miners').started
    assert datasets.pin_requests[count:] == [["eth.blocks", "eth.miners"]]
    assert {pin.dataset_id for pin in started.pin.datasets} == {"eth.blocks", "eth.miners"}
    assert [(mark.dataset_id, mark.cursor.int64_value) for mark in started.watermarks] == [("eth.blocks", BLOCKS - 1)]
    assert (started.file_count, started.query_id != "") == (2, True)


def test_the_pin_is_released_when_the_query_ends_well_or_not(client: Client, datasets: FakeDatasets) -> None:
    client.query("select * from plain")
    client.refused("select nothing from plain")
    datasets.wait_released()


def test_a_query_waits_for_the_watermarks_that_it_wants(client: Client, datasets: FakeDatasets) -> None:
    datasets.add("following")
    datasets.publish("following", blocks(0, 1))
    wanted = Watermark(dataset_id="following", cursor=CursorValue(int64_value=5))
    error = client.refused("select * from following", min_watermarks=[wanted], timeout=3)
    assert reason(error) == "DEADLINE_EXCEEDED"
    assert 'the watermark of "following" has not moved, wanted is 5' in error.message
    count = len(datasets.pin_requests)
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(client.query, "select count(*) from following", min_watermarks=[wanted])
        datasets.wait_for_pin_requests(count + 2)  # it looked, and looked again
        datasets.move_watermark("following", "5")
        assert waiting.result().started.watermarks[0].cursor.int64_value == 5


def test_who_waits_for_a_watermark_takes_nobodys_place(tmp_path: Path) -> None:
    datasets = FakeDatasets(tmp_path / "artifacts")
    datasets.add("following").publish("following", blocks(0, 1))
    wanted = Watermark(dataset_id="following", cursor=CursorValue(int64_value=5))
    settings = {"query_slots": "1", "query_waiting": "0", "query_warm_cells": "1"}
    with QuerydProcess(tmp_path, datasets, **settings) as queryd, ThreadPoolExecutor() as pool:
        client = queryd.client()
        with client.channel:
            waiting = pool.submit(client.query, "select count(*) from following", min_watermarks=[wanted])
            datasets.wait_for_pin_requests(2)  # it looked, and looks again
            assert client.query("select 1").values == [(1,)]
            datasets.move_watermark("following", "5")
            assert waiting.result().values == [(1,)]


def test_watermarks_of_a_dataset_that_is_not_read_are_refused(client: Client) -> None:
    wanted = Watermark(dataset_id="plain", cursor=CursorValue(int64_value=5))
    for sql in ("select * from eth.blocks", "select 1"):
        assert reason(client.refused(sql, min_watermarks=[wanted])) == "INVALID_REQUEST"


@pytest.mark.parametrize(
    ("cursor", "complaint"),
    [
        (
            CursorValue(string_value="7th"),
            "is of type int64: cursor: '7th' is not an integer; write one such as 500000",
        ),
        (CursorValue(timestamp_value=Timestamp(seconds=5)), "is of type int64, and another one is given"),
    ],
)
def test_a_watermark_of_another_type_than_its_dataset_is_refused(
    client: Client, cursor: CursorValue, complaint: str
) -> None:
    wanted = Watermark(dataset_id="eth.blocks", cursor=cursor)
    error = client.refused("select * from eth.blocks", min_watermarks=[wanted])
    assert reason(error) == "INVALID_REQUEST"
    assert complaint in error.message


def test_a_watermark_may_be_written_as_a_person_writes_it(client: Client) -> None:
    reached = Watermark(dataset_id="eth.blocks", cursor=CursorValue(string_value=str(BLOCKS - 1)))
    assert client.query("select count(*) from eth.blocks", min_watermarks=[reached]).values == [(BLOCKS,)]


def test_a_dataset_without_a_cursor_has_no_watermark_to_wait_for(client: Client, datasets: FakeDatasets) -> None:
    datasets.add("keyed", cursor_type=CURSOR_TYPE_UNSPECIFIED)
    wanted = Watermark(dataset_id="keyed", cursor=CursorValue(string_value="5"))
    error = client.refused("select * from keyed", min_watermarks=[wanted])
    assert 'dataset "keyed" has no cursor, so there is no watermark to wait for' in error.message


def test_elapsed_time_and_the_given_id_are_answered(client: Client) -> None:
    query_id = "0192b0c4-0000-7000-8000-000000000001"
    answer = client.query("select 1", query_id=query_id)
    assert answer.started.query_id == query_id
    assert timedelta() < answer.finished.elapsed_duration.ToTimedelta() < timedelta(seconds=30)


def test_only_files_that_may_have_rows_that_count_are_found(client: Client) -> None:
    """The ten blocks are in two files; a mention without demands reads both."""
    for condition, files in [("number = 7", 1), ("number >= 5", 1), ("number between 4 and 5", 2), ("miner = 'm1'", 2)]:
        answer = client.query(f'select number from "eth.blocks" where {condition}')  # noqa: S608 - texts of this test
        assert (answer.started.file_count, len(answer.rows) > 0) == (files, True)
    both = client.query(
        'select * from eth.blocks where number = 1 union all select * from "eth.blocks" where number = 9'
    )
    assert (both.started.file_count, len(both.rows)) == (2, 2)
    virtual = client.query('select * from eth.miners, "eth.blocks" b where b.number = 1')
    assert virtual.started.file_count == 2


def test_files_behind_virtual_datasets_are_chosen_too(client: Client, datasets: FakeDatasets) -> None:
    datasets.add("eth.heights", virtual_sql='select number as height, miner from "eth.blocks"')
    datasets.add("eth.late_heights", virtual_sql="select * from eth.heights where height >= 5")
    for sql, files in [
        ("select * from eth.heights where height = 7", 1),
        ("select height from eth.late_heights", 1),
        ("select count(*) from eth.heights", 2),
        ("select * from eth.heights h, eth.late_heights l where l.height = 7", 2),
    ]:
        answer = client.query(sql)
        assert (answer.started.file_count, len(answer.rows) > 0) == (files, True)


def test_a_text_takes_parameters(client: Client) -> None:
    """By position, and by name; where the values of a cursor are known they choose the files."""
    values = pa.table({"lowest": [8], "miner": ["m2"]})
    sql = 'select number from "eth.blocks" where number >= {} and miner = {}'
    for text in (sql.format("?", "?"), sql.format("$lowest", "$miner"), sql.format("$1", "$2")):
        answer = client.query(text, parameters=_stream(values))
        assert (answer.values, answer.started.file_count) == ([(8,)], 1)


@pytest.mark.parametrize(
    ("sql", "values", "message"),
    [
        ("select $1", b"", "the text has the parameter $1, and no values came with it"),
        ("select 1", pa.table({"a": [1]}), "the text has no parameters, and 1 values came with it"),
        ("select $1 + $2", pa.table({"a": [1]}), "the text has the parameters $1, $2, and 1 values came with it"),
        ("select $a", pa.table({"b": [1]}), "the text has the parameter $a, and values came for b"),
        ("select $1", pa.table({"a": [1, 2]}), "values of parameters are one row, and 2 rows came"),
        ("select $1", b"no Arrow", "the values of parameters are no Arrow IPC stream"),
        ("select $2000", pa.table({"a": [1]}), "parameters are numbered from 1 to 1000"),
    ],
)
def test_values_that_are_not_those_of_the_text(
    client: Client, sql: str, values: pa.Table | bytes, message: str
) -> None:
    error = client.refused(sql, parameters=values if isinstance(values, bytes) else _stream(values))
    assert message in error.message


def _stream(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()
