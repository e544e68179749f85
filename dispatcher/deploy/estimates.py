"""How long tasks take, from how long others took. Pure.

n tasks of which m earlier ones took a mean time with a spread s, p at once: n * mean / p seconds. That is wrong by what
the n times vary among themselves, s * sqrt(n), and by what the mean of only m is wrong, n * s / sqrt(m); 1.28 such
deviations are half of an 80 % interval, as far as the sum is normal. Not counted: that what comes is unlike what was,
that workers come and go, and that other work shares them.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

_QUANTILE_80 = 1.2816
"""Standard deviations on each side of the mean within which 80 % of a normal distribution lies."""


@dataclass(frozen=True, slots=True)
class History:
    """Durations of the latest succeeded attempts of a job, in seconds. `deviation` is None where there is but one."""

    job: str
    samples: int
    mean: float
    deviation: float | None


@dataclass(frozen=True, slots=True)
class Room:
    """How many tasks of a queue may run at once, as far as that is set or known: None where it is not."""

    queue: str
    window_size: int | None
    credits: int | None


@dataclass(frozen=True, slots=True)
class Estimate:
    """Seconds, and half the width of their 80 % interval."""

    seconds: float
    error: float


def parallelism(max_concurrency: int | None, room: Room | None) -> int:
    """Tasks of a job at once: the least of the limits that there are; 1 where there is none."""
    limits = [max_concurrency, room.window_size if room else None, room.credits if room else None]
    return max(1, min((limit for limit in limits if limit), default=1))


def estimate(tasks: int, history: History | None, at_once: int) -> Estimate | None:
    """None where there is no history. One sample says nothing of the spread: it is taken to be as large as the mean."""
    if history is None or tasks == 0:
        return None
    spread = history.mean if history.deviation is None else history.deviation
    error = _QUANTILE_80 * spread * math.sqrt(tasks + tasks**2 / history.samples)
    at_once = min(at_once, tasks)
    return Estimate(tasks * history.mean / at_once, error / at_once)


def total(estimates: Iterable[Estimate | None]) -> Estimate | None:
    """One after another; errors of different jobs have nothing to do with each other. None where there is none."""
    found = [each for each in estimates if each is not None]
    if not found:
        return None
    return Estimate(sum(each.seconds for each in found), math.sqrt(sum(each.error**2 for each in found)))
