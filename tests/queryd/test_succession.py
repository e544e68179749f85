"""No process is forked of for ever: another one follows after a crash and after so many forks, and nobody waits."""

import select
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from queryd.engine.forking import Zygote
from queryd.engine.frames import Kind
from queryd.engine.messages import CellLimits
from queryd.engine.pool import CellPool
from queryd.engine.process import CellEndedError, CellProcess
from queryd.engine.sandbox import Sandbox, forked
from queryd.engine.succession import Zygotes
from tests.queryd.forks import altered, ready, serves, usable

pytestmark = pytest.mark.needs_namespaces
_LIMITS = CellLimits(memory_bytes=512 << 20, threads=2, scratch_bytes=64 << 20)
_SECONDS = 30.0

# A text that breaks its cell; and, while a file is there, a process that does not become ready, or none at all.
_BREAKABLE = """
import ctypes, os, queryd.engine.cell
check = queryd.engine.cell._Cell._check
def checking(cell, sql):
    if sql == "break":
        ctypes.string_at(0)
    check(cell, sql)
queryd.engine.cell._Cell._check = checking
while os.path.exists("/cells/not yet"):
    __import__("time").sleep(0.01)
if os.path.exists("/cells/not at all"):
    raise SystemExit("broken")
"""


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    folder = tmp_path / "cells"
    folder.mkdir()
    return folder


@pytest.fixture
def sandbox(cells: Path) -> Sandbox:
    return altered(usable(forked(None, _LIMITS), cells), _BREAKABLE)


@contextmanager
def _zygotes(sandbox: Sandbox, cells: Path, forks: int = 300) -> Iterator[Zygotes]:
    made = Zygotes(sandbox, cells, forks)
    try:
        yield made
    finally:
        made.close()


def _break(cell: CellProcess) -> int:
    """The signal by which it ends."""
    cell.send(Kind.CHECK, b"break")
    with pytest.raises(CellEndedError) as caught:
        cell.receive()
    cell.close()
    return caught.value.signal_number


def _layout(cell: CellProcess) -> str:
    """Where libraries lie in its memory."""
    maps = Path(f"/proc/{cell.pid}/maps").read_text()
    return "\n".join(line for line in maps.splitlines() if "r-xp" in line and ".so" in line)


def _until_ready(zygote: Zygote | None) -> None:
    assert zygote is not None
    assert select.select([zygote._socket], [], [], _SECONDS)[0], "it does not become ready"


def test_after_a_crash_cells_get_another_layout(sandbox: Sandbox, cells: Path) -> None:
    with _zygotes(sandbox, cells) as zygotes:
        broken, other = (ready(sandbox, cells, zygotes.start) for _ in range(2))
        before = _layout(broken)
        assert _layout(other) == before
        assert _break(broken) == 11
        meanwhile = ready(sandbox, cells, zygotes.start)
        _until_ready(zygotes._next)
        after = ready(sandbox, cells, zygotes.start)
        assert _layout(after) != before
        assert [serves(cell) for cell in (other, meanwhile, after)] == [True] * 3
        for cell in (other, meanwhile, after):
            cell.close()


def test_what_was_killed_to_end_it_is_no_crash(sandbox: Sandbox, cells: Path) -> None:
    with _zygotes(sandbox, cells) as zygotes:
        ready(sandbox, cells, zygotes.start).close()
        ready(sandbox, cells, zygotes.start).close()
        assert zygotes._next is None


def test_after_so_many_forks_another_one_is_asked_and_no_cell_waits_for_it(sandbox: Sandbox, cells: Path) -> None:
    hold = cells / "not yet"
    with _zygotes(sandbox, cells, forks=2) as zygotes:
        held = [ready(sandbox, cells, zygotes.start) for _ in range(2)]
        first = zygotes._asked
        assert zygotes._next is None
        hold.touch()
        held += [ready(sandbox, cells, zygotes.start) for _ in range(3)]
        assert zygotes._asked is first
        successor = zygotes._next
        hold.unlink()
        _until_ready(successor)
        held.append(ready(sandbox, cells, zygotes.start))
        assert zygotes._asked is successor
        assert [serves(cell) for cell in held] == [True] * 6
        for cell in held:
            cell.close()


def test_where_no_other_can_be_started_cells_are_forked_of_the_same_one_for_a_while(
    sandbox: Sandbox, cells: Path
) -> None:
    broken, now = cells / "not at all", [0.0]
    zygotes = Zygotes(sandbox, cells, forks=1, clock=lambda: now[0])
    try:
        ready(sandbox, cells, zygotes.start).close()
        first = zygotes._asked
        broken.touch()
        ready(sandbox, cells, zygotes.start).close()
        _until_ready(zygotes._next)
        with capture_logs() as logs:
            for _ in range(2):
                ready(sandbox, cells, zygotes.start).close()
        assert [line["log_level"] for line in logs] == ["warning"]
        assert "broken" in logs[0]["error"]
        assert (zygotes._asked, zygotes._next) == (first, None)
        broken.unlink()
        now[0] += 60.0
        ready(sandbox, cells, zygotes.start).close()
        _until_ready(zygotes._next)
        ready(sandbox, cells, zygotes.start).close()
        assert zygotes._asked is not first
    finally:
        zygotes.close()


def test_one_that_never_becomes_ready_is_given_up(
    sandbox: Sandbox, cells: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold = cells / "not yet"
    with _zygotes(sandbox, cells, forks=1) as zygotes:
        ready(sandbox, cells, zygotes.start).close()
        hold.touch()
        ready(sandbox, cells, zygotes.start).close()
        hangs = zygotes._next
        assert hangs is not None
        monkeypatch.setattr("queryd.engine.forking.START_SECONDS", 0.0)  # as long ago as it was begun
        with capture_logs() as logs:
            ready(sandbox, cells, zygotes.start).close()
        assert [line["log_level"] for line in logs] == ["warning"]
        assert hangs.has_ended
        assert zygotes._next is None
        hold.unlink()


def test_a_pool_answers_every_query_while_its_processes_follow_each_other(
    sandbox: Sandbox, cells: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("queryd.engine.pool.Zygotes", partial(Zygotes, forks=1))
    pool = CellPool([sandbox], warm=1, folder=cells)
    pool.start()
    try:
        assert pool._zygotes is not None
        first = pool._zygotes._asked
        asked = {first}
        for _ in range(500):
            cell = pool.take(_SECONDS)
            assert serves(cell)
            cell.close()
            asked.add(pool._zygotes._asked or first)
            if len(asked) > 2:
                break
        assert len(asked) > 2
    finally:
        pool.close()
