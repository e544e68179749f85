"""One queryd serves a module's queries: it keeps nothing between them."""

from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest

from queryd.engine.messages import CellLimits
from queryd.engine.sandbox import Sandbox, bubblewrap, forked, plain
from tests.queryd.fake_datasets import FakeDatasets, range_event
from tests.queryd.forks import usable
from tests.queryd.harness import Client, QuerydProcess
from traceapi.types.v1.dag_pb2 import Storage

BLOCKS = 10
_BIG = 10**37
_SHUT_IN = pytest.mark.needs_namespaces


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory) -> FakeDatasets:
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
def queryd(tmp_path_factory: pytest.TempPathFactory, chain: FakeDatasets) -> Iterator[QuerydProcess]:
    with QuerydProcess(tmp_path_factory.mktemp("queryd"), chain, query_slots="4", query_waiting="0") as process:
        yield process


@pytest.fixture
def datasets(chain: FakeDatasets) -> Iterator[FakeDatasets]:
    """Those that `queryd` serves. What a test adds or changes is gone after it."""
    with chain.restored():
        yield chain


@pytest.fixture
def client(queryd: QuerydProcess) -> Iterator[Client]:
    client = queryd.client()
    with client.channel:
        yield client


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    """A folder for the folders of cells."""
    folder = tmp_path / "cells"
    folder.mkdir()
    return folder


@pytest.fixture
def limits() -> CellLimits:
    return CellLimits(memory_bytes=512 << 20, threads=2, scratch_bytes=64 << 20)


@pytest.fixture(
    params=[pytest.param(forked, marks=_SHUT_IN), pytest.param(bubblewrap, marks=_SHUT_IN), plain],
    ids=["forked", "bubblewrap", "plain"],
)
def sandbox(request: pytest.FixtureRequest, cells: Path, limits: CellLimits) -> Sandbox:
    """Each way to start cells, in turn."""
    make: Callable[[Path | None, CellLimits], Sandbox] = request.param
    return usable(make(None, limits), cells)
