"""The process that cells are forked of: it has loaded Python's modules and the engine, and opened a database.

To load them takes a fifth of a second of CPU, to fork a few milliseconds. What makes forking safe: it has one thread,
for ever (the engine starts its own only when a database may use several, which is said in the fork); it is alone in its
sandbox; it knows nothing of any query, and a fork serves one and ends. It is asked over a socket: a message names the
cell's folder and brings what the cell is given and a pipe for its end; the answer names it again, and brings a
descriptor of the process or says what is amiss with this one cell. Once nobody asks it any more it ends, after its last
cell.

Each cell is two forks. The first leaves the namespaces of this process, so that the second is the first process of new
ones; it stays to tell how the second one ended.
"""

import contextlib
import gc
import importlib
import os
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import duckdb

from queryd.engine import calls, cell, messages, session, wall
from queryd.engine.answers import AnswerWriter
from queryd.engine.arrow_messages import MessageWriter, batch_rows, serialized
from queryd.engine.limiting import limit
from queryd.engine.messages import CellLimits, Job, Relation
from queryd.engine.slots import SlotWriter
from queryd.gate import check

LONGEST_NAME = LONGEST_WORD = 255  # bytes
DESCRIPTORS = 6
"""Of a request: what the cell is given (queryd.engine.processes.Given), and where its end is told."""
_REHEARSAL_FILE = f"{wall.CELLS}/rehearsal.parquet"
_REHEARSAL = "SELECT s, count(*) AS c, sum(n) AS t FROM rehearsal WHERE n > 3 GROUP BY s ORDER BY s LIMIT 3"


def main() -> None:
    limits = messages.unpack_limits(sys.argv[1])
    # For all forks, and before anything is loaded: Arrow's allocator takes a gibibyte of address space if it may.
    limit(limits)
    # Before the database: the engine would keep a thread for each further one.
    alone = CellLimits(limits.memory_bytes, 1, limits.scratch_bytes)
    opened = cell.prepared(alone, Path(wall.SCRATCH))
    # Made elsewhere and moved there: forks of the process before this one may be reading it.
    rows = "SELECT range AS n, 'a' AS s FROM range(10)"
    opened.execute(f"COPY ({rows}) TO '{_REHEARSAL_FILE}' (FORMAT parquet, USE_TMP_FILE true)")
    own_files = sys.argv[3] == "own"
    if own_files:
        importlib.import_module("queryd.engine.ranged_files")
    with session.forked_session(opened) as rehearsed:
        _rehearse(rehearsed)
    if (threads := len(list(Path("/proc/self/task").iterdir()))) != 1:
        raise SystemExit(f"a process with {threads} threads cannot be forked")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the first forks
    gc.collect()
    gc.freeze()  # or the first collection of each fork would copy all pages
    asked = socket.socket(fileno=int(sys.argv[2]))
    _answer(asked, b"", b"ready")
    _Zygote(asked, opened, limits, own_files=own_files).serve()


def _rehearse(connection: duckdb.DuckDBPyConnection) -> None:
    """Does what a query does, over a file of ten rows: what is loaded and made at the first time is then there."""
    job = Job(_REHEARSAL, (Relation(("rehearsal",), paths=(_REHEARSAL_FILE,)),), 10)
    check(connection, job.sql)
    session.relate(connection, job, [])
    answer = session.answer(connection, job.sql, [])
    reader = session.batches(answer, batch_rows(session.schema(answer)))
    writer = MessageWriter(reader.schema)
    for batch in reader:
        for message in writer.messages(batch):
            serialized(message)
    connection.execute("DROP VIEW rehearsal")


@dataclass(frozen=True, slots=True)
class _Zygote:
    """`opened` is a database with one thread, in which nothing is."""

    asked: socket.socket
    opened: duckdb.DuckDBPyConnection
    limits: CellLimits
    own_files: bool

    def serve(self) -> None:
        """Until queryd asks no more; then until the last cell has gone, for they end with this process."""
        while True:
            name, descriptors, _, _ = socket.recv_fds(self.asked, LONGEST_NAME, DESCRIPTORS)
            if not name:
                break
            try:
                if os.fork() == 0:
                    self._fork(name, descriptors)
            except OSError as error:
                _answer(self.asked, name, str(error).encode())
            for descriptor in descriptors:
                os.close(descriptor)
        with contextlib.suppress(ChildProcessError):
            os.wait()  # as SIGCHLD is ignored, for all of them

    def _fork(self, name: bytes, descriptors: Sequence[int]) -> NoReturn:
        """The first fork. No fork ever goes back into the loop."""
        try:
            *given, told = descriptors
            with self.asked:  # what befalls this process later is no answer to a later request
                pid = self._begin(name, given)
            _, status = os.waitpid(pid, 0)
            os.write(told, str(status).encode())
        finally:
            os._exit(0)

    def _begin(self, name: bytes, given: Sequence[int]) -> int:
        """The second fork's number. Whatever is in its way is told."""
        try:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            wall.die_with_parent()
            wall.die_first()
            wall.leave_namespaces(os.getuid(), os.getgid())
            pid = os.fork()
            if pid == 0:
                self._become_cell(name.decode(), given)
            for one in given:
                os.close(one)
            descriptor = os.pidfd_open(pid)
        except Exception as error:
            _answer(self.asked, name, str(error).encode())
            raise
        _answer(self.asked, name, b"forked", [descriptor])
        os.close(descriptor)
        return pid

    def _become_cell(self, name: str, given: Sequence[int]) -> NoReturn:
        """The second fork."""
        try:
            for number, one in enumerate(given):
                os.dup2(one, number)
            os.closerange(len(given), os.sysconf("SC_OPEN_MAX"))
            os.setsid()
            wall.end_at_abort()
            # Also here: a page that a fork writes to for the first time is copied then, and no query is to wait for it.
            connection = session.forked_session(self.opened)
            _rehearse(connection)
            *_, slots, ranges = range(len(given))
            writer = SlotWriter(slots)  # while there is /proc
            wall.raise_wall(name, own_files=self.own_files)
            calls.refuse_calls()
            os.chdir(wall.SCRATCH)
            requests, answers = cell.streams()
            # They have what the wall has left to the one that starts them.
            session.use_threads(connection, self.limits.threads)
            cell.serve(connection, AnswerWriter(answers, requests, writer), ranges)
        except BaseException:  # noqa: BLE001 - its last words, whatever it is
            sys.excepthook(*sys.exc_info())
            sys.stderr.flush()
        finally:
            os._exit(1)


def _answer(asked: socket.socket, name: bytes, word: bytes, descriptors: Sequence[int] = ()) -> None:
    """Nobody may be there to hear it: that is for the next look at the socket to find."""
    with contextlib.suppress(ConnectionError):
        socket.send_fds(asked, [name, b"\0", word[:LONGEST_WORD]], descriptors)


if __name__ == "__main__":
    main()
