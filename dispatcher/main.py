"""`trace-dispatcher`: wires the slices to Postgres, to the two listeners and to the background duties. Wiring only."""

import asyncio
import contextlib
import random
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import psycopg
import uvloop
from psycopg_pool import PoolTimeout

from dispatcher.audit.keeping import TEND_SECONDS, QueryRecordKeeper
from dispatcher.collecting.collector import Collector
from dispatcher.collecting.collector import Duties as CollectorDuties
from dispatcher.collecting.reach import Retention
from dispatcher.config import DispatcherConfig
from dispatcher.db.batcher import Batcher, BatcherConfig, Kind
from dispatcher.db.errors import DatabaseError
from dispatcher.db.migrate import migrate
from dispatcher.db.pool import Pool, PoolConfig, open_pool
from dispatcher.duties import Duty, Idle, build_duties, every, run_duties
from dispatcher.events.accept import Acceptance
from dispatcher.events.producers import lock_producers
from dispatcher.events.values import ConsumersChanged, Emit, EmitResult
from dispatcher.events.verify import ArtifactVerifier
from dispatcher.rpc.dag_service import DagService
from dispatcher.rpc.dataset_service import DatasetService
from dispatcher.rpc.effect_service import EffectService
from dispatcher.rpc.queue_service import QueueService
from dispatcher.rpc.retention_service import RetentionService
from dispatcher.rpc.settling import Settling
from dispatcher.rpc.source_service import SourceService
from dispatcher.rpc.task_service import TaskService
from dispatcher.rpc.worker_service import WorkerService
from dispatcher.tasks.ending import AttemptEnder, Completion, CompletionResult
from dispatcher.tasks.keeping import Keeping
from dispatcher.tasks.state import TaskState
from dispatcher.wakeups.release import Releaser
from dispatcher.wakeups.stream import StreamChannel
from kernel.artifacts import ArtifactStore, open_store, require_usable
from kernel.command_line import configure
from kernel.credentials import Role, TokenVerifier
from kernel.errors import TraceError
from kernel.garbage import collect_seldom
from kernel.ids import new_id
from kernel.ready import write_ready_file
from kernel.servers import AccessPolicy, AioServer, aio_server
from kernel.servers.listening import ListenError
from kernel.sqs import STREAM, SqsLocation
from kernel.telemetry import configure_logging, get_logger
from kernel.tls import listener_tls
from traceapi.control.v1.dag_service_pb2_grpc import add_DagServiceServicer_to_server
from traceapi.control.v1.dataset_service_pb2_grpc import add_DatasetServiceServicer_to_server
from traceapi.control.v1.effect_service_pb2_grpc import add_EffectServiceServicer_to_server
from traceapi.control.v1.queue_service_pb2_grpc import add_QueueServiceServicer_to_server
from traceapi.control.v1.retention_service_pb2_grpc import add_RetentionServiceServicer_to_server
from traceapi.control.v1.source_service_pb2_grpc import add_SourceServiceServicer_to_server
from traceapi.control.v1.task_service_pb2_grpc import add_TaskServiceServicer_to_server
from traceapi.worker.v1.worker_service_pb2_grpc import add_WorkerServiceServicer_to_server

if TYPE_CHECKING:
    from dispatcher.wakeups.sqs import SqsChannel

_log = get_logger(__name__)

DATASETS = "/traceapi.control.v1.DatasetService"
CONTROL_POLICY = AccessPolicy(
    {
        Role.USER: frozenset({"/traceapi.control.v1."}),
        Role.QUERYD: frozenset(
            {
                f"{DATASETS}/{name}"
                for name in (
                    *("ListDatasets", "PinDatasets", "ResolveDatasets", "RenewPin", "ReleasePin"),
                    "RecordQueries",
                )
            }
        ),
    },
    # Nobody else may say what was asked.
    kept_from={Role.USER: frozenset({f"{DATASETS}/RecordQueries"})},
)
INTERNAL_POLICY = AccessPolicy({Role.WORKER: frozenset({"/traceapi.worker.v1."})})


@dataclass(frozen=True, slots=True)
class HotPath:
    """What the worker API writes through, and how the rest of the dispatcher hears of it."""

    batcher: Batcher
    emit: Kind[Emit, EmitResult]
    complete: Kind[Completion, CompletionResult]
    channel: StreamChannel
    releaser: Releaser
    duties: list[Duty]
    switched: Callable[[], None]
    """To be called when other tasks may run than before."""


def build_hot_path(config: DispatcherConfig, pool: Pool) -> HotPath:
    channel = StreamChannel()
    unanswered = timedelta(seconds=config.unanswered_wakeup_seconds)
    sqs = build_sqs(config, channel, pool, unanswered)
    releaser = Releaser(pool, sqs.channel if sqs else channel, unanswered=unanswered, again=channel)
    channel.on_credit(releaser.signal_place)
    keeping = Keeping(timedelta(seconds=config.finished_live_seconds), config.finished_days)
    duties = build_duties(pool, releaser, unanswered, new_id(), keeping)
    if sqs is not None:
        sqs.channel.on_credit(releaser.signal_place)
        duties.all.extend(sqs.duties)
    acceptance = Acceptance(new_id)

    def emitted(ops: Sequence[Emit], _results: object) -> None:
        if any(op.consumers or op.watermarks for op in ops):
            releaser.signal()
            duties.progressed()

    def ended(_ops: object, results: Sequence[CompletionResult]) -> None:
        if TaskState.QUEUED in results:
            releaser.signal()
        releaser.signal_place()
        duties.progressed()

    emit: Kind[Emit, EmitResult] = Kind(
        name="emit",
        apply=acceptance.accept,
        cost=lambda op: op.cost,
        key=lambda op: op.key,
        holds=lambda result: isinstance(result, ConsumersChanged),
        finish=acceptance.publish,
        after_commit=emitted,
    )
    complete: Kind[Completion, CompletionResult] = Kind(
        name="complete",
        apply=AttemptEnder(random.random).complete,
        cost=lambda op: op.cost,
        key=lambda op: op.key,
        after_commit=ended,
    )
    batcher = Batcher(pool, [emit, complete], BatcherConfig(workers=2), prepare=lock_producers)

    def switched() -> None:
        releaser.signal()
        duties.progressed()

    return HotPath(batcher, emit, complete, channel, releaser, duties.all, switched)


@dataclass(frozen=True, slots=True)
class Sqs:
    """Wake-ups over SQS, and what keeps them going."""

    channel: "SqsChannel"
    duties: list[Duty]


def build_sqs(config: DispatcherConfig, stream: StreamChannel, pool: Pool, unanswered: timedelta) -> Sqs | None:
    """None where the stream carries everything."""
    if config.wakeups == STREAM:
        return None
    # It takes a third of a second, which who uses the stream need not wait for.
    from dispatcher.wakeups.sqs import SqsChannel

    channel = SqsChannel(SqsLocation.parse(config.wakeups), stream, pool, unanswered)
    return Sqs(
        channel,
        [
            Duty("sqs-send", channel.send_pending, channel.wait_to_send),
            Duty("sqs-count", channel.count, channel.wait_to_count),
            Duty("sqs-depths", channel.ask_depths, channel.wait_to_ask),
        ],
    )


def build_collector(config: DispatcherConfig, pool: Pool, artifacts: ArtifactStore) -> Collector:
    retention = Retention(
        orphan_grace=timedelta(seconds=config.orphan_grace_seconds),
        rollback_versions=config.rollback_versions,
        rollback_age=timedelta(days=config.rollback_days),
    )
    return Collector(pool, artifacts, retention)


def build_collecting(config: DispatcherConfig, collector: Collector) -> list[Duty]:
    duties, idle = CollectorDuties(collector, timedelta(seconds=config.orphan_sweep_seconds)), Idle()
    return [
        Duty("remove-condemned", duties.remove, every(idle.removing)),
        # More often than it is due, so that whoever comes first does it.
        Duty("sweep-orphans", duties.sweep, every(min(idle.sweeping, config.orphan_sweep_seconds / 4 + 1))),
    ]


def build_records(config: DispatcherConfig, pool: Pool) -> Duty:
    return Duty("keep-query-records", QueryRecordKeeper(pool, config.query_record_days).run_once, every(TEND_SECONDS))


def build_control(config: DispatcherConfig, pool: Pool, artifacts: ArtifactStore, hot: HotPath) -> AioServer:
    verifier = TokenVerifier({Role.USER: config.user_token_sha256, Role.QUERYD: config.queryd_token_sha256})
    tls = listener_tls(config.tls_certificate, config.tls_key)
    control = aio_server(listen=config.control_listen, verifier=verifier, policy=CONTROL_POLICY, tls=tls)
    add_DagServiceServicer_to_server(DagService(pool, artifacts, hot.switched, new_id), control.server)
    add_TaskServiceServicer_to_server(TaskService(pool, hot.releaser), control.server)
    add_QueueServiceServicer_to_server(QueueService(pool, hot.releaser), control.server)
    add_DatasetServiceServicer_to_server(DatasetService(pool, new_id), control.server)
    add_RetentionServiceServicer_to_server(RetentionService(build_collector(config, pool, artifacts)), control.server)
    add_SourceServiceServicer_to_server(SourceService(pool, hot.releaser), control.server)
    add_EffectServiceServicer_to_server(EffectService(), control.server)
    return control


def build_internal(config: DispatcherConfig, pool: Pool, artifacts: ArtifactStore, hot: HotPath) -> AioServer:
    verifier = TokenVerifier({Role.WORKER: config.worker_token_sha256})
    tls = listener_tls(config.tls_certificate, config.tls_key)
    internal = aio_server(listen=config.internal_listen, verifier=verifier, policy=INTERNAL_POLICY, tls=tls)
    settling = Settling(pool, hot.batcher, hot.emit, hot.complete, ArtifactVerifier(artifacts))
    add_WorkerServiceServicer_to_server(WorkerService(pool, settling, hot.channel, new_id), internal.server)
    return internal


async def serve(config: DispatcherConfig) -> None:
    """Serves until SIGTERM or SIGINT, then drains: no new calls, what is queued is committed, streams end."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    database_url = config.database_url.reveal()
    await asyncio.to_thread(migrate, database_url)
    pool_config = PoolConfig(database_url, allow_unsafe_durability=config.allow_unsafe_durability)
    artifacts = open_store(config.artifacts)
    await asyncio.to_thread(require_usable, artifacts, writable=True)
    async with open_pool(pool_config) as pool, asyncio.TaskGroup() as group:
        hot = build_hot_path(config, pool)
        batching = group.create_task(hot.batcher.run(), name="batcher")
        collecting = build_collecting(config, build_collector(config, pool, artifacts))
        duties = group.create_task(run_duties([*hot.duties, *collecting, build_records(config, pool)]), name="duties")
        control = build_control(config, pool, artifacts, hot)
        internal = build_internal(config, pool, artifacts, hot)
        addresses = {"control": await control.start(), "internal": await internal.start()}
        write_ready_file(config.ready_file, addresses)
        _log.info("serving", **addresses)
        await stop.wait()
        _log.info("draining")
        hot.channel.close()
        duties.cancel()
        await asyncio.gather(control.stop(config.drain_seconds), internal.stop(config.drain_seconds))
        await hot.batcher.stop()
        await batching
        with contextlib.suppress(asyncio.CancelledError):
            await duties
    _log.info("stopped")


def main() -> None:
    """The command. Exit codes: 0 after a drain, 2 for a faulty configuration, 1 for what keeps it from serving."""
    config = configure(
        DispatcherConfig, program="dispatcher", purpose="Serves Trace's control and worker APIs over one database."
    )
    collect_seldom()
    configure_logging("dispatcher", level=config.log_level)
    try:
        uvloop.run(serve(config))
    except* (ListenError, DatabaseError, TraceError, psycopg.OperationalError, PoolTimeout) as failures:
        _log.error("cannot serve", errors=[str(failure) for failure in failures.exceptions])
        sys.exit(1)


if __name__ == "__main__":
    main()
