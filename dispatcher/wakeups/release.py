"""The release loop: picks who may go next and hands the ids to the channel, after the commit.

It runs when something may have become ready: tasks were made, a watermark moved; when a place became free, by an end or
a worker's credits, and something waits for one; and when the lookout finds what other replicas caused. Signals that
arrive while it works are one more round, not one each.
Wake-ups without an answer are looked for only when some are due. Its commits do not wait for the disk: a crash of the
server that undoes one leaves its tasks queued, and their wake-ups do nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

from dispatcher.db.pipeline import pipelined, together
from dispatcher.db.pool import Pool
from dispatcher.db.rows import Connection, rows
from dispatcher.db.statements import Statements
from dispatcher.wakeups.dealing import JobLine, deal
from dispatcher.wakeups.metering import urgency
from dispatcher.wakeups.port import WakeupChannel
from dispatcher.wakeups.queues import own_queue
from kernel.crash import crash

_sql = Statements.load("dispatcher.wakeups")

MAX_ROOM = 2000
"""Tasks that one round releases at most per queue: rows of one transaction."""
MAX_WITHDRAWN = 2000
"""Tasks that it withdraws at most before."""


class Releaser:
    """`run_once` is a round; `signal` asks for one; the duty that runs it waits on `wait`."""

    def __init__(
        self, pool: Pool, channel: WakeupChannel, *, unanswered: timedelta, again: WakeupChannel | None = None
    ) -> None:
        """`again` carries what is sent again, where that is not the channel that may have lost it."""
        self._pool = pool
        self._channel = channel
        self._again = again or channel
        self._unanswered = unanswered
        self._wake = asyncio.Event()
        self._resend = True
        self._done: set[str] = set()  # queues in which nothing waited for a place, as far as is known

    def signal(self) -> None:
        """Something may have become ready."""
        self._wake.set()

    def signal_place(self) -> None:
        """A place has become free. Most of the time nothing has waited for one, and there is no round."""
        if any(room > 0 and queue not in self._done for queue, room in self._channel.room().items()):
            self._wake.set()

    def watched(self) -> Mapping[str, int]:
        """By queue that some worker watches from here, how many wake-ups it can take now."""
        room = self._channel.room()
        return {queue: room.get(queue, 0) for queue in sorted(self._channel.served_queues())}

    def signal_unanswered(self) -> None:
        """Wake-ups are due to be sent again."""
        self._resend = True
        self._wake.set()

    def nudge(self, running: Mapping[str, Sequence[str]]) -> None:
        """Asks workers to look at tasks that they have: by worker, what was cancelled."""
        for worker_id, task_ids in running.items():
            self._channel.nudge(worker_id, task_ids)

    async def wait(self) -> None:
        """Returns at a signal."""
        await self._wake.wait()

    async def run_once(self) -> int:
        """Releases what may go and has room.

        Answers how many; with more room than that, nothing is left that may go.
        """
        self._wake.clear()
        self._done.clear()
        resend, self._resend = self._resend, False
        again = await self._hand_out(self._again, self._release_again) if resend else _Handed()
        first = await self._hand_out(self._channel, self._release)
        if again.room_used or first.room_used:
            self._resend |= again.room_used
            self._wake.set()
        return again.tasks + first.tasks

    async def _hand_out(self, channel: WakeupChannel, pick: "_Pick") -> "_Handed":
        """A transaction for each queue that has room."""
        handed = _Handed()
        for queue in sorted(channel.room()):
            # Asked anew for each queue: a worker's credits are for all of its queues together.
            room = min(channel.room().get(queue, 0), MAX_ROOM)
            if room == 0:
                continue
            async with self._pool.connection() as connection, pipelined(connection, flushed=False, planned_once=True):
                task_ids = await pick(connection, queue, room)
                crash("release.written")
            crash("release.committed")
            if task_ids:
                channel.send(queue, task_ids)
                handed.tasks += len(task_ids)
                handed.room_used |= len(task_ids) == room
        return handed

    async def _release(self, connection: Connection, queue: str, room: int) -> list[str]:
        released = await release(connection, queue, room)
        if released.done:
            self._done.add(queue)
        if released.withdrawn == MAX_WITHDRAWN:
            self._wake.set()
        return released.task_ids

    async def _release_again(self, connection: Connection, queue: str, room: int) -> list[str]:
        parameters = {"queue": queue, "room": room, "unanswered": self._unanswered}
        cursor = await connection.execute(_sql.release_again, parameters)
        return [row[0] for row in await cursor.fetchall()]


_Pick = Callable[[Connection, str, int], Awaitable[list[str]]]


@dataclass(slots=True)
class _Handed:
    """How many ids went out, and whether some queue had no more room for further ones."""

    tasks: int = 0
    room_used: bool = False


class Released(NamedTuple):
    """What went, the most urgent first. `done` where nothing is left that waits for a place of any kind. `withdrawn` is
    how many were taken back before."""

    task_ids: list[str]
    done: bool
    withdrawn: int


async def release(connection: Connection, queue: str, room: int) -> Released:
    """Locks what is limited, then counts, then deals: what a replica counts meanwhile is what is committed then.

    What was released of a job that is paused by now is withdrawn first: it would keep its places from others, or be out
    beside what has them when the job is resumed.
    """
    settings, limited = await together(own_queue(connection, queue), _own_limits(connection, queue))
    lines = await _job_lines(connection, queue, room, limited)
    withdrawn = 0
    if stranded := {line.job_version_id for line in lines if line.stranded}:
        withdrawn = await withdraw(connection, stranded)
        lines = await _job_lines(connection, queue, room, limited)
    picks = deal(lines, settings, room)
    taken = sum(pick.tasks for pick in picks)
    unlimited = not any(line.ordered or line.max_concurrency is not None for line in lines)
    done = unlimited and taken < room and taken == sum(line.ready for line in lines)
    if not picks:
        return Released([], done, withdrawn)
    parameters = {
        "job_version_ids": [pick.line.job_version_id for pick in picks],
        "origins": [pick.line.origin for pick in picks],
        "counts": [pick.tasks for pick in picks],
        "covered": [pick.line.covered for pick in picks],
        "before": [pick.line.before for pick in picks],
    }
    cursor = await connection.execute(_sql.release, parameters)
    staged = {line.job_version_id for line in lines if line.staged}
    released = sorted(await cursor.fetchall(), key=lambda row: urgency(row[1], staged=row[2] in staged))
    return Released([row[0] for row in released], done, withdrawn)


async def _job_lines(connection: Connection, queue: str, room: int, limited: Sequence[str]) -> list[JobLine]:
    return await rows(connection, _sql.job_lines, JobLine, queue=queue, room=room, limited=limited)


async def withdraw(connection: Connection, job_version_ids: Collection[str]) -> int:
    """What is released of these goes back in line; answers how many tasks, at most MAX_WITHDRAWN."""
    parameters = {"job_version_ids": sorted(job_version_ids), "limit": MAX_WITHDRAWN}
    cursor = await connection.execute(_sql.withdraw, parameters)
    return len(await cursor.fetchall())


async def _own_limits(connection: Connection, queue: str) -> list[str]:
    """Job versions whose room this round counts."""
    cursor = await connection.execute(_sql.own_limits, {"queue": queue})
    return [row[0] for row in await cursor.fetchall()]
