"""The dispatcher holds nothing: killed between two calls, its successor on the same database answers the same."""

import asyncio
import hashlib
import os
import uuid
from dataclasses import dataclass
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from kernel.artifacts.local import LocalArtifactStore
from kernel.column_types import schema_digest
from tests.dispatcher.builders import CHAIN, NUMBERS, at, event, int64, success
from tests.dispatcher.running import RunningDispatcher, running_dispatcher
from traceapi.types.v1.artifact_pb2 import Artifact
from traceapi.types.v1.task_pb2 import TaskLease
from traceapi.worker.v1 import worker_service_pb2 as pb
from traceapi.worker.v1.emit_pb2 import EmitItem, StateWrite, WatermarkMove


@dataclass(slots=True)
class Calls:
    """The calls of a source's first steps, each a fixed message."""

    claim: pb.ClaimTasksRequest
    emit: pb.EmitEventsRequest
    complete: pb.CompleteTasksRequest


@pytest.mark.faults
async def test_a_killed_dispatcher_is_not_missed(database: str, tmp_path: Path) -> None:
    async with running_dispatcher(database, tmp_path) as first:
        deployment = await first.deploy(CHAIN, tmp_path)
        calls = _calls(await _first_wakeup(first), deployment.jobs[0].job_version_id, first)
        claimed = await first.worker.ClaimTasks(calls.claim)
        job = next(job for job in claimed.jobs if job.job == "blocks")
        _add_artifact(calls, job.outputs[0].dataset_version_id, first)
        await _kill(first)
    async with running_dispatcher(database, tmp_path) as second:
        assert _same(await second.worker.ClaimTasks(calls.claim), claimed)
        emitted = await second.worker.EmitEvents(calls.emit)
        assert emitted.results[0].HasField("accepted"), emitted
        await _kill(second)
    async with running_dispatcher(database, tmp_path) as third:
        again = await third.worker.EmitEvents(calls.emit)
        assert [e.event_id for e in again.results[0].accepted.events] == [
            e.event_id for e in emitted.results[0].accepted.events
        ]
        assert again.results[0].accepted.state_version == emitted.results[0].accepted.state_version == 1
        completed = await third.worker.CompleteTasks(calls.complete)
        await _kill(third)
    async with running_dispatcher(database, tmp_path) as fourth:
        assert await fourth.worker.CompleteTasks(calls.complete) == completed
        assert (await fourth.deploy(CHAIN, tmp_path)).deployment_id == deployment.deployment_id
        # The consumers' wake-ups went down with the killed ones; the sweep sends them, or they were never sent.
        assert len(await _wakeups(fourth, 2)) == 2


async def _kill(dispatcher: RunningDispatcher) -> None:
    dispatcher.kill()
    await asyncio.wait_for(dispatcher.process.wait(), 10)


async def _first_wakeup(dispatcher: RunningDispatcher) -> str:
    return (await _wakeups(dispatcher, 1)).pop()


async def _wakeups(dispatcher: RunningDispatcher, count: int) -> set[str]:
    """Watches until so many tasks were named."""
    start = pb.WatchStart(worker_id="worker-1", queues=["default"], credits=count)
    stream = dispatcher.worker.WatchWakeups()
    await stream.write(pb.WatchWakeupsRequest(start=start))
    found: set[str] = set()
    async with asyncio.timeout(30):
        while len(found) < count:
            message = await stream.read()
            assert isinstance(message, pb.WatchWakeupsResponse)
            found |= set(message.task_ids)
    stream.cancel()
    return found


def _calls(task_id: str, job_version_id: str, dispatcher: RunningDispatcher) -> Calls:
    token = os.urandom(32)
    lease = TaskLease(task_id=task_id, attempt=1, lease_token=token)
    item = EmitItem(
        tasks=[lease],
        events=[event("blocks", at(1), artifact=0)],
        state=StateWrite(data=b"1", expected_version=0),
        watermarks=[WatermarkMove(dataset_id="blocks", cursor=int64(1))],
    )
    return Calls(
        pb.ClaimTasksRequest(
            request_id=str(uuid.uuid4()),
            worker_id="worker-1",
            lease_token=token,
            task_ids=[task_id],
            lease_duration=Duration(seconds=300),
        ),
        pb.EmitEventsRequest(worker_id="worker-1", items=[item]),
        pb.CompleteTasksRequest(worker_id="worker-1", items=[success(lease, 1)]),
    )


def _add_artifact(calls: Calls, version_id: str, dispatcher: RunningDispatcher) -> None:
    lease = calls.emit.items[0].tasks[0]
    key = f"data/{version_id}/{lease.task_id}-1-0.parquet"
    LocalArtifactStore(dispatcher.artifacts).put_bytes(key, b"rows")
    calls.emit.items[0].artifacts.append(
        Artifact(
            dataset_id="blocks",
            key=key,
            scope=at(1),
            row_count=1,
            size_bytes=4,
            sha256=hashlib.sha256(b"rows").digest(),
            schema_digest=schema_digest(NUMBERS),
            schema=NUMBERS,
        )
    )


def _same(one: Message, other: Message) -> bool:
    return one == other
