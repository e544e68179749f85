"""Standard output and error as the shell left them: read by somebody who goes early, on a full disk, or closed.

Who reads a listing and has seen enough (`| head`) ends the command, by SIGPIPE, as with every program that prints: no
words, status 141 in a shell. Commands that start or stop something go on to their end instead.
"""

import contextlib
import errno
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO

from ctl.errors import CtlError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def use_standard_streams() -> None:
    """Once, at the start. What is closed becomes nothing, so that no file or socket of ours comes to stand there."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest that is free: this one
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
    for stream in (sys.stdout, sys.stderr):  # a letter that the terminal does not have is no reason to fail
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)


@contextmanager
def outliving_readers() -> Iterator[None]:
    """Within, what nobody reads any more is a BrokenPipeError of who writes it, and not this process's end."""
    former = signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGPIPE, former)


@contextmanager
def even_unheard(stream: IO[str]) -> Iterator[None]:
    """For words beside the work: that they cannot be written to the stream hinders nothing."""
    try:
        yield
        stream.flush()
    except OSError:
        to_nowhere(stream)


def to_nowhere(stream: IO[str]) -> None:
    """What is still to be written to it is dropped, also at the process's end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def written(run: Callable[[], None]) -> None:
    """Runs it, and sees to it that all it printed is written. Raises CtlError where that cannot be."""
    try:
        try:
            run()
        finally:
            sys.stdout.flush()
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        with contextlib.suppress(OSError):
            to_nowhere(sys.stdout)
        raise CtlError(
            f"cannot write: {error.strerror}",
            where=error.filename or "standard output",
            remedy="make room, or write it elsewhere",
        ) from error
