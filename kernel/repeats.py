"""Calls that a full server refused are made again when it said, by the channel itself: for clients on threads.

Programs on asyncio have loops of their own around their calls, which wait as long as the answer says. So has who asks
for a call's future, to be able to give it up: that one is not repeated here, where nobody could end the waiting.
"""

import random
import time
from collections.abc import Callable
from typing import Any

import grpc

from kernel.call_metadata import SyncCallDetails
from kernel.errors import TraceError, from_rpc_error
from traceapi.types.v1 import errors_pb2

_MAX_REPEATS = 5
_NO_DEADLINE_SECONDS = 30.0


class RepeatWhenTold(grpc.UnaryUnaryClientInterceptor):
    """For calls with one answer, within their deadline: OVERLOADED says that nothing was done. Streams are not kept."""

    def intercept_unary_unary(
        self, continuation: Callable[[Any, Any], Any], details: grpc.ClientCallDetails, request: Any
    ) -> Any:
        until = time.monotonic() + (_NO_DEADLINE_SECONDS if details.timeout is None else details.timeout)
        call = continuation(details, request)
        for number in range(_MAX_REPEATS):
            if not call.done():
                break  # a future
            wait = _wait_of(call, number)
            if wait is None or time.monotonic() + wait >= until:
                break
            time.sleep(wait)
            left = None if details.timeout is None else until - time.monotonic()
            call = continuation(SyncCallDetails.of(details, timeout=left), request)
        return call


def _wait_of(call: Any, number: int) -> float | None:
    """Seconds until the call may be made again, longer each time, with jitter; None where it is not to be."""
    if call.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
        return None
    return wait_of(from_rpc_error(call), number)


def wait_of(error: TraceError, number: int) -> float | None:
    """The same of a call's error; `number` of repeats were made before."""
    if error.reason != errors_pb2.ERROR_REASON_OVERLOADED or error.retry_after is None or number >= _MAX_REPEATS:
        return None
    return error.retry_after * float(2**number) * (1 + random.random() / 2)
