"""Units on their way into one operator's process: given, handed over as the process has credit and the worker a free
slot, ended.

A unit that waits here costs nothing but its lease. Only one that was handed over occupies a slot.
"""

import asyncio
from collections import deque
from collections.abc import Callable

from traceapi.operator.v1.operator_service_pb2 import CancelNotice, OperatorTask, ReceiveWorkResponse, WorkUnit
from wrapper.unit import Unit

_MESSAGE_BYTES = 2 << 20
_MAX_CREDITS = 10_000
_MAX_SOURCES = 64


class Slots:
    """How many units may be in operators' hands at once, over all processes. Sources run beside: they may never end."""

    def __init__(self, capacity: int) -> None:
        self._free = capacity
        self._sources = _MAX_SOURCES
        self._freed: list[Callable[[], None]] = []

    def subscribe(self, freed: Callable[[], None]) -> None:
        """`freed` is called whenever a slot becomes free."""
        self._freed.append(freed)

    def unsubscribe(self, freed: Callable[[], None]) -> None:
        self._freed.remove(freed)

    def take(self, unit: Unit) -> bool:
        """Whether there was one."""
        free = self._sources if unit.is_source else self._free
        if not free:
            return False
        self._add(unit, -1)
        return True

    def release(self, unit: Unit) -> None:
        self._add(unit, 1)
        for freed in self._freed:
            freed()

    def _add(self, unit: Unit, count: int) -> None:
        if unit.is_source:
            self._sources += count
        else:
            self._free += count


class Handover:
    """One process' units. The socket takes messages from here, whoever runs units gives them."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._waiting: deque[Unit] = deque()
        self._in_hand: dict[int, Unit] = {}
        self._task_units: dict[str, Unit] = {}
        self._cancellations: list[CancelNotice] = []
        self._credits = 0
        self._closing = False
        self._changed = asyncio.Event()
        slots.subscribe(self._changed.set)

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
        self._waiting.append(unit)
        self._changed.set()

    def take_back(self, unit: Unit) -> None:
        """The unit has ended, or the process has: it can no longer be named from there."""
        if unit in self._waiting:
            self._waiting.remove(unit)
        if self._in_hand.pop(unit.unit_id, None) is not None:
            for task in unit.tasks:
                self._task_units.pop(task.task_id, None)
            self._slots.release(unit)
            self._announce_head()
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
        """The process has ended."""
        self._slots.unsubscribe(self._changed.set)

    async def next_message(self) -> ReceiveWorkResponse | None:
        """What the process is to hear next; None when it is to leave."""
        while True:
            self._changed.clear()
            message = ReceiveWorkResponse(units=self._hand_over(), cancellations=self._cancellations)
            self._cancellations = []
            if message.units or message.cancellations:
                return message
            if self._closing and self.idle:
                return None
            await self._changed.wait()

    def _hand_over(self) -> list[WorkUnit]:
        """Units for which there is credit and a slot. A unit that finds no slot lets a source behind it pass."""
        handed: list[WorkUnit] = []
        size = 0
        for unit in list(self._waiting):
            if not self._credits or size >= _MESSAGE_BYTES:
                break
            if not self._slots.take(unit):
                continue
            self._waiting.remove(unit)
            self._credits -= 1
            self._in_hand[unit.unit_id] = unit
            self._task_units.update((task.task_id, unit) for task in unit.tasks)
            handed.append(_work_unit(unit))
            size += handed[-1].ByteSize()
            unit.handed.set()
        if size >= _MESSAGE_BYTES:
            self._changed.set()
        self._announce_head()
        return handed

    def _announce_head(self) -> None:
        """Processes work in the order in which they were handed units."""
        head = next(iter(self._in_hand.values()), None)
        if head is not None:
            head.at_head.set()


def _work_unit(unit: Unit) -> WorkUnit:
    """The unit without its lease."""
    message = WorkUnit(unit_id=unit.unit_id, state=unit.state)
    for task in unit.tasks:
        message.tasks.append(
            OperatorTask(
                task_id=task.task_id,
                attempt=task.attempt,
                scope=task.scope if task.HasField("scope") else None,
                event=task.event if task.HasField("event") else None,
                already_emitted=task.already_emitted,
            )
        )
    return message
