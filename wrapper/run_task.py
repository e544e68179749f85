"""One unit of work from its claim to its verdict: given to its operator, watched, published, completed."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from kernel.telemetry import get_logger
from traceapi.operator.v1.operator_service_pb2 import FinishedUnit
from traceapi.types.v1 import task_pb2
from traceapi.worker.v1.completion_pb2 import CompleteItem, CompleteTaskResult
from traceapi.worker.v1.emit_pb2 import EmitItem
from wrapper.emits import Emitter
from wrapper.endings import (
    GONE,
    Dropped,
    Ending,
    Failed,
    Returned,
    Succeeded,
    UnitEnd,
    UnitVerdict,
    completions,
    ending_of,
    ending_of_refusal,
    failed,
    stopped,
)
from wrapper.jobs import Job
from wrapper.operator_process import How, OperatorProcess
from wrapper.operator_processes import OperatorProcesses, OperatorUnavailable
from wrapper.outbox import Outbox
from wrapper.unit import Stop, Unit

_START_SECONDS = 120.0
_TERMINATE_SECONDS = 2.0
_KILLED_SECONDS = 10.0
_MAX_DELIVERIES = 3
_log = get_logger("wrapper.tasks")


@dataclass(slots=True)
class Counts:
    """Attempts that ended since this worker started."""

    succeeded: int = 0
    failed: int = 0


class _GivenBackError(Exception):
    """The process ended not because of this unit: as nothing of it was emitted, it goes to the next process."""


class UnitRunner:
    """Runs units; each call of `run` is one unit's whole life here."""

    def __init__(
        self,
        processes: OperatorProcesses,
        emitter: Emitter,
        outbox: Outbox[UnitEnd, UnitVerdict],
        cancel_grace: float,
    ) -> None:
        self._processes = processes
        self._emitter = emitter
        self._outbox = outbox
        self._cancel_grace = cancel_grace
        self.counts = Counts()
        self._handed_in: Callable[[Unit], None] = lambda _unit: None

    def on_handed_in(self, handed_in: Callable[[Unit], None]) -> None:
        """`handed_in` is called whenever an operator has done its part of a unit."""
        self._handed_in = handed_in

    async def run(self, unit: Unit) -> None:
        """Never raises, but when it is cancelled: a unit's trouble is its own."""
        try:
            ending, finished = await self._perform(unit)
            unit.publishing = True
            self._handed_in(unit)
            await self._end(unit, ending, finished)
        except Exception as error:  # noqa: BLE001 - a defect met by one unit must not end the worker
            # Nothing is reported: the lease ends by itself, and the next attempt may have more luck.
            _log.error("unit failed unexpectedly", **_described(unit), exc_info=error)

    async def hand_back(self, unit: Unit, reason: str) -> None:
        """Gives a unit up that is still being worked on; nothing of it is sent any more."""
        if unit.publishing:
            await unit.ended.wait()  # it is done, and its verdict under way: to give it up would do it twice
        elif unit.alive():
            await self._outbox.put([UnitEnd(completions(unit, Returned(reason), None))], unit.alive)
            unit.ask_to_stop(Stop.LOST, "it was handed back")

    async def _perform(self, unit: Unit) -> tuple[Ending, FinishedUnit | None]:
        """Has the operator do the work."""
        while unit.stop is None:
            try:
                process = self._processes.current(unit.job) or await self._started(unit.job)
            except (OperatorUnavailable, TimeoutError) as error:
                return failed(
                    task_pb2.ERROR_CLASS_TRANSIENT, str(error) or "the operator's process did not start"
                ), None
            unit.deliveries += 1
            process.handover.give(unit)
            try:
                return await self._attend(unit, process)
            except _GivenBackError:
                unit.begin_again()
            finally:
                process.handover.take_back(unit)
                if unit.is_source:  # it has nothing more to do, unlike an operator's
                    self._processes.dismiss(process)
        return stopped(unit), None

    async def _started(self, job: Job) -> OperatorProcess:
        async with asyncio.timeout(_START_SECONDS):
            return await self._processes.get(job)

    async def _attend(self, unit: Unit, process: OperatorProcess) -> tuple[Ending, FinishedUnit | None]:
        while not (_done(unit, process) or unit.stop is not None or unit.overdue):
            await unit.news()
        if unit.stop is not None and not unit.handed:
            return stopped(unit), None
        if unit.overdue and not _done(unit, process):
            text = f"exceeded its timeout of {unit.job.timeout:g} s"
            await self._end_process(process, f"task {unit.first.task_id} {text}")
            return failed(task_pb2.ERROR_CLASS_TIMEOUT, f"the attempt {text}"), None
        if not _done(unit, process) and not await self._cancel(unit, process):
            await self._end_process(process, f"task {unit.first.task_id} did not stop when it was told to")
            return stopped(unit), None
        if unit.finished is not None:
            ending = ending_of(unit, unit.finished)
            if isinstance(ending, Failed) and ending.failure.error_class == task_pb2.ERROR_CLASS_OUT_OF_MEMORY:
                # What the attempt left behind in the process would be charged to the next one, which may be there.
                await self._end_process(process, f"task {unit.first.task_id} used up its memory")
            return ending, unit.finished
        return _after_process(unit, process), None

    async def _cancel(self, unit: Unit, process: OperatorProcess) -> bool:
        """Tells the operator to stop the unit; whether it did, or its process ended, within the time that it has."""
        process.handover.cancel(unit)
        deadline = time.monotonic() + self._cancel_grace
        while not _done(unit, process):
            if time.monotonic() >= deadline:
                return False
            await unit.news(deadline - time.monotonic())
        return True

    async def _end_process(self, process: OperatorProcess, because: str) -> None:
        """The whole process group: first asked by SIGTERM, then ended. Returns once it has ended, so that nothing of
        the attempt runs when its end is told; but for a process that the kernel cannot end yet."""
        self._processes.forget(process)
        for end, seconds in ((process.terminate, _TERMINATE_SECONDS), (process.kill, _KILLED_SECONDS)):
            end(because)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.ended.wait(), seconds)

    async def _end(self, unit: Unit, ending: Ending, finished: FinishedUnit | None) -> None:
        """Publishes what the operator left for its end, and completes. A refusal decides how the unit ended."""
        if finished is not None and finished.HasField("emit"):
            if isinstance(ending, Succeeded):
                async with unit.emitting:
                    last = await self._emitter.all_but_last(unit, finished.emit)
                    if isinstance(last, EmitItem):
                        await self._complete(unit, ending, finished, last)
                        return
                ending = ending_of_refusal(last)
            elif isinstance(ending, Failed):
                emitted = await self._emitter.emit(unit, finished.emit)
                if emitted.error is not None:
                    ending = ending_of_refusal(emitted.error)
        if unit.refused is not None and isinstance(ending, Succeeded):
            ending = ending_of_refusal(unit.refused)
        await self._complete(unit, ending, finished)

    async def _complete(
        self, unit: Unit, ending: Ending, finished: FinishedUnit | None, emit: EmitItem | None = None
    ) -> None:
        if isinstance(ending, Dropped) or not unit.alive():
            reason = ending.reason if isinstance(ending, Dropped) else unit.stop_reason
            _log.info("unit dropped", **_described(unit), reason=reason)
            return
        end = UnitEnd(completions(unit, ending, finished), emit)
        verdicts = await self._outbox.put([end], unit.alive)
        if verdicts is None:
            return
        self._count(end.completions, verdicts[0].completions)
        if isinstance(ending, Failed):
            _log.info("attempt failed", **_described(unit), message=ending.failure.message)
        refusal = verdicts[0].refusal
        if refusal is None or refusal.reason in GONE:
            return
        _log.warning("completion refused", **_described(unit), reason=refusal.reason, message=refusal.message)
        if isinstance(ending, Succeeded):
            # What was emitted before stands, yet it may not succeed: the next attempt finds out what is missing.
            await self._complete(unit, ending_of_refusal(refusal), finished)

    def _count(self, items: Sequence[CompleteItem], verdicts: Sequence[CompleteTaskResult]) -> None:
        recorded = [item for item, verdict in zip(items, verdicts, strict=True) if verdict.HasField("state")]
        self.counts.succeeded += sum(item.HasField("success") for item in recorded)
        self.counts.failed += sum(item.HasField("failure") for item in recorded)


def _described(unit: Unit) -> dict[str, Any]:
    """What a log line says of a unit."""
    return {
        "task_id": unit.first.task_id,
        "attempt": unit.first.attempt,
        "tasks": len(unit.tasks),
        "dag": unit.job.details.dag,
        "job": unit.job.details.job,
    }


def _after_process(unit: Unit, process: OperatorProcess) -> Ending:
    """What the end of its process means for a unit."""
    end = process.how_it_ended()
    if unit.stop is not None:
        return stopped(unit)
    if end.how is How.CRASHED and (unit.began is not None or unit.deliveries >= _MAX_DELIVERIES):
        crash = task_pb2.ERROR_CLASS_OUT_OF_MEMORY if end.out_of_memory else task_pb2.ERROR_CLASS_CRASH
        return failed(crash, end.message, end.tail)
    if not unit.accepted_emits:
        raise _GivenBackError
    return failed(task_pb2.ERROR_CLASS_TRANSIENT, f"its process was ended: {end.message}")


def _done(unit: Unit, process: OperatorProcess) -> bool:
    """Nothing more is to be expected of the operator."""
    return unit.finished is not None or process.ended.is_set()
