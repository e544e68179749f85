"""A pipeline of twenty datasets whose rows say which version they are of, and its two switches: a cutover to version B,
which takes up again what was built before, and a rollback to version A."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from google.protobuf.duration_pb2 import Duration

from bench.life import rows
from bench.stack import Stack, TooSlow
from ctl.commands.dag import deploy_document
from ctl.connection import Connection
from ctl.document import Document
from kernel.ids import new_id
from traceapi.control.v1 import dag_service_pb2 as dags
from traceapi.control.v1 import dataset_service_pb2 as datasets
from traceapi.control.v1.deployment_pb2 import DEPLOYMENT_STATE_HELD
from traceapi.types.v1.dataset_pb2 import Pin

CALL_SECONDS = 60.0
_DATASETS = 20
_EVENTS = 3
_DAG = "tagged"
_NAMES = [f"{_DAG}.d{number}" for number in range(_DATASETS)]
_COPY = "select n, 'VERSION' as version from \"tagged.ticks\""
_PART = 'select NUMBER as d, version, count(*) as n from "NAME" group by all'

STATEMENT = " union all ".join(_PART.replace("NUMBER", str(n)).replace("NAME", name) for n, name in enumerate(_NAMES))
"""One row for each dataset and each version of its rows."""


def document(version: str) -> str:
    """Twenty jobs that tag what they copy."""
    ticks = f"{_DAG}.ticks"
    copy = {
        "operator": "sql",
        "config": {"sql": _COPY.replace("VERSION", version)},
        "inputs": {ticks: {}},
    }
    numbers = {"cursor": {"column": "n", "type": "int64"}, "schema": {"n": "int64"}}
    columns = {"schema": {"n": "int64", "version": "string"}}
    made = {
        "ticks": {"source": "replay", "config": {"path": "ticks.csv", "cursor": "n"}, "outputs": {ticks: numbers}},
        **{f"j{n}": {**copy, "outputs": {name: columns}} for n, name in enumerate(_NAMES)},
    }
    return json.dumps({"dag": _DAG, "jobs": made})  # which is YAML too


def write(stack: Stack, version: str) -> Path:
    """The document with its file, in a folder of its own."""
    folder = stack.home.root / f"tagged-{version}"
    folder.mkdir()
    (folder / "ticks.csv").write_text(rows(range(_EVENTS)))
    (folder / "dag.yaml").write_text(document(version))
    return folder / "dag.yaml"


def versions_of(answer: bytes) -> set[str]:
    """The versions that the rows of an answer are of; where rows are missing, that is a version too."""
    found = pa.ipc.open_stream(answer).read_all().to_pylist()
    whole = len(found) == _DATASETS and all(row["n"] == _EVENTS for row in found)
    return {str(row["version"]) for row in found} | (set() if whole else {"incomplete"})


def dataset_versions(pinned: Sequence[Pin]) -> frozenset[str]:
    """What a pin of all twenty reads."""
    return frozenset(dataset.dataset_version_id for pin in pinned for dataset in pin.datasets)


@dataclass(frozen=True, slots=True)
class Switches:
    """Version A was active before version B, whose document is `changed`."""

    connection: Connection
    changed: Path

    def roll_back(self) -> None:
        """From B to A."""
        request = dags.RollbackDagRequest(dag=_DAG, request_id=new_id())
        self.connection.dags.RollbackDag(request, timeout=CALL_SECONDS)

    def stage(self) -> str:
        """Makes a version of B that only waits for its cutover. Raises TooSlow."""
        staged = deploy_document(self.connection, Document.read(self.changed), hold=True).deployment
        watch = dags.WatchDeploymentRequest(deployment_id=staged.deployment_id)
        for state in self.connection.dags.WatchDeployment(watch, timeout=CALL_SECONDS):
            if state.deployment.state == DEPLOYMENT_STATE_HELD:
                return staged.deployment_id
        raise TooSlow("a build that has everything was not ready")

    def cut_over(self, deployment_id: str) -> None:
        """From A to B."""
        request = dags.CutOverDagRequest(deployment_id=deployment_id)
        self.connection.dags.CutOverDag(request, timeout=CALL_SECONDS)

    def tags(self) -> frozenset[str]:
        """The versions of all twenty, of one pin."""
        request = datasets.PinDatasetsRequest(names=_NAMES, lease_duration=Duration(seconds=30))
        pin = self.connection.datasets.PinDatasets(request, timeout=CALL_SECONDS).pin
        self.connection.datasets.ReleasePin(datasets.ReleasePinRequest(pin_id=pin.pin_id), timeout=CALL_SECONDS)
        return dataset_versions([pin])
