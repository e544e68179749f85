"""By which signal a cell ended is known however it is started, and so is what the caller hears of it."""

from pathlib import Path

import pytest

from kernel.errors import TraceError
from queryd import failures
from queryd.engine.process import CellEndedError, CellForsakenError, CellProcess
from queryd.engine.sandbox import Sandbox
from tests.queryd.forks import running, start_of


def _end(sandbox: Sandbox, cells: Path, code: str) -> tuple[int, TraceError]:
    """The signal by which a cell ends that runs this code, and what the caller hears."""
    ending = running(sandbox, code)
    with start_of(ending, cells) as start:
        cell = CellProcess(ending, cells, start)
        with pytest.raises(CellEndedError) as caught:
            cell.receive()
        cell.close()
    assert not isinstance(caught.value, CellForsakenError)
    return caught.value.signal_number, failures.of_end(caught.value)


def test_an_abort_that_says_so_is_told_as_the_end_of_memory(sandbox: Sandbox, cells: Path) -> None:
    """Also of the first process of a namespace, to which no SIGABRT is delivered."""
    code = "import os; os.write(2, b\"terminate called after throwing an instance of 'std::bad_alloc'\"); os.abort()"
    number, error = _end(sandbox, cells, code)
    assert (number, error.reason_name, error.metadata) == (6, "QUERY_LIMIT", {"limit": "memory"})


def test_an_abort_without_a_word_of_memory_is_a_fault_of_the_server(sandbox: Sandbox, cells: Path) -> None:
    number, error = _end(sandbox, cells, "import os; os.abort()")
    assert (number, error.reason_name) == (6, "INTERNAL")


def test_a_crash_is_told_as_a_fault_of_the_server(sandbox: Sandbox, cells: Path) -> None:
    number, error = _end(sandbox, cells, "import ctypes; ctypes.string_at(0)")
    assert (number, error.reason_name) == (11, "INTERNAL")
    assert "by signal 11: that is a fault of this server and not of the query" in error.message


def test_an_end_without_a_signal_is_none(sandbox: Sandbox, cells: Path) -> None:
    number, error = _end(sandbox, cells, "pass")
    assert (number, error.reason_name) == (0, "INTERNAL")
    assert "by itself" in error.message
