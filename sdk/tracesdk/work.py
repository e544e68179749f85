"""Runs one unit of work with the job's code, and says how it ended."""

import resource
import time
from collections.abc import Sequence

from google.protobuf.duration_pb2 import Duration

from traceapi.operator.v1.operator_service_pb2 import FinishedUnit, UnitCanceled, UnitEmit, UnitSucceeded, WorkUnit
from traceapi.types.v1.task_pb2 import ResourceUsage
from tracesdk.entrypoint import Code
from tracesdk.errors import InvalidOutput, TaskCanceled
from tracesdk.failures import failure_of
from tracesdk.memory import make_room
from tracesdk.operators import OrderedOperator, Source
from tracesdk.run import Run
from tracesdk.source import SourceRun
from tracesdk.task import Task
from tracesdk.unit import ROW_TYPES, Unit


class Worker:
    """Does units with one job's code."""

    def __init__(self, code: Code, bundle_folders: Sequence[str] = ()) -> None:
        self._code = code
        self._bundle_folders = bundle_folders

    def run(self, message: WorkUnit, unit: Unit) -> FinishedUnit:
        """Runs the unit. Never raises: what the code raises is how the unit ended."""
        started = time.process_time()
        finished = self._outcome(message, unit)
        finished.usage.CopyFrom(_usage(unit, time.process_time() - started))
        return finished

    def _outcome(self, message: WorkUnit, unit: Unit) -> FinishedUnit:
        finished = FinishedUnit(unit_id=unit.unit_id)
        try:
            unit.cancellation.check()
            emit = self.process(message, unit)
            unit.cancellation.check()
        except TaskCanceled:
            finished.canceled.CopyFrom(UnitCanceled())
        except BaseException as error:  # noqa: BLE001 -- whatever the code raises, SystemExit too, is its failure
            if isinstance(error, MemoryError):
                make_room(error)
            if unit.cancellation.canceled:  # a call that was cut off may show as any error
                finished.canceled.CopyFrom(UnitCanceled())
            else:
                finished.failed.CopyFrom(failure_of(error, self._bundle_folders, unit.job.memory_bytes))
        else:
            if emit is not None:
                finished.emit.CopyFrom(emit)
            finished.succeeded.CopyFrom(UnitSucceeded())
        return finished

    def process(self, message: WorkUnit, unit: Unit) -> UnitEmit | None:
        """Runs the code; what the unit has still to publish, None for nothing. Raises what the code raises."""
        if isinstance(self._code, Source):
            self._code.run(SourceRun(message, unit))
            return None
        if unit.job.ordered or isinstance(self._code, OrderedOperator):
            return self._process_run(message, unit)
        for one in message.tasks:
            if not one.already_emitted:
                self._process_task(Task(one, unit))
        last = unit.publish_all_but_last_at_once(unit.take_events())
        return last if last.events else None

    def _process_run(self, message: WorkUnit, unit: Unit) -> UnitEmit | None:
        run = Run(message, unit)
        if not run.tasks:
            return None
        if isinstance(self._code, OrderedOperator):
            self._code.process(run)
        else:
            self._process_each(run)
        return run.take_emit()

    def _process_each(self, run: Run) -> None:
        """Gives a run's tasks to a function one by one; those before one that fails are not done again."""
        previous: Task | None = None
        for task in run.tasks:
            try:
                self._process_task(task)
            except Exception:
                run.drop_events(task)
                if previous is not None:
                    run.checkpoint(previous)
                raise
            if previous is not None and run.pending_events > run.job.max_events_per_emit:
                run.checkpoint_before(task, previous)
            previous = task

    def _process_task(self, task: Task) -> None:
        if isinstance(self._code, OrderedOperator | Source):
            raise TypeError("only a function takes tasks one by one")
        rows = self._code(task)
        if rows is None:
            return
        if not isinstance(rows, ROW_TYPES):
            raise InvalidOutput(f"the function returned {type(rows).__name__}; a pyarrow.Table or None is wanted")
        task.write_and_emit(task.job.only_stored_output(), rows)


def _usage(unit: Unit, cpu_seconds: float) -> ResourceUsage:
    cpu = Duration()
    cpu.FromNanoseconds(round(cpu_seconds * 1e9))
    return ResourceUsage(
        cpu_duration=cpu,
        peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,  # Linux counts in KiB
        rows_read=unit.rows_read,
        rows_written=unit.rows_written,
    )
