"""Somebody who reads while the pipeline changes: pins all datasets of the chain at once, as a query does, and looks
into the files that the pin names. A thread of its own; what was seen is in the history of `reader`.

Some pins are kept until shortly before they expire, and looked into again: whatever became of their versions, nothing
of them may be missing. Some are never released.
"""

import hashlib
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import pyarrow.parquet as pq
from google.protobuf.duration_pb2 import Duration

from kernel.artifacts import open_store
from kernel.artifacts.store import ArtifactMissing
from tests.chaos.cluster import Cluster
from tests.chaos.people import Person, Stopped, require_end
from tests.chaos.workload import DATASETS, TAGGED
from traceapi.control.v1 import dataset_service_pb2 as datasets
from traceapi.types.v1.dataset_pb2 import Pin

_BETWEEN_SECONDS = 0.05
_SHORT_SECONDS, _LONG_SECONDS = 1, 7
_KEPT = (0.0, 0.3)
"""The share of pins that are kept: in half of the runs none is, since they keep the collector from nearly all."""
_RELEASED = 0.7
_MOST_FILES = 2
_LISTED = 0.05


@dataclass(frozen=True, slots=True)
class _Kept:
    """A pin that is looked into again at that time."""

    pin: Pin
    again_at: float


class Reading:
    """From the start of its context to the end."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._store = open_store(cluster.home.artifacts.as_uri())
        self._rng = random.Random(f"{cluster.settings.seed}/reading")
        self._share_kept = self._rng.choice(_KEPT)
        self._kept: list[_Kept] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reading", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stopped.set()
        require_end(self._thread)

    def _run(self) -> None:
        try:
            with Person(self._cluster, "reader", self._stopped) as self._person:
                while True:
                    self._read()
                    for kept in [kept for kept in self._kept if kept.again_at < time.time()]:
                        self._kept.remove(kept)
                        self._look(kept.pin, time.time(), again=True)
                    if self._rng.random() < _LISTED:
                        self._list()
                    self._person.wait(_BETWEEN_SECONDS)
        except Stopped:
            return

    def _read(self) -> None:
        kept = self._rng.random() < self._share_kept
        lease = Duration(seconds=_LONG_SECONDS if kept else _SHORT_SECONDS)
        began = time.time()
        answer = self._person.ask("PinDatasets", datasets.PinDatasetsRequest(names=DATASETS, lease_duration=lease))
        if answer.reason:
            return
        pin: Pin = answer.response.pin
        self._look(pin, began)
        if kept:
            self._kept.append(_Kept(pin, time.time() + _LONG_SECONDS - 1))
        elif self._rng.random() < _RELEASED:
            self._person.ask("ReleasePin", datasets.ReleasePinRequest(pin_id=pin.pin_id))

    def _look(self, pin: Pin, began: float, *, again: bool = False) -> None:
        """Into what the pin names; one that is looked into again says nothing of what is served by now."""
        ended = time.time()
        versions = {item.dataset_id: item.dataset_version_id for item in pin.datasets}
        wanted = [item for item in pin.datasets if item.dataset_id == TAGGED]
        request = datasets.ResolveDatasetsRequest(items=[datasets.ResolveItem(pin=item) for item in wanted])
        answer = self._person.ask("ResolveDatasets", request)
        tags: dict[str, list[str]] = {}
        lost: list[str] = []
        files: list[tuple[str, str]] = []
        for part in answer.response or ():
            if part.HasField("error"):
                lost += self._missing(pin, part.error.message)
            keys = [artifact.key for artifact in part.artifacts]
            for key in self._rng.sample(keys, min(_MOST_FILES, len(keys))):
                try:
                    found, digest = self._open(key)
                except ArtifactMissing:
                    lost += self._missing(pin, key)
                else:
                    files.append((key, digest))
                    tags.setdefault(versions[TAGGED], []).extend(found)
        read = {
            "began": began,
            "ended": ended,
            "deploy_number": pin.deploy_number,
            "versions": {} if again else versions,
            "tags": {version: sorted(set(found)) for version, found in tags.items()},
            "lost": lost,
        }
        self._person.history.note(read=read, files=files)

    def _missing(self, pin: Pin, what: str) -> Sequence[str]:
        """Only a pin that still lives holds anything."""
        return [what] if time.time() < pin.expires_time.ToMicroseconds() / 1e6 else []

    def _open(self, key: str) -> tuple[list[str], str]:
        """The tags of a file's rows, and its digest."""
        with self._store.open(key) as file:
            digest = hashlib.sha256(file.read()).hexdigest()
            file.seek(0)
            table: Any = pq.read_table(file, columns=["tag"])
        return list(set(table.column("tag").to_pylist())), digest

    def _list(self) -> None:
        """How the store has its files: what changes there is seen, whoever reads it."""
        listed = [
            (f"listed:{item.key}", f"{item.size_bytes} of {item.modified_at}") for item in self._store.list("data/")
        ]
        self._person.history.note(files=listed)
