"""Control, query and wrapper services with canned data, on a real gRPC server: tracectl's partner in its own tests."""

import hashlib
import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf import json_format
from grpc_status import rpc_status

from kernel.errors import TraceError, to_status
from tests.ctl.fake_sources import FakeSources
from traceapi.control.v1 import (
    change_pb2,
    dag_service_pb2,
    dag_service_pb2_grpc,
    dataset_service_pb2,
    dataset_service_pb2_grpc,
    deployment_pb2,
    queue_service_pb2,
    queue_service_pb2_grpc,
    rerun_pb2,
    retention_service_pb2,
    retention_service_pb2_grpc,
    source_service_pb2_grpc,
    task_service_pb2,
    task_service_pb2_grpc,
)
from traceapi.control.v1.deployment_pb2 import DeployedJob, Deployment, TaskCount
from traceapi.query.v1 import query_service_pb2, query_service_pb2_grpc
from traceapi.types.v1 import dag_pb2, dataset_pb2, errors_pb2, event_pb2, scope_pb2, task_pb2
from traceapi.wrapper.v1 import wrapper_service_pb2, wrapper_service_pb2_grpc

SPEC: dict[str, Any] = {
    "dag": "ethereum",
    "jobs": {
        "blocks": {
            "source": "replay",
            "config": {"path": "data/blocks.csv"},
            "outputs": {"eth.blocks": {"cursor": {"column": "number", "type": "CURSOR_TYPE_INT64"}}},
        },
        "ranges": {
            "operator": "aggregator",
            "inputs": {"eth.blocks": {}},
            "outputs": {"eth.block_ranges": {"storage": "STORAGE_NONE"}},
        },
        "checked": {
            "operator": "python",
            "code": {"bundle": "./operators", "entrypoint": "checks:links"},
            "inputs": {"eth.block_ranges": {}, "eth.blocks": {"trigger": False}},
            "outputs": {"eth.checked": {}},
        },
        "miners": {
            "virtual": {"sql": 'select miner, count(*) n from "eth.blocks" group by all'},
            "outputs": {"eth.miners": {}},
        },
    },
}
TASK_COUNT = 120
DEAD_TASK = "0198c0de-0000-7000-8000-00000000dead"
_TRACEBACK = 'Traceback (most recent call last):\n  File "checks.py", line 7, in links\nValueError: broken link\n'


def task_id(number: int) -> str:
    return f"0198c0de-0000-7000-8000-{number:012d}"


def int64(number: int) -> scope_pb2.CursorValue:
    return scope_pb2.CursorValue(int64_value=number)


def int64_range(first: int, last: int) -> scope_pb2.Scope:
    return scope_pb2.Scope(range=scope_pb2.CursorRange(first=int64(first), last=int64(last)))


@dataclass
class Canned:
    """What the services answer, and what they were asked."""

    problems: list[dag_service_pb2.DagProblem] = field(default_factory=list)
    more_problems: bool = False
    local_paths: list[dag_service_pb2.LocalPath] = field(default_factory=list)
    plan: dag_service_pb2.PlanDagResponse = field(default_factory=dag_service_pb2.PlanDagResponse)
    building: Deployment | None = None
    """Of `ethereum`, or of the DAG `begun`, of which nothing is active."""
    changes: list[change_pb2.DagChange] = field(default_factory=list)
    watched: list[dag_service_pb2.WatchDeploymentResponse] = field(default_factory=list)
    changeable: int = 5
    """Tasks that CancelTasks, RetryTasks and SkipTasks find."""
    count_looks: list[list[task_service_pb2.JobTaskCount]] = field(default_factory=list)
    """What CountTasks answers, one after the other; then nothing."""
    readers: list[rerun_pb2.RerunReader] = field(default_factory=list)
    task_looks: list[task_pb2.Task | None] = field(default_factory=list)
    """What GetTask answers, one after the other; None for a call that fails in passing."""
    watch_failures: int = 0
    """So many first calls of WatchDeployment break after their first answer."""
    token: str | None = None
    bundles: dict[str, bytes] = field(default_factory=dict)
    requests: list[Any] = field(default_factory=list)
    actors: list[str] = field(default_factory=list)
    queries_cancelled: threading.Event = field(default_factory=threading.Event)

    def asked(self, kind: type[Any]) -> Any:
        """The last request of that kind."""
        return next(request for request in reversed(self.requests) if isinstance(request, kind))


def deployment(**counts: int) -> Deployment:
    """Of SPEC, `checked` with so many tasks by state; the others have ended."""
    states = [
        TaskCount(state=task_pb2.TaskState.Value(f"TASK_STATE_{name.upper()}"), count=count)
        for name, count in counts.items()
    ]
    done = [TaskCount(state=task_pb2.TASK_STATE_SUCCEEDED, count=1001)]
    jobs = [
        DeployedJob(
            job=name,
            job_version_id="" if "virtual" in job else task_id(number),
            run_state=task_pb2.RUN_STATE_RUNNING,
            task_counts=states if name == "checked" else [] if "virtual" in job else done,
        )
        for number, (name, job) in enumerate(SPEC["jobs"].items())
    ]
    return Deployment(
        deployment_id=task_id(900),
        dag="ethereum",
        version=1,
        state=deployment_pb2.DEPLOYMENT_STATE_ACTIVE,
        deploy_number=1,
        actor="user:somebody",
        jobs=jobs,
    )


def watch_state(*, settled: bool = False, **counts: int) -> dag_service_pb2.WatchDeploymentResponse:
    return dag_service_pb2.WatchDeploymentResponse(
        deployment=deployment(**counts), source_event_count=1001, settled=settled
    )


def tasks() -> list[task_pb2.Task]:
    """A hundred and twenty, newest first; the newest is DEAD."""
    made = []
    for number in reversed(range(TASK_COUNT)):
        dead = number == TASK_COUNT - 1
        made.append(
            task_pb2.Task(
                task_id=DEAD_TASK if dead else task_id(number),
                dag="ethereum",
                job="checked",
                origin=task_pb2.TASK_ORIGIN_LIVE,
                event_id=task_id(500 + number),
                trigger_dataset_id="eth.block_ranges",
                scope=int64_range(500_000 + 100 * number, 500_099 + 100 * number),
                state=task_pb2.TASK_STATE_DEAD if dead else task_pb2.TASK_STATE_SUCCEEDED,
                attempt=3 if dead else 1,
                failed_attempts=3 if dead else 0,
                reason="out of attempts" if dead else "",
                accepted_event_count=0 if dead else 1,
            )
        )
    return made


def _refuse(context: grpc.ServicerContext, reason: int, message: str) -> Any:
    context.abort_with_status(rpc_status.to_status(to_status(TraceError(reason, message))))


def _page(items: list[Any], size: int, token: str) -> tuple[list[Any], str]:
    start = int(token or 0)
    end = start + (size or 100)
    return items[start:end], str(end) if end < len(items) else ""


class _Dags(dag_service_pb2_grpc.DagServiceServicer):
    def __init__(self, canned: Canned) -> None:
        self._canned = canned
        self._watches = itertools.count()

    def ValidateDag(self, request: Any, context: Any) -> Any:
        self._canned.requests.append(request)
        return dag_service_pb2.ValidateDagResponse(
            problems=self._canned.problems,
            spec=json_format.ParseDict(SPEC, dag_pb2.DagSpec()),
            local_paths=self._canned.local_paths,
            more_problems=self._canned.more_problems,
        )

    def UploadBundle(self, request_iterator: Iterator[Any], context: Any) -> Any:
        parts = list(request_iterator)
        data = b"".join(part.data for part in parts[1:])
        digest = hashlib.sha256(data).digest()
        if digest != parts[0].sha256:
            return _refuse(context, errors_pb2.ERROR_REASON_BUNDLE_DIGEST_MISMATCH, "other bytes")
        self._canned.bundles[digest.hex()] = data
        return dag_service_pb2.UploadBundleResponse(digest=digest.hex(), size_bytes=len(data))

    def DeployDag(self, request: Any, context: Any) -> Any:
        self._canned.requests.append(request)
        return dag_service_pb2.DeployDagResponse(deployment=deployment(queued=10))

    def PlanDag(self, request: Any, context: Any) -> Any:
        self._canned.requests.append(request)
        return self._canned.plan

    def WatchDeployment(self, request: Any, context: Any) -> Iterator[Any]:
        broken = next(self._watches) < self._canned.watch_failures
        yield from self._canned.watched[: 1 if broken else None]
        if broken:
            _refuse(context, errors_pb2.ERROR_REASON_UNAVAILABLE, "the dispatcher restarts")
        ended = threading.Event()
        context.add_callback(ended.set)
        ended.wait(60)

    def GetDag(self, request: Any, context: Any) -> Any:
        if request.dag != "ethereum":
            return _refuse(context, errors_pb2.ERROR_REASON_DAG_NOT_FOUND, f"no DAG is called {request.dag!r}")
        return dag_service_pb2.GetDagResponse(
            summary=self._summary(),
            spec=json_format.ParseDict(SPEC, dag_pb2.DagSpec()),
            deployment=deployment(succeeded=8, dead=2),
        )

    def ListDagHistory(self, request: Any, context: Any) -> Any:
        self._canned.requests.append(request)
        if request.dag not in ("ethereum", "begun"):
            return _refuse(context, errors_pb2.ERROR_REASON_DAG_NOT_FOUND, f"no DAG is called {request.dag!r}")
        # A newer one was given up: what is being built is not the newest.
        newest = Deployment(dag=request.dag, version=9, state=deployment_pb2.DEPLOYMENT_STATE_ABORTED)
        found = [self._canned.building] if self._canned.building is not None else []
        return dag_service_pb2.ListDagHistoryResponse(deployments=found if request.being_built else [newest, *found])

    def ListDagChanges(self, request: Any, context: Any) -> Any:
        self._canned.requests.append(request)
        found, token = _page(self._canned.changes, request.page_size, request.page_token)
        return change_pb2.ListDagChangesResponse(changes=found, next_page_token=token)

    def RollbackDag(self, request: Any, context: Any) -> Any:
        self._canned.requests.append(request)
        return dag_service_pb2.RollbackDagResponse(deployment=deployment(succeeded=8))

    def RemoveDag(self, request: Any, context: Any) -> Any:
        self._canned.requests.append(request)
        return dag_service_pb2.RemoveDagResponse()

    def PauseDag(self, request: Any, context: Any) -> Any:
        self._canned.requests.append(request)
        return dag_service_pb2.PauseDagResponse(paused_jobs=list(request.jobs) or sorted(SPEC["jobs"]))

    def ResumeDag(self, request: Any, context: Any) -> Any:
        self._canned.requests.append(request)
        return dag_service_pb2.ResumeDagResponse()

    def ListDags(self, request: Any, context: Any) -> Any:
        return dag_service_pb2.ListDagsResponse(dags=[self._summary()])

    def _summary(self) -> dag_service_pb2.DagSummary:
        counts = [TaskCount(state=task_pb2.TASK_STATE_SUCCEEDED, count=2012)]
        return dag_service_pb2.DagSummary(dag="ethereum", version=1, job_count=4, task_counts=counts)


class _Tasks(task_service_pb2_grpc.TaskServiceServicer):
    def __init__(self, canned: Canned) -> None:
        self._canned = canned
        self._shown: task_pb2.Task | None = None

    def ListTasks(self, request: Any, context: Any) -> Any:
        self._canned.requests.append(request)
        wanted = [task for task in tasks() if not request.filter.states or task.state in request.filter.states]
        if request.filter.task_ids:
            wanted = [task for task in wanted if task.task_id in request.filter.task_ids]
        found, token = _page(wanted, request.page_size, request.page_token)
        return task_service_pb2.ListTasksResponse(tasks=found, next_page_token=token)

    def GetTask(self, request: Any, context: Any) -> Any:
        if self._canned.task_looks:
            look = self._canned.task_looks.pop(0)
            if look is None:
                return _refuse(context, errors_pb2.ERROR_REASON_UNAVAILABLE, "the dispatcher restarts")
            self._shown = look
            return task_service_pb2.GetTaskResponse(task=look)
        found = next((task for task in tasks() if task.task_id == request.task_id), None)
        if found is None:
            return _refuse(context, errors_pb2.ERROR_REASON_TASK_NOT_FOUND, f"no task {request.task_id}")
        failure = task_pb2.TaskFailure(
            error_class=task_pb2.ERROR_CLASS_USER, message="ValueError: broken link", traceback=_TRACEBACK
        )
        attempt = task_pb2.Attempt(
            attempt=1, worker_id="local", outcome=task_pb2.ATTEMPT_OUTCOME_FAILED, failure=failure
        )
        return task_service_pb2.GetTaskResponse(task=found, attempts=[attempt])

    def CancelTasks(self, request: Any, context: Any) -> Any:
        return task_service_pb2.CancelTasksResponse(**self._changed(request))

    def RetryTasks(self, request: Any, context: Any) -> Any:
        return task_service_pb2.RetryTasksResponse(**self._changed(request))

    def SkipTasks(self, request: Any, context: Any) -> Any:
        return task_service_pb2.SkipTasksResponse(**self._changed(request))

    def RerunTasks(self, request: Any, context: Any) -> Any:
        return task_service_pb2.RerunTasksResponse(**self._changed(request))

    def ExplainTask(self, request: Any, context: Any) -> Any:
        self._canned.requests.append(request)
        if self._shown is not None:
            return task_service_pb2.ExplainTaskResponse(
                task=self._shown,
                hold=task_service_pb2.HOLD_KIND_STREAM,
                explanation="another task of its stream comes first",
            )
        return task_service_pb2.ExplainTaskResponse(
            task=tasks()[0], hold=task_service_pb2.HOLD_KIND_DEAD, explanation="it is DEAD: out of attempts"
        )

    def _changed(self, request: Any) -> dict[str, Any]:
        """`changeable` tasks in pages of two."""
        self._canned.requests.append(request)
        total = self._canned.changeable
        if request.dry_run:
            return {"task_count": total}
        page, token = _page(list(range(total)), 2, request.page_token)
        return {"task_count": len(page), "next_page_token": token}

    def CountTasks(self, request: Any, context: Any) -> Any:
        self._canned.requests.append(request)
        if self._canned.count_looks:
            return task_service_pb2.CountTasksResponse(counts=self._canned.count_looks.pop(0))
        count = task_service_pb2.JobTaskCount(
            dag="ethereum", job="checked", state=task_pb2.TASK_STATE_SUCCEEDED, count=10
        )
        return task_service_pb2.CountTasksResponse(counts=[count])


class _Datasets(dataset_service_pb2_grpc.DatasetServiceServicer):
    def __init__(self, canned: Canned) -> None:
        self._canned = canned

    def ListDatasets(self, request: Any, context: Any) -> Any:
        return dataset_service_pb2.ListDatasetsResponse(datasets=[self._blocks(), self._miners()])

    def GetDataset(self, request: Any, context: Any) -> Any:
        for dataset in (self._blocks(), self._miners()):
            if dataset.dataset_id == request.dataset_id:
                return dataset_service_pb2.GetDatasetResponse(dataset=dataset)
        return _refuse(context, errors_pb2.ERROR_REASON_DATASET_NOT_FOUND, f"no dataset {request.dataset_id!r}")

    def GetLineage(self, request: Any, context: Any) -> Any:
        self._canned.requests.append(request)
        edge = dataset_service_pb2.LineageEdge(
            from_dataset_id="other.raw",
            to_dataset_id=request.dataset_id,
            dag="ethereum",
            job="blocks",
            outdated=True,
            passed_scope_count=1204,
        )
        return dataset_service_pb2.GetLineageResponse(edges=[edge])

    def ListEvents(self, request: Any, context: Any) -> Any:
        self._canned.requests.append(request)
        boundaries = int64_range(500_000, 500_099).range
        manifest = scope_pb2.RangeManifest(boundaries=boundaries, unit_count=100, members=[boundaries])
        event = event_pb2.Event(
            event_id=task_id(1),
            dataset_id="eth.block_ranges",
            scope=int64_range(500_000, 500_099),
            publication_number=7,
            manifest=manifest,
        )
        return dataset_service_pb2.ListEventsResponse(events=[event])

    def _blocks(self) -> dataset_pb2.Dataset:
        version = dataset_pb2.DatasetVersion(
            publication_number=12,
            watermark=int64(501_000),
            event_count=1001,
            artifact_count=2,
            row_count=1001,
            size_bytes=150_000,
            schema={"number": "int64", "miner": "string"},
        )
        spec = json_format.ParseDict(SPEC["jobs"]["blocks"]["outputs"]["eth.blocks"], dag_pb2.OutputSpec())
        return dataset_pb2.Dataset(
            dataset_id="eth.blocks", dag="ethereum", spec=spec, producer_jobs=["blocks"], served_version=version
        )

    def _miners(self) -> dataset_pb2.Dataset:
        sql = SPEC["jobs"]["miners"]["virtual"]["sql"]
        return dataset_pb2.Dataset(dataset_id="eth.miners", dag="ethereum", virtual_sql=sql, producer_jobs=["miners"])


class _Queues(queue_service_pb2_grpc.QueueServiceServicer):
    """One queue, with a backfill under way."""

    def __init__(self, canned: Canned) -> None:
        self._canned = canned
        self._queue = queue_service_pb2.Queue(
            queue="default",
            live_reserve=1,
            classes=[
                queue_service_pb2.QueueClass(task_class=queue_service_pb2.TASK_CLASS_LIVE, share=60),
                queue_service_pb2.QueueClass(task_class=queue_service_pb2.TASK_CLASS_REMATERIALIZATION, share=30),
                queue_service_pb2.QueueClass(
                    task_class=queue_service_pb2.TASK_CLASS_BACKFILL,
                    share=10,
                    waiting_count=1_000_000,
                    released_count=2,
                    running_count=5,
                    place_count=7,
                ),
            ],
            credits=9,
            served=True,
        )

    def ListQueues(self, request: Any, context: Any) -> Any:
        return queue_service_pb2.ListQueuesResponse(queues=[self._queue])

    def SetQueue(self, request: Any, context: Any) -> Any:
        self._canned.requests.append(request)
        self._queue.actor = "user:tester"
        if request.HasField("window_size"):
            self._queue.window_size = request.window_size
        return queue_service_pb2.SetQueueResponse(queue=self._queue)


class _Retention(retention_service_pb2_grpc.RetentionServiceServicer):
    """Three orphans; two unused versions, of which one comes to be held, and one that is being taken."""

    def __init__(self, canned: Canned) -> None:
        self._canned = canned
        self._left = 3

    def CollectOrphans(self, request: Any, context: Any) -> Iterator[Any]:
        self._canned.requests.append(request)
        lost = [
            retention_service_pb2.Orphan(key=f"data/{number}", dataset_id=dataset_id, size_bytes=size)
            for number, (dataset_id, size) in enumerate([("eth.blocks", 1024), ("eth.blocks", 1024), ("", 2048)])
        ]
        yield retention_service_pb2.CollectOrphansResponse(
            looked_at_count=1000, orphan_count=2, orphan_bytes=2048, orphans=lost[:2]
        )
        whole = retention_service_pb2.CollectOrphansResponse(
            looked_at_count=2000, orphan_count=3, orphan_bytes=4096, orphans=lost[2:]
        )
        yield whole
        del whole.orphans[:]
        whole.unfinished_count = 1
        yield whole

    def ListUnusedVersions(self, request: Any, context: Any) -> Any:
        self._canned.requests.append(request)
        found = [
            retention_service_pb2.UnusedVersion(
                dataset_version_id=task_id(number),
                dataset_id="eth.checked",
                dag="ethereum",
                file_count=10,
                row_count=12_345,
                size_bytes=1 << 20,
                event_count=678,
            )
            for number in (1, 2, 3)
        ]
        for version in found:
            version.unused_since_time.FromJsonString("2026-10-01T00:00:00Z")
        found[2].condemned_time.FromJsonString("2026-10-02T00:00:00Z")
        page, token = _page(found, min(request.page_size, 2), request.page_token)
        return retention_service_pb2.ListUnusedVersionsResponse(versions=page, next_page_token=token)

    def CollectVersions(self, request: Any, context: Any) -> Any:
        self._canned.requests.append(request)
        self._left -= 1
        of = retention_service_pb2.CollectedVersion
        results = [
            of(outcome=retention_service_pb2.COLLECT_OUTCOME_CONDEMNED),
            of(outcome=retention_service_pb2.COLLECT_OUTCOME_HELD, hold=retention_service_pb2.VERSION_HOLD_PINNED),
        ][: len(request.dataset_version_ids)]
        for result, version_id in zip(results, request.dataset_version_ids, strict=True):
            result.dataset_version_id = version_id
        return retention_service_pb2.CollectVersionsResponse(
            results=results,
            removed_file_count=10,
            removed_bytes=1024,
            removed_row_count=1000,
            removed_version_count=1,
            left_version_count=self._left,
        )


class _Queries(query_service_pb2_grpc.QueryServiceServicer):
    """Runs the SQL by DuckDB, without any dataset."""

    def __init__(self, canned: Canned) -> None:
        self._canned = canned

    def Query(self, request: Any, context: Any) -> Iterator[Any]:
        # Here, because they are slow to load and the stand-ins of a stack need no queries.
        import duckdb
        import pyarrow as pa

        context.add_callback(self._canned.queries_cancelled.set)
        try:
            with duckdb.connect() as connection:
                table = connection.sql(request.sql).to_arrow_table()
        except duckdb.Error as error:
            _refuse(context, errors_pb2.ERROR_REASON_QUERY_FAILED, str(error))
            return
        pin = dataset_pb2.Pin(pin_id=task_id(1), deploy_number=3)
        pin.datasets.add(dataset_id="eth.blocks", dataset_version_id=task_id(2), publication_number=12)
        yield query_service_pb2.QueryResponse(started=query_service_pb2.QueryStarted(pin=pin))
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=1000)
        data = sink.getvalue().to_pybytes()
        for start in range(0, len(data), 777):  # never at a message's border
            yield query_service_pb2.QueryResponse(arrow_ipc=data[start : start + 777])
        finished = query_service_pb2.QueryFinished(row_count=table.num_rows)
        finished.elapsed_duration.FromMilliseconds(12)
        yield query_service_pb2.QueryResponse(finished=finished)

    def ListQueries(self, request: Any, context: Any) -> Any:
        return query_service_pb2.ListQueriesResponse()


class _Wrapper(wrapper_service_pb2_grpc.WrapperServiceServicer):
    def GetStatus(self, request: Any, context: Any) -> Any:
        return wrapper_service_pb2.GetStatusResponse(
            worker_id="local",
            phase=wrapper_service_pb2.WORKER_PHASE_SERVING,
            queues=["default"],
            capacity=8,
            sandbox=wrapper_service_pb2.SANDBOX_KIND_BUBBLEWRAP,
        )


class _Gate(grpc.ServerInterceptor):
    """Lets in who has the token, where one is set, and notes the actor."""

    def __init__(self, canned: Canned) -> None:
        self._canned = canned

    def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        metadata = dict(details.invocation_metadata)
        self._canned.actors.append(str(metadata.get("trace-actor-name", "")))
        if self._canned.token is None or metadata.get("authorization") == f"Bearer {self._canned.token}":
            return continuation(details)

        def deny(request: Any, context: grpc.ServicerContext) -> Any:
            return _refuse(context, errors_pb2.ERROR_REASON_UNAUTHENTICATED, "no credential")

        return grpc.unary_unary_rpc_method_handler(deny)


def serve(canned: Canned, *addresses: str) -> tuple[grpc.Server, list[str]]:
    """All services on each address; answers the server and the addresses as bound."""
    server = grpc.server(
        futures.ThreadPoolExecutor(8), interceptors=[_Gate(canned)], options=[("grpc.so_reuseport", 0)]
    )
    # What a fake does not answer, the generated base answers with UNIMPLEMENTED.
    dag_service_pb2_grpc.add_DagServiceServicer_to_server(_Dags(canned), server)  # type: ignore[abstract]
    task_service_pb2_grpc.add_TaskServiceServicer_to_server(_Tasks(canned), server)
    source_service_pb2_grpc.add_SourceServiceServicer_to_server(FakeSources(canned), server)
    dataset_service_pb2_grpc.add_DatasetServiceServicer_to_server(_Datasets(canned), server)  # type: ignore[abstract]
    queue_service_pb2_grpc.add_QueueServiceServicer_to_server(_Queues(canned), server)
    retention_service_pb2_grpc.add_RetentionServiceServicer_to_server(_Retention(canned), server)
    query_service_pb2_grpc.add_QueryServiceServicer_to_server(_Queries(canned), server)  # type: ignore[abstract]
    wrapper_service_pb2_grpc.add_WrapperServiceServicer_to_server(_Wrapper(), server)  # type: ignore[abstract]
    bound = [f"{address.rpartition(':')[0]}:{server.add_insecure_port(address)}" for address in addresses]
    server.start()
    return server, bound
