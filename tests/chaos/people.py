"""How people of a run speak to the dispatchers: over the control API, through the proxy, each call in a history.

A call whose outcome is unknown is made again, the same one, until somebody answers: every mutating call says by which
key it is told apart from another one.
"""

import faulthandler
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import grpc

from kernel.channels import sync_channel
from kernel.errors import answered_by_server, from_rpc_error
from tests.chaos.cluster import Cluster, routes_of
from tests.chaos.plan import PEOPLE
from tests.chaos.recorder import History
from traceapi.control.v1.dag_service_pb2_grpc import DagServiceStub
from traceapi.control.v1.dataset_service_pb2_grpc import DatasetServiceStub
from traceapi.control.v1.retention_service_pb2_grpc import RetentionServiceStub
from traceapi.control.v1.source_service_pb2_grpc import SourceServiceStub

_DEADLINE_SECONDS = 4.0
_AGAIN_SECONDS = 0.1
_END_SECONDS = 60.0
"""Far more than a call may take: whoever is not done by then hangs, and so would the run."""
_UNKNOWN = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
)
"""Who hears one of these may have been heard all the same, or may be heard if it asks again."""
_SERVICES = (DagServiceStub, DatasetServiceStub, RetentionServiceStub, SourceServiceStub)


@dataclass(frozen=True, slots=True)
class Answer:
    """`reason` is why it was refused, empty where it was done; `known`: somebody has said so."""

    reason: str
    response: Any = None
    known: bool = True


class Stopped(Exception):
    """The run is over: no further call."""


class Person:
    """Somebody with a history of their own. Not for two threads."""

    def __init__(self, cluster: Cluster, name: str, stopped: threading.Event) -> None:
        self.history = History(cluster.history / f"{name}.jsonl", name)
        self._stopped = stopped
        addresses = ",".join(f"127.0.0.1:{cluster.ports[route]}" for route in routes_of(PEOPLE))
        self._channel = sync_channel(addresses, token=cluster.token("user"), actor_name=name)
        self._stubs = [make(self._channel) for make in _SERVICES]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()

    def ask(self, method: str, request: Any) -> Answer:
        """Once; grpc itself repeats what certainly did not arrive."""
        number = self.history.began(method, request)
        stub = next(stub for stub in self._stubs if hasattr(stub, method))
        try:
            response = getattr(stub, method)(request, timeout=_DEADLINE_SECONDS)
            if hasattr(response, "__next__"):  # a stream: all of it
                response = list(response)
        except grpc.RpcError as error:
            found = from_rpc_error(error)
            self.history.ended(number, found.code.name, reason=found.reason_name)
            return Answer(found.reason_name, known=answered_by_server(error) and found.code not in _UNKNOWN)
        self.history.ended(number, "OK", response[-1] if isinstance(response, list) and response else response)
        return Answer("", response)

    def insist(self, method: str, request: Any) -> Answer:
        """Until it is known what became of it. Raises Stopped."""
        while not (answer := self.ask(method, request)).known:
            self.wait(_AGAIN_SECONDS)
        return answer

    def until(self, done: Callable[[], bool]) -> None:
        """Looks again and again. Raises Stopped."""
        while not done():
            self.wait(_AGAIN_SECONDS)

    def wait(self, seconds: float) -> None:
        """Raises Stopped."""
        if self._stopped.wait(seconds):
            raise Stopped


def require_end(thread: threading.Thread) -> None:
    """Of whoever was told to end. Raises TimeoutError where they do not, and writes down what every thread does."""
    thread.join(_END_SECONDS)
    if thread.is_alive():
        faulthandler.dump_traceback()
        raise TimeoutError(f"{thread.name} has not ended {_END_SECONDS:.0f} s after it was told to: see the stacks")
