"""The values that pass through the batcher: kinds of operations, operations with their callers, verdicts, limits."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

Connection = AsyncConnection[TupleRow]
Op = TypeVar("Op")
Result = TypeVar("Result")


def _unordered(_: object) -> None:
    return None


def _never(_: object) -> bool:
    return False


@dataclass(frozen=True, slots=True, eq=False)
class Kind(Generic[Op, Result]):
    """One kind of operation. Its functions never commit or roll back, and wait for nothing but their statements.

    They may be called again for the same operations, after a rollback: they keep nothing in memory.
    """

    name: str
    apply: Callable[[Any, Sequence[Op]], Awaitable[Sequence[Result]]]
    """One result per operation, in the operations' order. On what the batcher's `prepare` has made for them; on the
    connection, where there is none."""
    cost: Callable[[Op], int]
    """An upper bound of the rows that the operation writes."""
    key: Callable[[Op], Hashable] = _unordered
    """Operations of one key keep their order, across kinds; None has no order."""
    holds: Callable[[Result], bool] = _never
    """Whether a result leaves its operation undone, to be repeated: what follows it under its key is Held with it."""
    finish: Callable[[Any, Sequence[Op], Sequence[Result]], Awaitable[None]] | None = None
    """Runs after the `apply` of all kinds, right before COMMIT, with what `apply` got and answered."""
    after_commit: Callable[[Sequence[Op], Sequence[Result]], None] | None = None
    """Hears what was committed, before the callers are answered; must not wait, and its exceptions are only logged."""


@dataclass(frozen=True, slots=True)
class Quarantined:
    """The answer for an operation that makes its transaction fail, or that `follows` such a one of its key."""

    error: Exception
    follows: bool = False


@dataclass(frozen=True, slots=True)
class Held:
    """The answer for an operation that was not run: one before it, of its key, is to be repeated first."""


@dataclass(frozen=True, slots=True)
class Committed:
    """One transaction, for metrics. Cost in rows; seconds from BEGIN to the answer of COMMIT."""

    operations: int
    quarantined: int
    cost: int
    seconds: float


@dataclass(frozen=True, slots=True)
class BatcherConfig:
    """Costs are in rows, times in seconds."""

    workers: int = 1
    linger: float = 0.002
    max_cost: int = 5_000
    max_queued_cost: int = 50_000
    max_attempts: int = 6
    retry_delay: float = 0.01
    """Doubled with each attempt, times a random number below 1."""
    give_up_after: float = 20.0
    """How long one batch may be repeated and searched; what is left then is answered TransactionFailed."""


@dataclass(slots=True, eq=False)
class Call:
    """One `submit`: its answers so far, and the keys of which an operation is to be repeated."""

    future: asyncio.Future[list[Any]]
    answers: list[Any]
    open: int
    undone: set[Hashable] = field(default_factory=set)


@dataclass(slots=True, eq=False)
class Item:
    """One operation on its way. `rank` is its kind's place in the order of kinds."""

    rank: int
    op: Any
    cost: int
    key: Hashable
    call: Call
    index: int
    arrived: float

    def answer(self, result: object) -> None:
        self.call.answers[self.index] = result
        self.call.open -= 1
        if self.call.open == 0 and not self.call.future.done():
            self.call.future.set_result(self.call.answers)


def fail_calls(items: Iterable[Item], error: Exception) -> None:
    """Whoever has no answer yet gets the error for the whole call."""
    for item in items:
        if not item.call.future.done():
            item.call.future.set_exception(error)
