"""How many units a worker wants to have at hand: a rule of times only."""

from collections import deque

_SECONDS_AHEAD = 0.5


class Window:
    """As many as operators handed in within the last half second, and `least` at least.

    Where units are long, so few wait here that another worker could do; where they are short, so many are at hand that
    nobody waits for claims, however long these take. It grows by itself: with a claim answered in less than half a
    second, more units end in that time than the window holds.
    """

    def __init__(self, least: int) -> None:
        self._least = least
        self._ends: deque[float] = deque()

    def note(self, now: float) -> None:
        """An operator handed a unit in. `now` is in seconds and never goes back."""
        self._ends.append(now)

    def shrinks_within(self, now: float) -> float | None:
        """So many seconds, if nothing is handed in; None where it stays as it is."""
        return _SECONDS_AHEAD if self.size(now) > self._least else None

    def size(self, now: float) -> int:
        while self._ends and self._ends[0] < now - _SECONDS_AHEAD:
            self._ends.popleft()
        return max(self._least, len(self._ends))
