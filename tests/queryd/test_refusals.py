"""Hostile texts are refused over the wire, with a place and without a path, and change nothing on the disk."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from kernel.channels import sync_channel
from kernel.credentials import create_token_file
from kernel.errors import TraceError, from_rpc_error
from tests.queryd import hostile
from tests.queryd.fake_datasets import FakeDatasets
from tests.queryd.harness import Client, QuerydProcess, reason
from traceapi.query.v1 import query_service_pb2 as pb

_REFUSALS = {"SQL_REFUSED", "NAME_AMBIGUOUS", "DATASET_NOT_FOUND", "QUERY_FAILED"}


def _inventory(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@contextmanager
def _nothing_changes(root: Path) -> Iterator[None]:
    before = _inventory(root)
    assert before
    yield
    assert _inventory(root) == before


def _pinned_file(datasets: FakeDatasets) -> Path:
    return datasets.root / datasets.versions["plain"].artifacts[0].key


def test_hostile_texts_are_refused_and_change_nothing(client: Client, datasets: FakeDatasets) -> None:
    """A part of the corpus, for each takes a process; tests/queryd/test_gate.py holds all against the gate."""
    file = _pinned_file(datasets)
    wrong: list[str] = []
    with _nothing_changes(datasets.root):
        for text in hostile.ALL[::4]:
            sql = text.format(file=file, folder=file.parent) or ";"
            try:
                answer = client.query(sql)
            except TraceError as error:
                if reason(error) not in _REFUSALS or (str(datasets.root) in error.message and str(file) not in sql):
                    wrong.append(f"{sql!r}: {error!r}")
            else:
                wrong.append(f"{sql!r} answered {answer.table.num_rows} rows")
    assert not wrong, "\n".join(wrong)


def test_a_refusal_names_the_construct_and_its_place(client: Client) -> None:
    error = client.refused("select x,\n       read_text('/etc/passwd')\nfrom plain")
    assert reason(error) == "SQL_REFUSED"
    assert error.message == "line 2, column 8: the function read_text is not one that a query may call"
    assert (error.metadata["line"], error.metadata["column"]) == ("2", "8")


def test_a_syntax_error_has_its_place(client: Client) -> None:
    error = client.refused("select x\nfrom plain wher x = 1 y")
    assert reason(error) == "QUERY_FAILED"
    assert error.message.startswith("line 2, column ")


@pytest.mark.parametrize(
    ("sql", "place", "words"),
    [
        ("select number,\n  nothing\nfrom eth.blocks", "line 2, column 3: ", 'column "nothing" not found'),
        ("select number + miner\nfrom eth.blocks", "line 1, column 15: ", "No function matches"),
        ("select number,\n cast(miner as int)\nfrom eth.blocks", "line 2, column 2: ", "Conversion error"),
        ("select number\nfrom eth.blocks\nwhere upper(1, 2)", "line 3, column 7: ", "No function matches"),
    ],
)
def test_an_engine_error_has_its_place(client: Client, sql: str, place: str, words: str) -> None:
    error = client.refused(sql)
    assert reason(error) == "QUERY_FAILED"
    assert error.message.startswith(place)
    assert words in error.message


def test_a_virtual_dataset_passes_the_same_gate(client: Client, datasets: FakeDatasets) -> None:
    datasets.add("bad_view", virtual_sql="select current_setting('threads') from plain")
    error = client.refused("select * from bad_view")
    assert reason(error) == "QUERY_FAILED"
    assert 'virtual dataset "bad_view": the function current_setting' in error.message


def test_an_error_inside_a_virtual_dataset_points_at_no_place_of_the_query(
    client: Client, datasets: FakeDatasets
) -> None:
    datasets.add("casting", virtual_sql="select cast('a' || x as integer) as y from plain")
    error = client.refused("select y from casting")
    assert "Conversion error" in error.message
    assert "line" not in error.metadata


@pytest.mark.parametrize(
    "deep", ["(" * 20_000 + "1" + ")" * 20_000, "not " * 20_000 + "true", "+".join(["1"] * 20_000)]
)
def test_a_text_nested_without_end_is_refused(client: Client, deep: str) -> None:
    assert reason(client.refused(f"select {deep}")) == "SQL_REFUSED"


def test_only_users_may_query(queryd: QuerydProcess, tmp_path: Path) -> None:
    for token in (create_token_file(tmp_path / "other"), None):
        channel = sync_channel(queryd.address, token=token, actor_name="stranger")
        with channel, pytest.raises(grpc.RpcError) as caught:
            list(Client(channel).stub.Query(pb.QueryRequest(sql="select 1"), timeout=10))
        assert reason(from_rpc_error(caught.value)) == "UNAUTHENTICATED"
