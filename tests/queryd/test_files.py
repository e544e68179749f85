"""Files that are not as they were recorded: said as such, by key, and without a path of the machine."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyarrow as pa
import pytest

from kernel.artifacts import LocalArtifactStore
from kernel.errors import TraceError
from queryd.files import FilesInPlace
from queryd.resolve import ResolvedDataset
from queryd.running import canceled
from tests.queryd.fake_datasets import FakeDatasets
from tests.queryd.harness import Client, QuerydProcess, reason
from traceapi.control.v1.dataset_service_pb2 import PinnedDataset
from traceapi.query.v1 import query_service_pb2 as pb
from traceapi.types.v1.artifact_pb2 import Artifact


def _damage(path: Path) -> None:
    """The same size, other bytes: nothing but its digest tells."""
    data = bytearray(path.read_bytes())
    data[4 : len(data) // 2] = bytes(len(data) // 2 - 4)
    path.chmod(0o644)
    path.write_bytes(bytes(data))


def _truncate(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (Path.unlink, "is not in the store"),
        (_truncate, "has another size than was recorded"),
        (_damage, "does not have the content that was recorded"),
    ],
)
def test_a_lost_or_damaged_file_is_told_by_its_key(
    client: Client, datasets: FakeDatasets, spoil: Callable[[Path], None], words: str
) -> None:
    datasets.add("spoiled")
    table = pa.table({"x": [f"row {number}" for number in range(10_000)]})
    artifact = datasets.publish("spoiled", table)
    assert client.query("select count(distinct x) from spoiled").values == [(10_000,)]
    spoil(datasets.root / artifact.key)
    error = client.refused("select max(x), count(distinct x) from spoiled")
    assert (reason(error), error.metadata["key"]) == ("ARTIFACT_LOST", artifact.key)
    assert words in error.message
    assert str(datasets.root) not in error.message


def test_who_looks_at_many_files_hears_that_the_query_was_stopped(tmp_path: Path) -> None:
    store = LocalArtifactStore(tmp_path / "artifacts")
    stored = store.put_bytes("data/one/file", b"content")
    artifact = Artifact(key=stored.key, size_bytes=stored.size_bytes, sha256=stored.sha256)
    dataset = ResolvedDataset(PinnedDataset(), (), (artifact,) * 1000)
    looks = list[None]()

    def check() -> None:
        looks.append(None)
        if len(looks) == 3:
            raise canceled("enough")

    with pytest.raises(TraceError, match="enough"):
        FilesInPlace(store).provided([dataset], cast("Any", None), cast("Any", SimpleNamespace(check=check)))


def test_explain_tells_what_would_be_read_and_reads_nothing(client: Client, datasets: FakeDatasets) -> None:

    request = pb.ExplainQueryRequest(
        sql="select b.miner from eth.busiest b join eth.blocks using (miner) where number > 3"
    )
    answer = client.stub.ExplainQuery(request, timeout=30)
    found = {dataset.pin.dataset_id: dataset for dataset in answer.datasets}
    assert set(found) == {"eth.busiest", "eth.blocks", "eth.miners"}
    assert (found["eth.blocks"].file_count, found["eth.blocks"].row_count, found["eth.blocks"].virtual) == (
        2,
        10,
        False,
    )
    assert found["eth.blocks"].file_bytes > 0
    assert found["eth.miners"].virtual
    assert "READ_PARQUET" in answer.plan
    assert str(datasets.root) not in answer.plan
    datasets.wait_released()


def test_a_plain_process_tells_no_path_either(tmp_path: Path) -> None:
    """Where there is no bubblewrap the engine sees the files under their own paths."""
    datasets = FakeDatasets(tmp_path / "artifacts")
    datasets.add("spoiled")
    table = pa.table({"x": [f"row {number}" for number in range(10_000)]})
    artifact = datasets.publish("spoiled", table)
    with QuerydProcess(tmp_path, datasets, query_sandbox="plain", query_warm_cells="1") as queryd:
        client = queryd.client()
        with client.channel:
            assert client.query("select count(*) from spoiled").values == [(10_000,)]
            plan = client.stub.ExplainQuery(pb.ExplainQueryRequest(sql="from spoiled"), timeout=30).plan
            _damage(datasets.root / artifact.key)
            # Recorded as it now is, so the complaint stays the engine's own.
            artifact.sha256 = hashlib.sha256((datasets.root / artifact.key).read_bytes()).digest()
            error = client.refused("select max(x), count(distinct x) from spoiled")
    assert reason(error) == "QUERY_FAILED"
    for text in (plan, error.message):
        assert str(tmp_path) not in text
    assert "plain processes" in queryd.log.read_text()
