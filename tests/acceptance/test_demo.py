"""What holds after the example has flowed through: counted and summed against the files that went in."""

import csv
import gzip
import itertools
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from ctl.paging import collect
from tests.acceptance.conftest import EXAMPLE, RunningStack
from traceapi.control.v1 import dataset_service_pb2, task_service_pb2
from traceapi.types.v1 import event_pb2, scope_pb2, task_pb2

pytestmark = pytest.mark.acceptance

FIRST, LAST, SIZE = 500_000, 501_000, 100
_SOURCES = {"eth.blocks": "blocks.csv.gz", "eth.transactions": "transactions.csv.gz"}


def events(stack: RunningStack, dataset: str) -> list[event_pb2.Event]:
    found = collect(
        lambda size, token: stack.connection.datasets.ListEvents(
            dataset_service_pb2.ListEventsRequest(dataset_id=dataset, page_size=size, page_token=token), timeout=30
        ),
        lambda answer: len(answer.events),
        0,
    )
    return list(found.events)


def tasks(stack: RunningStack, job: str) -> list[task_pb2.Task]:
    chosen = task_service_pb2.TaskFilter(dag="ethereum", job=job)
    found = collect(
        lambda size, token: stack.connection.tasks.ListTasks(
            task_service_pb2.ListTasksRequest(filter=chosen, page_size=size, page_token=token), timeout=30
        ),
        lambda answer: len(answer.tasks),
        0,
    )
    return list(found.tasks)


def source_rows(dataset: str) -> Iterator[dict[str, str]]:
    with gzip.open(EXAMPLE.parent / "data" / _SOURCES[dataset], "rt", newline="") as file:
        yield from csv.DictReader(file)


def files_of(stack: RunningStack, dataset: str) -> list[Path]:
    """The Parquet files of a dataset, where they lie."""
    request = dataset_service_pb2.GetDatasetRequest(dataset_id=dataset)
    answer = stack.connection.datasets.GetDataset(request, timeout=30)
    assert len(answer.artifacts) == answer.dataset.served_version.artifact_count
    return [stack.home.artifacts / artifact.key for artifact in answer.artifacts]


def test_every_block_is_one_event(stack: RunningStack) -> None:
    numbers = [event.scope.cursor.int64_value for event in events(stack, "eth.blocks")]
    assert sorted(numbers) == list(range(FIRST, LAST + 1))


@pytest.mark.parametrize(
    ("dataset", "consumer"),
    [("eth.blocks", "ranges"), ("eth.block_ranges", "checked"), ("eth.block_ranges", "block_fees")],
)
def test_every_event_is_exactly_one_task_of_each_consumer(stack: RunningStack, dataset: str, consumer: str) -> None:
    caused = Counter(task.event_id for task in tasks(stack, consumer))
    assert caused == Counter(event.event_id for event in events(stack, dataset))
    assert set(caused.values()) == {1}


def test_every_task_has_succeeded(stack: RunningStack) -> None:
    counts = stack.connection.tasks.CountTasks(task_service_pb2.CountTasksRequest(), timeout=30).counts
    assert {count.state for count in counts} == {task_pb2.TASK_STATE_SUCCEEDED}
    by_job = {count.job: count.count for count in counts}
    assert by_job == {"blocks": 1, "transactions": 1, "ranges": 1001, "checked": 10, "block_fees": 10}


def test_ranges_are_full_with_explicit_boundaries(stack: RunningStack) -> None:
    found = sorted(events(stack, "eth.block_ranges"), key=lambda event: event.scope.range.first.int64_value)
    boundaries = [(event.scope.range.first.int64_value, event.scope.range.last.int64_value) for event in found]
    assert boundaries == [(first, first + SIZE - 1) for first in range(FIRST, LAST, SIZE)]
    for event in found:
        assert event.manifest.boundaries == event.scope.range
        assert event.manifest.unit_count == SIZE
        assert list(event.manifest.members) == [event.scope.range]  # one run without a gap


def test_watermarks_cover_what_is_complete(stack: RunningStack) -> None:
    request = dataset_service_pb2.ListDatasetsRequest(dag="ethereum")
    found = stack.connection.datasets.ListDatasets(request, timeout=30).datasets
    watermark = {dataset.dataset_id: dataset.served_version.watermark for dataset in found if not dataset.virtual_sql}
    assert watermark["eth.blocks"] == scope_pb2.CursorValue(int64_value=LAST)
    assert watermark["eth.transactions"] == scope_pb2.CursorValue(int64_value=LAST)


@pytest.mark.parametrize("dataset", list(_SOURCES))
def test_sums_over_the_parquet_equal_sums_over_the_csv(stack: RunningStack, dataset: str) -> None:
    table = pa.concat_tables(pq.read_table(file, partitioning=None) for file in files_of(stack, dataset))
    numeric = [
        field.name for field in table.schema if pa.types.is_integer(field.type) or pa.types.is_decimal(field.type)
    ]
    assert len(numeric) >= 5
    expected = dict.fromkeys(numeric, Decimal(0))
    rows = list(source_rows(dataset))
    for row in rows:
        for name in numeric:
            expected[name] += Decimal(row[name] or 0)
    assert table.num_rows == len(rows)
    for name in numeric:
        wide = pc.cast(table[name], pa.decimal256(76, 0))
        assert sum((value for value in wide.to_pylist() if value is not None), Decimal(0)) == expected[name], name


@pytest.mark.parametrize("dataset", list(_SOURCES))
def test_queries_see_what_the_files_hold(stack: RunningStack, dataset: str) -> None:
    cursor = {"eth.blocks": "number", "eth.transactions": "block_number"}[dataset]
    [row] = stack.query(f'select count(*) as n, sum({cursor})::decimal(38,0) as s from "{dataset}"')  # noqa: S608
    numbers = [int(row[cursor]) for row in source_rows(dataset)]
    assert (row["n"], row["s"]) == (len(numbers), sum(numbers))


def test_fees_of_every_range_equal_the_source(stack: RunningStack) -> None:
    first_of = {
        key: list(group)
        for key, group in itertools.groupby(
            source_rows("eth.transactions"), key=lambda row: int(row["block_number"]) // SIZE * SIZE
        )
    }
    found = stack.query(
        f"""
        select number // {SIZE} * {SIZE} as first,
               sum(transactions)::bigint as n,
               sum(value)::decimal(38,0) as value,
               sum(fee_limit)::decimal(38,0) as fee_limit
        from "eth.block_fees" group by all order by all
        """  # noqa: S608
    )
    assert [row["first"] for row in found] == list(range(FIRST, LAST, SIZE))
    for row in found:
        source = first_of[row["first"]]
        assert row["n"] == len(source)
        assert row["value"] == sum(Decimal(one["value"]) for one in source)
        assert row["fee_limit"] == sum(Decimal(one["gas"]) * Decimal(one["gas_price"]) for one in source)


def test_one_partition_for_each_range(stack: RunningStack) -> None:
    for dataset in ("eth.checked", "eth.block_fees"):
        numbers = [pq.read_table(file, partitioning=None)["number"].to_pylist() for file in files_of(stack, dataset)]
        assert sorted(numbers) == [list(range(first, first + SIZE)) for first in range(FIRST, LAST, SIZE)]


def test_no_link_is_broken_and_no_count_is_wrong(stack: RunningStack) -> None:
    [row] = stack.query(
        """
        select count(*) as n, count(*) filter (where linked) as linked, count(*) filter (where not linked) as broken,
               count(*) filter (where counted) as counted, count(*) filter (where transaction_rows = 0) as empty
        from "eth.checked"
        """
    )
    in_full_ranges = itertools.islice(source_rows("eth.blocks"), 1000)
    empty = sum(1 for block in in_full_ranges if block["transaction_count"] == "0")
    # The first block of all has no predecessor here: its link is neither whole nor broken.
    assert row == {"n": 1000, "linked": 999, "broken": 0, "counted": 1000, "empty": empty}


def test_the_virtual_dataset_reads_the_checked_blocks(stack: RunningStack) -> None:
    expected: Counter[str] = Counter()
    for block in itertools.islice(source_rows("eth.blocks"), 1000):
        expected[block["miner"]] += int(block["gas_used"])
    found = stack.query('select miner, gas_used::bigint as gas from "eth.gas_by_miner"')
    assert {row["miner"]: row["gas"] for row in found} == expected
