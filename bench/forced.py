"""Queries whose datasets are switched after queryd has asked for their pin and before it has heard the answer: between
its pin and its first byte, in its own path.

A relay stands between a queryd and the dispatcher: it passes every call on, and does what it is told to before it
answers one that pins.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc

from bench.stack import Stack
from kernel.channels import sync_channel
from kernel.credentials import read_token
from traceapi.control.v1.dataset_service_pb2 import PinDatasetsResponse
from traceapi.query.v1.query_service_pb2_grpc import QueryServiceStub
from traceapi.types.v1.dataset_pb2 import Pin

_CALL_SECONDS = 30.0
_THREADS = 8
_PINS = "/traceapi.control.v1.DatasetService/PinDatasets"


class Relay(grpc.GenericRpcHandler):
    """Every call of the dispatcher, passed on as it is. `pinned` are the pins that were answered."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self.before_answer: Callable[[], None] = lambda: None
        self.pinned: list[Pin] = []

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes]":
        """On the wire an answer of one message is a stream of one."""
        method = handler_call_details.method
        upstream: grpc.UnaryStreamMultiCallable[bytes, bytes] = self._channel.unary_stream(method)

        def call(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
            for answer in upstream(request, timeout=_CALL_SECONDS):
                if method == _PINS:  # what is pinned is decided, and not heard yet
                    self.before_answer()
                    self.pinned.append(PinDatasetsResponse.FromString(answer).pin)
                yield answer

        return grpc.unary_stream_rpc_method_handler(call)


@contextmanager
def relayed_queryd(stack: Stack, control: str) -> Iterator[tuple[Relay, QueryServiceStub]]:
    """A queryd of its own behind a relay, and the user's stub of it. `control` is the dispatcher's address."""
    token = read_token(stack.home.token_file("queryd"))
    server = grpc.server(ThreadPoolExecutor(_THREADS))
    with sync_channel(control, token=token, actor_name="queryd") as channel:
        relay = Relay(channel)
        server.add_generic_rpc_handlers((relay,))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            user = read_token(stack.home.token_file("user"))
            with (
                stack.queryd(f"127.0.0.1:{port}") as address,
                sync_channel(address, token=user, actor_name="bench") as queries,
            ):
                yield relay, QueryServiceStub(queries)
        finally:
            server.stop(0).wait()
