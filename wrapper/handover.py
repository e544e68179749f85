"""Units on their way into one operator's process: given, handed over as the process has credit and the worker a free
slot, ended. What is live passes the others that wait.

A unit that waits here costs nothing but its lease. A process says by its credits how many units it wants to have at
hand, by how long units take it; it works on one of them at a time. So what occupies a slot is a process with units in
its hands, however many they are.
"""

import asyncio
import time
from collections.abc import Callable

from traceapi.operator.v1.operator_service_pb2 import CancelNotice, ReceiveWorkResponse
from wrapper.unit import Unit

_MESSAGE_BYTES = 2 << 20
_MAX_CREDITS = 10_000
_PASSES = 7


class _Precedence:
    """What is live goes first; so many times in a row, where others wait: they lose time, not their turn."""

    def __init__(self) -> None:
        self._passes = 0

    def live_first(self, *, live: bool, others: bool) -> bool:
        """Whether the next turn is one of a live one; asked once a turn. Both say whether any waits."""
        first = live and (not others or self._passes < _PASSES)
        self._passes = self._passes + 1 if first and others else 0
        return first


class Slots:
    """How many processes may work at once. The others stand in line; who works while there is one lets go as soon as
    its hands are empty, so that everybody's turn comes."""

    def __init__(self, capacity: int) -> None:
        self._free = capacity
        self._line: dict[Callable[[], None], bool] = {}  # in the order of arrival; whether something live waits there
        self._precedence = _Precedence()

    @property
    def contended(self) -> bool:
        """Whether somebody stands in line."""
        return bool(self._line)

    def take(self, called: Callable[[], None], *, live: bool = False) -> bool:
        """Whether there was one. If not, `called` is called when it is time to ask again."""
        if not self._free:
            self._line[called] = live
            return False
        self._free -= 1
        self.leave_line(called)
        return True

    def leave_line(self, called: Callable[[], None]) -> None:
        self._line.pop(called, None)

    def give_back(self) -> None:
        """Calls the whole line, from its head: the first may not want one any more."""
        self._free += 1
        live = self._precedence.live_first(live=any(self._line.values()), others=not all(self._line.values()))
        for called in sorted(self._line, key=lambda called: self._line[called] is not live):
            called()


class Handover:
    """One process' units. The socket takes messages from here, whoever runs units gives them."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._working = False
        self._waiting: dict[int, Unit] = {}  # by id, in the order in which they came
        self._live: dict[int, Unit] = {}  # likewise
        self._precedence = _Precedence()
        self._in_hand: dict[int, Unit] = {}
        self._task_units: dict[str, Unit] = {}
        self._cancellations: list[CancelNotice] = []
        self._credits = 0
        self._closing = False
        self._closed = False
        self._timer: asyncio.TimerHandle | None = None
        self._changed = asyncio.Event()

    @property
    def idle(self) -> bool:
        return not (self._live or self._waiting or self._in_hand)

    @property
    def tasks_in_hand(self) -> int:
        return len(self._task_units)

    def in_hand(self, unit_id: int) -> Unit | None:
        """A unit that the process has; None for any other."""
        return self._in_hand.get(unit_id)

    def unit_of(self, task_id: str) -> Unit | None:
        """The unit, in the process' hands, that has the task; None for any other."""
        return self._task_units.get(task_id)

    def give(self, unit: Unit) -> None:
        (self._live if unit.is_live else self._waiting)[unit.unit_id] = unit
        self._changed.set()

    def take_back(self, unit: Unit) -> None:
        """The unit has ended, or the process has: it can no longer be named from there."""
        self._waiting.pop(unit.unit_id, None)
        self._live.pop(unit.unit_id, None)
        if self._in_hand.pop(unit.unit_id, None) is not None:
            for task in unit.tasks:
                self._task_units.pop(task.task_id, None)
            self._begin_head()
        self._rest()
        self._changed.set()

    def cancel(self, unit: Unit) -> None:
        """Tells the process to stop the unit."""
        self._cancellations.append(CancelNotice(unit_id=unit.unit_id, reason=unit.stop_reason))
        self._changed.set()

    def add_credits(self, count: int) -> None:
        self._credits = min(self._credits + count, _MAX_CREDITS)
        self._changed.set()

    def reset_credits(self) -> None:
        """The process opened its stream anew."""
        self._credits = 0

    def leave(self) -> None:
        """The process is to leave when nothing is in its hands any more."""
        self._closing = True
        self._changed.set()

    def close(self) -> None:
        """The process has ended: who runs its units hears of it."""
        self._closed = True
        for unit in [*self._in_hand.values(), *self._live.values(), *self._waiting.values()]:
            unit.announce()
        self._slots.leave_line(self._changed.set)
        if self._timer is not None:
            self._timer.cancel()

    async def next_message(self) -> ReceiveWorkResponse | None:
        """What the process is to hear next; None when it is to leave."""
        while True:
            self._changed.clear()
            message = ReceiveWorkResponse(cancellations=self._cancellations)
            self._cancellations = []
            self._hand_over(message)
            if message.units or message.cancellations:
                return message
            if self._closing and self.idle:
                return None
            await self._changed.wait()

    def _hand_over(self, message: ReceiveWorkResponse) -> None:
        """Adds units for which there is credit, if the process may work."""
        if not self._able():
            self._slots.leave_line(self._changed.set)
            return
        if not self._may_work():
            return
        size = 0
        while self._able() and size < _MESSAGE_BYTES:
            size += self._take_in_hand(message)
        if self._able():
            self._changed.set()
        self._begin_head()

    def _may_work(self) -> bool:
        if self._working:
            return not (self._in_hand and self._slots.contended)
        self._working = self._slots.take(self._changed.set, live=bool(self._live))
        return self._working

    def _rest(self) -> None:
        """Gives the slot back where nothing can be done now, or where others wait."""
        if self._working and not self._in_hand and (self._slots.contended or not self._able()):
            self._working = False
            self._slots.give_back()

    def _able(self) -> bool:
        """Whether there is a unit to hand over, and credit for it."""
        return self._credits > 0 and bool(self._live or self._waiting)

    def _take_in_hand(self, message: ReceiveWorkResponse) -> int:
        """Hands the next one over. Answers its size."""
        live_first = self._precedence.live_first(live=bool(self._live), others=bool(self._waiting))
        waiting = self._live if live_first else self._waiting
        unit = waiting.pop(next(iter(waiting)))
        self._credits -= 1
        self._in_hand[unit.unit_id] = unit
        self._task_units.update((task.task_id, unit) for task in unit.tasks)
        unit.handed = True
        return _add_unit(message, unit)

    def _begin_head(self) -> None:
        """Processes work in the order in which they were handed units: the time of the first begins now."""
        head = self._head
        if head is not None and head.began is None and not self._closed:
            head.began = time.monotonic()
            if self._timer is None and head.job.timeout is not None:
                self._watch_head()

    def _watch_head(self) -> None:
        """Looks whether the first has used its time up; one timer for all units, which are of one job."""
        self._timer, head = None, self._head
        if head is None or head.began is None or head.job.timeout is None:
            return
        left = head.began + head.job.timeout - time.monotonic()
        if left > 0:
            self._timer = asyncio.get_running_loop().call_later(left, self._watch_head)
        else:
            head.overdue = True
            head.announce()

    @property
    def _head(self) -> Unit | None:
        return next(iter(self._in_hand.values()), None)


def _add_unit(message: ReceiveWorkResponse, unit: Unit) -> int:
    """The unit without its lease, in place: protobuf copies what is set as a message. Answers its size."""
    added = message.units.add(unit_id=unit.unit_id, state=unit.state)
    for task in unit.tasks:
        told = added.tasks.add(task_id=task.task_id, attempt=task.attempt, already_emitted=task.already_emitted)
        if task.HasField("scope"):
            told.scope.CopyFrom(task.scope)
        if task.HasField("event"):
            told.event.CopyFrom(task.event)
    return added.ByteSize()
