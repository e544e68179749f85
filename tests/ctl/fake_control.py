"""Control, query and wrapper services with canned data, on a real gRPC server: tracectl's partner in its own tests."""

from collections.abc import Callable
from concurrent import futures
from typing import Any, TypeVar

import grpc

from tests.ctl.canned import Canned, refuse
from tests.ctl.fake_dags import FakeDags
from tests.ctl.fake_datasets import FakeDatasets, FakeQueries, FakeRetention
from tests.ctl.fake_sources import FakeSources
from tests.ctl.fake_tasks import FakeTasks
from traceapi.control.v1 import (
    dag_service_pb2_grpc,
    dataset_service_pb2_grpc,
    queue_service_pb2,
    queue_service_pb2_grpc,
    retention_service_pb2_grpc,
    source_service_pb2_grpc,
    task_service_pb2_grpc,
)
from traceapi.query.v1 import query_service_pb2_grpc
from traceapi.types.v1 import errors_pb2
from traceapi.wrapper.v1 import wrapper_service_pb2, wrapper_service_pb2_grpc

T = TypeVar("T")


class FakeQueues(queue_service_pb2_grpc.QueueServiceServicer):
    """One queue, with a backfill under way."""

    def __init__(self, canned: Canned) -> None:
        self._canned = canned
        self._queue = queue_service_pb2.Queue(
            queue="default",
            live_reserve=1,
            classes=[
                queue_service_pb2.QueueClass(task_class=queue_service_pb2.TASK_CLASS_LIVE, share=60),
                queue_service_pb2.QueueClass(task_class=queue_service_pb2.TASK_CLASS_REMATERIALIZATION, share=30),
                queue_service_pb2.QueueClass(
                    task_class=queue_service_pb2.TASK_CLASS_BACKFILL,
                    share=10,
                    waiting_count=1_000_000,
                    released_count=2,
                    running_count=5,
                    place_count=7,
                ),
            ],
            credits=9,
            served=True,
        )

    def ListQueues(self, request: Any, context: Any) -> Any:
        return queue_service_pb2.ListQueuesResponse(queues=[self._queue])

    def SetQueue(self, request: Any, context: Any) -> Any:
        self._canned.requests.append(request)
        self._queue.actor = "user:tester"
        if request.HasField("window_size"):
            self._queue.window_size = request.window_size
        return queue_service_pb2.SetQueueResponse(queue=self._queue)


class FakeWrapper(wrapper_service_pb2_grpc.WrapperServiceServicer):
    def __init__(self, canned: Canned) -> None:
        self._canned = canned

    def GetStatus(self, request: Any, context: Any) -> Any:
        return wrapper_service_pb2.GetStatusResponse(
            worker_id="local",
            phase=wrapper_service_pb2.WORKER_PHASE_SERVING,
            queues=["default"],
            capacity=8,
            sandbox=wrapper_service_pb2.SANDBOX_KIND_BUBBLEWRAP,
        )


class _Gate(grpc.ServerInterceptor):
    """Lets in who has the token, where one is set, and notes the actor."""

    def __init__(self, canned: Canned) -> None:
        self._canned = canned

    def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        metadata = dict(details.invocation_metadata)
        self._canned.actors.append(str(metadata.get("trace-actor-name", "")))
        if self._canned.token is None or metadata.get("authorization") == f"Bearer {self._canned.token}":
            return continuation(details)

        def deny(request: Any, context: grpc.ServicerContext) -> Any:
            return refuse(context, errors_pb2.ERROR_REASON_UNAUTHENTICATED, "no credential")

        return grpc.unary_unary_rpc_method_handler(deny)


def _made(fake: Callable[[Canned], T], canned: Canned) -> T:
    """What a fake does not answer, the generated base answers with UNIMPLEMENTED."""
    return fake(canned)


def serve(canned: Canned, *addresses: str) -> tuple[grpc.Server, list[str]]:
    """All services on each address; answers the server and the addresses as bound."""
    server = grpc.server(
        futures.ThreadPoolExecutor(8), interceptors=[_Gate(canned)], options=[("grpc.so_reuseport", 0)]
    )
    dag_service_pb2_grpc.add_DagServiceServicer_to_server(_made(FakeDags, canned), server)
    task_service_pb2_grpc.add_TaskServiceServicer_to_server(_made(FakeTasks, canned), server)
    source_service_pb2_grpc.add_SourceServiceServicer_to_server(_made(FakeSources, canned), server)
    dataset_service_pb2_grpc.add_DatasetServiceServicer_to_server(_made(FakeDatasets, canned), server)
    queue_service_pb2_grpc.add_QueueServiceServicer_to_server(_made(FakeQueues, canned), server)
    retention_service_pb2_grpc.add_RetentionServiceServicer_to_server(_made(FakeRetention, canned), server)
    query_service_pb2_grpc.add_QueryServiceServicer_to_server(_made(FakeQueries, canned), server)
    wrapper_service_pb2_grpc.add_WrapperServiceServicer_to_server(_made(FakeWrapper, canned), server)
    bound = [f"{address.rpartition(':')[0]}:{server.add_insecure_port(address)}" for address in addresses]
    server.start()
    return server, bound
