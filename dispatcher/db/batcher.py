"""Many callers, one commit: the hot path of every write.

What a write costs is the commit (a disk flush) and the messages, hardly the rows. So callers do not open transactions.
They hand lists of operations to the batcher and wait; a worker takes what all callers have brought within a few
milliseconds, and while the last commit was under way, runs it as ONE transaction with one statement per *kind* of
operation, and answers everybody after the commit. The busier the system, the larger the batches: load makes it cheaper.
Where a caller was alone and nothing else is under way, the next one is not kept waiting for company.

Sharing a transaction must not mean sharing an order or a fate. These are the rules:

* **Order.** Within a transaction the kinds run in their declared order, say emits before completes. Operations of one
  key (a task) never overtake each other: what would run before its predecessor waits for the next transaction, and a
  key that is in one worker's transaction is not taken by another worker.
* **Verdicts are data.** A kind's `apply` filters with joins and answers one result per operation; it raises only when
  Postgres does. Then the poisoned operation is searched and answered `Quarantined`, and the others commit. Later
  operations of its key in the batch share its verdict: a Complete must not pass where its Emit did not. Nor where its
  Emit is to be repeated (`Kind.holds`): it is Held, to be repeated after it.
* **Nobody's fault.** Deadlocks, lock timeouts, serialization failures and lost servers repeat the whole transaction,
  with an end: TransactionFailed says that nothing happened.
* **A lost COMMIT is unknown**, neither done nor failed: OutcomeUnknown, and the caller repeats by key.
* **Bounds.** No transaction above `max_cost` rows; a full queue refuses at once (Overloaded) instead of growing.

`Kind.finish` runs after the `apply` of all kinds, right before COMMIT: the place for a row that all transactions fight
over, such as a publication's head. `Kind.after_commit` hears the results: the place to wake somebody.

This file owns the queue and the order; group_commit.py the transaction and the search. Neither knows a table. A
transaction is a pipeline, across its kinds too, but for the search: there each statement must have its own answer.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from dispatcher.db.errors import OutcomeUnknown, Overloaded, Stopped
from dispatcher.db.group_commit import Clock, GroupCommit, Prepare
from dispatcher.db.operations import (
    BatcherConfig,
    Call,
    Committed,
    Connection,
    Held,
    Item,
    Kind,
    Op,
    Quarantined,
    Result,
    fail_calls,
)
from dispatcher.db.pool import Pool

__all__ = ["Batcher", "BatcherConfig", "Clock", "Committed", "Connection", "Held", "Kind", "LoopClock", "Quarantined"]


class LoopClock:
    """The event loop's own time."""

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Batcher:
    """`run()` belongs into a TaskGroup; `stop()` drains. `kinds` stand in the order in which a transaction runs them.

    `jitter` is a random number from 0 to 1; `observe` hears of every commit. `prepare` runs before the kinds, with all
    of their operations: the place to take their locks in one order, since each kind alone would order only its own; the
    kinds get what it answers. Where a bad operation is searched it runs for each piece, and at the end for none.
    """

    def __init__(
        self,
        pool: Pool,
        kinds: Sequence[Kind[Any, Any]],
        config: BatcherConfig | None = None,
        *,
        clock: Clock | None = None,
        jitter: Callable[[], float] = random.random,
        observe: Callable[[Committed], None] | None = None,
        prepare: Prepare | None = None,
    ) -> None:
        self._config = config or BatcherConfig()
        self._clock = clock or LoopClock()
        self._ranks = {kind: rank for rank, kind in enumerate(kinds)}
        self._workers = [
            GroupCommit(pool, tuple(kinds), self._config, self._clock, jitter, observe, prepare)
            for _ in range(self._config.workers)
        ]
        self._queue: deque[Item] = deque()
        self._queued_cost = 0
        self._busy: set[Hashable] = set()  # keys in a worker's transaction
        self._committing = 0  # workers with a transaction under way
        self._company = True  # the last batch was of several callers
        self._wake = asyncio.Event()
        self._closing = False
        self._ended: asyncio.Event | None = None

    async def submit(self, kind: Kind[Op, Result], ops: Sequence[Op]) -> list[Result | Quarantined | Held]:
        """One answer per operation, after their commit. Operations may end in several transactions, in order.

        Raises ValueError for more rows than a transaction or the queue can ever hold; Overloaded or Stopped when
        nothing was taken; TransactionFailed (repeat) and OutcomeUnknown (repeat by key), where other operations of the
        call may have been committed all the same. A caller cancelled before its turn is dropped from the queue.
        """
        return await self.submit_all([(kind, op) for op in ops])

    async def submit_all(self, ops: Sequence[tuple[Kind[Any, Any], Any]]) -> list[Any]:
        """The same for operations of several kinds, in the order in which they stand: what belongs together stands
        together, and then it is in one transaction unless that is full."""
        if self._closing:
            raise Stopped("the batcher is stopping")
        if not ops:
            return []
        call = Call(asyncio.get_running_loop().create_future(), [None] * len(ops), len(ops))
        now = self._clock.monotonic()
        items = [
            Item(self._ranks[kind], op, max(1, kind.cost(op)), kind.key(op), call, n, now)
            for n, (kind, op) in enumerate(ops)
        ]
        largest, cost = max(item.cost for item in items), sum(item.cost for item in items)
        if largest > self._config.max_cost or cost > self._config.max_queued_cost:
            raise ValueError(f"{cost} rows, {largest} of them by one operation, are more than ever fit")
        if self._queued_cost + cost > self._config.max_queued_cost:
            raise Overloaded(self._queued_cost, self._config.max_queued_cost)
        self._queue.extend(items)
        self._queued_cost += cost
        self._wake.set()
        return await call.future

    async def run(self) -> None:
        """Works until `stop()`. However it ends, every caller has an answer then."""
        self._ended = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as tasks:
                for number, worker in enumerate(self._workers):
                    tasks.create_task(self._work(worker), name=f"batcher-{number}")
        finally:
            self._closing = True
            fail_calls(self._queue, Stopped("the batcher has ended"))
            self._queue.clear()
            self._ended.set()

    async def stop(self) -> None:
        """Takes nothing more, commits what is queued, and returns when `run()` has ended. Idempotent."""
        self._closing = True
        self._wake.set()
        if self._ended is not None:
            await self._ended.wait()

    async def _work(self, worker: GroupCommit) -> None:
        try:
            while batch := await self._next_batch():
                self._committing += 1
                try:
                    await worker.settle(batch)
                except BaseException:  # cancelled, perhaps in COMMIT
                    fail_calls(batch, OutcomeUnknown("the transaction was interrupted: repeat by key"))
                    raise
                finally:
                    self._committing -= 1
                    self._busy.difference_update(item.key for item in batch)
                    self._wake.set()
        finally:
            await worker.close()

    async def _next_batch(self) -> list[Item]:
        """Waits for operations, and a little for more of them where some may come. Empty when it is time to end."""
        while True:
            if self._queue:
                wait = self._queue[0].arrived + self._config.linger - self._clock.monotonic()
                busy = self._committing > 0 or self._company  # else it would wait in vain, as the one before did
                if wait > 0 and busy and self._queued_cost < self._config.max_cost and not self._closing:
                    await self._clock.sleep(wait)
                if batch := self._take():
                    return batch
            if self._closing and not self._queue:
                return []
            self._wake.clear()
            await self._wake.wait()

    def _take(self) -> list[Item]:
        """From the queue's head as much as one transaction may hold; what waits for its key stays there, in order."""
        batch: list[Item] = []
        held: list[Item] = []
        cost = 0
        reached: dict[Hashable, int] = {}  # per key the latest kind taken: an earlier kind would overtake it
        while self._queue and cost + self._queue[0].cost <= self._config.max_cost:
            item = self._queue.popleft()
            if item.call.future.done():  # its caller has gone, or was told of a failure
                self._queued_cost -= item.cost
                continue
            if item.key is not None:
                if item.key in self._busy or item.rank < reached.get(item.key, 0):
                    reached[item.key] = len(self._ranks)  # and so waits everything of this key that came later
                    held.append(item)
                    continue
                reached[item.key] = item.rank
            batch.append(item)
            cost += item.cost
        self._queue.extendleft(reversed(held))
        self._queued_cost -= cost
        if batch:
            self._company = batch[0].call is not batch[-1].call
        self._busy.update(item.key for item in batch if item.key is not None)
        return batch
