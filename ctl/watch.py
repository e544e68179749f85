"""Follows a deployment until nothing is left to do, on a terminal as bars, elsewhere as a line now and then.

A thread reads the stream; the caller's thread draws, so that time goes on on the screen while nothing changes.
"""

import math
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import grpc
from rich.console import Console
from rich.live import Live

from ctl.connection import CALL_SECONDS, Connection
from ctl.errors import CtlError
from ctl.render.layers import in_order
from ctl.render.progress import DeploymentProgress
from kernel.errors import from_rpc_error
from traceapi.control.v1 import dag_service_pb2 as dags
from traceapi.control.v1.deployment_pb2 import DEPLOYMENT_STATE_BUILDING, DEPLOYMENT_STATE_HELD, Deployment

_REFRESH_SECONDS = 0.2
_LINE_SECONDS = 2.0
_PATIENCE_SECONDS = 5.0
_RETRY_SECONDS = 0.5
_RETRIES = 40


@dataclass(frozen=True, slots=True)
class Followed:
    """How a deployment looked when there was nothing more to wait for."""

    state: dags.WatchDeploymentResponse
    dead: int
    """DEAD tasks. Where there are any, `state.settled` may be false for ever: they hold what is behind them."""


def follow_deployment(
    connection: Connection,
    deployment: Deployment,
    console: Console,
    *,
    give_up_after: float = math.inf,
    to_the_end: bool = True,
) -> Followed:
    """Returns once it is settled, or stuck behind DEAD tasks; of a version that is being built, once it is not any more
    or waits for somebody to cut it over. Without `to_the_end` what sources go on to bring is not waited for.

    Raises CtlError when the stack stops answering, or when nothing has changed for `give_up_after` seconds.
    """
    progress = DeploymentProgress(_order(connection, deployment))
    building = deployment.state == DEPLOYMENT_STATE_BUILDING

    def ends(state: dags.WatchDeploymentResponse) -> bool:
        present = state.deployment.state
        taken_over = building and present != DEPLOYMENT_STATE_BUILDING
        done = state.settled or (state.caught_up and not to_the_end)
        return done or taken_over or present == DEPLOYMENT_STATE_HELD

    reader = _Reader(connection, deployment.deployment_id)
    reader.start()
    try:
        with connection.errors(f"DAG {deployment.dag}"):
            if console.is_terminal and not console.is_dumb_terminal:
                with Live(progress, console=console, auto_refresh=False, vertical_overflow="visible") as live:
                    _run(reader, progress, lambda: live.update(progress, refresh=True), give_up_after, ends)
            else:
                _run(reader, progress, _Lines(console, progress), give_up_after, ends)
    finally:
        reader.stop()
    if progress.state is None:
        raise RuntimeError("a watch ended without a state")
    return Followed(progress.state, progress.dead)


def _order(connection: Connection, deployment: Deployment) -> list[str]:
    """The jobs as data flows; a first version that is not active yet has no such order."""
    with connection.errors(f"DAG {deployment.dag}"):
        found = connection.dags.ListDags(dags.ListDagsRequest(), timeout=CALL_SECONDS).dags
        if not any(one.dag == deployment.dag for one in found):
            return []
        return in_order(connection.dags.GetDag(dags.GetDagRequest(dag=deployment.dag), timeout=CALL_SECONDS).spec)


def _run(
    reader: "_Reader",
    progress: DeploymentProgress,
    draw: Callable[[], None],
    give_up_after: float,
    ends: Callable[[dags.WatchDeploymentResponse], bool],
) -> None:
    while True:
        try:
            item = reader.items.get(timeout=_REFRESH_SECONDS)
        except queue.Empty:
            progress.tick(time.monotonic())
        else:
            if isinstance(item, grpc.RpcError):
                raise item
            progress.update(item, time.monotonic())
        draw()
        if progress.quiet_seconds() > give_up_after:
            raise CtlError(f"nothing has changed for {give_up_after:.0f} s: {progress.summary()}")
        if progress.state is None:
            continue
        if ends(progress.state) or progress.is_stuck(_PATIENCE_SECONDS):
            return


class _Lines:
    """Prints the summary when it has changed, not more often than every few seconds, and always the last one."""

    def __init__(self, console: Console, progress: DeploymentProgress) -> None:
        self._console = console
        self._progress = progress
        self._last = ""
        self._at = float("-inf")

    def __call__(self) -> None:
        line = self._progress.summary()
        settled = self._progress.state is not None and self._progress.state.settled
        if line != self._last and (settled or time.monotonic() - self._at >= _LINE_SECONDS):
            self._console.print(line, markup=False, soft_wrap=True)
            self._last, self._at = line, time.monotonic()


class _Reader(threading.Thread):
    """Reads the watch; asks again when the connection breaks, which is how a watch is resumed."""

    def __init__(self, connection: Connection, deployment_id: str) -> None:
        super().__init__(name="watch", daemon=True)
        self.items: queue.Queue[dags.WatchDeploymentResponse | grpc.RpcError] = queue.Queue()
        self._connection = connection
        self._request = dags.WatchDeploymentRequest(deployment_id=deployment_id)
        self._stopped = threading.Event()
        self._call: grpc.Call | None = None

    def run(self) -> None:
        failures = 0
        while not self._stopped.is_set():
            try:
                call = self._connection.dags.WatchDeployment(self._request)
                self._call = call
                for state in call:
                    failures = 0
                    self.items.put(state)
                    if state.settled:
                        return
            except grpc.RpcError as error:
                failures += 1
                if from_rpc_error(error).code != grpc.StatusCode.UNAVAILABLE or failures > _RETRIES:
                    self.items.put(error)
                    return
            self._stopped.wait(_RETRY_SECONDS)

    def stop(self) -> None:
        self._stopped.set()
        if self._call is not None:
            self._call.cancel()
        self.join(5.0)
