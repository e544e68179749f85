"""Transactions of the hot path, whose statements do not wait for each other's answers.

A claim has eight statements, an emit with the end of its task ten or more. Waited for one by one, each is a round trip
to Postgres. In a pipeline a statement is sent when it is executed, and waited for when its answer is fetched; with it
comes the answer of everything sent before. So what changes rows and answers nothing costs no trip of its own, and
COMMIT goes with it.

What is sent after a statement that fails is not run, COMMIT neither. The failure may be raised by a later call of the
block, or at its end. In a pipeline a call of `execute` is one statement.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar, overload

import psycopg

from dispatcher.db.errors import OutcomeUnknown
from dispatcher.db.pool import end_autocommit, roll_back
from dispatcher.db.rows import Connection
from dispatcher.db.statements import Statements

_sql = Statements.load("dispatcher.db")

LIMIT = "20s"
"""Of a transaction: what a program locked that was stopped in the middle is free again after it."""

_A = TypeVar("_A")
_B = TypeVar("_B")
_C = TypeVar("_C")
_D = TypeVar("_D")
_E = TypeVar("_E")
_F = TypeVar("_F")

_Sent = Coroutine[Any, Any, _A]


@contextlib.asynccontextmanager
async def pipelined(connection: Connection, *, flushed: bool = True, planned_once: bool = False) -> AsyncIterator[None]:
    """One transaction: BEGIN before the block, COMMIT after it, ROLLBACK where it fails.

    With `flushed` false, COMMIT does not wait for the disk, as in `pool.unflushed_transaction`. `planned_once` is for
    statements whose plan takes longer than their work: they are planned once for a connection, not for each execution
    anew, and by indexes only, because what is planned while the tables are empty must do when they are full.

    Raises OutcomeUnknown when the connection is lost once COMMIT is sent, with what nobody has waited for. Whatever it
    raises, the connection rests afterwards or is closed.
    """
    settings = {
        "limit": LIMIT,
        "commit": None if flushed else "off",
        "plans": "force_generic_plan" if planned_once else "auto",
        "seqscan": "off" if planned_once else "on",
    }
    sent = False
    await connection.set_autocommit(True)  # sends nothing; BEGIN is ours, and is not waited for
    try:
        async with connection.pipeline():
            await connection.execute("begin", prepare=False)
            await connection.execute(_sql.set_for_pipeline, settings)
            yield
            sent = True
            await connection.execute("commit", prepare=False)
    except BaseException as error:
        await roll_back(connection)
        if sent and connection.closed and isinstance(error, psycopg.Error):
            raise OutcomeUnknown("the connection was lost in COMMIT: repeat by key") from error
        raise
    finally:
        await end_autocommit(connection)


async def plan_each(connection: Connection) -> None:
    """From here on the transaction's statements are planned by what is in the tables and in their parameters."""
    await connection.execute(_sql.plan_each)


@overload
async def together(first: _Sent[_A], second: _Sent[_B], /) -> tuple[_A, _B]: ...
@overload
async def together(first: _Sent[_A], second: _Sent[_B], third: _Sent[_C], /) -> tuple[_A, _B, _C]: ...
@overload
async def together(
    first: _Sent[_A], second: _Sent[_B], third: _Sent[_C], fourth: _Sent[_D], /
) -> tuple[_A, _B, _C, _D]: ...
@overload
async def together(
    first: _Sent[_A], second: _Sent[_B], third: _Sent[_C], fourth: _Sent[_D], fifth: _Sent[_E], /
) -> tuple[_A, _B, _C, _D, _E]: ...
@overload
async def together(
    first: _Sent[_A], second: _Sent[_B], third: _Sent[_C], fourth: _Sent[_D], fifth: _Sent[_E], sixth: _Sent[_F], /
) -> tuple[_A, _B, _C, _D, _E, _F]: ...
@overload
async def together(*sent: _Sent[_A]) -> tuple[_A, ...]: ...
async def together(*sent: _Sent[Any]) -> tuple[Any, ...]:
    """What coroutines answer that execute a statement each, on one connection, and fetch it: sent in the order in
    which they are named, before the first answer is waited for. In a pipeline that is one round trip.

    Locks are taken in that order too: psycopg lets one of them execute at a time, whoever asked first. Raises what the
    first of them raises that fails, once all of them are done; but rather a cause than what only follows from one,
    which may be told to another than to whose statement it is.
    """
    answers = await asyncio.gather(*sent, return_exceptions=True)
    failures = [answer for answer in answers if isinstance(answer, BaseException)]
    if failures:
        raise min(failures, key=_follows)
    return tuple(answers)


def _follows(failure: BaseException) -> bool:
    """From another one: its statement was not run, or its answer went to whoever heard of the failure."""
    if isinstance(failure, psycopg.errors.PipelineAborted):
        return True
    return isinstance(failure, psycopg.ProgrammingError) and failure.sqlstate is None
