"""Many idle workers in one process: each with a connection and a stream of wake-ups of its own, and nothing to do.

    python -m bench.watchers ADDRESS TOKEN_FILE COUNT

Prints a line once all streams are open, and holds them until its input ends. A worker without tasks sends no
heartbeats: keepalive pings and the stream are all that a dispatcher has of it.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc

from kernel.call_metadata import AIO_INTERCEPTORS, CallMetadata
from kernel.credentials import read_token
from traceapi.worker.v1.worker_service_pb2 import WatchStart, WatchWakeupsRequest
from traceapi.worker.v1.worker_service_pb2_grpc import WorkerServiceStub

_CREDITS = 16  # a wrapper's, with its usual capacity of 8
_OPTIONS = [
    ("grpc.use_local_subchannel_pool", 1),  # otherwise all of them would share a connection
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
]


async def _requests(name: str) -> AsyncIterator[WatchWakeupsRequest]:
    yield WatchWakeupsRequest(start=WatchStart(worker_id=name, queues=["default"], credits=_CREDITS))
    await asyncio.Event().wait()


async def main(address: str, token: str, count: int) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = []
        for number in range(count):
            name = f"idle-{number}"
            metadata = CallMetadata(token, name)
            channel = grpc.aio.insecure_channel(
                address, _OPTIONS, interceptors=[make(metadata) for make in AIO_INTERCEPTORS]
            )
            await channel.channel_ready()
            tasks.append(group.create_task(_watch(channel, name)))
        print("watching", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        for task in tasks:
            task.cancel()


async def _watch(channel: grpc.aio.Channel, name: str) -> None:
    """Until cancelled; a stream that ends is an error."""
    async for _ in WorkerServiceStub(channel).WatchWakeups(_requests(name)):
        raise RuntimeError(f"{name} was sent a wake-up: the stack is not idle")
    raise RuntimeError(f"the stream of {name} ended")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], read_token(Path(sys.argv[2])), int(sys.argv[3])))
