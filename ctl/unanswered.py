"""Calls that no server of ours answered, in a person's words: which program, where, how long it was waited for.

grpc's own words name neither. What a server did answer carries its reason, and stays as it is. The failure remains a
`grpc.RpcError` of the same code: who makes calls again decides as before.
"""

import re
import time
from collections.abc import Callable, Iterator
from typing import Any, Self

import grpc

from kernel.errors import answered_by_server

_PREFIX = re.compile(r"^failed to connect to all addresses; last error: [A-Z_]+: (ipv[46]:\S+: )?")
_NOBODY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


class Unanswered(grpc.RpcError):
    """Nobody answered. `str()` and `details()` are for people."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self._code = code
        self._text = text

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._text

    def trailing_metadata(self) -> tuple[()]:
        return ()


class NameWhoIsSilent(
    grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor, grpc.StreamUnaryClientInterceptor
):
    """For a channel to one program, outside of what repeats its calls: it sees how they end."""

    def __init__(self, program: str, address: str) -> None:
        self._who = f"{program} at {address}"

    def intercept_unary_unary(
        self, continuation: Callable[[Any, Any], Any], details: grpc.ClientCallDetails, request: Any
    ) -> Any:
        return self._call(continuation, details, request)

    def intercept_stream_unary(
        self, continuation: Callable[[Any, Any], Any], details: grpc.ClientCallDetails, requests: Iterator[Any]
    ) -> Any:
        return self._call(continuation, details, requests)

    def intercept_unary_stream(
        self, continuation: Callable[[Any, Any], Any], details: grpc.ClientCallDetails, request: Any
    ) -> Any:
        return _Stream(continuation(details, request), self._since(time.monotonic()))

    def _call(self, continuation: Callable[[Any, Any], Any], details: grpc.ClientCallDetails, request: Any) -> Any:
        named = self._since(time.monotonic())
        call = continuation(details, request)
        if isinstance(call, grpc.RpcError):
            raise named(call) from call
        return call

    def _since(self, start: float) -> Callable[[grpc.RpcError], grpc.RpcError]:
        def named(error: grpc.RpcError) -> grpc.RpcError:
            if error.code() not in _NOBODY or answered_by_server(error):
                return error
            return Unanswered(error.code(), self._text(error, time.monotonic() - start))

        return named

    def _text(self, error: grpc.RpcError, seconds: float) -> str:
        waited = f"{self._who} has not answered within {seconds:.1f} s"
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            return waited
        # Only grpc's words tell these apart.
        details = _PREFIX.sub("", error.details() or "")
        if "SETTINGS frame" in details:
            return f"{waited}: it takes connections and says nothing"
        if "Connection refused" in details:
            return f"{self._who} cannot be reached: nothing listens there"
        return f"{self._who} cannot be reached: {details or error.code().name}"


class _Stream:
    """A call with a stream of answers, whose failure is named as it is met."""

    def __init__(self, call: Any, named: Callable[[grpc.RpcError], grpc.RpcError]) -> None:
        self._call = call
        self._named = named

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        try:
            return next(self._call)
        except grpc.RpcError as error:
            named = self._named(error)
            if named is error:
                raise
            raise named from error

    def cancel(self) -> bool:
        return bool(self._call.cancel())
