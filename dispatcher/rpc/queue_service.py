"""QueueService: queues as people see and set them. Parses, calls the slices, converts."""

import grpc

from dispatcher.audit import store as audit
from dispatcher.audit.entries import Action, Entry
from dispatcher.db.pool import Pool, transaction
from dispatcher.rpc import convert
from dispatcher.rpc.faults import translated
from dispatcher.wakeups.queues import QueueChange, QueueUse, queue_uses, set_queue
from dispatcher.wakeups.release import Releaser
from kernel.errors import TraceError
from kernel.likeness import nearest
from kernel.servers import current_actor
from traceapi.control.v1 import queue_service_pb2 as pb
from traceapi.control.v1.queue_service_pb2_grpc import QueueServiceServicer
from traceapi.types.v1.errors_pb2 import ErrorReason

Context = grpc.aio.ServicerContext[object, object]


class QueueService(QueueServiceServicer):
    """One for each dispatcher; holds no state but what it was given."""

    def __init__(self, pool: Pool, releaser: Releaser) -> None:
        self._pool = pool
        self._releaser = releaser

    async def ListQueues(self, request: pb.ListQueuesRequest, context: Context) -> pb.ListQueuesResponse:
        with translated():
            async with transaction(self._pool) as connection:
                found = await queue_uses(connection, request.queue or None)
                if request.queue and not found:
                    raise _no_queue(request.queue, [use.queue for use in await queue_uses(connection, most_waiting=1)])
        return pb.ListQueuesResponse(queues=[_queue(use) for use in found])

    async def SetQueue(self, request: pb.SetQueueRequest, context: Context) -> pb.SetQueueResponse:
        fields = [field.name for field, _ in request.ListFields() if field.name != "queue"]
        change = {name: int(getattr(request, name)) for name in fields}
        actor = str(current_actor())
        with translated():
            async with transaction(self._pool) as connection:
                await set_queue(connection, request.queue, QueueChange(**change), actor)
                await audit.record(connection, Entry(Action.SET_QUEUE, actor, request.queue, [], change))
                (use,) = await queue_uses(connection, request.queue)
        self._releaser.signal()
        return pb.SetQueueResponse(queue=_queue(use))


def _no_queue(queue: str, known: list[str]) -> TraceError:
    message = f"no job and no worker uses a queue called {queue}{nearest(queue, known)}"
    return TraceError(ErrorReason.ERROR_REASON_QUEUE_NOT_FOUND, message, metadata={"queue": queue})


def _queue(use: QueueUse) -> pb.Queue:
    return pb.Queue(
        queue=use.queue,
        window_size=use.settings.window_size,
        live_reserve=use.settings.live_reserve,
        classes=[
            pb.QueueClass(
                task_class=pb.TaskClass.Value(f"TASK_CLASS_{task_class.upper()}"),
                share=use.settings.shares[task_class],
                waiting_count=of.waiting,
                released_count=of.released,
                running_count=of.running,
                place_count=of.places,
            )
            for task_class, of in use.classes.items()
        ],
        credits=use.credits,
        served=use.served,
        actor=use.actor,
        changed_time=convert.timestamp(use.changed_at),
    )
