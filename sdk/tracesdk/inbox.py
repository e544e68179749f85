"""Work that has arrived and waits, and the cancellations of all that has not ended. Also: how much more to ask for."""

import threading
from collections import deque
from dataclasses import dataclass

from traceapi.operator.v1.operator_service_pb2 import ReceiveWorkResponse, WorkUnit
from tracesdk.cancellation import Cancellation

_SECONDS_AHEAD = 0.25  # so much work waits in the process; more would wait here while another worker is free
_FEWEST, _MOST = 2, 512


@dataclass(frozen=True, slots=True)
class ReceivedUnit:
    """A unit of work and its cancellation."""

    message: WorkUnit
    cancellation: Cancellation


class Inbox:
    """A queue between the thread that listens to the wrapper and the one that works."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._waiting: deque[ReceivedUnit] = deque()
        self._open: dict[int, Cancellation] = {}
        self._closed = False

    def add(self, response: ReceiveWorkResponse) -> list[int]:
        """Answers the units that were cancelled while they waited: nobody will see them any more."""
        with self._condition:
            for message in response.units:
                unit = ReceivedUnit(message, Cancellation())
                self._open[message.unit_id] = unit.cancellation
                self._waiting.append(unit)
            notices = {notice.unit_id: notice.reason for notice in response.cancellations}
            dropped = [unit.message.unit_id for unit in self._waiting if unit.message.unit_id in notices]
            for unit_id in dropped:
                del self._open[unit_id]
            self._waiting = deque(unit for unit in self._waiting if unit.message.unit_id not in notices)
            told = [(self._open.get(unit_id), reason) for unit_id, reason in notices.items()]
            self._condition.notify()
        for cancellation, reason in told:
            if cancellation is not None:  # else the unit has just ended
                cancellation.cancel(reason)
        return dropped

    def close(self) -> None:
        """Nothing more will come."""
        with self._condition:
            self._closed = True
            self._condition.notify()

    def next(self) -> ReceivedUnit | None:
        """Waits for a unit; None once nothing more will come."""
        with self._condition:
            self._condition.wait_for(lambda: self._waiting or self._closed)
            return self._waiting.popleft() if self._waiting else None

    def ended(self, unit: ReceivedUnit) -> None:
        with self._condition:
            self._open.pop(unit.message.unit_id, None)


class Credits:
    """How many units to ask for: enough to keep the process busy for a moment, by the time that units took lately."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._average = 0.0
        self.outstanding = 0

    def first(self) -> int:
        """Asked for before anything is known about the units."""
        self.outstanding = min(_FEWEST, self._most)
        return self.outstanding

    def finished(self, seconds: float) -> int:
        """Takes note that a unit took so long, and returns how many to ask for now; 0 while asking is not worth it."""
        self._average = seconds if not self._average else 0.8 * self._average + 0.2 * seconds
        self.outstanding -= 1
        wanted = int(_SECONDS_AHEAD / max(self._average, 1e-6))
        wanted = min(max(wanted, _FEWEST), self._most)
        more = wanted - self.outstanding
        if more < max(1, wanted // 4):
            return 0
        self.outstanding += more
        return more
