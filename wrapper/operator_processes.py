"""The operators' processes of this worker: one for each job version that has work, warm between tasks, gone when
idle."""

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

from kernel.errors import TraceError
from kernel.telemetry import get_logger
from wrapper.bundles import BundleFolders, path_within
from wrapper.handover import Handover, Slots
from wrapper.jobs import BUILT_IN, PYTHON, Job
from wrapper.operator_process import OperatorProcess
from wrapper.operator_socket import Desk
from wrapper.replay_files import FileRefused, ReplayFiles
from wrapper.sandbox.plain import PlainProcess
from wrapper.sandbox.port import Program, Sandbox, SandboxUnavailable

_SWEEP_SECONDS = 1.0
_MAX_IDLE = 32
_MAX_SOURCES = 64
_LEAVE_SECONDS = 3.0
_log = get_logger("wrapper.operators")


class OperatorUnavailable(Exception):
    """No process can be had for a job; the message says why."""


@dataclass(frozen=True, slots=True)
class ProcessSettings:
    """`sockets` is a folder of this worker's own, with a short path: a socket's may have 107 bytes."""

    sockets: Path
    idle_seconds: float
    memory_bytes: int
    """What an operator's code may allocate where its job does not say; 0 for no limit."""


class OperatorProcesses:
    """Starts processes when they are needed. `sandbox` is None where operators' code cannot be shut in: it is then
    refused."""

    def __init__(
        self,
        desk: Desk,
        bundles: BundleFolders,
        replay_files: ReplayFiles,
        slots: Slots,
        sandbox: Sandbox | SandboxUnavailable,
        settings: ProcessSettings,
    ) -> None:
        self._desk = desk
        self._bundles = bundles
        self._replay_files = replay_files
        self._slots = slots
        self._source_slots = Slots(_MAX_SOURCES)
        self._sandbox = sandbox
        self._settings = settings
        self._plain = PlainProcess()
        self._current: dict[str, OperatorProcess] = {}
        self._all: set[OperatorProcess] = set()
        self._starting: dict[str, asyncio.Lock] = {}
        self._group: asyncio.TaskGroup | None = None
        self._number = 0

    def running(self) -> list[OperatorProcess]:
        """The processes that there are now."""
        return [process for process in self._all if process.pid and not process.ended.is_set()]

    async def run(self) -> None:
        """Watches over the processes until cancelled; then ends them all."""
        try:
            async with asyncio.TaskGroup() as self._group:
                while True:
                    await asyncio.sleep(_SWEEP_SECONDS)
                    self._dismiss_idle(time.monotonic())
        finally:
            self._group = None

    def current(self, job: Job) -> OperatorProcess | None:
        """The job version's process, where there is one with its present settings."""
        process = self._current.get(job.job_version_id)
        if process is None or process.ended.is_set() or process.job.details_id != job.details_id:
            return None
        return process

    async def get(self, job: Job) -> OperatorProcess:
        """The job version's process, started where there is none with its present settings.

        OperatorUnavailable says why there is none to be had.
        """
        lock = self._starting.setdefault(job.job_version_id, asyncio.Lock())
        async with lock:
            process = self.current(job)
            if process is None:
                if (former := self._current.get(job.job_version_id)) is not None:
                    former.leave()
                process = await self._start(job)
                self._current[job.job_version_id] = process
            return process

    def forget(self, process: OperatorProcess) -> None:
        """Nothing new is given to this process; the next unit of its job version gets another one."""
        if self._current.get(process.job.job_version_id) is process:
            del self._current[process.job.job_version_id]
            self._starting.pop(process.job.job_version_id, None)

    def dismiss(self, process: OperatorProcess) -> None:
        """Lets go of a process; it ends once nothing is in its hands."""
        self.forget(process)
        process.leave()

    async def leave(self) -> None:
        """Asks all to end, and ends those that do not."""
        processes = list(self._all)
        for process in processes:
            self.dismiss(process)
        endings = [asyncio.create_task(process.ended.wait()) for process in processes]
        if endings:
            await asyncio.wait(endings, timeout=_LEAVE_SECONDS)
        for process in processes:
            process.kill("the worker stops")

    async def _start(self, job: Job) -> OperatorProcess:
        if self._group is None:
            raise OperatorUnavailable("the worker stops")
        try:
            sandbox, built_in = self._how(job)
            folders = await self._folders(job)
            self._number += 1
            socket = self._settings.sockets / f"{self._number}.sock"
            launch = sandbox.launch(Program(socket, built_in, folders))
        except (TraceError, SandboxUnavailable, FileRefused, OSError) as error:
            raise OperatorUnavailable(f"no process for job {job.details.job}: {error}") from error
        slots = self._source_slots if job.details.source else self._slots  # sources run beside: they may never end
        limited = job.with_memory(self._settings.memory_bytes)
        process = OperatorProcess(limited, Handover(slots), sandbox.confines, self._desk.logs)
        self._all.add(process)
        task = self._group.create_task(process.run(launch, socket, self._desk))
        task.add_done_callback(lambda _task: self._all.discard(process))
        return process

    def _how(self, job: Job) -> tuple[Sandbox, str]:
        """The place, and the built-in operator that is run there; empty for the job's own code."""
        if job.details.secrets:
            # No operator of this release asks for any; and whoever may deploy is not to name this worker's files.
            raise OperatorUnavailable(f"job {job.details.job} names secrets, and this worker gives none: take them out")
        if job.built_in:
            return self._plain, BUILT_IN[job.operator]
        if job.operator != PYTHON:
            raise OperatorUnavailable(
                f"this worker has no operator {job.operator!r}; it has {', '.join([*BUILT_IN, PYTHON])}"
            )
        if isinstance(self._sandbox, SandboxUnavailable):
            raise self._sandbox
        return self._sandbox, ""

    async def _folders(self, job: Job) -> dict[str, Path]:
        """What the document's paths stand for here. TraceError for a bundle, FileRefused for a file in place."""
        found = {
            path: path_within(await self._bundles.folder(digest), path) for path, digest in job.details.bundles.items()
        }
        if job.file_in_place:
            found[job.file_in_place] = await asyncio.to_thread(self._replay_files.find, job.file_in_place)
        return found

    def _dismiss_idle(self, now: float) -> None:
        """Lets go of processes without work: of those idle for long, and of the longest idle where there are many."""
        idle = []
        for process in self._current.values():
            if not process.handover.idle:
                process.idle_since = now
            else:
                idle.append(process)
        idle.sort(key=lambda process: process.idle_since)
        for position, process in enumerate(idle):
            if now - process.idle_since >= self._settings.idle_seconds or len(idle) - position > _MAX_IDLE:
                self.dismiss(process)
