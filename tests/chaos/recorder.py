"""The client-side history: what a process asked, when, and what it heard, one JSON line for each, as it happens.

It is written by the harness, never by the product, so that a product that lies is found out. A call is two lines: one
before it is sent, one when its outcome is known. Who is killed in between leaves the first alone: what became of that
call nobody knows, and the checker has to allow for both.
"""

import base64
import json
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import Message

WORKER_METHODS = ("ClaimTasks", "Heartbeat", "EmitEvents", "CompleteTasks", "SettleTasks")


class History:
    """Appends to one file; a line is one write, so a killed process leaves none torn."""

    def __init__(self, path: Path, process: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._process = f"{process}/{os.getpid()}"
        self._number = 0

    def began(self, method: str, request: Message, **facts: Any) -> int:
        """A call is about to be sent; answers its number."""
        self._number += 1
        self.note(call=self._number, method=method, began=time.time(), request=_text(request), **facts)
        return self._number

    def ended(self, number: int, code: str, response: Message | None = None, **facts: Any) -> None:
        """Its outcome: a status code of gRPC, and the answer where that is OK."""
        answer = {} if response is None else {"response": _text(response)}
        self.note(call=number, ended=time.time(), code=code, **answer, **facts)

    def note(self, **fields: Any) -> None:
        """Any other line."""
        line = json.dumps({"process": self._process, **fields}) + "\n"
        os.write(self._fd, line.encode())


def read_lines(folder: Path) -> Iterator[dict[str, Any]]:
    """The lines of all histories."""
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text().splitlines():
            yield json.loads(line)


def _text(message: Message) -> str:
    return base64.b64encode(message.SerializeToString()).decode()


class Recording(grpc.aio.UnaryUnaryClientInterceptor):
    """Records the calls of WorkerService."""

    def __init__(self, history: History) -> None:
        self._history = history

    async def intercept_unary_unary(
        self,
        continuation: Callable[[grpc.aio.ClientCallDetails, Any], Awaitable[Any]],
        details: grpc.aio.ClientCallDetails,
        request: Any,
    ) -> Any:
        method = _name(details.method)
        if method not in WORKER_METHODS:
            return await continuation(details, request)
        number = self._history.began(method, request)
        try:
            response = await (await continuation(details, request))
        except grpc.aio.AioRpcError as error:
            self._history.ended(number, error.code().name)
            raise
        self._history.ended(number, "OK", response)
        return response


def _name(method: str | bytes) -> str:
    path = method.decode() if isinstance(method, bytes) else method
    return path.rpartition("/")[2]
