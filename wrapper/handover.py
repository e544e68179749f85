"""Units on their way into one operator's process: given, handed over as the process has credit and the worker a free
slot, ended.

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


class Slots:
    """How many processes may work at once. The others stand in line; who works while there is one lets go as soon as
    its hands are empty, so that everybody's turn comes."""

    def __init__(self, capacity: int) -> None:
        self._free = capacity
        self._line: dict[Callable[[], None], None] = {}  # in the order of arrival

    @property
    def contended(self) -> bool:
        """Whether somebody stands in line."""
        return bool(self._line)

    def take(self, called: Callable[[], None]) -> bool:
        """Whether there was one. If not, `called` is called when it is time to ask again."""
        if not self._free:
            self._line[called] = None
            return False
        self._free -= 1
        self.leave_line(called)
        return True

    def leave_line(self, called: Callable[[], None]) -> None:
        self._line.pop(called, None)

    def give_back(self) -> None:
        """Calls the whole line, from its head: the first may not want one any more."""
        self._free += 1
        for called in list(self._line):
            called()


class Handover:
    """One process' units. The socket takes messages from here, whoever runs units gives them."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._working = False
        self._waiting: dict[int, Unit] = {}  # by id, in the order in which they came
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
        return not self._waiting and not self._in_hand

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
        self._waiting[unit.unit_id] = unit
        self._changed.set()

    def take_back(self, unit: Unit) -> None:
        """The unit has ended, or the process has: it can no longer be named from there."""
        self._waiting.pop(unit.unit_id, None)
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
        for unit in [*self._in_hand.values(), *self._waiting.values()]:
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
        if not (self._waiting and self._credits):
            self._slots.leave_line(self._changed.set)
            return
        if not self._may_work():
            return
        size = 0
        for unit in list(self._waiting.values())[: self._credits]:
            if size >= _MESSAGE_BYTES:
                self._changed.set()
                break
            size += _add_unit(message, unit)
            self._take_in_hand(unit)
        self._begin_head()

    def _may_work(self) -> bool:
        if self._working:
            return not (self._in_hand and self._slots.contended)
        self._working = self._slots.take(self._changed.set)
        return self._working

    def _rest(self) -> None:
        """Gives the slot back where nothing can be done now, or where others wait."""
        able = self._waiting and self._credits and not self._slots.contended
        if self._working and not self._in_hand and not able:
            self._working = False
            self._slots.give_back()

    def _take_in_hand(self, unit: Unit) -> None:
        del self._waiting[unit.unit_id]
        self._credits -= 1
        self._in_hand[unit.unit_id] = unit
        self._task_units.update((task.task_id, unit) for task in unit.tasks)
        unit.handed = True

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
