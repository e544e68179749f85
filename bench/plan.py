"""How long a plan of a large DAG takes, from the call to the answer: `python -m bench.plan`.

The document is deployed to a stack of its own; its datasets get a thousand publications each, its jobs a history of
finished tasks. Then it is planned with a change at the source, upstream of everything: each job is compared, counted
and estimated, and the active document is read once more. The second figure is of a change of the last job alone.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.stack import Stack, ctl, running_stack
from bench.table import Measure, report
from ctl.connection import connect
from dispatcher.db.statements import Statements
from traceapi.control.v1 import dag_service_pb2 as api

_sql = Statements.load("bench", "plan.sql")
_DAG = "large"
_CALL_SECONDS = 120.0
_ROUNDS = 5


def document(jobs: int, source_limit: int = 1000, last_size: int = 10) -> str:
    """A source, and in turn `sql` jobs that read five datasets, aggregators of them, splitters and virtual nodes."""
    blocks = {"cursor": {"column": "number", "type": "int64"}, "schema": {"number": "int64", "value": "int64"}}
    config = {"path": "/data/b.csv", "cursor": "number", "limit": source_limit}
    last = {"operator": "aggregator", "config": {"size": last_size}, "inputs": {"d0": {}}, "outputs": _ranges("last")}
    made = {
        "j0": {"source": "replay", "config": config, "outputs": {"d0": blocks}},
        **{f"j{number}": _job(number) for number in range(1, jobs - 1)},
        f"j{jobs - 1}": last,
    }
    return json.dumps({"dag": _DAG, "jobs": made})  # which is YAML too


def _job(number: int) -> dict[str, Any]:
    name = f"d{number}"
    if number % 4 == 1:
        others = {f"d{other}": {"trigger": False} for other in range(max(1, number - 16), number, 4)}
        config = {"sql": "select number, sum(value) as value from d0 group by number"}
        return {"operator": "sql", "config": config, "inputs": {"d0": {}, **others}, "outputs": {name: {}}}
    if number % 4 == 2:
        read: dict[str, Any] = {f"d{number - 1}": {}}
        return {"operator": "aggregator", "config": {"size": 10}, "inputs": read, "outputs": _ranges(name)}
    if number % 4 == 3:
        return {"operator": "splitter", "inputs": {"d0": {}}, "outputs": _ranges(name)}
    return {"virtual": {"sql": f"from d{number - 3}"}, "outputs": {name: {}}}


def _ranges(name: str) -> dict[str, Any]:
    return {name: {"storage": "none"}}


def measure(stack: Stack, jobs: int = 1000) -> Sequence[Measure]:
    """On a stack where no DAG has this name."""
    stack.deploy(document(jobs))
    ctl(stack.home.root, "dag", "pause", _DAG)
    with stack.database() as database:
        database.execute(
            "select add_finished_day((now() at time zone 'UTC')::date - n) from generate_series(0, 1) as n"
        )
        database.execute(_sql.publish_much, {"dag": _DAG})
        database.execute(_sql.run_much, {"dag": _DAG, "tasks": 100})
        database.execute("vacuum analyze")
    return [
        _plans(stack, document(jobs, source_limit=2000), f"plan of {jobs:,} jobs, all of them rebuilt"),
        _plans(stack, document(jobs, last_size=20), f"plan of {jobs:,} jobs, one of them rebuilt"),
    ]


def _plans(stack: Stack, text: str, name: str) -> Measure:
    samples = []
    with connect(stack.home.root) as connection:
        for _ in range(_ROUNDS):
            request = api.PlanDagRequest(document=api.DagDocument(text=text, file_name="dag.yaml"))
            began = time.perf_counter()
            connection.dags.PlanDag(request, timeout=_CALL_SECONDS)
            samples.append(time.perf_counter() - began)
    return Measure(name, sorted(samples)[len(samples) // 2], "s", "<= 2", tuple(samples))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-plan-") as folder, running_stack(Path(folder) / "home") as stack:
        report("plan", measure(stack, arguments.jobs), seed=0)


if __name__ == "__main__":
    main()
