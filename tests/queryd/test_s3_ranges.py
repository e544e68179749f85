"""Large files of a store on S3: a query reads the ranges that it needs, of the very objects that were recorded."""

import base64
import hashlib
import random
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from kernel.errors import TraceError
from tests.queryd.fake_datasets import FakeDatasets
from tests.queryd.harness import Client, QuerydProcess, reason
from tests.s3_faults import Answer, Faults, Hold, LoseAnswer, faulty_path_to
from tests.s3_server import BUCKET, READER, S3Server
from traceapi.query.v1 import query_service_pb2 as pb
from traceapi.types.v1.artifact_pb2 import Artifact

_CACHE_BYTES, _COPIED_BYTES = 1 << 20, 1 << 16
_ROWS, _ROW_GROUP = 200_000, 20_000
_QUERIES = (
    "select sum(fee), count(*), max(number) from wide",
    "select * from wide where number between 123456 and 123466 order by number",
    "select left(text, 1) as first, count(*) as c, sum(number) as s from wide group by first order by first",
    "select a.text from wide a join wide b using (number) where b.text like 'abc%' order by 1",
    "select text from wide order by fee desc limit 5",
)


def wide() -> pa.Table:
    """Rows of which the text is the most, with numbers in their order."""
    choices = random.Random(1)
    return pa.table(
        {
            "number": pa.array(range(_ROWS), pa.int64()),
            "fee": [choices.randrange(1_000_000) for _ in range(_ROWS)],
            "text": [f"{choices.getrandbits(160):040x}" for _ in range(_ROWS)],
        }
    )


@pytest.fixture(scope="module")
def table() -> pa.Table:
    return wide()


@pytest.fixture
def faults(s3: S3Server) -> Iterator[Faults]:
    with faulty_path_to(s3.endpoint) as found:
        yield found


@pytest.fixture
def datasets(s3: S3Server, faults: Faults, tmp_path: Path) -> FakeDatasets:
    folder = tmp_path / "store"
    folder.mkdir()
    return FakeDatasets(folder / "prepared", s3.url(str(uuid.uuid4()), endpoint=faults.endpoint)).add("wide")


@pytest.fixture
def artifact(datasets: FakeDatasets, table: pa.Table) -> Artifact:
    return datasets.publish("wide", table, _ROW_GROUP)


@pytest.fixture(params=["auto"])
def queryd(
    datasets: FakeDatasets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[QuerydProcess]:
    for name, value in READER.environment.items():
        monkeypatch.setenv(name, value)
    settings = {"query_cache_bytes": _CACHE_BYTES, "query_copied_bytes": _COPIED_BYTES, "query_work_dir": tmp_path}
    words = {name: str(value) for name, value in settings.items()}
    with QuerydProcess(tmp_path, datasets, query_warm_cells="1", query_sandbox=request.param, **words) as process:
        yield process
    assert not list(tmp_path.glob("trace-queryd-*"))


@pytest.fixture
def client(queryd: QuerydProcess) -> Iterator[Client]:
    client = queryd.client()
    with client.channel:
        yield client


def _name(datasets: FakeDatasets, artifact: Artifact) -> str:
    prefix = datasets.store_url.partition(f"{BUCKET}/")[2].partition("?")[0]
    return f"{prefix}/{artifact.key}"


def test_one_column_reads_a_fraction_of_the_file(
    client: Client, artifact: Artifact, faults: Faults, table: pa.Table
) -> None:
    total = pc.sum(table["fee"]).as_py()
    assert client.query("select sum(fee) as s from wide").values == [(total,)]
    assert 0 < faults.bytes_of(artifact.key) < 0.3 * artifact.size_bytes


def test_a_filter_reads_few_row_groups(client: Client, artifact: Artifact, faults: Faults, table: pa.Table) -> None:
    expected = table["text"][123_456].as_py()
    assert client.query("select text from wide where number = 123456").values == [(expected,)]
    # The engine reads 256 KiB at the end, where the file says what it holds; and one row group of ten.
    assert 0 < faults.bytes_of(artifact.key) < 0.2 * artifact.size_bytes


@pytest.mark.parametrize("queryd", ["auto", "plain"], indirect=True)
def test_answers_are_those_of_a_plain_engine(client: Client, artifact: Artifact, table: pa.Table) -> None:
    """By a cell that was forked, and by one that was started from its program."""
    with duckdb.connect() as plain:
        plain.register("wide", table)
        for sql in _QUERIES:
            assert client.query(sql).values == plain.execute(sql).fetchall(), sql
    explained = client.stub.ExplainQuery(pb.ExplainQueryRequest(sql="select fee from wide"), timeout=30)
    assert "PARQUET" in explained.plan
    assert "trace:" not in explained.plan


def test_files_that_do_not_fit_together_are_read_by_ranges(client: Client, datasets: FakeDatasets) -> None:
    """Each of them is small enough to be copied."""
    datasets.add("many")
    sizes = [
        datasets.publish("many", pa.table({"x": [str(uuid.uuid4()) for _ in range(1_200)]})).size_bytes
        for _ in range(24)
    ]
    assert max(sizes) <= _COPIED_BYTES
    assert sum(sizes) > _CACHE_BYTES
    assert client.query("select count(distinct x) from many").values == [(24 * 1_200,)]


def test_a_store_that_goes_away_in_the_middle_and_comes_back_is_waited_for(
    client: Client, artifact: Artifact, faults: Faults, table: pa.Table
) -> None:
    assert client.query("select count(*) from wide").values == [(_ROWS,)]
    before = faults.count(f"GET /{BUCKET}/")
    faults.plan(f"GET /{BUCKET}/", Answer(503), times=5)  # the store's client gives up after four
    faults.plan(f"GET /{BUCKET}/", LoseAnswer(), times=2)
    assert client.query("select max(fee) from wide").values == [(pc.max(table["fee"]).as_py(),)]
    assert faults.count(f"GET /{BUCKET}/") > before + 7


@pytest.mark.parametrize("how", ["with its digest", "while it is known", "by nonsense"])
def test_an_object_that_was_replaced_is_told_by_its_key(
    client: Client, datasets: FakeDatasets, artifact: Artifact, s3: S3Server, how: str
) -> None:
    """By another one of the same size: of which the server knows the digest, or which is not the one that was read
    before, or which the engine cannot read."""
    words = "does not have the content that was recorded"
    name = _name(datasets, artifact)
    content = bytearray(s3.client().get_object(Bucket=BUCKET, Key=name)["Body"].read())
    content[len(content) // 2] ^= 1
    if how == "with its digest":
        checksum = base64.b64encode(hashlib.sha256(content).digest()).decode()
        s3.client().put_object(Bucket=BUCKET, Key=name, Body=bytes(content), ChecksumSHA256=checksum)
    elif how == "while it is known":
        assert client.query("select count(fee) from wide").values == [(_ROWS,)]
        words = "was replaced or removed while it was read"
        s3.client().put_object(Bucket=BUCKET, Key=name, Body=bytes(content))
    else:
        content[4 : len(content) // 2] = bytes(len(content) // 2 - 4)
        s3.client().put_object(Bucket=BUCKET, Key=name, Body=bytes(content))
    error = client.refused("select max(text), sum(fee) from wide")
    assert reason(error) == "ARTIFACT_LOST"
    assert error.metadata == {"key": artifact.key, "dataset_id": "wide"}
    assert f'the file {artifact.key} of dataset "wide" {words}' in error.message


def test_an_object_that_is_gone_or_of_another_size_is_told(
    client: Client, datasets: FakeDatasets, artifact: Artifact, s3: S3Server
) -> None:
    name = _name(datasets, artifact)
    s3.client().put_object(Bucket=BUCKET, Key=name, Body=b"short")
    assert "has another size than was recorded" in client.refused("select sum(fee) from wide").message
    s3.client().delete_object(Bucket=BUCKET, Key=name)
    error = client.refused("select sum(fee) from wide")
    assert "is not in the store" in error.message
    assert reason(error) == "ARTIFACT_LOST"


def test_a_file_that_the_engine_cannot_read_is_its_own_failure(
    client: Client, datasets: FakeDatasets, tmp_path: Path
) -> None:
    """It is what was recorded, so nothing is lost; and the words are for people."""
    datasets.add("nonsense")
    artifact = datasets.publish("nonsense", pa.table({"fee": [1]}))
    source = tmp_path / "nonsense"
    source.write_bytes(bytes(100_000))
    stored = datasets.store.put(f"{artifact.key}-2", source)
    artifact.key, artifact.size_bytes, artifact.sha256 = stored.key, stored.size_bytes, stored.sha256
    error = client.refused("select sum(fee) from nonsense")
    assert reason(error) == "QUERY_FAILED"
    assert "Traceback" not in error.message
    assert "trace://" not in error.message


def test_a_query_that_is_canceled_in_the_middle_of_a_fetch_ends_at_once(
    client: Client, datasets: FakeDatasets, artifact: Artifact, faults: Faults
) -> None:
    hold, query_id, errors = Hold(), str(uuid.uuid4()), list[TraceError]()
    faults.plan(f"GET /{BUCKET}/", hold, times=4)
    asking = threading.Thread(
        target=lambda: errors.append(client.refused("select sum(fee) from wide", query_id=query_id))
    )
    asking.start()
    while not faults.count(f"GET /{BUCKET}/"):
        asking.join(0.02)
    client.stub.CancelQuery(pb.CancelQueryRequest(query_id=query_id), timeout=10)
    asking.join(10)
    assert [reason(error) for error in errors] == ["QUERY_CANCELED"]
    datasets.wait_released(10)  # its cell is gone, and all that it held, while the store still does not answer
    hold.released.set()
    assert client.query("select count(*) from wide").values == [(_ROWS,)]
