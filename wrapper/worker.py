"""The worker's loop: wake-ups in, claims out, units run. Owns what is in hand, and how much of it there may be.

A wake-up is a hint with a task id, by whatever way it came (wakeups/). All that have arrived go into one claim, and a
few claims are under way at a time: a fresh event's task, alone in its own, does not wait for the answer to a long one.
What a claim grants becomes units. There is room for those of the window (window.py) less what is held, so that the next
unit is at hand when one ends. Sources do not count: they may never end.
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable, Sequence
from enum import Enum, auto

from kernel.errors import TraceError
from kernel.ids import IdSource
from kernel.telemetry import get_logger
from traceapi.types.v1 import errors_pb2
from traceapi.types.v1.task_pb2 import OperatorState, StreamLease
from traceapi.worker.v1.worker_service_pb2 import ClaimedTask, ClaimTasksRequest, ClaimTasksResponse
from wrapper.dispatcher_client import Dispatcher, persist
from wrapper.heartbeat import Heartbeat
from wrapper.jobs import JobCatalog, seconds
from wrapper.run_task import UnitRunner
from wrapper.unit import Stop, Unit
from wrapper.wakeups.port import Wakeups
from wrapper.window import Window

_MAX_CLAIM = 1000
_MAX_CLAIMS = 3
_MAX_WOKEN = 20_000
_MAX_HELD = 8_000
_TOKEN_BYTES = 32
_HAND_BACK_SECONDS = 3.0
_LEAVING = "the worker stops"
_log = get_logger("wrapper.worker")


class Phase(Enum):
    """What the worker is doing, as WORKER_PHASE_* of the contract."""

    CONNECTING = auto()
    SERVING = auto()
    DRAINING = auto()


class Worker:
    """One worker of one dispatcher."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        runner: UnitRunner,
        wakeups: Sequence[Wakeups],
        capacity: int,
        lease_seconds: float,
        new_id: IdSource,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._dispatcher = dispatcher
        self._runner = runner
        self._wakeups = wakeups
        self._window = Window(2 * capacity)
        self._lease = lease_seconds
        self._new_id = new_id
        self._monotonic = monotonic
        self._jobs = JobCatalog()
        self._held: dict[int, Unit] = {}
        self._woken: dict[str, None] = {}  # ids to claim, in the order of arrival
        self._claiming = 0  # ids in claims that are under way
        self._working = 0  # units in hand that take room
        self._leaving = False
        self._draining = asyncio.Event()
        self._taking = asyncio.Event()
        self._taking.set()
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._emptied = asyncio.Event()
        self._emptied.set()
        self._group: asyncio.TaskGroup | None = None
        runner.on_handed_in(self._handed_in)
        self.heartbeat = Heartbeat(dispatcher, self.held, lease_seconds)

    def held(self) -> list[Unit]:
        """The units in hand."""
        return list(self._held.values())

    @property
    def phase(self) -> Phase:
        if self._draining.is_set():
            return Phase.DRAINING
        return Phase.SERVING if all(wakeups.connected for wakeups in self._wakeups) else Phase.CONNECTING

    def drain(self) -> None:
        """Takes no more wake-ups; what runs goes on."""
        self._taking.clear()
        self._draining.set()

    def resume(self) -> None:
        """Takes wake-ups again."""
        self._draining.clear()
        self._taking.set()

    async def run(self) -> None:
        """Works until cancelled."""
        async with asyncio.TaskGroup() as self._group:
            for wakeups in self._wakeups:
                self._group.create_task(self._listen(wakeups))
            for _ in range(_MAX_CLAIMS):
                self._group.create_task(self._claim())
            self._group.create_task(self.heartbeat.run())

    async def stop(self, grace: float) -> None:
        """Drains: what ends within `grace` seconds is completed, the rest is handed back for others to take up."""
        self._leaving = True
        self.drain()
        for unit in self.held():
            if unit.is_source:
                unit.ask_to_stop(Stop.HAND_BACK, _LEAVING)
        self._woken.clear()
        self._settle()
        try:
            async with asyncio.timeout(grace):
                await self._emptied.wait()
        except TimeoutError:
            _log.warning("handing back what has not ended", units=len(self._held))
            await self._hand_back()

    async def _hand_back(self) -> None:
        """Gives up what is in hand: others take it up at once."""
        try:
            async with asyncio.timeout(_HAND_BACK_SECONDS), asyncio.TaskGroup() as group:
                for unit in self.held():
                    group.create_task(self._runner.hand_back(unit, _LEAVING))
        except TimeoutError:
            _log.warning("leases not handed back: they end by themselves", units=len(self._held))

    async def _listen(self, wakeups: Wakeups) -> None:
        """While there is work to be taken."""
        while True:
            await self._taking.wait()
            listening = asyncio.create_task(wakeups.listen(self))
            drained = asyncio.create_task(self._draining.wait())
            try:
                await asyncio.wait([listening, drained], return_when=asyncio.FIRST_COMPLETED)
            finally:
                listening.cancel()
                drained.cancel()
                await asyncio.wait([listening, drained])
            if not listening.cancelled():
                listening.result()  # a defect, which must not go unheard

    async def room_changes(self) -> None:
        """Something came or went; or time passed in which the window may have shrunk."""
        self._room.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._window.shrinks_within(self._monotonic())):
                await self._room.wait()

    def least_grant(self) -> int:
        """A message for each free place would cost more than the place brings: a quarter of the window goes at once."""
        return max(1, self._window.size(self._monotonic()) // 4)

    def room_left(self) -> int:
        """Units that wait for their verdict take no room, so that the operators never wait for commits; up to a
        limit."""
        room = min(self._window.size(self._monotonic()) - self._working, _MAX_HELD - len(self._held))
        return max(0, room - len(self._woken) - self._claiming)

    def _handed_in(self, unit: Unit) -> None:
        if not unit.is_source:
            if unit.finished is not None:  # what no operator could be had for says nothing of how many are worked off
                self._window.note(self._monotonic(), live=unit.is_live)
            self._working -= 1
            self._room.set()

    def wake(self, task_ids: Sequence[str]) -> None:
        """Ids in hand are claimed too: the attempt in hand may have ended, and only its answer be under way."""
        self._woken |= dict.fromkeys(task_ids[: max(0, _MAX_WOKEN - len(self._woken))])
        self._arrived.set()
        self._room.set()

    async def _claim(self) -> None:
        """One claim after the other, each for everything that has arrived and is in no other one's."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._woken:
                task_ids = list(self._woken)[:_MAX_CLAIM]
                for task_id in task_ids:
                    del self._woken[task_id]
                if not self._claiming:  # an answer leaves out what its claim named as known
                    self._jobs.trim()
                self._claiming += len(task_ids)
                self._emptied.clear()
                try:
                    await self._claim_tasks(task_ids)
                except TraceError as error:
                    _log.warning("claim failed", tasks=len(task_ids), reason=error.reason_name, message=str(error))
                finally:
                    self._claiming -= len(task_ids)
                    self._room.set()
                    self._settle()

    async def _claim_tasks(self, task_ids: list[str]) -> None:
        """One claim, repeated with the same id and token while its outcome is not known: it burns no second attempt."""
        request = ClaimTasksRequest(
            request_id=self._new_id(),
            lease_token=secrets.token_bytes(_TOKEN_BYTES),
            task_ids=task_ids,
            known_details_ids=self._jobs.known_ids(),
        )
        until = self._monotonic() + self._lease
        response = await persist(lambda: self._dispatcher.claim(request), lambda: self._monotonic() < until)
        for wakeups in self._wakeups:
            wakeups.answered(task_ids)
        self._take(request, response)

    def _take(self, request: ClaimTasksRequest, response: ClaimTasksResponse) -> None:
        """Starts what was granted. Ids that were not are dropped: when they are ready, another wake-up comes. Only what
        did not fit the claim is claimed again at once."""
        self._jobs.add(response.jobs)
        for result in response.results:
            if result.error.reason == errors_pb2.ERROR_REASON_OVERLOADED and not self._leaving:
                self._woken[result.task_id] = None
            if result.error.reason == errors_pb2.ERROR_REASON_TASK_CANCELED:
                self.heartbeat.hurry()  # it may be in hand: the answer to a beat says so, and for which attempt
            if result.HasField("claimed"):
                task = result.claimed
                self._start(request.lease_token, [task], None, task.state if task.HasField("state") else None)
        for run in response.runs:
            if run.tasks:
                state = run.state if run.HasField("state") else None
                self._start(request.lease_token, list(run.tasks), run.stream, state)

    def _start(
        self, token: bytes, tasks: list[ClaimedTask], stream: StreamLease | None, state: OperatorState | None
    ) -> None:
        job = self._jobs.get(tasks[0].details_id)
        if job is None or self._group is None:
            _log.error("claimed a task without its job's details", task_id=tasks[0].task_id)
            return
        lease_until = self._monotonic() + seconds(tasks[0].lease_duration)
        unit = Unit(job=job, tasks=tasks, lease_token=token, lease_until=lease_until, stream=stream, state=state)
        self._held[unit.unit_id] = unit
        self._working += not unit.is_source
        if self._leaving:
            unit.ask_to_stop(Stop.HAND_BACK, _LEAVING)
        self._group.create_task(self._run_unit(unit))

    async def _run_unit(self, unit: Unit) -> None:
        try:
            await self._runner.run(unit)
        finally:
            del self._held[unit.unit_id]
            unit.ended.set()
            self._working -= not (unit.is_source or unit.publishing)
            self._room.set()
            self._settle()

    def _settle(self) -> None:
        """Announces that nothing is in hand, nor on its way there."""
        if not self._held and not self._claiming:
            self._emptied.set()
