"""Identities: uuid version 7 (RFC 9562) as canonical lowercase text, the form in which they travel and are stored.

Ids of one process ascend, also within a millisecond and when the clock steps back, so that rows made together lie
together in their index. Whoever makes ids takes an `IdSource`, so that tests can say which ones come.
"""

import os
import random
import secrets
import threading
import time
from collections.abc import Callable

IdSource = Callable[[], str]

_COUNTER_BITS = 74  # rand_a and rand_b of the RFC as one number (its method 2, "monotonic random")
_COUNTER_MASK = (1 << _COUNTER_BITS) - 1
_STEP_BITS = 32


RandomBits = Callable[[int], int]


class _Forks:
    """How often this process came of another one by a fork: cheaper to ask than the system for its number."""

    count = 0

    @classmethod
    def note(cls) -> None:
        cls.count += 1


os.register_at_fork(after_in_child=_Forks.note)


def seeded_bits() -> RandomBits:
    """Random bits that start from the system's: ids are no secrets, and to ask the system for each is slow."""
    return random.Random(secrets.randbits(256)).getrandbits


class Uuid7Source:
    """Makes ascending ids from a clock (milliseconds since 1970) and random bits, seeded anew in every process."""

    def __init__(
        self,
        clock: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        seed: Callable[[], RandomBits] = seeded_bits,
    ) -> None:
        self._clock = clock
        self._seed = seed
        self._random_bits: RandomBits
        self._lock = threading.Lock()
        self._forks = -1
        self._millisecond = -1
        self._counter = 0

    def __call__(self) -> str:
        """The next id, greater than every one before it from this source."""
        with self._lock:
            self._advance()
            millisecond, counter = self._millisecond, self._counter
        number = millisecond << 80 | 0x7 << 76 | (counter >> 62) << 64 | 0b10 << 62 | counter & ((1 << 62) - 1)
        text = f"{number:032x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"

    def _advance(self) -> None:
        now = self._clock()
        # After a fork both processes hold the same counter and the same random bits to come: the child starts anew.
        forked = self._forks != _Forks.count
        if forked:
            self._forks = _Forks.count
            self._random_bits = self._seed()
        if forked or now > self._millisecond:
            self._millisecond = max(now, self._millisecond)
            self._counter = self._random_bits(_COUNTER_BITS)
            return
        self._counter += 1 + self._random_bits(_STEP_BITS)
        if self._counter > _COUNTER_MASK:
            # The millisecond's numbers are used up: run ahead of the clock, as the RFC allows.
            self._millisecond += 1
            self._counter = self._random_bits(_COUNTER_BITS)


new_id: IdSource = Uuid7Source()
"""The ids of this process."""
