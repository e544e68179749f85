"""queryd: wiring only. `python -m queryd.main [--config FILE]`."""

import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

import grpc
from arrow_flight import flight_pb2

from kernel import seccomp
from kernel.artifacts import ArtifactStore, open_store, require_usable
from kernel.channels import sync_channel
from kernel.command_line import configure
from kernel.credentials import CredentialError, Role, TokenVerifier, read_token
from kernel.errors import TraceError
from kernel.ids import new_id
from kernel.ready import write_ready_file
from kernel.servers import AccessPolicy, SyncServer, sync_server
from kernel.servers.listening import ListenError
from kernel.telemetry import configure_logging, get_logger
from kernel.tls import client_tls, listener_tls
from queryd.aftermath import Aftermath
from queryd.complaints import Complaints
from queryd.config import QuerydConfig
from queryd.ending import end_within, leave, stop_at_signals
from queryd.engine import sandbox
from queryd.engine.messages import CellLimits
from queryd.engine.pool import CellPool, CellUnavailableError
from queryd.engine.sandbox import Sandbox
from queryd.engine.scratch import ScratchFolder
from queryd.file_cache import FileCache
from queryd.files import FilesElsewhere, FilesInPlace, PinnedFiles
from queryd.flight.held import HeldQueries
from queryd.flight.metadata import Metadata
from queryd.flight.queries import FlightQueries
from queryd.flight.service import FlightService
from queryd.flight.wire import not_offered
from queryd.pinning import Pinning
from queryd.preparing import Preparation
from queryd.query_parts import AnswerLimits
from queryd.ranges import RangeSource
from queryd.recording import Recorder, sender
from queryd.registration import add_service
from queryd.resolve import Resolver
from queryd.rpc.query_service import QueryService
from queryd.run_query import QueryRunner
from queryd.running import RunningQueries
from queryd.watch import Watcher
from traceapi.control.v1.dataset_service_pb2_grpc import DatasetServiceStub
from traceapi.query.v1 import query_service_pb2

_log = get_logger("queryd.main")
_USERS = AccessPolicy(
    {Role.USER: frozenset({"/traceapi.query.v1.QueryService", "/arrow.flight.protocol.FlightService"})}
)
_QUERY_SERVICE = query_service_pb2.DESCRIPTOR.services_by_name["QueryService"]
_FLIGHT_SERVICE = flight_pb2.DESCRIPTOR.services_by_name["FlightService"]
# How long a query of Flight, once begun, waits for the call that reads it.
_HELD_SECONDS = 5.0
# After the drain, how long all that is left may take to end.
_END_SECONDS = 30.0
# A query keeps a thread while it waits, for a place or a watermark, and while its client reads. These stay for health,
# cancel and list, and for saying OVERLOADED.
_THREADS_BESIDE_QUERIES = 16


def main(arguments: Sequence[str] | None = None) -> int:
    """0 after a signal to stop, 2 for a faulty configuration, 1 where queries cannot be run here."""
    config = configure(
        QuerydConfig, program="queryd", purpose="Serves SQL over the datasets of a Trace.", arguments=arguments
    )
    configure_logging("queryd", level=config.log_level)
    stop = threading.Event()
    stop_at_signals(stop)
    try:
        with build_channel(config) as channel:
            code = serve(config, channel, stop)
        return leave(code)
    except (CredentialError, ListenError) as error:
        _log.error("cannot serve", error=str(error))
        return 1


def serve(config: QuerydConfig, channel: grpc.Channel, stop: threading.Event) -> int:
    """Serves until `stop` is set, then lets running queries end."""
    store = open_store(config.artifacts)
    try:
        require_usable(store, writable=False)
    except TraceError as error:
        _log.error("queries cannot be run here", error=str(error))
        return 1
    with ExitStack() as parts:
        scratch = ScratchFolder(config.query_work_dir)
        parts.callback(scratch.remove)
        files = build_files(config, store, scratch.path, parts)
        pool = build_pool(config, store, scratch.path)
        parts.callback(pool.close)
        try:
            chosen = pool.start()
        except CellUnavailableError as error:
            _log.error("queries cannot be run here", error=str(error))
            return 1
        warn_of(chosen, config)
        server = build_server(config, channel, files, pool, parts)
        address = server.start()
        write_ready_file(config.ready_file, {"query": address})
        _log.info("serving queries", address=address, sandbox=chosen.name)
        stop.wait()
        end_within(config.drain_seconds + _END_SECONDS, scratch.remove)
        server.stop(config.drain_seconds)
    return 0


def warn_of(chosen: Sandbox, config: QuerydConfig) -> None:
    """Of the walls that are missing, for as long as this process runs."""
    if chosen.name == "plain":
        _log.warning("queries run in plain processes, without namespaces of their own", wanted=config.query_sandbox)
    elif chosen.zygote is None:
        _log.warning("cells cannot be forked here, each query takes the start of a program", sandbox=chosen.name)
    if without := seccomp.missing():
        _log.warning("queries run without a filter of system calls", reason=without)


def build_channel(config: QuerydConfig) -> grpc.Channel:
    """To the dispatcher's control listener."""
    token = read_token(config.queryd_token_file)
    tls = client_tls(config.dispatcher_authority, config.dispatcher_name)
    return sync_channel(config.dispatcher_address, token=token, actor_name=config.queryd_name, tls=tls)


def build_files(config: QuerydConfig, store: ArtifactStore, folder: Path, parts: ExitStack) -> PinnedFiles:
    """How cells come to see this store's files; what is to be closed joins the parts."""
    if _root(store) is not None:
        return FilesInPlace(store)
    cache = FileCache(store, folder / "copies", config.query_cache_bytes)
    parts.callback(cache.close)
    ranges = RangeSource(store)
    parts.callback(ranges.close)
    return FilesElsewhere(cache, ranges, config.query_copied_bytes)


def build_pool(config: QuerydConfig, store: ArtifactStore, folder: Path) -> CellPool:
    """Cells that see this store, or the copies of its files."""
    limits = CellLimits(config.query_memory_bytes, config.query_threads, config.query_scratch_bytes)
    root, cells = _root(store), folder / "cells"
    for made in (root, cells):
        if made is not None:
            made.mkdir(parents=True, exist_ok=True)
    sandboxes: list[Sandbox] = []
    if config.query_sandbox != "plain":
        sandboxes += [sandbox.forked(root, limits), sandbox.bubblewrap(root, limits)]
    if config.query_sandbox != "bubblewrap":
        sandboxes.append(sandbox.plain(root, limits))
    return CellPool(sandboxes, config.query_warm_cells, cells)


def _root(store: ArtifactStore) -> Path | None:
    """The folder of a store on this machine's disk."""
    data = store.local_path("data")
    return None if data is None else data.parent


def build_server(
    config: QuerydConfig, channel: grpc.Channel, files: PinnedFiles, pool: CellPool, parts: ExitStack
) -> SyncServer:
    """The listener for users; what is to be closed after it joins the parts."""
    queries = RunningQueries(config.query_slots, config.query_waiting)
    stub = DatasetServiceStub(channel)
    resolver, recorder = Resolver(stub, config.query_lease_seconds), Recorder(sender(stub))
    parts.callback(recorder.close)
    aftermath, watcher = Aftermath(resolver.release), Watcher(resolver)
    parts.callback(aftermath.close)
    parts.callback(watcher.close)
    limits = AnswerLimits(config.query_max_rows, config.query_max_bytes)
    preparation = Preparation(
        *(pool, Pinning(resolver, aftermath, queries), resolver, files, limits, Complaints(files))
    )
    runner = QueryRunner(preparation, queries, watcher, aftermath, recorder.record, new_id)
    server = sync_server(
        listen=config.query_listen,
        verifier=TokenVerifier({Role.USER: config.user_token_sha256}),
        policy=_USERS,
        tls=listener_tls(config.tls_certificate, config.tls_key),
        # Those of Flight that wait for a place must not keep out those that come to read what has one.
        max_threads=3 * config.query_slots + config.query_waiting + _THREADS_BESIDE_QUERIES,
    )
    add_service(QueryService(runner, queries, new_id), _QUERY_SERVICE, server.server, not_offered)
    held = HeldQueries(_HELD_SECONDS)
    parts.callback(held.close)
    metadata = Metadata(resolver.datasets, version("trace-pipelines"))
    flight = FlightService(FlightQueries(runner, queries, held, new_id), metadata)
    add_service(flight, _FLIGHT_SERVICE, server.server, not_offered)
    return server


if __name__ == "__main__":
    sys.exit(main())
