"""A program of a test in the place of a cell's, behind the very walls that the cell has raised around itself."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from queryd.engine import messages
from queryd.engine.forking import Zygote
from queryd.engine.frames import Kind
from queryd.engine.messages import Job
from queryd.engine.pool import CellPool, CellUnavailableError
from queryd.engine.process import CellProcess
from queryd.engine.processes import Given, Process, Start, fresh
from queryd.engine.sandbox import CellFolder, Sandbox
from queryd.engine.slots import Slots

UNFILTERED = "import queryd.engine.calls\nqueryd.engine.calls.refuse_calls = lambda: None\n"
"""To be run before: without the wall behind the others, so that these are seen to hold without it."""
_SERVES_ANOTHER = """
import os, sys
import queryd.engine.cell

def serve(connection, writer, ranges):
    sys.stdout = os.fdopen(writer.answers.fileno(), "w")
    try:
        exec({code!r}, {{"connection": connection, "requests": writer.requests, "writer": writer}})
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)
    writer.answers.flush()
    sys.stdout.flush()
    os._exit(0)

queryd.engine.cell.serve = serve
"""


def running(sandbox: Sandbox, code: str, before: str = "") -> Sandbox:
    """The same sandbox, in which every cell runs this code instead of serving a query; `before` as below."""
    return altered(sandbox, before + _SERVES_ANOTHER.format(code=code))


def altered(sandbox: Sandbox, code: str) -> Sandbox:
    """The same sandbox, in which the process that forks, or a cell that is not forked, runs this code before it
    begins."""
    command, zygote = sandbox.command, sandbox.zygote

    def of_zygote(cells: Path, socket: int) -> list[str]:
        assert zygote is not None
        return _after(code, zygote(cells, socket))

    return replace(
        sandbox,
        command=lambda folder: _after(code, command(folder)),
        zygote=None if zygote is None else of_zygote,
    )


def _after(code: str, words: list[str]) -> list[str]:
    at = words.index("-m")
    module = words[at + 1]
    return [*words[:at], "-c", f"{code}\nimport {module}\n{module}.main()\n", *words[at + 2 :]]


@contextmanager
def zygote_of(sandbox: Sandbox, cells: Path) -> Iterator[Zygote]:
    made = Zygote(sandbox, cells)
    try:
        made.wait_ready()
        yield made
    finally:
        made.close()


@contextmanager
def start_of(sandbox: Sandbox, cells: Path) -> Iterator[Start]:
    """How its cells are started: each is a fork, or begun from its program."""
    if sandbox.zygote is None:
        yield fresh(sandbox)
        return
    with zygote_of(sandbox, cells) as zygote:
        yield zygote.start


class Fork:
    """One cell that runs a test's code, with a folder of its own below `cells`."""

    def __init__(self, start: Start, cells: Path, name: str) -> None:
        self.folder = CellFolder(cells / name)
        for part in (self.folder.scratch, self.folder.files):
            part.mkdir(parents=True, exist_ok=True)
        their_requests, self._requests = os.pipe()
        self._answers, their_answers = os.pipe()
        self._slots = Slots()
        ours, theirs = socket.socketpair()
        with self.folder.stderr.open("wb") as stderr, ours, theirs:
            given = Given(*(their_requests, their_answers, stderr.fileno()), self._slots.descriptor, theirs.fileno())
            self.process: Process = start(self.folder, given)
        os.close(their_requests)
        os.close(their_answers)

    def begun(self) -> str:
        """What it prints first, once it has."""
        return os.read(self._answers, 100).decode().strip()

    def said(self) -> str:
        """All that it prints, once it has ended."""
        os.close(self._requests)
        with os.fdopen(self._answers) as answers:
            said = answers.read().strip()
        assert self.process.wait(60) == 0, self.folder.stderr.read_text()
        self.process.close()
        self._slots.close()
        return said


def said_by(sandbox: Sandbox, cells: Path, code: str, before: str = "") -> str:
    """What this code prints in a cell of its own; `before` as above."""
    with start_of(running(sandbox, code, before), cells) as start:
        return Fork(start, cells, "one").said()


def usable(sandbox: Sandbox, cells: Path) -> Sandbox:
    """The same one; where this machine does not have it, the test is skipped."""
    probe = CellPool([sandbox], warm=1, folder=cells)
    try:
        probe.start()
    except CellUnavailableError:
        pytest.skip(f"user namespaces are missing: no cell can be started here in {sandbox.name}")
    finally:
        probe.close()
    return sandbox


def ready(sandbox: Sandbox, cells: Path, start: Start) -> CellProcess:
    """A cell that waits for a query."""
    cell = CellProcess(sandbox, cells, start)
    cell.wait_ready()
    return cell


def serves(cell: CellProcess) -> bool:
    """Whether it says what an answer will look like."""
    cell.send(Kind.DESCRIBE, messages.pack_job(Job("select 1", (), 10)))
    return cell.receive()[0] is Kind.SCHEMA
