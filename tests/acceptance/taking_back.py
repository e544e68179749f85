"""A pipeline that is changed and taken back under live traffic, beside one that nobody touched: what the restored
version lacked, and in which rows the two differ in the end."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from ctl.commands.dag import deploy_document
from ctl.connection import Connection
from ctl.document import Document
from ctl.query_stream import QueryStream
from kernel.ids import new_id
from traceapi.control.v1 import dag_service_pb2 as api
from traceapi.control.v1.deployment_pb2 import DEPLOYMENT_STATE_ACTIVE, Deployment

_LIMIT_SECONDS = 100.0
_RANGE = 25

# Reads are bounded by scope, so what a task reads does not depend on when it runs.
_DOCUMENT = """
dag: DAG
jobs:
  numbers:
    source: replay
    config: {path: numbers.csv, cursor: number, rate: RATE}
    outputs:
      DAG.numbers: {cursor: {column: number, type: int64}, schema: {number: int64, value: int64}}
  ranges:
    operator: aggregator
    config: {size: RANGE}
    inputs: {DAG.numbers: {}}
    outputs: {DAG.ranges: {storage: none}}
  sums:
    operator: sql
    config: {sql: 'select min(number) as number, sum(value)::decimal(38,0) as total, 1 as version from "DAG.numbers"'}
    inputs: {DAG.ranges: {}, DAG.numbers: {trigger: false}}
    outputs: {DAG.sums: {schema: {number: int64, total: "decimal(38,0)", version: int32}}}
  doubled:
    operator: sql
    config: {sql: 'select number, total * 2 as total, version from "DAG.sums"'}
    inputs: {DAG.sums: {}}
    outputs: {DAG.doubled: {schema: {number: int64, total: "decimal(38,0)", version: int32}}}
"""
_QUERY = """
select 'sums' as dataset, number, total, version from "DAG.sums"
union all select 'doubled', number, total, version from "DAG.doubled"
"""


@dataclass(frozen=True, slots=True)
class TakenBack:
    """`lag` is how many events the restored version had missed when it was restored, and `left` of these in the end.
    `rows` are those of the DAG that nobody touched, and `differing` those that only one of the two has."""

    lag: int
    left: int
    under_traffic: bool
    rows: int
    differing: int
    digests: tuple[str, str]
    """SHA-256 of the sorted rows, of the one that was taken back and of the other."""


def take_back(connection: Connection, folder: Path, events: int, rate: int = 150) -> TakenBack:
    """Deploys both DAGs, of so many events, so many per second; changes one of them and takes it back while they come.
    Where the machine is too slow for that the events end before, and `under_traffic` is false."""
    kept, switched = (_write(folder / dag, dag, events, rate) for dag in ("kept", "switched"))
    untouched = deploy_document(connection, Document.read(kept)).deployment
    first = deploy_document(connection, Document.read(switched)).deployment
    _until(connection, first, lambda state: state.source_event_count >= events // 8)
    switched.write_text(switched.read_text().replace("1 as version", "2 as version"))
    changed = deploy_document(connection, Document.read(switched)).deployment
    over = _until(connection, changed, lambda state: state.deployment.state == DEPLOYMENT_STATE_ACTIVE)
    missed = over.source_event_count + 3 * _RANGE
    before = _until(connection, changed, lambda state: state.source_event_count >= missed or state.settled)
    request = api.RollbackDagRequest(dag="switched", request_id=new_id())
    lag = left = _lag(connection, request)
    for state in connection.dags.WatchDeployment(_watch(first), timeout=_LIMIT_SECONDS):
        left = _lag(connection, request)
        if left == 0 and state.settled:
            break
    _until(connection, untouched, lambda state: state.settled)
    back, other = _rows(connection, "switched"), _rows(connection, "kept")
    differing = (Counter(back) - Counter(other)) + (Counter(other) - Counter(back))
    return TakenBack(
        lag, left, before.source_event_count < events, len(other), differing.total(), (_digest(back), _digest(other))
    )


def _write(folder: Path, dag: str, events: int, rate: int) -> Path:
    folder.mkdir(parents=True)
    lines = [f"{number},{number * 7 % 1009}" for number in range(events)]
    (folder / "numbers.csv").write_text("\n".join(["number,value", *lines]) + "\n")
    text = _DOCUMENT.replace("DAG", dag).replace("RATE", str(rate)).replace("RANGE", str(_RANGE))
    (folder / "dag.yaml").write_text(text)
    return folder / "dag.yaml"


def _watch(deployment: Deployment) -> api.WatchDeploymentRequest:
    return api.WatchDeploymentRequest(deployment_id=deployment.deployment_id)


def _until(
    connection: Connection, deployment: Deployment, done: Callable[[api.WatchDeploymentResponse], bool]
) -> api.WatchDeploymentResponse:
    """The first state that is so. grpc.RpcError where none is in time."""
    for state in connection.dags.WatchDeployment(_watch(deployment), timeout=_LIMIT_SECONDS):
        if done(state):
            return state
    raise RuntimeError(f"a watch of {deployment.dag} ended without what was waited for")


def _lag(connection: Connection, request: api.RollbackDagRequest) -> int:
    """The same call again answers what is left of the lag."""
    return connection.dags.RollbackDag(request, timeout=_LIMIT_SECONDS).lag_event_count


def _rows(connection: Connection, dag: str) -> list[str]:
    """Through queryd, sorted."""
    with QueryStream(connection, _QUERY.replace("DAG", dag), timeout=_LIMIT_SECONDS) as stream:
        table = pa.Table.from_batches(stream.batches(), schema=stream.schema())
    return sorted(json.dumps(row, default=str, sort_keys=True) for row in table.to_pylist())


def _digest(rows: list[str]) -> str:
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()
