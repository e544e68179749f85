"""The walls behind the gate, each tried without those before it: the engine's locks, and the process's namespaces."""

import io
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from structlog.testing import capture_logs

from queryd.engine import messages
from queryd.engine.frames import Kind, ProtocolError, read_frame
from queryd.engine.messages import CellLimits, Failure, Job, Relation
from queryd.engine.pool import CellPool, CellUnavailableError
from queryd.engine.process import CellEndedError, CellProcess
from queryd.engine.sandbox import CellFolder, Sandbox, bubblewrap, forked, plain
from queryd.engine.scratch import ScratchFolder

_LIMITS = CellLimits(memory_bytes=512 << 20, threads=2, scratch_bytes=64 << 20)
_MAKERS = {"forked": forked, "bubblewrap": bubblewrap, "plain": plain}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """An artifact store with a pinned file and one that is not."""
    root = tmp_path / "artifacts"
    (root / "data").mkdir(parents=True)
    for name in ("pinned", "other"):
        pq.write_table(pa.table({"x": [1]}), root / "data" / f"{name}.parquet")
        (root / "data" / f"{name}.parquet").chmod(0o444)
    return root


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    """Where cells have their folders."""
    folder = tmp_path / "cells"
    folder.mkdir()
    return folder


@pytest.fixture(params=["forked", "bubblewrap", "plain"])
def pool(request: pytest.FixtureRequest, store: Path, cells: Path) -> Iterator[CellPool]:
    if request.param != "plain":
        _need_namespaces(store)
    made = CellPool([_MAKERS[request.param](store, _LIMITS)], warm=1, folder=cells)
    made.start()
    yield made
    made.close()


def _need_namespaces(store: Path) -> None:
    cells = store.with_name("cells of a probe")
    cells.mkdir(exist_ok=True)
    made = CellPool([bubblewrap(store, _LIMITS)], warm=1, folder=cells)
    try:
        made.start()
    except CellUnavailableError:
        pytest.skip("user namespaces are missing: bubblewrap cannot start a process here")
    finally:
        made.close()


def _run(pool: CellPool, sql: str) -> tuple[Kind, Failure | None]:
    """Runs a text that was not held against the gate; the first word of the answer."""
    cell = pool.take(30)
    try:
        relation = Relation(("plain",), paths=(f"{cell.store}/data/pinned.parquet",))
        cell.send(Kind.DESCRIBE, messages.pack_job(Job(sql, (relation,), 1000)))
        kind, payload = cell.receive()
        if kind is Kind.SCHEMA:
            cell.send(Kind.RUN, b"")
            kind, payload = cell.receive()
        return kind, messages.unpack_failure(payload) if kind is Kind.FAILED else None
    finally:
        cell.close()


@pytest.mark.parametrize(
    "sql",
    [
        "select * from read_text('/etc/passwd')",
        "select * from '{store}/data/other.parquet'",
        "select * from glob('{store}/**')",
        "attach '{store}/data/new.db' as n",
        "copy plain to '{store}/data/new.parquet'",
        "set allowed_paths = ['/']",
        "set enable_external_access = true",
        "set lock_configuration = false",
        "load httpfs",
    ],
)
def test_the_engine_is_locked_to_the_pinned_files(pool: CellPool, store: Path, sql: str) -> None:
    before = sorted(path.name for path in (store / "data").iterdir())
    assert pool.sandbox is not None
    kind, failure = _run(pool, sql.format(store=pool.sandbox.store(CellFolder(store))))
    assert kind is Kind.FAILED, failure
    assert sorted(path.name for path in (store / "data").iterdir()) == before


@pytest.mark.needs_namespaces
def test_a_pinned_file_cannot_be_overwritten_even_by_a_text_that_passed(store: Path, cells: Path) -> None:
    """The engine itself would do it: who may read a path may write it. The mount does not let it."""
    _need_namespaces(store)
    content = (store / "data" / "pinned.parquet").read_bytes()
    outcomes: dict[str, bool] = {}
    for name, make in _MAKERS.items():
        folder = store.with_name(f"store of {name}")
        shutil.copytree(store, folder)
        (folder / "data" / "pinned.parquet").chmod(0o644)
        pool = CellPool([make(folder, _LIMITS)], warm=1, folder=cells)
        sandbox = pool.start()
        target = f"{sandbox.store(CellFolder(folder))}/data/pinned.parquet"
        _run(pool, f"with x as (copy (select 6) to '{target}' (format parquet, use_tmp_file false)) from x")  # noqa: S608
        outcomes[name] = (folder / "data" / "pinned.parquet").read_bytes() == content
        pool.close()
    assert outcomes == {"forked": True, "bubblewrap": True, "plain": False}


def _in_sandbox(sandbox: Sandbox, folder: CellFolder, code: str) -> str:
    """What a program prints that has a cell's place in the sandbox."""
    words = sandbox.command(folder)
    words = [*words[: words.index(sys.executable)], sys.executable, "-I", "-c", code]
    done = subprocess.run(words, env={}, cwd=folder.scratch, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def _reach(address: tuple[str, int]) -> str:
    return f"""
import socket
try:
    socket.create_connection({address!r}, 5).close()
    print("reached")
except OSError:
    print("not reached")
"""


def _read(path: Path) -> str:
    return f"""
try:
    open({str(path)!r}).read()
    print("read")
except OSError:
    print("not read")
"""


_WRITE = """
import os
try:
    open(os.path.join({store!r}, "new"), "w").close()
    print("written")
except OSError:
    print("not written")
"""


@pytest.mark.needs_namespaces
@pytest.mark.parametrize("what", ["network", "credential", "store", "processes"])
def test_a_cell_reaches_nothing_but_what_it_is_given(store: Path, tmp_path: Path, what: str) -> None:
    """And would without the sandbox: the same program as a plain process does reach it."""
    _need_namespaces(store)
    secret = tmp_path / "credentials" / "user.token"
    secret.parent.mkdir()
    secret.write_text("secret")
    folder = CellFolder(tmp_path)
    folder.scratch.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        codes: dict[str, tuple[Callable[[Sandbox], str], str, str]] = {
            "network": (lambda sandbox: _reach(listener.getsockname()), "not reached", "reached"),
            "credential": (lambda sandbox: _read(secret), "not read", "read"),
            "store": (lambda sandbox: _WRITE.format(store=sandbox.store(folder)), "not written", "written"),
            "processes": (
                lambda sandbox: "import os; print(os.getpid() < 10, os.environ.get('HOME'))",
                "True None",
                "False None",
            ),
        }
        code, inside, outside = codes[what]
        shut, open_ = bubblewrap(store, _LIMITS), plain(store, _LIMITS)
        assert _in_sandbox(shut, folder, code(shut)) == inside
        assert _in_sandbox(open_, folder, code(open_)) == outside


def test_a_pool_falls_back_to_what_works(store: Path, cells: Path) -> None:
    broken = Sandbox("broken", str, lambda folder: ["/does/not/exist"])
    ends = Sandbox("ends", str, lambda folder: [sys.executable, "-c", "raise SystemExit('no')"])
    pool = CellPool([broken, ends, plain(store, _LIMITS)], warm=1, folder=cells)
    assert pool.start().name == "plain"
    pool.close()
    hopeless = CellPool([broken, ends], warm=1, folder=cells)
    with pytest.raises(CellUnavailableError):
        hopeless.start()
    hopeless.close()


def test_one_try_that_fails_does_not_decide_for_a_pool(store: Path, cells: Path) -> None:
    """Which would otherwise be without a wall for as long as it lives."""
    tries = list[CellFolder]()
    shut = plain(store, _LIMITS)

    def command(folder: CellFolder) -> list[str]:
        tries.append(folder)
        return ["/does/not/exist"] if len(tries) < 3 else shut.command(folder)

    pool = CellPool([Sandbox("shut", shut.store, command), plain(store, _LIMITS)], warm=1, folder=cells)
    try:
        assert pool.start().name == "shut"
    finally:
        pool.close()


def test_a_cell_serves_one_query_and_leaves_nothing(store: Path, cells: Path) -> None:
    cell = CellProcess(plain(store, _LIMITS), cells)
    cell.wait_ready()
    cell.send(Kind.DESCRIBE, messages.pack_job(Job("select 1", (), 10)))
    cell.send(Kind.RUN, b"")
    kinds = [cell.receive()[0], cell.receive()[0]]
    assert kinds == [Kind.SCHEMA, Kind.ARROW]
    while kinds[-1] is Kind.ARROW:
        kinds.append(cell.receive()[0])
    assert kinds[-1] is Kind.FINISHED
    with pytest.raises(CellEndedError):
        cell.receive()
    cell.close()
    cell.close()
    assert not list(cells.iterdir())


def test_folders_of_killed_queryds_are_removed_and_those_in_use_are_not(tmp_path: Path) -> None:
    used, left = ScratchFolder(tmp_path), tmp_path / "trace-queryd-left"
    (left / "spill").mkdir(parents=True)
    other = ScratchFolder(tmp_path)
    assert (used.path.exists(), left.exists()) == (True, False)
    used.remove()
    other.remove()
    assert not list(tmp_path.iterdir())


def test_a_folder_that_a_query_has_nested_as_deep_as_it_likes_is_removed(tmp_path: Path) -> None:
    """By a path it could not even be named, and its folders have rights that hinder."""
    left = tmp_path / "trace-queryd-left"
    left.mkdir()
    code = (
        "import os\nfor depth in range(3000):\n os.mkdir('nested'); os.chdir('nested')\n"
        "open('file', 'w').close(); os.symlink('/', 'root'); os.chmod('.', 0)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=left, timeout=60, check=True)
    try:
        ScratchFolder(tmp_path).remove()
        assert not list(tmp_path.iterdir())
    finally:
        subprocess.run(["/bin/rm", "-rf", left], timeout=60, check=True)


def test_a_folder_that_cannot_be_removed_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = tmp_path / "trace-queryd-left"
    (left / "kept").mkdir(parents=True)

    def rmdir(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    with capture_logs() as logs:
        monkeypatch.setattr(Path, "rmdir", rmdir)
        folder = ScratchFolder(tmp_path)
        monkeypatch.undo()
    assert [entry["log_level"] for entry in logs] == ["warning"]
    folder.remove()


def test_frames_that_break_the_rules_are_errors(tmp_path: Path) -> None:
    for data in (b"q", b"q\x00\x00\x00\x05abc", b"?\x00\x00\x00\x00", b"q\xff\xff\xff\xff"):
        with pytest.raises(ProtocolError):
            read_frame(io.BytesIO(data), 1 << 20)
    assert read_frame(io.BytesIO(b""), 10) is None
