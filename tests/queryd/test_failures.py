"""What a query's failure is told as: a limit, a fault of the text, or a fault of the server, which is not theirs."""

import json
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from kernel.errors import TraceError
from queryd import failures
from queryd.engine import complaints, messages
from queryd.engine.frames import Kind, ProtocolError
from queryd.engine.messages import CellLimits, Failure, FailureKind, Job
from queryd.engine.process import CellEndedError, CellProcess
from queryd.engine.sandbox import plain
from tests.queryd.fake_datasets import FakeDatasets
from tests.queryd.forks import altered, start_of
from tests.queryd.harness import QuerydProcess, reason

_LIMITS = CellLimits(memory_bytes=512 << 20, threads=2, scratch_bytes=64 << 20)
_JOB = Job("select 1", (), 10)
# 240 MB, where the engine has 96 and the disk 16.
_WIDE = "select i, repeat('x', 200) || i as wide from range(1_200_000) t(i) order by hash(i)"


def _told(error: Exception) -> TraceError:
    """Of an exception of the engine."""
    with duckdb.connect() as connection:
        return failures.of_failure(complaints.failure_of(connection, _JOB, error), "/artifacts")


def test_a_query_that_spills_too_much_is_told_which_setting_bounds_it(tmp_path: Path) -> None:
    datasets = FakeDatasets(tmp_path / "artifacts")
    sizes = {"query_memory_bytes": str(256 << 20), "query_scratch_bytes": str(16 << 20)}
    with QuerydProcess(tmp_path, datasets, query_warm_cells="1", **sizes) as queryd:
        client = queryd.client()
        with client.channel:
            error = client.refused(_WIDE, timeout=60)
    assert (reason(error), error.metadata) == ("QUERY_LIMIT", {"limit": "scratch"})
    assert error.message == "the query spills more to disk than it may (query_scratch_bytes)"


@pytest.mark.parametrize(
    ("complaint", "setting"),
    [("File too large", "query_scratch_bytes"), ("No space left on device", "query_work_dir")],
)
def test_a_file_of_the_engines_own_that_cannot_grow_is_no_damage(complaint: str, setting: str) -> None:
    spilled = Path.cwd() / complaints.SPILLED / "duckdb_temp_storage_S32K-0.tmp"
    error = _told(duckdb.IOException(f'IO Error: Could not write file "{spilled}": {complaint}'))
    assert (error.reason_name, error.metadata) == ("QUERY_LIMIT", {"limit": "scratch"})
    assert setting in error.message
    assert str(Path.cwd()) not in error.message


@pytest.mark.parametrize("title", ["INTERNAL", "FATAL"])
def test_an_engine_that_breaks_is_a_fault_of_the_server(title: str) -> None:
    fields = {"exception_type": title, "exception_message": "an index of 5 in a vector of 5\n\nStack Trace:\n/usr/x"}
    error = failures.with_query(_told(duckdb.Error(f"{title} Error: {json.dumps(fields)}")), "the id")
    assert error.reason_name == "INTERNAL"
    assert error.message == "the engine broke: that is a fault of this server and not of the query"
    assert error.metadata == {"engine": f"{title} error: an index of 5 in a vector of 5", "query_id": "the id"}


def test_a_want_of_memory_while_relations_are_made_is_one() -> None:
    made = complaints.RelationError('dataset "eth.blocks": no memory')
    made.__cause__ = duckdb.OutOfMemoryException("Out of Memory Error: could not allocate block")
    assert _told(made).metadata == {"limit": "memory"}
    made.__cause__ = duckdb.BinderException("Binder Error: no such column")
    assert (_told(made).reason_name, _told(made).message) == ("QUERY_FAILED", str(made))


@pytest.mark.parametrize(
    ("number", "stderr", "name", "words"),
    [
        (9, "", "QUERY_LIMIT", "most likely"),
        (6, "terminate called after throwing an instance of 'std::bad_alloc'", "QUERY_LIMIT", "more memory"),
        (0, "Traceback (most recent call last):\nMemoryError", "QUERY_LIMIT", "more memory"),
        (6, "free(): invalid pointer", "INTERNAL", "by signal 6"),
        (11, "std::bad_alloc", "INTERNAL", "by signal 11"),
        (31, "", "INTERNAL", "by signal 31"),
        (0, "", "INTERNAL", "by itself"),
    ],
)
def test_how_a_process_ended_says_whose_fault_it_was(number: int, stderr: str, name: str, words: str) -> None:
    error = failures.of_end(CellEndedError(number, stderr))
    assert error.reason_name == name
    assert words in error.message
    assert error.metadata == ({"limit": "memory"} if name == "QUERY_LIMIT" else {})


def _cell_that(does: str, folder: Path, ask: Callable[[CellProcess], None]) -> None:
    """Asks a cell in which a request is met with this."""
    folder.mkdir()
    code = f"import queryd.engine.cell as cell\ndef answered(*_): {does}\ncell._Cell._answered = answered"
    sandbox = altered(plain(None, _LIMITS), code)
    with start_of(sandbox, folder) as start:
        cell = CellProcess(sandbox, folder, start)
        cell.wait_ready()
        cell.send(Kind.CHECK, b"select 1")
        ask(cell)
        cell.close()


def test_an_exception_of_a_cell_is_in_its_last_words(tmp_path: Path) -> None:
    def ask(cell: CellProcess) -> None:
        with pytest.raises(CellEndedError) as caught:
            cell.receive()
        assert (caught.value.signal_number, failures.raised(caught.value.stderr)) == (0, "ZeroDivisionError")

    _cell_that("1 / 0", tmp_path / "cells", ask)


def test_a_want_of_memory_at_any_request_is_told(tmp_path: Path) -> None:
    def ask(cell: CellProcess) -> None:
        kind, payload = cell.receive()
        assert (kind, messages.unpack_failure(payload)) == (Kind.FAILED, complaints.MEMORY)
        cell.send(Kind.DESCRIBE, messages.pack_job(_JOB))  # the cell is there, so this is no broken pipe

    _cell_that("raise MemoryError", tmp_path / "cells", ask)


_FAILED = {"kind": "failed", "message": "", "line": 0, "column": 0}
_NAME = {"dataset_id": "t", "line": 1, "column": 1, "mentions": []}
_TERM = {"column": "x", "operator": "in", "values": [{"kind": "INTEGER", "text": "1", "cast": ""}]}


def test_what_a_cell_packs_is_what_queryd_unpacks() -> None:
    failure = Failure(FailureKind.FILES, "a file is damaged", 3, 4)
    assert messages.unpack_failure(messages.pack_failure(failure)) == failure
    (name,) = messages.unpack_checked(
        json.dumps({"names": [{**_NAME, "mentions": [[_TERM]]}], "parameters": []}).encode()
    ).names
    assert name.mentions[0][0].values[0].text == "1"


@pytest.mark.parametrize(
    ("unpack", "contents"),
    [
        (messages.unpack_failure, [b"", b"\xff", b"[]", b"{}", b"1", b"null", b"[" * 100_000]),
        (messages.unpack_failure, [{**_FAILED, "kind": "no such kind"}, {**_FAILED, "kind": []}]),
        (messages.unpack_failure, [{**_FAILED, "line": "x"}, {**_FAILED, "line": None}, {**_FAILED, "line": 1e999}]),
        (messages.unpack_failure, [{**_FAILED, "message": 1}, {**_FAILED, "message": "\ud800"}]),
        (
            messages.unpack_checked,
            [b"", b"[]", b"{}", {"names": 1, "parameters": []}, {"names": [], "parameters": [1]}],
        ),
        (messages.unpack_checked, [{"names": [{**_NAME, "dataset_id": "\ud800"}], "parameters": []}]),
        (messages.unpack_checked, [{"names": [{**_NAME, "mentions": [[{**_TERM, "values": 1}]]}], "parameters": []}]),
        (messages.unpack_demands, [b"", b"[]", {"t": 1}, {"t": [1]}, {"t": [[{}]]}, {"\ud800": []}]),
    ],
)
def test_contents_of_any_other_form_break_the_protocol(
    unpack: Callable[[bytes], object], contents: list[object]
) -> None:
    for content in contents:
        payload = content if isinstance(content, bytes) else json.dumps(content).encode()
        with pytest.raises(ProtocolError):
            unpack(payload)
