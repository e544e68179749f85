"""Functions as somebody might have written them who had overlooked something. Each gets the right one."""

import contextlib
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any
from unittest.mock import patch

import psycopg

from dispatcher.db import group_commit
from dispatcher.db.errors import OutcomeUnknown
from dispatcher.db.pipeline import pipelined
from dispatcher.tasks.leases import LeaseRef, LockedTask
from dispatcher.tasks.retries import AfterFailure, ErrorClass, Failures, RetryPolicy
from dispatcher.tasks.state import TaskState

_NO_LIMIT = 1_000_000


def held_by_token(_right: Any) -> Callable[[LockedTask, LeaseRef], bool]:
    return lambda task, lease: task.state is TaskState.RUNNING and task.lease_token_digest == lease.token_digest


def held_by_attempt(_right: Any) -> Callable[[LockedTask, LeaseRef], bool]:
    return lambda task, lease: task.state is TaskState.RUNNING and task.attempt == lease.attempt


def held_by_anybody(_right: Any) -> Callable[[LockedTask, LeaseRef], bool]:
    return lambda task, _lease: task.state is TaskState.RUNNING


def never(_right: Any) -> Callable[[Any], bool]:
    return lambda _self: False


def never_refused(_right: Any) -> Callable[..., None]:
    return lambda *_arguments: None


finds_no_reason = never_refused


def finds_nothing(_right: Any) -> Callable[..., Awaitable[set[str]]]:
    async def found(*_arguments: Any) -> set[str]:
        return set()

    return found


def does_nothing(_right: Any) -> Callable[..., Awaitable[None]]:
    async def nothing(*_arguments: Any) -> None:
        return None

    return nothing


def takes_them_as_they_are(_right: Any) -> Callable[..., Awaitable[list[Any]]]:
    async def verified(_self: Any, ops: Sequence[Any]) -> list[Any]:
        return list(ops)

    return verified


def without_a_limit(right: Callable[..., AfterFailure]) -> Callable[..., AfterFailure]:
    def after(error_class: ErrorClass, failures: Failures, policy: RetryPolicy, jitter: float) -> AfterFailure:
        first = dataclasses.replace(failures, of_class=1)
        return right(error_class, first, dataclasses.replace(policy, max_attempts=_NO_LIMIT), jitter)

    return after


def as_if_not_cancelled(right: Callable[..., Any]) -> Callable[..., Any]:
    def end(self: Any, task: LockedTask, *others: Any) -> Any:
        return right(self, task._replace(cancel_reason=None), *others)

    return end


def committed_at_once(right: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def accept(self: Any, producers: Any, ops: Any) -> Any:
        results = await right(self, producers, ops)
        await producers.connection.execute("commit")
        await producers.connection.execute("begin")
        return results

    return accept


class CommitsWithTheNext:
    """The batcher answers, and leaves each COMMIT to the next batch."""

    def apply(self, stack: contextlib.ExitStack) -> None:
        left: list[Any] = []
        right = group_commit.GroupCommit._connection

        @contextlib.asynccontextmanager
        async def leave(connection: Any) -> AsyncIterator[None]:
            left.append(transaction := pipelined(connection))
            await transaction.__aenter__()
            yield

        async def connection(batching: group_commit.GroupCommit) -> Any:
            while left:
                with contextlib.suppress(psycopg.Error, OutcomeUnknown):
                    await left.pop().__aexit__(None, None, None)
            return await right(batching)

        stack.enter_context(patch.object(group_commit, "pipelined", leave))
        stack.enter_context(patch.object(group_commit.GroupCommit, "_connection", connection))
