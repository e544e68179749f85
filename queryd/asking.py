"""A call to another program on behalf of somebody who may not want its answer any more."""

import time
from itertools import count
from typing import Any, Protocol

import grpc

from kernel.errors import TraceError, from_rpc_error
from kernel.repeats import wait_of
from traceapi.types.v1.errors_pb2 import ErrorReason

_LEAST_SECONDS = 0.001


class Cancellable(Protocol):
    """A call under way."""

    def cancel(self) -> object: ...


class Asker(Protocol):
    """For whom calls are made. Both raise what it was stopped with, once it is."""

    def asks(self, call: Cancellable) -> None:
        """From now on, stopping cancels this call."""
        ...

    def pause(self, seconds: float) -> None:
        """Waits so long, or until it is stopped."""
        ...


def answer(method: "grpc.UnaryUnaryMultiCallable[Any, Any]", request: Any, seconds: float, asker: Asker) -> Any:
    """The answer of a method. What a full server refuses is asked again when it said, within the same time. Raises
    TraceError."""
    end = time.monotonic() + seconds
    for number in count():
        call = method.future(request, timeout=max(end - time.monotonic(), _LEAST_SECONDS))
        asker.asks(call)
        try:
            return call.result()
        except grpc.FutureCancelledError as error:
            asker.pause(0)
            raise TraceError(ErrorReason.ERROR_REASON_QUERY_CANCELED, "nobody waits for the answer any more") from error
        except grpc.RpcError as error:
            failure = from_rpc_error(error)
            wait = wait_of(failure, number)
            if wait is None or time.monotonic() + wait >= end:
                raise failure from error
            asker.pause(wait)
    raise AssertionError("the numbers have an end")
