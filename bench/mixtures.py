"""Whether anybody sees a mixture while twenty datasets are cut over and rolled back again and again.

Every row says which version it is of. Readers pin all twenty at once, as queries do, and query all twenty through
queryd; whatever they see has to be of one version, and of the pinned one where the pointers moved in between.
"""

import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import grpc
import pyarrow as pa
from google.protobuf.duration_pb2 import Duration

from bench.life import rows
from bench.settings import Settings
from bench.stack import Stack, TooSlow, ctl, wait_until
from bench.table import Measure
from ctl.connection import Connection, connect
from kernel.ids import new_id
from traceapi.control.v1 import dag_service_pb2 as dags
from traceapi.control.v1 import dataset_service_pb2 as datasets
from traceapi.query.v1 import query_service_pb2 as queries
from traceapi.types.v1.dataset_pb2 import Pin

_DATASETS = 20
_EVENTS = 3
_DAG = "tagged"
_CALL_SECONDS = 60.0
_SETTLE_SECONDS = 120.0
_READERS = 4
_ASKED_AGAIN = 10
_NAMES = [f"{_DAG}.d{number}" for number in range(_DATASETS)]


_COPY = "select n, 'VERSION' as version from \"tagged.ticks\""
_PART = 'select NUMBER as d, version, count(*) as n from "NAME" group by all'


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


def _statement() -> str:
    """One row for each dataset and each version of its rows."""
    return " union all ".join(_PART.replace("NUMBER", str(n)).replace("NAME", name) for n, name in enumerate(_NAMES))


def measure(stack: Stack, settings: Settings) -> Sequence[Measure]:
    """Switches all the while; then switches between a pin and its query."""
    switched, pins, asked = settings.scaled(200, 10), settings.scaled(100_000, 500), settings.scaled(2_000, 20)
    stack.deploy(document("A"), {"ticks.csv": rows(range(_EVENTS))})
    with connect(stack.home.root) as connection:
        wait_until(lambda: _query(connection) == {"A"}, _SETTLE_SECONDS, "the first version")
        folder = stack.home.root / "changed"
        folder.mkdir()
        (folder / "ticks.csv").write_text(rows(range(_EVENTS)))
        (folder / "dag.yaml").write_text(document("B"))
        ctl(stack.home.root, "dag", "deploy", str(folder / "dag.yaml"), "--yes", "--wait")
        wait_until(lambda: _query(connection) == {"B"}, _SETTLE_SECONDS, "the second version")
        tags = {_tags(connection): "B"}
        _roll_back(connection)
        tags[_tags(connection)] = "A"
        switching = _Switching(connection, switched)
        with ThreadPoolExecutor(_READERS) as readers:
            mixed_pins = _bad(readers, pins, lambda: _tags(connection) not in tags)
            mixed = _bad(readers, asked, lambda: len(_query(connection)) != 1)
        switches = switching.stop()
        forced = Counter(_forced(connection, tags) for _ in range(settings.scaled(200, 5)))
    return [
        Measure("switches of 20 datasets meanwhile", switches, "switches", f">= {switched}"),
        Measure(f"pins of all 20 that were a mixture, of {pins:,}", mixed_pins, "pins", "<= 0"),
        Measure(f"queries of all 20 that saw a mixture, of {asked:,}", mixed, "queries", "<= 0"),
        Measure(
            f"queries that saw another version than their pin, of {forced.total():,}", forced[False], "queries", "<= 0"
        ),
    ]


class _Switching:
    """Rolls back, and rolls the rollback back, until it is stopped, and so many times at least."""

    def __init__(self, connection: Connection, least: int) -> None:
        self._connection = connection
        self._least = least
        self._stopped = threading.Event()
        self._count = 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopped.is_set() or self._count < self._least:
            _roll_back(self._connection)
            self._count += 1
            time.sleep(0.05)  # readers are to see each version for a while

    def stop(self) -> int:
        """How many times it switched."""
        self._stopped.set()
        self._thread.join()
        return self._count


def _bad(readers: ThreadPoolExecutor, count: int, is_bad: Callable[[], bool]) -> int:
    """How many of so many looks were bad."""
    return sum(readers.map(lambda _: is_bad(), itertools.repeat(None, count)))


def _roll_back(connection: Connection) -> None:
    connection.dags.RollbackDag(dags.RollbackDagRequest(dag=_DAG, request_id=new_id()), timeout=_CALL_SECONDS)


def _pin(connection: Connection) -> Pin:
    request = datasets.PinDatasetsRequest(names=_NAMES, lease_duration=Duration(seconds=30))
    return connection.datasets.PinDatasets(request, timeout=_CALL_SECONDS).pin


def _tags(connection: Connection) -> frozenset[str]:
    """The versions of all twenty, of one pin."""
    pin = _pin(connection)
    connection.datasets.ReleasePin(datasets.ReleasePinRequest(pin_id=pin.pin_id), timeout=_CALL_SECONDS)
    return frozenset(dataset.dataset_version_id for dataset in pin.datasets)


def _query(connection: Connection, pin: Pin | None = None) -> set[str]:
    """The versions that rows of all twenty are of; where rows are missing, that is a version too."""
    data = _answer(connection, queries.QueryRequest(sql=_statement(), pin=pin))
    found = pa.ipc.open_stream(data).read_all().to_pylist()
    whole = len(found) == _DATASETS and all(row["n"] == _EVENTS for row in found)
    return {str(row["version"]) for row in found} | (set() if whole else {"incomplete"})


def _forced(connection: Connection, tags: dict[frozenset[str], str]) -> bool:
    """Whether a query of a pin sees what was pinned, where the pointers moved before its first byte."""
    pin = _pin(connection)
    _roll_back(connection)
    return _query(connection, pin) == {tags[frozenset(dataset.dataset_version_id for dataset in pin.datasets)]}


def _answer(connection: Connection, request: queries.QueryRequest) -> bytes:
    """Asked again where queryd had no room for it: that query saw nothing at all."""
    for _ in range(_ASKED_AGAIN):
        try:
            return b"".join(one.arrow_ipc for one in connection.queries.Query(request, timeout=_CALL_SECONDS))
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise
    raise TooSlow(f"queryd had no room for a query, {_ASKED_AGAIN} times")
