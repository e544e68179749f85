"""What the fake services answer, and what they were asked: one small DAG with its tasks."""

import threading
from dataclasses import dataclass, field
from typing import Any

import grpc
from grpc_status import rpc_status

from kernel.errors import TraceError, to_status
from traceapi.control.v1 import (
    change_pb2,
    dag_service_pb2,
    deployment_pb2,
    query_record_pb2,
    rerun_pb2,
    task_service_pb2,
)
from traceapi.control.v1.deployment_pb2 import DeployedJob, Deployment, TaskCount
from traceapi.types.v1 import scope_pb2, task_pb2

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
    earlier_attempts: int = 0
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
    running_queries: dict[str, str] = field(default_factory=dict)
    query_records: list[query_record_pb2.QueryRecord] = field(default_factory=list)

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


def refuse(context: grpc.ServicerContext, reason: int, message: str) -> Any:
    """Ends the call with the reason."""
    context.abort_with_status(rpc_status.to_status(to_status(TraceError(reason, message))))


def page(items: list[Any], size: int, token: str) -> tuple[list[Any], str]:
    """The page, and the token of the next one."""
    start = int(token or 0)
    end = start + (size or 100)
    return items[start:end], str(end) if end < len(items) else ""
