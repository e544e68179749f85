"""`tracectl query` as somebody sees it who sits before a terminal: progress, a pager, and Ctrl-C."""

import os
import re
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import ioctl
from pathlib import Path

import pytest

from tests.acceptance.conftest import ROOT, RunningStack
from traceapi.query.v1 import query_service_pb2 as api

pytestmark = pytest.mark.acceptance

_SECONDS = 60.0
_CTRL_C, _CTRL_C_ENDED = b"\x03", 128 + signal.SIGINT
_ENDLESS = (
    "select count(*) from range(100000000) a, range(100000000) b, (select max(number) n from eth.blocks)"
    " where a.range > n"
)
# In a session of its own, whose terminal it is: so Ctrl-C is what it is for a person.
_AT_TERMINAL = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


class Terminal:
    """A terminal of 24 lines of 100 letters, with `tracectl` at it."""

    def __init__(self, screen: int, process: "subprocess.Popen[bytes]") -> None:
        self._screen, self._process = screen, process
        self._seen = b""

    def see(self, text: str) -> str:
        """All that was on the screen, once this expression is."""
        while not re.search(text, self.seen):
            assert self._read(), f"{text!r} is not in {self.seen!r}"
        return self.seen

    def press(self, key: bytes) -> None:
        os.write(self._screen, key)

    def end(self) -> int:
        """Its exit code."""
        while self._read():
            pass
        return self._process.wait(_SECONDS)

    @property
    def seen(self) -> str:
        """Without colours and movements of the cursor."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self._seen.decode(errors="replace"))

    def _read(self) -> bool:
        """False when the program has gone."""
        readable, _, _ = select.select([self._screen], [], [], _SECONDS)
        assert readable, f"nothing more came after {self.seen!r}"
        try:
            more = os.read(self._screen, 65536)
        except OSError:  # so Linux tells that nobody holds the other side
            return False
        self._seen += more
        return bool(more)


@contextmanager
def at_terminal(stack: RunningStack, *arguments: str, pager: str = "cat") -> Iterator[Terminal]:
    screen, theirs = os.openpty()
    try:
        ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
        command = [sys.executable, "-c", _AT_TERMINAL, sys.executable, "-m", "ctl", *arguments]
        environment = {**os.environ, "TRACE_HOME": str(stack.home.root), "TERM": "xterm", "PAGER": pager}
        for name in ("COLUMNS", "LINES", "NO_COLOR", "CI"):
            environment.pop(name, None)
        process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT, env=environment)
    finally:
        os.close(theirs)
    try:
        yield Terminal(screen, process)
    finally:
        process.kill()
        process.wait()
        os.close(screen)


def test_a_query_shows_what_it_reads_and_ctrl_c_stops_it(stack: RunningStack) -> None:
    with at_terminal(stack, "query", _ENDLESS) as terminal:
        terminal.see(r"0:0\d:\d\d reads \d+ files?, [\d.]+ KiB +Ctrl-C stops it")
        assert [query.sql for query in _running(stack)] == [_ENDLESS]
        terminal.press(_CTRL_C)
        assert terminal.end() == _CTRL_C_ENDED
        assert "Traceback" not in terminal.seen
    last = stack.tracectl("queries", "history", "-n", "1", "--output", "json").stdout
    assert _running(stack) == []
    assert "QUERY_CANCELED" in last


def test_rows_that_do_not_fit_go_to_the_pager(stack: RunningStack, tmp_path: Path) -> None:
    pager = tmp_path / "pager"
    pager.write_text(f"#!/bin/sh\ncat > '{tmp_path / 'paged'}'\n")
    pager.chmod(0o700)
    with at_terminal(stack, "query", "select number from eth.blocks order by 1", pager=str(pager)) as terminal:
        assert terminal.end() == 0, terminal.seen
    paged = (tmp_path / "paged").read_text()
    assert "500000" in paged
    assert "the first 1,000 rows" in paged
    assert "500000" not in terminal.seen
    with at_terminal(stack, "query", "select max(number) as n from eth.blocks", pager="false") as terminal:
        assert terminal.end() == 0, terminal.seen
    assert "501000" in terminal.seen


def _running(stack: RunningStack) -> list[api.RunningQuery]:
    return list(stack.connection.queries.ListQueries(api.ListQueriesRequest()).queries)
