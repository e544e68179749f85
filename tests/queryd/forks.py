"""A program of a test in the place of a cell's, behind the very wall that a fork has raised around itself."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from queryd.engine.forking import Zygote
from queryd.engine.processes import Process
from queryd.engine.sandbox import CellFolder, Sandbox

_SERVES_ANOTHER = """
import os, sys
import queryd.engine.cell

def serve(connection, requests, answers):
    sys.stdout = os.fdopen(answers.fileno(), "w")
    try:
        exec({code!r}, {{"connection": connection, "requests": requests}})
    finally:
        sys.stdout.flush()
        os._exit(0)

queryd.engine.cell.serve = serve
"""
_MAIN = "\nimport queryd.engine.zygote\nqueryd.engine.zygote.main()\n"


def running(sandbox: Sandbox, code: str) -> Sandbox:
    """The same sandbox, in which every fork runs this code instead of serving a query."""
    return altered(sandbox, _SERVES_ANOTHER.format(code=code))


def altered(sandbox: Sandbox, code: str) -> Sandbox:
    """The same sandbox, in which the process that forks runs this code before it begins."""
    zygote = sandbox.zygote
    assert zygote is not None

    def words(cells: Path, socket: int) -> list[str]:
        made = zygote(cells, socket)
        at = made.index("-m")
        return [*made[:at], "-c", code + _MAIN, *made[at + 2 :]]

    return replace(sandbox, zygote=words)


@contextmanager
def zygote_of(sandbox: Sandbox, cells: Path) -> Iterator[Zygote]:
    made = Zygote(sandbox, cells)
    try:
        made.wait_ready()
        yield made
    finally:
        made.close()


class Fork:
    """One fork, with a folder of its own below `cells`."""

    def __init__(self, zygote: Zygote, cells: Path, name: str) -> None:
        self.folder = CellFolder(cells / name)
        for part in (self.folder.scratch, self.folder.files):
            part.mkdir(parents=True, exist_ok=True)
        their_requests, self._requests = os.pipe()
        self._answers, their_answers = os.pipe()
        with self.folder.stderr.open("wb") as stderr:
            self.process: Process = zygote.start(self.folder, their_requests, their_answers, stderr.fileno())
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
        return said


def said_by(sandbox: Sandbox, cells: Path, code: str) -> str:
    """What this code prints in a fork of its own."""
    with zygote_of(running(sandbox, code), cells) as zygote:
        return Fork(zygote, cells, "one").said()
