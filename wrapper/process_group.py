"""Signals to an operator's process and to all that it has started.

Outside a sandbox that is one process group, which the process leads. A sandbox is a process around the code, and the
code is in a session of its own, led by the sandbox's child: the first process of its namespace. SIGTERM to the sandbox
would end it, and with it, by SIGKILL, everything inside; so signals go to the group of that child. It is itself deaf to
SIGTERM, as every first process is, and where it is killed, the kernel ends all that is in the namespace before the
sandbox hears of it: once that has ended, so has everything.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence
from pathlib import Path


class ProcessGroup:
    """Of the process with this pid, which leads a group of its own."""

    def __init__(self, leader: int, *, sandboxed: bool) -> None:
        self._leader = leader
        self._sandboxed = sandboxed

    async def leader_has_ended(self) -> None:
        """Returns once it has, whoever holds its pipes open: asyncio waits for those too."""
        try:
            descriptor = os.pidfd_open(self._leader)
        except ProcessLookupError:
            return
        ended, loop = asyncio.Event(), asyncio.get_running_loop()
        try:
            loop.add_reader(descriptor, ended.set)
            await ended.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)

    def ask_to_end(self) -> None:
        """SIGTERM to the code and what it has started. Only while the leader runs."""
        for group in self._inside():
            _signal(group, signal.SIGTERM)

    def end(self) -> None:
        """SIGKILL to all of it; also to what is left of it right after the leader's end, when nobody else can have its
        number yet."""
        for group in self._inside() or [self._leader]:
            _signal(group, signal.SIGKILL)

    def _inside(self) -> Sequence[int]:
        """The groups of the code; none where a sandbox has not begun, or has ended."""
        if not self._sandboxed:
            return [self._leader]
        try:
            children = Path(f"/proc/{self._leader}/task/{self._leader}/children").read_text()
        except OSError:
            return []
        return [int(child) for child in children.split()]


def _signal(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
