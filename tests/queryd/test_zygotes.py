"""What befalls a cell, or the process that cells are forked of, ends no running query and answers no later request."""

import errno
import os
import resource
import select
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from queryd.engine.forking import ZygoteLostError
from queryd.engine.messages import CellLimits
from queryd.engine.pool import CellPool, CellUnavailableError
from queryd.engine.process import CellProcess
from queryd.engine.processes import FreshProcess, Given, Process
from queryd.engine.sandbox import CellFolder, Sandbox, forked, plain
from queryd.engine.succession import Zygotes
from tests.queryd.forks import Fork, altered, ready, serves, zygote_of

_LIMITS = CellLimits(memory_bytes=512 << 20, threads=2, scratch_bytes=64 << 20)
_SECONDS = 30.0


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    folder = tmp_path / "cells"
    folder.mkdir()
    return folder


@pytest.fixture
def sandbox(cells: Path) -> Sandbox:
    probe = CellPool([forked(None, _LIMITS)], warm=1, folder=cells)
    try:
        probe.start()
    except CellUnavailableError:
        pytest.skip("user namespaces within a sandbox are missing: no cell can be forked here")
    finally:
        probe.close()
    return forked(None, _LIMITS)


# Where a file says so the process, or the first fork, cannot fork: once.
_REFUSES = """
import os
fork, own = os.fork, os.getpid()
def refusing():
    try:
        os.unlink("/cells/refuse.zygote" if os.getpid() == own else "/cells/refuse.fork")
    except FileNotFoundError:
        return fork()
    raise BlockingIOError(11, "Resource temporarily unavailable")
os.fork = refusing
"""


@pytest.mark.needs_namespaces
@pytest.mark.parametrize("by", ["folder", "zygote", "fork"])
def test_a_cell_that_cannot_be_started_ends_no_other(
    sandbox: Sandbox, cells: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """There is no room for its folder; no process can be begun, the first of the two or the second."""
    refuse = cells / f"refuse.{by}"
    make = tempfile.mkdtemp

    def mkdtemp(dir: Path) -> str:  # noqa: A002 - as that of the standard library
        if by == "folder" and refuse.exists():
            refuse.unlink()
            raise OSError(errno.ENOSPC, "No space left on device")
        return make(dir=dir)

    monkeypatch.setattr(tempfile, "mkdtemp", mkdtemp)
    pool = CellPool([altered(sandbox, _REFUSES)], warm=1, folder=cells)
    pool.start()
    try:
        first, second = pool.take(_SECONDS), pool.take(_SECONDS)
        refuse.touch()
        later = [pool.take(_SECONDS) for _ in range(2)]
        assert not refuse.exists()
        assert [serves(cell) for cell in (first, second, *later)] == [True] * 4
        for cell in (first, second, *later):
            cell.close()
    finally:
        pool.close()


@pytest.mark.needs_namespaces
def test_the_cells_of_a_process_that_is_asked_no_more_go_on_and_it_ends_after_them(
    sandbox: Sandbox, cells: Path
) -> None:
    zygotes = Zygotes(sandbox, cells)
    try:
        first = ready(sandbox, cells, zygotes.start)
        old = zygotes._asked
        assert old is not None
        ended = os.pidfd_open(old._process.pid)
        zygotes.retire()
        second = ready(sandbox, cells, zygotes.start)
        assert zygotes._asked is not old
        assert serves(first)
        assert not old.has_ended
        first.close()
        assert select.select([ended], [], [], _SECONDS)[0], "it has outlived its last cell"
        os.close(ended)
        assert serves(second)
        second.close()
    finally:
        zygotes.close()


@pytest.mark.needs_namespaces
def test_a_pool_whose_process_to_fork_of_has_died_starts_another_one(sandbox: Sandbox, cells: Path) -> None:
    """Those that had been ready and ended with it are given to nobody."""
    pool = CellPool([sandbox], warm=1, folder=cells)
    pool.start()
    try:
        first = pool.take(_SECONDS)
        with pool._changed:
            assert pool._changed.wait_for(lambda: pool._ready, _SECONDS)
            waits = pool._ready[0]
        assert pool._zygotes is not None
        assert pool._zygotes._asked is not None
        pool._zygotes._asked.kill()
        for cell in (first, waits):
            assert cell._process.wait(_SECONDS) == -9
        first.close()
        for _ in range(3):
            cell = pool.take(_SECONDS)
            assert serves(cell)
            cell.close()
    finally:
        pool.close()


@pytest.mark.needs_namespaces
def test_what_befalls_a_first_fork_is_no_answer_to_a_later_request(sandbox: Sandbox, cells: Path) -> None:
    failing = "import os\ndef waitpid(*_): raise OSError('a stray word')\nos.waitpid = waitpid\n"
    with zygote_of(altered(sandbox, failing), cells) as zygote:
        one = Fork(zygote.start, cells, "one")
        assert one.process.wait(_SECONDS) == -9
        Fork(zygote.start, cells, "two").process.kill()


@pytest.mark.needs_namespaces
def test_a_defect_of_a_first_fork_is_told_of_its_cell_alone(sandbox: Sandbox, cells: Path) -> None:
    failing = (
        "import os\nfrom queryd.engine import wall\nleave = wall.leave_namespaces\n"
        "def leaves(uid, gid):\n if os.path.exists('/cells/one'): raise ValueError('a defect')\n leave(uid, gid)\n"
        "wall.leave_namespaces = leaves\n"
    )
    with zygote_of(altered(sandbox, failing), cells) as zygote:
        with pytest.raises(OSError, match="a defect") as caught:
            Fork(zygote.start, cells, "one")
        assert not isinstance(caught.value, ZygoteLostError)
        (cells / "one").rename(cells / "gone")
        Fork(zygote.start, cells, "two").process.kill()


@pytest.mark.needs_namespaces
def test_an_answer_for_another_cell_is_taken_for_none(sandbox: Sandbox, cells: Path) -> None:
    mistaken = (
        "from queryd.engine import zygote\nanswer = zygote._answer\n"
        "zygote._answer = lambda asked, name, *rest: answer(asked, name and b'another', *rest)\n"
    )
    with zygote_of(altered(sandbox, mistaken), cells) as zygote, pytest.raises(ZygoteLostError):
        Fork(zygote.start, cells, "one")


@pytest.mark.needs_namespaces
def test_cells_are_held_where_queryd_has_more_than_a_thousand_descriptors(sandbox: Sandbox, cells: Path) -> None:
    with ExitStack() as held:
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        held.callback(resource.setrlimit, resource.RLIMIT_NOFILE, before)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], 4096), before[1]))
        for _ in range(1100):
            held.callback(os.close, os.open(os.devnull, os.O_RDONLY))
        zygotes = Zygotes(sandbox, cells)
        held.callback(zygotes.close)
        cell = ready(sandbox, cells, zygotes.start)
        assert serves(cell)
        cell.close()


def _descriptors() -> list[str]:
    return sorted(path.name for path in Path("/proc/self/fd").iterdir())


def test_of_a_cell_that_cannot_be_started_nothing_is_left(cells: Path) -> None:
    def start(folder: CellFolder, given: Given) -> Process:
        raise ValueError("a defect")

    before = _descriptors()
    with pytest.raises(ValueError, match="a defect"):
        CellProcess(plain(None, _LIMITS), cells, start)
    assert _descriptors() == before
    assert not list(cells.iterdir())


def test_a_cell_is_let_go_of_whatever_step_fails(cells: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def close(_: FreshProcess) -> None:
        raise ValueError("a defect")

    monkeypatch.setattr(FreshProcess, "close", close)
    before = _descriptors()
    cell = CellProcess(plain(None, _LIMITS), cells)
    with pytest.raises(ValueError, match="a defect"):
        cell.close()
    assert _descriptors() == before
    assert not list(cells.iterdir())
    cell.close()


@pytest.fixture
def odd() -> Iterator[Sandbox]:
    """The second cell is a defect."""
    sandbox, asked = plain(None, _LIMITS), list[CellFolder]()

    def store(folder: CellFolder) -> str:
        asked.append(folder)
        if len(asked) == 2:
            raise RuntimeError("a defect")
        return sandbox.store(folder)

    yield Sandbox("odd", store, sandbox.command)
    assert len(asked) > 2


def test_a_pool_goes_on_after_a_defect(odd: Sandbox, cells: Path) -> None:
    pool = CellPool([odd], warm=1, folder=cells)
    pool.start()
    try:
        for _ in range(3):
            pool.take(_SECONDS).close()
    finally:
        pool.close()


def test_a_cell_that_is_never_ready_is_not_waited_for(cells: Path) -> None:
    never = Sandbox("never", str, lambda folder: ["/bin/sleep", "600"])
    pool = CellPool([never, plain(None, _LIMITS)], warm=1, folder=cells, ready_seconds=8.0)
    try:
        assert pool.start().name == "plain"
    finally:
        pool.close()
