"""The built-in operators on the example's real blocks and transactions, by the settings of its document."""

import csv
import gzip
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import yaml

from tracesdk import Scope
from tracesdk.testing import SourceResult, job_details, run_ordered, run_source, run_task, task_of
from wrapper.operators.aggregator import Aggregator
from wrapper.operators.replay import Replay
from wrapper.operators.splitter import Splitter
from wrapper.operators.sql import Sql

_EXAMPLE = Path(__file__).parents[3] / "examples" / "ethereum"


@pytest.fixture(scope="module")
def jobs() -> Mapping[str, Any]:
    document: Mapping[str, Any] = yaml.safe_load((_EXAMPLE / "dag.yaml").read_text())
    jobs: Mapping[str, Any] = document["jobs"]
    return jobs


def replayed(jobs: Mapping[str, Any], name: str) -> SourceResult:
    config = dict(jobs[name]["config"])
    ((dataset, output),) = jobs[name]["outputs"].items()
    job = job_details(
        outputs={dataset: output["schema"]}, config=config, source=True, cursor=output["cursor"]["column"]
    )
    return run_source(Replay, job=job, local_paths={config["path"]: str(_EXAMPLE / config["path"])})


def lines(name: str) -> list[dict[str, str]]:
    with gzip.open(_EXAMPLE / "data" / name, "rt", newline="") as file:
        return list(csv.DictReader(file))


def test_the_files_become_events_and_rows_without_loss(jobs: Mapping[str, Any]) -> None:
    for name, dataset, cursor in (
        ("blocks", "eth.blocks", "number"),
        ("transactions", "eth.transactions", "block_number"),
    ):
        result, rows = replayed(jobs, name), lines(f"{name}.csv.gz")
        table = result.outputs[dataset]
        assert table.num_rows == len(rows)
        for column, word in jobs[name]["outputs"][dataset]["schema"].items():
            texts = [row[column] for row in rows]
            if word == "string":
                assert table[column].to_pylist() == texts
            else:
                assert [Decimal(value) for value in table[column].to_pylist()] == [Decimal(text) for text in texts]
        assert [event.scope.first for event in result.events] == sorted({int(row[cursor]) for row in rows})
        assert result.watermarks == {dataset: 501_000}, "also where the last blocks have no transactions"


def test_the_blocks_make_ten_full_ranges_and_one_that_stays_open(jobs: Mapping[str, Any]) -> None:
    tasks = [task_of(event.scope) for event in replayed(jobs, "blocks").events]
    assert len(tasks) == 1001
    job = job_details(outputs={"ranges": None}, config=jobs["ranges"]["config"], ordered=True)
    result = run_ordered(Aggregator, tasks, job=job)
    assert [(event.scope.first, event.scope.last) for event in result.events] == [
        (first, first + 99) for first in range(500_000, 501_000, 100)
    ]
    assert result.watermarks == {"ranges": 500_999}
    units: list[object] = []
    for event in result.events:
        split = run_task(Splitter, scope=event.scope, manifest=event.manifest, job=job_details(outputs={"units": None}))
        units += [one.scope.first for one in split.events]
    assert units == list(range(500_000, 501_000))


def test_the_fees_of_a_range_are_those_of_its_rows(jobs: Mapping[str, Any]) -> None:
    spec = jobs["block_fees"]
    ((dataset, output),) = spec["outputs"].items()
    job = job_details(inputs=spec["inputs"], outputs={dataset: output["schema"]}, config=spec["config"])
    blocks, transactions = replayed(jobs, "blocks"), replayed(jobs, "transactions")
    inputs = {
        "eth.blocks": within(blocks.outputs["eth.blocks"], "number"),
        "eth.transactions": within(transactions.outputs["eth.transactions"], "block_number"),
    }
    fees = run_task(Sql, scope=Scope.between(500_100, 500_199), inputs=inputs, job=job).outputs[dataset]
    rows = [row for row in lines("transactions.csv.gz") if 500_100 <= int(row["block_number"]) <= 500_199]
    assert fees["number"].to_pylist() == list(range(500_100, 500_200))
    assert total(fees, "value") == sum(Decimal(row["value"]) for row in rows)
    assert total(fees, "fee_limit") == sum(int(row["gas"]) * int(row["gas_price"]) for row in rows)
    assert total(fees, "transactions") == len(rows)


def total(table: pa.Table, column: str) -> Decimal:
    values: list[Any] = table[column].to_pylist()
    return sum(map(Decimal, values), Decimal(0))


def within(table: pa.Table, cursor: str) -> pa.Table:
    values = pc.field(cursor)
    return table.filter((values >= pc.scalar(500_100)) & (values <= pc.scalar(500_199)))
