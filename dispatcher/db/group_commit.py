"""One transaction for the operations of many callers, and who is to blame when it fails.

First the batch is tried as it is: a statement per kind, then COMMIT. A failure is one of three:

* *Nobody's fault* (deadlock, serialization, a lock timeout, a server lost or short of something): the same again, after
  a random pause, up to a limit. Then TransactionFailed: nothing happened.
* *An operation's fault* (whatever else): the batch is run again *carefully*. Each kind's statement stands behind a
  savepoint; when it fails, its operations are cut into pieces, until the poisoned one stands alone and gets the verdict
  Quarantined. All this is still one transaction, so a bad operation costs some round trips, but no commits. While the
  last batch had a bad one, the next begins carefully. This is for accidents: with one in a hundred bad, a quarter to a
  half of the throughput remained. What is to be expected must be a verdict in `apply`'s results.
* *COMMIT's answer was lost*: OutcomeUnknown.

What fails outside of `apply` (in `finish`, in COMMIT) cannot be searched by savepoints: there the pieces of the batch
are transactions of their own.
"""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import psycopg
import structlog

from dispatcher.db.errors import OutcomeUnknown, TransactionFailed
from dispatcher.db.operations import BatcherConfig, Committed, Connection, Held, Item, Kind, Quarantined, fail_calls
from dispatcher.db.pipeline import pipelined
from dispatcher.db.pool import Pool, commit, rests, roll_back
from kernel.crash import crash

_log = structlog.get_logger(__name__)

_PIECES = 8

Prepare = Callable[[Connection, Sequence[Any]], Awaitable[Any]]


class Clock(Protocol):
    """`monotonic` in seconds from anywhere."""

    def monotonic(self) -> float: ...
    async def sleep(self, seconds: float) -> None: ...


class GroupCommit:
    """A worker's connection, and how it settles batches. Not to be shared between tasks."""

    def __init__(
        self,
        pool: Pool,
        kinds: Sequence[Kind[Any, Any]],
        config: BatcherConfig,
        clock: Clock,
        jitter: Callable[[], float],
        observe: Callable[[Committed], None] | None,
        prepare: Prepare | None,
    ) -> None:
        self._pool = pool
        self._kinds = kinds
        self._config = config
        self._clock = clock
        self._jitter = jitter
        self._observe = observe
        self._prepare = prepare
        self._held: Connection | None = None
        self._careful = False

    async def settle(self, batch: list[Item]) -> None:
        """Answers every operation of the batch, in as few commits as possible; raises nothing but cancellation."""
        deadline = self._clock.monotonic() + self._config.give_up_after
        refused: dict[Hashable, Exception] = {}
        parts = [batch]
        while parts:
            # What belongs to a call that was told of a failure must not be done after all: an end without its emit.
            part = [item for item in parts.pop() if not item.call.future.done()]
            if not part:
                continue
            try:
                outcome = await self._commit(part, refused, deadline)
            except (OutcomeUnknown, TransactionFailed) as error:
                fail_calls(part, error)
            except Exception as error:  # noqa: BLE001  whatever it is, the other callers must not bear it
                if len(part) > 1:
                    parts += _cut(part)
                    continue
                outcome = _Outcome(refused)
                outcome.quarantine(part[0], error)
                self._answer(outcome)
            else:  # outside of the `try`: what fails now must not run the committed operations again
                refused = outcome.refused
                self._careful = bool(outcome.quarantined)
                self._answer(outcome)

    async def close(self) -> None:
        """Gives the connection back to the pool."""
        held, self._held = self._held, None
        if held is not None:
            await self._pool.putconn(held)

    async def _commit(self, part: list[Item], refused: dict[Hashable, Exception], deadline: float) -> "_Outcome":
        """One transaction, repeated while nobody is to blame. Raises what only fewer operations could help against."""
        attempt = 1
        while True:
            careful = self._careful
            try:
                return await self._transact(part, refused, careful, deadline)
            except psycopg.Error as error:
                if self._is_nobodys_fault(error):
                    if attempt == self._config.max_attempts or self._clock.monotonic() > deadline:
                        raise TransactionFailed(f"nothing was committed in {attempt} attempts: {error}") from error
                    _log.info("transaction repeated", attempt=attempt, sqlstate=error.sqlstate, error=str(error))
                    await self._clock.sleep(self._config.retry_delay * 2**attempt * self._jitter())
                    attempt += 1
                    continue
                if careful:
                    raise
            except (OutcomeUnknown, TransactionFailed):
                raise
            except Exception:
                if careful:
                    raise
            if self._clock.monotonic() > deadline:
                raise TransactionFailed("no time was left to find the operation that fails")
            self._careful = True

    async def _transact(
        self, part: list[Item], refused: dict[Hashable, Exception], careful: bool, deadline: float
    ) -> "_Outcome":
        started = self._clock.monotonic()
        connection = await self._connection()
        outcome = _Outcome(dict(refused))
        # Carefully, each answer is waited for: a savepoint must know which statement failed.
        async with _one_by_one(connection) if careful else pipelined(connection):
            if careful:  # otherwise a deferred constraint would fail in COMMIT, where no savepoint helps
                await connection.execute("set constraints all immediate")
            # Carefully, each kind has a ground of its own: what the savepoints undo is not to be remembered.
            ground = await self._ground(connection, [] if careful else part)
            for rank, kind in enumerate(self._kinds):
                items = outcome.runnable([item for item in part if item.rank == rank])
                if not items:
                    continue
                if careful:
                    await self._apply_carefully(connection, kind, items, outcome, deadline)
                else:
                    outcome.add(kind, items, await _apply(ground, kind, items))
            for group in outcome.groups:
                if group.kind.finish is not None:
                    await group.kind.finish(ground, group.ops, group.results)
            crash("batch.written")
        crash("batch.committed")
        cost = sum(item.cost for group in outcome.groups for item in group.items)
        outcome.committed = Committed(len(part), len(outcome.quarantined), cost, self._clock.monotonic() - started)
        return outcome

    async def _apply_carefully(
        self, connection: Connection, kind: Kind[Any, Any], items: list[Item], outcome: "_Outcome", deadline: float
    ) -> None:
        """Applies what can be applied; the verdicts on the others go into the outcome."""
        parts = [items]
        await connection.execute("savepoint searched")
        while parts:
            part = outcome.runnable(parts.pop())
            if not part:
                continue
            try:
                results = await _apply(await self._ground(connection, part), kind, part)
            except Exception as error:
                if isinstance(error, psycopg.Error) and self._is_nobodys_fault(error):
                    raise
                if self._clock.monotonic() > deadline:
                    raise TransactionFailed("no time was left to find the operation that fails") from error
                await connection.execute("rollback to savepoint searched")
                if len(part) == 1:
                    outcome.quarantine(part[0], error)
                else:
                    parts += _cut(part)
            else:
                await connection.execute("release savepoint searched; savepoint searched")
                outcome.add(kind, part, results)
        await connection.execute("release savepoint searched")

    async def _ground(self, connection: Connection, items: Sequence[Item]) -> Any:
        """What operations are applied to."""
        return connection if self._prepare is None else await self._prepare(connection, [item.op for item in items])

    def _answer(self, outcome: "_Outcome") -> None:
        if self._observe is not None and outcome.committed is not None:
            self._observe(outcome.committed)
        for group in outcome.groups:
            if group.kind.after_commit is not None:
                try:
                    group.kind.after_commit(group.ops, group.results)
                except Exception:  # noqa: BLE001  the commit stands, and the callers wait for their answers
                    _log.exception("after_commit failed", kind=group.kind.name)
            for item, result in zip(group.items, group.results, strict=True):
                if group.kind.holds(result):  # also for what follows it in a later transaction
                    item.call.undone.add(item.key)
                item.answer(result)
        for item in outcome.held:
            item.answer(Held())
        for item, verdict in outcome.quarantined:
            kind = self._kinds[item.rank].name
            _log.warning("operation quarantined", kind=kind, follows=verdict.follows, error=str(verdict.error))
            item.answer(verdict)

    async def _connection(self) -> Connection:
        """Kept between transactions, so that its statements stay prepared; replaced when it is lost, or left as no
        transaction can begin on it: all later ones would fail."""
        if self._held is not None and not rests(self._held):
            await self.close()
        if self._held is None:
            self._held = await self._pool.getconn()
        return self._held

    def _is_nobodys_fault(self, error: psycopg.Error) -> bool:
        """Limits that one value exceeds (class 54) and statement timeouts (57014) may well be one operation's fault."""
        state = error.sqlstate or ""
        if self._held is not None and self._held.closed:
            return True
        if state.startswith("54") or state == "57014" or isinstance(error, psycopg.errors.PipelineAborted):
            return False
        return isinstance(error, psycopg.OperationalError) or state == "25006"  # a standby, after a failover


@contextlib.asynccontextmanager
async def _one_by_one(connection: Connection) -> AsyncIterator[None]:
    """A transaction in which each statement's answer is waited for."""
    try:
        yield
    except Exception:
        await roll_back(connection)
        raise
    await commit(connection)


def _cut(part: list[Item]) -> list[list[Item]]:
    """Pieces of a part that failed, the first one last. Eight, not two: fewer operations are run again on the way."""
    size = -(-len(part) // _PIECES)
    return [part[start : start + size] for start in range(0, len(part), size)][::-1]


async def _apply(ground: Any, kind: Kind[Any, Any], items: Sequence[Item]) -> Sequence[Any]:
    results = await kind.apply(ground, [item.op for item in items])
    if len(results) != len(items):
        raise RuntimeError(f"{kind.name}: {len(results)} results for {len(items)} operations")
    return results


@dataclass(slots=True)
class _Group:
    """What was applied of one kind."""

    kind: Kind[Any, Any]
    items: list[Item] = field(default_factory=list)
    ops: list[Any] = field(default_factory=list)
    results: list[Any] = field(default_factory=list)


@dataclass(slots=True)
class _Outcome:
    """What a transaction answers once it is committed.

    `refused` has the keys of quarantined operations, `undone` those of operations that are to be repeated, and `held`
    what must wait for these.
    """

    refused: dict[Hashable, Exception]
    undone: set[Hashable] = field(default_factory=set)
    held: list[Item] = field(default_factory=list)
    groups: list[_Group] = field(default_factory=list)
    quarantined: list[tuple[Item, Quarantined]] = field(default_factory=list)
    committed: Committed | None = None

    def add(self, kind: Kind[Any, Any], items: Sequence[Item], results: Sequence[Any]) -> None:
        if not self.groups or self.groups[-1].kind is not kind:
            self.groups.append(_Group(kind))
        group = self.groups[-1]
        group.items += items
        group.ops += [item.op for item in items]
        group.results += results
        self.undone |= {
            item.key for item, result in zip(items, results, strict=True) if item.key is not None and kind.holds(result)
        }

    def quarantine(self, item: Item, error: Exception) -> None:
        self.quarantined.append((item, Quarantined(error)))
        if item.key is not None:
            self.refused[item.key] = error

    def runnable(self, items: list[Item]) -> list[Item]:
        """Those that may run. What follows a quarantined operation of its key gets the same verdict, what follows one
        that is to be repeated is held back."""
        if not self.refused and not self.undone and not any(item.call.undone for item in items):
            return items
        kept: list[Item] = []
        for item in items:
            error = self.refused.get(item.key)
            if error is not None:
                self.quarantined.append((item, Quarantined(error, follows=True)))
            elif item.key in self.undone or item.key in item.call.undone:
                self.held.append(item)
            else:
                kept.append(item)
        return kept
