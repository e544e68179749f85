"""One queryd serves a module's queries: it keeps nothing between them."""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest

from tests.queryd.fake_datasets import FakeDatasets, range_event
from tests.queryd.harness import Client, QuerydProcess
from traceapi.types.v1.dag_pb2 import Storage

BLOCKS = 10
_BIG = 10**37


@pytest.fixture(scope="session")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> FakeDatasets:
    """A small chain: blocks in two files, transactions, ranges without files, virtual ones, an empty one."""
    made = FakeDatasets(tmp_path_factory.mktemp("store") / "artifacts")
    made.add(
        "eth.blocks",
        schema={"number": "int64", "difficulty": "decimal(38,0)", "time": "timestamp", "miner": "string"},
        description="The blocks of a small chain.",
        column_descriptions={"number": "Height in the chain."},
    )
    for first in (0, 5):
        made.publish("eth.blocks", blocks(first, 5))
    made.move_watermark("eth.blocks", str(BLOCKS - 1))
    made.add("eth.transactions")
    made.publish("eth.transactions", pa.table({"block": [0, 0, 3, 9], "value": [1, 2, 3, 4]}))
    made.add("eth.block_ranges", storage=Storage.STORAGE_NONE)
    made.emit("eth.block_ranges", [range_event(0, 4, 5), range_event(5, 9, 5), range_event(5, 9, 4, revision=1)])
    made.add(
        "eth.miners",
        virtual_sql='select miner, count(*) as blocks from "eth.blocks" group by miner',
        schema={"miner": "string", "blocks": "int64"},
        description="Who made how many blocks.",
        column_descriptions={"blocks": "How many it made."},
    )
    made.add("eth.busiest", virtual_sql="select * from eth.miners order by blocks desc, miner limit 1")
    made.add("eth.empty", schema={"number": "int64", "fee": "decimal(20,2)", "tags": "list<string>", "at": "timestamp"})
    made.add("eth.unknown")
    made.add("plain")
    made.publish("plain", pa.table({"x": [1]}))
    made.add("Größe")
    made.publish("Größe", pa.table({"x": [2]}))
    return made


def blocks(first: int, count: int) -> pa.Table:
    """Blocks of three miners, with difficulties that no float can hold."""
    numbers = range(first, first + count)
    return pa.table(
        {
            "number": pa.array(numbers, pa.int64()),
            "difficulty": pa.array([Decimal(_BIG + number) for number in numbers], pa.decimal128(38, 0)),
            "time": pa.array([1_700_000_000_000_000 + number for number in numbers], pa.timestamp("us", tz="UTC")),
            "miner": [f"m{number % 3}" for number in numbers],
        }
    )


@pytest.fixture(scope="session")
def queryd(tmp_path_factory: pytest.TempPathFactory, datasets: FakeDatasets) -> Iterator[QuerydProcess]:
    with QuerydProcess(tmp_path_factory.mktemp("queryd"), datasets, query_slots="4", query_waiting="0") as process:
        yield process


@pytest.fixture
def client(queryd: QuerydProcess) -> Iterator[Client]:
    client = queryd.client()
    with client.channel:
        yield client


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path
