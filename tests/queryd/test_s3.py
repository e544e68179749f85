"""Queries over a store on S3: their files come to this machine once, checked, and each cell sees its own."""

import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyarrow as pa
import pyarrow.flight as flight
import pytest

from kernel.artifacts import LocalArtifactStore
from queryd.engine.messages import CellLimits
from queryd.engine.pool import CellPool, CellUnavailableError
from queryd.engine.sandbox import CellFolder, Sandbox, bubblewrap
from queryd.file_cache import FileCache
from queryd.files import FilesElsewhere
from queryd.ranges import RangeSource
from queryd.resolve import ResolvedDataset
from tests.queryd.conftest import blocks
from tests.queryd.fake_datasets import FakeDatasets
from tests.queryd.harness import Client, QuerydProcess, reason
from tests.s3_faults import Answer, Faults, Hold, faulty_path_to
from tests.s3_server import BUCKET, READER, S3Server
from traceapi.control.v1.dataset_service_pb2 import PinnedDataset
from traceapi.query.v1 import query_service_pb2 as pb
from traceapi.types.v1.artifact_pb2 import Artifact

CACHE_BYTES = 1 << 20


@pytest.fixture
def faults(s3: S3Server) -> Iterator[Faults]:
    with faulty_path_to(s3.endpoint) as found:
        yield found


@pytest.fixture
def datasets(s3: S3Server, faults: Faults, tmp_path: Path) -> FakeDatasets:
    folder = tmp_path / "store"
    folder.mkdir()
    made = FakeDatasets(folder / "prepared", s3.url(str(uuid.uuid4()), endpoint=faults.endpoint))
    made.add("eth.blocks")
    for first in (0, 5):
        made.publish("eth.blocks", blocks(first, 5))
    made.add("eth.miners", virtual_sql='select miner, count(*) as blocks from "eth.blocks" group by miner')
    return made


@pytest.fixture
def queryd(datasets: FakeDatasets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[QuerydProcess]:
    """It may read the store, and nothing more."""
    for name, value in READER.environment.items():
        monkeypatch.setenv(name, value)
    settings = {"query_cache_bytes": str(CACHE_BYTES), "query_work_dir": str(tmp_path)}
    with QuerydProcess(tmp_path, datasets, query_warm_cells="1", **settings) as process:
        yield process
    assert not list(tmp_path.glob("trace-queryd-*"))


@pytest.fixture
def client(queryd: QuerydProcess) -> Iterator[Client]:
    client = queryd.client()
    with client.channel:
        yield client


def test_files_are_fetched_by_the_first_query_that_reads_them(client: Client, faults: Faults) -> None:
    assert client.query("select sum(number), count(distinct miner) from eth.blocks").values == [(45, 3)]
    fetched = faults.count(f"GET /{BUCKET}/")
    assert fetched == 2
    assert client.query("select * from eth.miners order by miner").values == [("m0", 4), ("m1", 3), ("m2", 3)]
    plan = client.stub.ExplainQuery(pb.ExplainQueryRequest(sql="from eth.blocks"), timeout=30).plan
    assert "READ_PARQUET" in plan
    assert faults.count(f"GET /{BUCKET}/") == fetched


def test_a_lost_or_changed_file_is_told_by_its_key(client: Client, datasets: FakeDatasets, s3: S3Server) -> None:
    prefix = datasets.store_url.partition(f"{BUCKET}/")[2].partition("?")[0]
    for spoil, words in (("remove", "is not in the store"), ("change", "does not have the content that was recorded")):
        datasets.add("spoiled")
        artifact = datasets.publish("spoiled", pa.table({"x": [1, 2]}))
        name = f"{prefix}/{artifact.key}"
        if spoil == "remove":
            s3.client().delete_object(Bucket=BUCKET, Key=name)
        else:
            s3.client().put_object(Bucket=BUCKET, Key=name, Body=bytes(artifact.size_bytes))
        error = client.refused("select * from spoiled")
        assert reason(error) == "ARTIFACT_LOST"
        assert error.metadata == {"key": artifact.key, "dataset_id": "spoiled"}
        assert f'{artifact.key} of dataset "spoiled" {words}' in error.message


def test_a_store_that_is_away_delays_only_what_is_not_here_yet(
    client: Client, datasets: FakeDatasets, faults: Faults
) -> None:
    """A query that cannot have its files is UNAVAILABLE, which clients repeat."""
    datasets.add("later")
    artifact = datasets.publish("later", pa.table({"x": [1, 2]}))
    assert client.query("select count(*) from eth.blocks").values == [(10,)]
    refused_by_the_store = 6
    faults.plan(f"GET /{BUCKET}/", Answer(503), times=refused_by_the_store)
    fetched = faults.count(f"GET /{BUCKET}/")
    assert client.query("select max(number) from eth.blocks").values == [(9,)]
    assert faults.count(f"GET /{BUCKET}/") == fetched
    assert client.query("select sum(x) from later").values == [(3,)]
    assert sum(artifact.key in request for request in faults.requests) == 1 + refused_by_the_store + 1


def test_a_query_that_ends_while_its_files_come_leaves_the_next_one_in_peace(
    client: Client, datasets: FakeDatasets, faults: Faults
) -> None:
    hold = Hold()
    faults.plan(f"GET /{BUCKET}/", hold, times=2)
    error = client.refused("select count(*) from eth.blocks", timeout=1)
    assert (reason(error), error.metadata["limit"]) == ("QUERY_LIMIT", "time")
    hold.released.set()
    assert client.query("select count(*) from eth.blocks").values == [(10,)]
    datasets.wait_released()


def test_a_query_reads_more_than_there_is_room_for(client: Client, datasets: FakeDatasets) -> None:
    datasets.add("large")
    artifact = datasets.publish("large", pa.table({"x": [str(uuid.uuid4()) for _ in range(40_000)]}))
    assert artifact.size_bytes > CACHE_BYTES
    assert client.query("select count(distinct x) from large").values == [(40_000,)]


LIST = """
import os
for parent, _, names in sorted(os.walk("/artifacts")):
    for name in sorted(names):
        print(os.path.join(parent, name))
try:
    open("/artifacts/new", "w")
except OSError as error:
    print(error.strerror)
"""


@pytest.mark.needs_namespaces
def test_a_cell_sees_the_copies_of_its_own_query_and_cannot_change_them(tmp_path: Path) -> None:
    store = LocalArtifactStore(tmp_path / "artifacts")
    sandbox = bubblewrap(None, CellLimits(512 << 20, 1, 64 << 20))
    _need(sandbox, tmp_path)
    cache = FileCache(store, tmp_path / "copies", 1_000)
    files = FilesElsewhere(cache, RangeSource(store), 1_000)
    folders = {name: CellFolder(tmp_path / name) for name in ("one", "two")}
    for name, folder in folders.items():
        for made in (folder.root, folder.scratch, folder.files):
            made.mkdir()
        stored = store.put_bytes(f"data/{name}/file", name.encode())
        artifact = Artifact(key=stored.key, size_bytes=stored.size_bytes, sha256=stored.sha256)
        dataset = ResolvedDataset(PinnedDataset(), (), (artifact,))
        cell, query = SimpleNamespace(files=folder.files), SimpleNamespace(check=lambda: None)
        with files.provided([dataset], cast("Any", cell), cast("Any", query)):
            words = sandbox.command(folder)
            words = [*words[: words.index(sys.executable)], sys.executable, "-I", "-c", LIST]
            done = subprocess.run(words, env={}, capture_output=True, text=True, timeout=60, check=False)
        assert done.stdout.splitlines() == [f"/artifacts/data/{name}/file", "Read-only file system"], done.stderr
    cache.close()


def _need(sandbox: Sandbox, tmp_path: Path) -> None:
    cells = tmp_path / "cells"
    cells.mkdir()
    pool = CellPool([sandbox], warm=1, folder=cells)
    try:
        pool.start()
    except CellUnavailableError:
        pytest.skip("user namespaces are missing: bubblewrap cannot start a process here")
    finally:
        pool.close()


def test_a_text_that_is_not_run_brings_one_file_of_each_dataset_however_large_they_are(
    queryd: QuerydProcess, client: Client, datasets: FakeDatasets, faults: Faults
) -> None:
    datasets.add("large")
    parts = [pa.table({"x": [str(uuid.uuid4()) for _ in range(10_000)]}) for _ in range(5)]
    total = sum(datasets.publish("large", part).size_bytes for part in parts)
    assert total > CACHE_BYTES
    sql = 'select x, number from large, "eth.blocks" where number = ?'
    headers: list[Any] = [(b"authorization", f"Bearer {queryd.user_token}".encode())]  # the stubs want text
    options = flight.FlightCallOptions(headers=headers)
    with flight.FlightClient(f"grpc://{queryd.address}") as reader:
        told: Any = reader.get_schema(flight.FlightDescriptor.for_command(sql.encode()), options)
    assert dict(zip(told.schema.names, told.schema.types, strict=True)) == {"x": pa.string(), "number": pa.int64()}
    assert faults.count(f"GET /{BUCKET}/") == 2
    explained = client.stub.ExplainQuery(pb.ExplainQueryRequest(sql=sql.replace("= ?", "< length(x)")), timeout=30)
    found = {dataset.pin.dataset_id: (dataset.file_count, dataset.file_bytes) for dataset in explained.datasets}
    assert found["large"] == (5, total)
    assert found["eth.blocks"][0] == 2
    assert "READ_PARQUET" in explained.plan
    assert faults.count(f"GET /{BUCKET}/") == 2
