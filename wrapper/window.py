"""How many units a worker wants to have at hand: a rule of times only."""

from collections import deque

_SECONDS_AHEAD = 0.5
_SECONDS_AHEAD_OF_LIVE = 0.05
_MIXED_SECONDS = 2.0


class Window:
    """As many as operators handed in within the last half second, and `least` at least.

    Where units are long, so few wait here that another worker could do; where they are short, so many are at hand that
    nobody waits for claims, however long these take. It grows by itself: with a claim answered in less than half a
    second, more units end in that time than the window holds.

    What is at hand is also what a fresh event's task waits for, in all programs that it passes. So where a worker has
    both live tasks and others, it takes a tenth of that ahead: the others go on at two thirds of their rate.
    """

    def __init__(self, least: int) -> None:
        self._least = least
        self._ends: deque[float] = deque()
        self._late_ends: deque[float] = deque()
        self._last_live = self._last_other = float("-inf")

    def note(self, now: float, *, live: bool) -> None:
        """An operator handed a unit in. `now` is in seconds and never goes back."""
        self._ends.append(now)
        self._late_ends.append(now)
        if live:
            self._last_live = now
        else:
            self._last_other = now

    def shrinks_within(self, now: float) -> float | None:
        """So many seconds, if nothing is handed in; None where it stays as it is."""
        if self.size(now) == self._least:
            return None
        return _SECONDS_AHEAD_OF_LIVE if self._mixed(now) else _SECONDS_AHEAD

    def size(self, now: float) -> int:
        _forget(self._ends, now - _SECONDS_AHEAD)
        _forget(self._late_ends, now - _SECONDS_AHEAD_OF_LIVE)
        return max(self._least, len(self._late_ends if self._mixed(now) else self._ends))

    def _mixed(self, now: float) -> bool:
        return min(self._last_live, self._last_other) > now - _MIXED_SECONDS


def _forget(ends: deque[float], before: float) -> None:
    while ends and ends[0] < before:
        ends.popleft()
