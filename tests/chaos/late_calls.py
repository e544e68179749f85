"""Calls that arrive again, late: what wrappers have sent is sent once more, seconds later, to whichever dispatcher.

It reads the wrappers' histories as they grow, and keeps one of its own. A thread of its own; it uses the workers'
credential, as a delayed packet would.
"""

import base64
import heapq
import json
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import grpc

from kernel.channels import sync_channel
from kernel.errors import from_rpc_error
from tests.chaos.collect_calls import MESSAGES
from tests.chaos.people import require_end
from tests.chaos.plan import WRAPPERS
from tests.chaos.recorder import WORKER_METHODS, History
from traceapi.worker.v1.worker_service_pb2_grpc import WorkerServiceStub

_LONGEST_SECONDS = 3.0
_DEADLINE_SECONDS = 5.0
_POLL_SECONDS = 0.05
_MOST = 400


class LateCalls:
    """Sends a share of what it reads. `address` answers where a dispatcher is now, empty where none is."""

    def __init__(self, folder: Path, share: float, rng: random.Random, token: str, address: Callable[[], str]) -> None:
        self._folder = folder
        self._share = share
        self._rng = rng
        self._token = token
        self._address = address
        self._history = History(folder / "late.jsonl", "late")
        self._positions: dict[Path, int] = {}
        self._due: list[tuple[float, int, dict[str, Any]]] = []
        self._taken = 0
        self._stopped = threading.Event()
        self._channels: dict[str, grpc.Channel] = {}
        self._thread = threading.Thread(target=self._run, name="late calls", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def stop(self) -> None:
        """From now on nothing comes late any more. Idempotent."""
        self._stopped.set()
        require_end(self._thread)
        for channel in self._channels.values():
            channel.close()
        self._channels.clear()

    def _run(self) -> None:
        while not self._stopped.wait(_POLL_SECONDS):
            for name in WRAPPERS:
                self._read(self._folder / f"{name}.jsonl")
            while self._due and self._due[0][0] <= time.monotonic() and not self._stopped.is_set():
                _, _, line = heapq.heappop(self._due)
                self._send(line["method"], base64.b64decode(line["request"]))

    def _read(self, path: Path) -> None:
        if not path.exists():
            return
        with path.open("rb") as file:
            file.seek(self._positions.get(path, 0))
            data = file.read()
        whole = data.rfind(b"\n") + 1
        self._positions[path] = self._positions.get(path, 0) + whole
        for text in data[:whole].splitlines():
            line = json.loads(text)
            if line.get("method") in WORKER_METHODS and self._taken < _MOST and self._rng.random() < self._share:
                self._taken += 1
                when = time.monotonic() + self._rng.uniform(0.05, _LONGEST_SECONDS)
                heapq.heappush(self._due, (when, self._taken, line))

    def _send(self, method: str, request: bytes) -> None:
        address = self._address()
        if not address:
            return
        if address not in self._channels:
            self._channels[address] = sync_channel(address, token=self._token, actor_name="late")
        message = MESSAGES[method][0].FromString(request)
        number = self._history.began(method, message)
        try:
            stub = WorkerServiceStub(self._channels[address])
            response = getattr(stub, method)(message, timeout=_DEADLINE_SECONDS)
        except grpc.RpcError as error:
            self._history.ended(number, from_rpc_error(error).code.name)
        else:
            self._history.ended(number, "OK", response)
