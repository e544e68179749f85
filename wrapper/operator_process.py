"""One operator's process: started, listened to, ended. Its socket lives and dies with it."""

import asyncio
import os
import signal
import time
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Any

from kernel.servers import AioServer, unix_aio_server
from kernel.telemetry import get_logger
from traceapi.operator.v1.operator_service_pb2_grpc import add_OperatorServiceServicer_to_server
from wrapper.handover import Handover
from wrapper.jobs import Job
from wrapper.logs import MAX_TEXT_BYTES, OperatorLogs
from wrapper.memory_ends import kernel_memory_kills, want_of_memory
from wrapper.operator_socket import Desk, OperatorSocket
from wrapper.process_group import ProcessGroup
from wrapper.sandbox.port import Launch

_ATTACH_SECONDS = 60.0
_READ_BYTES = 64 * 1024
_TAIL_BYTES = 32 * 1024
_DRAIN_PIPES_SECONDS = 1.0
_log = get_logger("wrapper.operators")


class How(Enum):
    """How a process ended."""

    LEFT = auto()  # it was asked to
    KILLED = auto()  # by this worker, because of one of its units
    CRASHED = auto()  # by itself


@dataclass(frozen=True, slots=True)
class ProcessEnd:
    """How a process ended. `tail` is the end of what it wrote to standard error."""

    how: How
    message: str
    tail: str
    out_of_memory: bool = False


class OperatorProcess:
    """A process that runs the units of one job version."""

    def __init__(self, job: Job, handover: Handover, sandboxed: bool, logs: OperatorLogs) -> None:
        self.job = job
        self.handover = handover
        self.sandboxed = sandboxed
        self.pid = 0
        self.ended = asyncio.Event()
        self._end: ProcessEnd | None = None
        self.idle_since = time.monotonic()
        self._logs = logs
        self._process: asyncio.subprocess.Process | None = None
        self._group: ProcessGroup | None = None
        self._server: AioServer | None = None
        self._leaving = False
        self._killed_because = ""
        self._tail = bytearray()
        self._kernel_kills = kernel_memory_kills()

    async def run(self, launch: Launch, socket: Path, desk: Desk) -> None:
        """From start to end. Never raises: `how_it_ended` tells once `ended` is set."""
        service = OperatorSocket(self.job, self.handover, desk, launch.local_paths)
        try:
            self._server = unix_aio_server(socket)
            add_OperatorServiceServicer_to_server(service, self._server.server)
            await self._server.start()
            process = await self._start(launch)
            self._group = ProcessGroup(process.pid, sandboxed=self.sandboxed)
            await self._attend(process, self._group, service)
        except Exception as error:  # noqa: BLE001 - whatever hinders one process, the worker and its other processes go on
            self._end = ProcessEnd(How.CRASHED, f"the operator's process could not be started: {error}", "")
        finally:
            for descriptor in launch.descriptors:
                os.close(descriptor)
            self.kill("")
            self._end = self.how_it_ended()
            self.ended.set()
            self.handover.close()
            if self._server is not None:
                await self._server.stop(0)
            _remove(socket)
            _log.info("operator process ended", job=self.job.details.job, pid=self.pid, how=self._end.message)

    def how_it_ended(self) -> ProcessEnd:
        """Once `ended` is set."""
        return self._end or ProcessEnd(How.LEFT, "the worker stopped", "")

    def leave(self) -> None:
        """Asks it to end once nothing is in its hands."""
        self._leaving = True
        self.handover.leave()

    def terminate(self, because: str) -> None:
        """Asks it, and everything that it started, to end."""
        if (group := self._living(because)) is not None:
            group.ask_to_end()

    def kill(self, because: str) -> None:
        """Ends it at once, with everything that it started."""
        if (group := self._living(because)) is not None:
            group.end()

    def _living(self, because: str) -> ProcessGroup | None:
        """None where it has ended: then what it had started has, too."""
        if self._process is None or self._process.returncode is not None:
            return None
        self._killed_because = self._killed_because or because
        return self._group

    async def _start(self, launch: Launch) -> asyncio.subprocess.Process:
        self._process = await asyncio.create_subprocess_exec(
            *launch.command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=dict(launch.environment),
            cwd="/",
            close_fds=True,
            pass_fds=launch.descriptors,
            start_new_session=True,
        )
        self.pid = self._process.pid
        _log.info("operator process started", job=self.job.details.job, pid=self.pid, sandboxed=self.sandboxed)
        return self._process

    async def _attend(self, process: asyncio.subprocess.Process, group: ProcessGroup, service: OperatorSocket) -> None:
        last: list[asyncio.Task[Any]] = [
            asyncio.create_task(self._listen(pipe, level))
            for pipe, level in ((process.stdout, "stdout"), (process.stderr, "stderr"))
            if pipe is not None
        ]
        last.append(asyncio.create_task(process.wait()))
        attach = asyncio.create_task(self._expect_attach(service))
        try:
            await group.leader_has_ended()
            group.end()  # what it started does not outlive it, though it may be deaf to SIGTERM
            # One that has left the group may hold the pipes open for ever.
            await asyncio.wait(last, timeout=_DRAIN_PIPES_SECONDS)
        finally:
            for task in (attach, *last):
                task.cancel()
        self._end = self._judge(process.returncode or 0)

    async def _expect_attach(self, service: OperatorSocket) -> None:
        try:
            async with asyncio.timeout(_ATTACH_SECONDS):
                await service.attached.wait()
        except TimeoutError:
            self.kill("")
            self._tail += f"\nit did not attach within {_ATTACH_SECONDS:.0f} s".encode()

    def _judge(self, status: int) -> ProcessEnd:
        tail = self._tail.decode(errors="replace")
        if self._killed_because:
            return ProcessEnd(How.KILLED, self._killed_because, tail)
        if self._leaving and status == 0:
            return ProcessEnd(How.LEFT, "it was asked to leave", tail)
        number = status - 128 if self.sandboxed and status > 128 else -status  # a sandbox tells signals as shells do
        how = f"was ended by {_signal_name(number)}" if number > 0 else f"ended with status {status}"
        want = want_of_memory(number, kernel_memory_kills() - self._kernel_kills, tail)
        if want:
            limit = self.job.details.memory_bytes
            how += f", {want}; " + (f"its code may use {limit:,} bytes" if limit else "its code has no limit")
        return ProcessEnd(How.CRASHED, f"the operator's process {how}", tail, out_of_memory=bool(want))

    async def _listen(self, pipe: asyncio.StreamReader, level: str) -> None:
        """Takes what it writes as lines, cut where they are too long, as fast as it comes."""
        rest = b""
        while data := await pipe.read(_READ_BYTES):
            if level == "stderr":
                self._tail += data
                del self._tail[:-_TAIL_BYTES]
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self._logs.add(self.job.details.job, level, line.decode(errors="replace"))
            if len(rest) > MAX_TEXT_BYTES:
                self._logs.add(self.job.details.job, level, rest.decode(errors="replace"))
                rest = b""
        if rest:
            self._logs.add(self.job.details.job, level, rest.decode(errors="replace"))


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _remove(socket: Path) -> None:
    socket.unlink(missing_ok=True)
