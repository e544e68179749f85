"""What every call says of its caller: the credential and the actor's name, added by interceptors of the channel."""

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import grpc

ACTOR_NAME_KEY = "trace-actor-name"
AUTHORIZATION_KEY = "authorization"


@dataclass(frozen=True, slots=True)
class CallMetadata:
    """The pairs to add. Its repr does not show the token."""

    token: str | None
    actor_name: str

    def __repr__(self) -> str:
        return f"CallMetadata(actor_name={self.actor_name!r})"

    def pairs(self) -> list[tuple[str, str]]:
        """As metadata; a channel without a token sends the name alone."""
        found = [(ACTOR_NAME_KEY, self.actor_name)] if self.actor_name else []
        if self.token is not None:
            found.append((AUTHORIZATION_KEY, f"Bearer {self.token}"))
        return found


class SyncCallDetails(NamedTuple):
    """`grpc.ClientCallDetails` has no constructor of its own: interceptors bring a tuple with its fields."""

    method: str
    timeout: float | None
    metadata: list[tuple[str, str | bytes]]
    credentials: grpc.CallCredentials | None
    wait_for_ready: bool | None
    compression: grpc.Compression | None

    @classmethod
    def of(cls, details: grpc.ClientCallDetails, *, timeout: float | None) -> "SyncCallDetails":
        """The same call with another deadline."""
        metadata = list(details.metadata or ())
        return cls(details.method, timeout, metadata, details.credentials, details.wait_for_ready, details.compression)


class SyncMetadataInterceptor(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """For `grpc.intercept_channel`, which takes one object for all four kinds of call."""

    def __init__(self, metadata: CallMetadata) -> None:
        self._pairs = metadata.pairs()

    def _with_pairs(self, details: grpc.ClientCallDetails) -> Any:
        return SyncCallDetails(
            details.method,
            details.timeout,
            [*(details.metadata or ()), *self._pairs],
            details.credentials,
            details.wait_for_ready,
            details.compression,
        )

    def intercept_unary_unary(
        self, continuation: Callable[[grpc.ClientCallDetails, Any], Any], details: grpc.ClientCallDetails, request: Any
    ) -> Any:
        return continuation(self._with_pairs(details), request)

    def intercept_unary_stream(
        self, continuation: Callable[[grpc.ClientCallDetails, Any], Any], details: grpc.ClientCallDetails, request: Any
    ) -> Any:
        return continuation(self._with_pairs(details), request)

    def intercept_stream_unary(
        self,
        continuation: Callable[[grpc.ClientCallDetails, Iterator[Any]], Any],
        details: grpc.ClientCallDetails,
        requests: Iterator[Any],
    ) -> Any:
        return continuation(self._with_pairs(details), requests)

    def intercept_stream_stream(
        self,
        continuation: Callable[[grpc.ClientCallDetails, Iterator[Any]], Any],
        details: grpc.ClientCallDetails,
        requests: Iterator[Any],
    ) -> Any:
        return continuation(self._with_pairs(details), requests)


class _AioMetadata:
    """What the four interceptors below share; asyncio's channel wants one object for each kind of call."""

    def __init__(self, metadata: CallMetadata) -> None:
        self._pairs = metadata.pairs()

    def with_pairs(self, details: grpc.aio.ClientCallDetails) -> grpc.aio.ClientCallDetails:
        metadata = grpc.aio.Metadata(*(details.metadata or ()), *self._pairs)
        return grpc.aio.ClientCallDetails(
            details.method, details.timeout, metadata, details.credentials, details.wait_for_ready
        )


Requests = AsyncIterable[Any] | Iterable[Any]


class _UnaryUnary(_AioMetadata, grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(
        self,
        continuation: Callable[[grpc.aio.ClientCallDetails, Any], Awaitable[Any]],
        details: grpc.aio.ClientCallDetails,
        request: Any,
    ) -> Any:
        return await continuation(self.with_pairs(details), request)


class _UnaryStream(_AioMetadata, grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(
        self,
        continuation: Callable[[grpc.aio.ClientCallDetails, Any], Awaitable[Any]],
        details: grpc.aio.ClientCallDetails,
        request: Any,
    ) -> Any:
        return await continuation(self.with_pairs(details), request)


class _StreamUnary(_AioMetadata, grpc.aio.StreamUnaryClientInterceptor):
    async def intercept_stream_unary(
        self,
        continuation: Callable[[grpc.aio.ClientCallDetails, Requests], Awaitable[Any]],
        details: grpc.aio.ClientCallDetails,
        requests: Requests,
    ) -> Any:
        return await continuation(self.with_pairs(details), requests)


class _StreamStream(_AioMetadata, grpc.aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(
        self,
        continuation: Callable[[grpc.aio.ClientCallDetails, Requests], Awaitable[Any]],
        details: grpc.aio.ClientCallDetails,
        requests: Requests,
    ) -> Any:
        return await continuation(self.with_pairs(details), requests)


AIO_INTERCEPTORS: tuple[Callable[[CallMetadata], grpc.aio.ClientInterceptor], ...] = (
    _UnaryUnary,
    _UnaryStream,
    _StreamUnary,
    _StreamStream,
)
