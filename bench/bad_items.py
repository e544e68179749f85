"""What bad items cost the others of their batch: settled batches with one bad item in a hundred, beside clean ones.

A worker by hand claims the tasks of a queue that no wrapper serves, and settles them in calls of 500, four under way at
a time, as a wrapper does; only the settling is timed. The bad ones are in turn of a lease that never was, of a dataset
that the job does not produce, and say that they emitted more than they did. Each has to get its own verdict, and each
other one to be accepted.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from enum import Enum
from statistics import median
from typing import TYPE_CHECKING, TypeVar

import grpc
from google.protobuf.duration_pb2 import Duration

from bench.life import rows
from bench.settings import Settings
from bench.stack import Stack, TooSlow
from bench.table import Measure
from kernel.channels import aio_channel
from kernel.credentials import read_token
from kernel.ids import new_id
from traceapi.types.v1.errors_pb2 import ErrorReason
from traceapi.types.v1.task_pb2 import TaskLease
from traceapi.worker.v1 import worker_service_pb2 as pb
from traceapi.worker.v1.completion_pb2 import CompleteItem, CompleteTaskResult, TaskReturned, TaskSuccess
from traceapi.worker.v1.emit_pb2 import EmitItem, EmitResult, EmittedEvent
from traceapi.worker.v1.worker_service_pb2_grpc import WorkerServiceStub

if TYPE_CHECKING:  # the stubs' types for asyncio exist in the .pyi only
    from traceapi.worker.v1.worker_service_pb2_grpc import WorkerServiceAsyncStub

_WORKER = "bad-items"
_BATCH = 500
_CALLS_AT_ONCE = 4
_BAD_EVERY = 100
_CALL_SECONDS = 60.0
_LEASE_SECONDS = 600
_WAKEUPS_SECONDS = 120.0

_DOCUMENT = """
dag: {dag}
jobs:
  source:
    source: replay
    config: {{path: data/ticks.csv, cursor: n}}
    outputs: {{{dag}.ticks: {{cursor: {{column: n, type: int64}}, schema: {{n: int64}}}}}}
  work:
    operator: noop
    execution: {{queue: {dag}}}
    inputs: {{{dag}.ticks: {{}}}}
    outputs: {{{dag}.done: {{storage: none}}}}
"""


class Kind(Enum):
    """What an item is, and the verdicts that are due: on its emit and on its end. No reason: it is accepted."""

    CLEAN = (None, None)
    STALE = (ErrorReason.ERROR_REASON_STALE_LEASE, ErrorReason.ERROR_REASON_STALE_LEASE)
    FOREIGN = (ErrorReason.ERROR_REASON_DATASET_NOT_PRODUCED, ErrorReason.ERROR_REASON_EMIT_REFUSED)
    MISSING = (None, ErrorReason.ERROR_REASON_EVENTS_MISSING)


Reason = int | None
Item = TypeVar("Item")

_BAD = (Kind.STALE, Kind.FOREIGN, Kind.MISSING)


@dataclass(frozen=True, slots=True)
class Settled:
    """A round: tasks a second, and items whose verdict was not the one that was due."""

    rate: float
    wrong: int


def measure(stack: Stack, settings: Settings) -> Sequence[Measure]:
    """Clean rounds and rounds with bad items, in turn."""
    tasks = settings.scaled(10_000, 1_000)
    clean, mixed = asyncio.run(_rounds(stack, settings.rounds, tasks))
    ratios = [one.rate / other.rate for one, other in zip(mixed, clean, strict=True)]
    wrong = sum(one.wrong for one in [*clean, *mixed])
    clean_rates, mixed_rates = (tuple(one.rate for one in found) for found in (clean, mixed))
    return [
        Measure("bad items: settled a second, all clean", median(clean_rates), "1/s", samples=clean_rates),
        Measure("bad items: settled a second, 1 % bad", median(mixed_rates), "1/s", samples=mixed_rates),
        Measure("bad items: with 1 % bad to clean", median(ratios), "x", ">= 0.8", tuple(ratios)),
        Measure("bad items: items without the verdict that is due", wrong, "items", "<= 0"),
    ]


async def _rounds(stack: Stack, rounds: int, tasks: int) -> tuple[list[Settled], list[Settled]]:
    clean: list[Settled] = []
    mixed: list[Settled] = []
    token = read_token(stack.home.token_file("worker"))
    async with aio_channel(stack.internal, token=token, actor_name=_WORKER) as channel:
        for number in range(rounds):
            turns = (("clean", clean), ("mixed", mixed))
            for name, found in turns if number % 2 else turns[::-1]:
                dag = f"{name}-{number}"
                files = {"data/ticks.csv": rows(range(tasks))}
                await asyncio.to_thread(stack.deploy, _DOCUMENT.format(dag=dag), files)
                found.append(await _round(channel, dag, tasks, bad=name == "mixed"))
    return clean, mixed


async def _round(channel: grpc.aio.Channel, dag: str, tasks: int, *, bad: bool) -> Settled:
    worker = _Worker(WorkerServiceStub(channel), os.urandom(32))
    claimed = await worker.claim(await worker.wakeups(dag, tasks))
    kinds = [_kind(place) if bad else Kind.CLEAN for place in range(len(claimed))]
    pairs = [worker.settling(dag, task, kind) for task, kind in zip(claimed, kinds, strict=True)]
    started = time.perf_counter()
    verdicts = await worker.settle(pairs)
    took = time.perf_counter() - started
    await worker.give_back([task for task, kind in zip(claimed, kinds, strict=True) if kind is not Kind.CLEAN])
    wrong = sum(verdict != kind.value for verdict, kind in zip(verdicts, kinds, strict=True))
    return Settled(tasks / took, wrong + tasks - len(claimed))


def _kind(place: int) -> Kind:
    return Kind.CLEAN if place % _BAD_EVERY else _BAD[place // _BAD_EVERY % len(_BAD)]


class _Worker:
    """A worker by hand, of one token."""

    def __init__(self, stub: "WorkerServiceAsyncStub", token: bytes) -> None:
        self._stub = stub
        self._token = token

    async def wakeups(self, queue: str, tasks: int) -> list[str]:
        """The ids of so many tasks of a queue."""

        async def requests() -> AsyncIterator[pb.WatchWakeupsRequest]:
            start = pb.WatchStart(worker_id=_WORKER, queues=[queue], credits=tasks)
            yield pb.WatchWakeupsRequest(start=start)
            await asyncio.Event().wait()

        found: dict[str, None] = {}
        call = self._stub.WatchWakeups(requests())
        try:
            async with asyncio.timeout(_WAKEUPS_SECONDS):
                async for response in call:
                    found |= dict.fromkeys(response.task_ids)
                    if len(found) >= tasks:
                        return list(found)
        except TimeoutError as error:
            raise TooSlow(f"{tasks} wake-ups of {queue}: not within {_WAKEUPS_SECONDS:.0f} s") from error
        finally:
            call.cancel()
        raise TooSlow(f"the stream of {queue} ended")

    async def claim(self, task_ids: Sequence[str]) -> list[pb.ClaimedTask]:
        claimed: list[pb.ClaimedTask] = []
        for part in _parts(task_ids):
            request = pb.ClaimTasksRequest(
                request_id=new_id(),
                worker_id=_WORKER,
                lease_token=self._token,
                task_ids=part,
                lease_duration=Duration(seconds=_LEASE_SECONDS),
            )
            response = await self._stub.ClaimTasks(request, timeout=_CALL_SECONDS)
            claimed += [result.claimed for result in response.results if result.HasField("claimed")]
        return claimed

    def settling(self, dag: str, task: pb.ClaimedTask, kind: Kind) -> tuple[EmitItem, CompleteItem]:
        """One event about the task's own scope, and the end."""
        lease = self._lease(task)
        if kind is Kind.STALE:
            lease.lease_token = bytes(32)
        dataset = f"{dag}.ticks" if kind is Kind.FOREIGN else f"{dag}.done"
        event = EmittedEvent(dataset_id=dataset, scope=task.scope)
        success = TaskSuccess(emitted_event_count=2 if kind is Kind.MISSING else 1)
        return EmitItem(tasks=[lease], events=[event]), CompleteItem(lease=lease, success=success)

    async def settle(self, pairs: Sequence[tuple[EmitItem, CompleteItem]]) -> list[tuple[Reason, Reason]]:
        """Why each emit and each end was refused, in order; None for what was accepted."""
        calls = asyncio.Semaphore(_CALLS_AT_ONCE)

        async def send(part: Sequence[tuple[EmitItem, CompleteItem]]) -> pb.SettleTasksResponse:
            emits, items = zip(*part, strict=True)
            async with calls:
                request = pb.SettleTasksRequest(worker_id=_WORKER, emits=emits, items=items)
                return await self._stub.SettleTasks(request, timeout=_CALL_SECONDS)

        verdicts: list[tuple[Reason, Reason]] = []
        for response in await asyncio.gather(*(send(part) for part in _parts(pairs))):
            emits, ends = response.emits, response.results
            verdicts += [(_reason(emit), _reason(end)) for emit, end in zip(emits, ends, strict=True)]
        return verdicts

    async def give_back(self, tasks: Sequence[pb.ClaimedTask]) -> None:
        """What is not done belongs to nobody."""
        for part in _parts(tasks):
            items = [CompleteItem(lease=self._lease(task), returned=TaskReturned()) for task in part]
            await self._stub.CompleteTasks(pb.CompleteTasksRequest(worker_id=_WORKER, items=items))

    def _lease(self, task: pb.ClaimedTask) -> TaskLease:
        return TaskLease(task_id=task.task_id, attempt=task.attempt, lease_token=self._token)


def _parts(items: Sequence[Item]) -> list[Sequence[Item]]:
    return [items[start : start + _BATCH] for start in range(0, len(items), _BATCH)]


def _reason(result: EmitResult | CompleteTaskResult) -> Reason:
    return result.error.reason if result.HasField("error") else None
