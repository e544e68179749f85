"""The program: reads its settings, wires the parts, serves until SIGTERM, drains, ends. Wiring only."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass

from kernel import seccomp
from kernel.artifacts import ArtifactStore, open_store, require_usable
from kernel.channels import aio_channel
from kernel.command_line import configure
from kernel.credentials import CredentialError, Role, TokenVerifier, read_token
from kernel.errors import TraceError
from kernel.garbage import collect_seldom
from kernel.ids import new_id
from kernel.ready import write_ready_file
from kernel.servers import AccessPolicy, AioServer, aio_server
from kernel.servers.listening import ListenError
from kernel.sqs import STREAM, SqsLocation
from kernel.telemetry import configure_logging, get_logger
from kernel.tls import client_tls, listener_tls
from traceapi.worker.v1.emit_pb2 import EmitItem, EmitResult
from traceapi.wrapper.v1.wrapper_service_pb2_grpc import add_WrapperServiceServicer_to_server
from wrapper.bundles import BundleFolders
from wrapper.config import SandboxChoice, WrapperConfig
from wrapper.dispatcher_client import Dispatcher
from wrapper.emits import Emitter, refused_emit
from wrapper.endings import UnitEnd, UnitVerdict, refused_end
from wrapper.handover import Slots
from wrapper.inputs import Inputs
from wrapper.logs import OperatorLogs
from wrapper.operator_processes import OperatorProcesses, ProcessSettings
from wrapper.operator_socket import Desk
from wrapper.outbox import Outbox
from wrapper.outputs.commit import OutputCommitter
from wrapper.replay_files import ReplayFiles
from wrapper.run_task import UnitRunner
from wrapper.sandbox.bubblewrap import Bubblewrap
from wrapper.sandbox.plain import PlainProcess
from wrapper.sandbox.port import Sandbox, SandboxUnavailable
from wrapper.status_service import Identity, WrapperService
from wrapper.wakeups.port import Wakeups
from wrapper.wakeups.stream import StreamWakeups
from wrapper.work_dir import WorkDir, WorkDirError, open_work_dir
from wrapper.worker import Worker

_ROW_THREADS = 8
# Reading and writing files, which for a store on the network is waiting: 16 puts and as many reads.
_STORE_THREADS = 32
_log = get_logger("wrapper")


@dataclass(frozen=True, slots=True)
class Parts:
    """What runs, as `build` wired it."""

    worker: Worker
    processes: OperatorProcesses
    outputs: OutputCommitter
    emits: Outbox[EmitItem, EmitResult]
    ends: Outbox[UnitEnd, UnitVerdict]
    service: WrapperService


def build_sandbox(config: WrapperConfig) -> Sandbox | SandboxUnavailable:
    """The sandbox; or, where there is none to be had, the reason that `python` tasks will fail with."""
    if config.sandbox is SandboxChoice.PLAIN:
        _log.warning("TRACE_SANDBOX=plain: the code of `python` operators runs with all rights of this worker")
        return PlainProcess()
    if without := seccomp.missing():
        _log.warning("operators run without a filter of system calls", reason=without)
    try:
        return Bubblewrap(hidden=(config.worker_token_file.absolute().parent, config.work_dir.absolute()))
    except SandboxUnavailable as problem:
        _log.error("no sandbox: tasks of `python` operators will fail", message=str(problem))
        return problem


@dataclass(frozen=True, slots=True)
class Threads:
    """Where blocking work is done. Rows are computed with, the store is waited for: neither keeps the other back."""

    rows: ThreadPoolExecutor
    store: ThreadPoolExecutor

    @classmethod
    def start(cls) -> "Threads":
        return cls(
            ThreadPoolExecutor(_ROW_THREADS, thread_name_prefix="rows"),
            ThreadPoolExecutor(_STORE_THREADS, thread_name_prefix="store"),
        )

    def stop(self) -> None:
        """Drops what has not begun."""
        for executor in (self.rows, self.store):
            executor.shutdown(wait=False, cancel_futures=True)


def build(
    config: WrapperConfig, dispatcher: Dispatcher, work_dir: WorkDir, store: ArtifactStore, threads: Threads
) -> Parts:
    """All parts, connected, none of them running yet."""
    emits = Outbox[EmitItem, EmitResult](dispatcher.emit, refused_emit)
    ends = Outbox[UnitEnd, UnitVerdict](dispatcher.end, refused_end, lambda end: len(end.completions))
    emitter = Emitter(emits)
    logs = OperatorLogs(config.log_lines)
    outputs = OutputCommitter(store, work_dir.outputs, threads.rows, threads.store, config.max_output_bytes)
    desk = Desk(
        inputs=Inputs(dispatcher, store, threads.store),
        outputs=outputs,
        emitter=emitter,
        logs=logs,
    )
    processes = OperatorProcesses(
        desk,
        BundleFolders(store, work_dir.bundles),
        ReplayFiles(tuple(root.resolve() for root in config.replay_roots)),
        Slots(config.capacity),
        build_sandbox(config),
        ProcessSettings(work_dir.sockets, config.idle_process_seconds, config.operator_memory_bytes),
    )
    runner = UnitRunner(processes, emitter, ends, config.cancel_grace_seconds)
    wakeups = build_wakeups(config, dispatcher)
    worker = Worker(dispatcher, runner, wakeups, config.capacity, config.lease_seconds, new_id)
    identity = Identity(config.worker_id, config.queues, config.capacity, config.sandbox)
    service = WrapperService(identity, worker, processes, runner.counts, logs)
    return Parts(worker, processes, outputs, emits, ends, service)


def build_wakeups(config: WrapperConfig, dispatcher: Dispatcher) -> list[Wakeups]:
    """The stream, which carries what is sent again, and what else there is."""
    ways: list[Wakeups] = [StreamWakeups(dispatcher, config.queues)]
    if config.wakeups != STREAM:
        # It takes a third of a second, which who uses the stream need not wait for.
        from wrapper.wakeups.sqs import SqsWakeups

        ways.append(SqsWakeups(SqsLocation.parse(config.wakeups), config.queues))
    return ways


def build_server(config: WrapperConfig, service: WrapperService) -> AioServer:
    """The trusted listener: users only."""
    server = aio_server(
        listen=config.wrapper_listen,
        verifier=TokenVerifier({Role.USER: config.user_token_sha256}),
        policy=AccessPolicy({Role.USER: frozenset({"/traceapi.wrapper.v1.WrapperService"})}),
        tls=listener_tls(config.tls_certificate, config.tls_key),
    )
    add_WrapperServiceServicer_to_server(service, server.server)
    return server


@asynccontextmanager
async def _dispatcher(config: WrapperConfig) -> AsyncIterator[Dispatcher]:
    token = read_token(config.worker_token_file)
    tls = client_tls(config.dispatcher_authority, config.dispatcher_name)
    channel = aio_channel(config.dispatcher_address, token=token, actor_name=config.worker_id, tls=tls)
    try:
        yield Dispatcher(channel, config.worker_id, config.lease_seconds)
    finally:
        await channel.close()


async def serve(config: WrapperConfig) -> None:
    """Works until SIGTERM or SIGINT, then drains."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    work_dir = open_work_dir(config.work_dir)
    threads = Threads.start()
    try:
        store = open_store(config.artifacts)
        await asyncio.to_thread(require_usable, store, writable=True)
        async with _dispatcher(config) as dispatcher:
            parts = build(config, dispatcher, work_dir, store, threads)
            server = build_server(config, parts.service)
            address = await server.start()
            try:
                async with asyncio.TaskGroup() as group:
                    running = [
                        group.create_task(part.run())
                        for part in (parts.emits, parts.ends, parts.outputs, parts.processes, parts.worker)
                    ]
                    write_ready_file(config.ready_file, {"wrapper": address})
                    _log.info(
                        "serving", worker_id=config.worker_id, wrapper=address, dispatcher=config.dispatcher_address
                    )
                    await stop.wait()
                    _log.info("draining", units=len(parts.worker.held()))
                    await parts.worker.stop(config.drain_seconds)
                    await parts.processes.leave()
                    for task in running:
                        task.cancel()
            finally:
                await server.stop(0.5)
    finally:
        threads.stop()
        work_dir.close()
    _log.info("stopped")


def main() -> int:
    """The command. Exit codes: 0 after a drain, 2 for a faulty configuration, 1 for what keeps it from serving."""
    config = configure(WrapperConfig, program="wrapper", purpose="Runs operators' tasks for a Trace dispatcher.")
    try:
        collect_seldom()
        configure_logging("wrapper", level=config.log_level)
        # Not uvloop: it starts processes in a way of its own, which does not close inherited descriptors.
        asyncio.run(serve(config))
    except (CredentialError, ListenError, WorkDirError, TraceError) as error:
        _log.error("cannot serve", error=str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
