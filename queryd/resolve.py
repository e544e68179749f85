"""Names of a query to what it reads: one pin, and the files and scopes behind it.

A query is pinned once, at its start. Nothing that happens in the dispatcher later changes what it reads. Where the
files are few they come with the pin, else they are asked for; both ways they come as the same pages. This module asks
the dispatcher and keeps nothing; `queryd/preparing.py` decides when.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice

import grpc
import pyarrow as pa

from kernel.dataset_sql import folded
from kernel.errors import TraceError, from_rpc_error
from queryd.asking import Asker, answer
from queryd.cursor_bounds import bounds_by_column, cursor_bounds, may_be_bounded
from queryd.demands import Demands
from queryd.scopes import scope_rows, scope_schema
from traceapi.control.v1 import dataset_service_pb2 as pb
from traceapi.control.v1.dataset_service_pb2_grpc import DatasetServiceStub
from traceapi.types.v1.artifact_pb2 import Artifact
from traceapi.types.v1.dag_pb2 import Storage
from traceapi.types.v1.dataset_pb2 import CursorBounds, Dataset, Pin
from traceapi.types.v1.errors_pb2 import ErrorReason

_CALL_SECONDS = 10.0
_PAGE_DATASETS = 1000
# As PinDatasets takes. What is left out leaves more files, which is no harm.
_MOST_BOUNDS = 1000
# Of the scopes of datasets without files; they are held in memory, 32 bytes each.
_MOST_SCOPES = 10_000_000
# Of all datasets together. To bind 10^5 files the engine took 7 s and 1.2 GB, which is more than a query may have.
_MOST_FILES = 50_000


@dataclass(frozen=True, slots=True)
class AsOf:
    """Which state to read: a pin given before, that of a deploy number, or (neither) the present one."""

    pin: Pin | None = None
    deploy_number: int | None = None


@dataclass(frozen=True, slots=True)
class ResolvedDataset:
    """A dataset at its pin. `spellings` are the names by which the query calls it, where they are not just its id."""

    pinned: pb.PinnedDataset
    spellings: tuple[str, ...]
    artifacts: tuple[Artifact, ...] = ()
    scopes: pa.Table | None = None

    @property
    def dataset_id(self) -> str:
        return self.pinned.dataset.dataset_id

    @property
    def virtual_sql(self) -> str:
        return self.pinned.dataset.virtual_sql

    @property
    def file_bytes(self) -> int:
        return sum(artifact.size_bytes for artifact in self.artifacts)

    @property
    def sample(self) -> "ResolvedDataset":
        """It with its first file, or scope, alone: as the engine sees it, it looks the same."""
        return replace(
            self, artifacts=self.artifacts[:1], scopes=None if self.scopes is None else self.scopes.slice(0, 1)
        )


@dataclass(slots=True)
class _Answer:
    """What pages have brought of one item."""

    artifacts: list[Artifact] = field(default_factory=list)
    batches: list[pa.RecordBatch] = field(default_factory=list)
    last: bool = False


class Resolver:
    """The dispatcher's DatasetService, as queries need it. Raises TraceError."""

    def __init__(self, stub: DatasetServiceStub, lease_seconds: int) -> None:
        self._stub = stub
        self.lease_seconds = lease_seconds

    def pin(self, named: Demands, as_of: AsOf, asker: Asker, seconds: float) -> pb.PinDatasetsResponse:
        """Pins datasets at one moment, by name, with what the text itself demands of their rows; within so many
        seconds, and not more than a call may take. DATASET_NOT_FOUND, NAME_AMBIGUOUS, PIN_COLLECTED."""
        request = pb.PinDatasetsRequest(names=named, pin=as_of.pin, files_wanted=True)
        request.bounds.extend(islice(_named_bounds(named), _MOST_BOUNDS))
        request.lease_duration.FromSeconds(self.lease_seconds)
        if as_of.deploy_number is not None:
            request.deploy_number = as_of.deploy_number
        pinned: pb.PinDatasetsResponse = answer(self._stub.PinDatasets, request, min(seconds, _CALL_SECONDS), asker)
        return pinned

    def datasets(self) -> list[Dataset]:
        """All that are served, by id."""
        found: list[Dataset] = []
        request = pb.ListDatasetsRequest(page_size=_PAGE_DATASETS)
        with _translated():
            while True:
                page = self._stub.ListDatasets(request, timeout=_CALL_SECONDS)
                found += page.datasets
                if not page.next_page_token:
                    return found
                request.page_token = page.next_page_token

    def renew(self, pin_id: str) -> None:
        """Keeps the collector away for another lease. PIN_EXPIRED."""
        request = pb.RenewPinRequest(pin_id=pin_id)
        request.lease_duration.FromSeconds(self.lease_seconds)
        with _translated():
            self._stub.RenewPin(request, timeout=_CALL_SECONDS)

    def release(self, pin_id: str) -> None:
        """Ends the lease."""
        with _translated():
            self._stub.ReleasePin(pb.ReleasePinRequest(pin_id=pin_id), timeout=_CALL_SECONDS)

    def resolve(
        self,
        pinned: pb.PinDatasetsResponse,
        demands: Demands,
        timeout: float,
        asker: Asker,
        limit: int = 0,
    ) -> list[ResolvedDataset]:
        """The files and scopes of all datasets that may have rows that count, each dataset once: all, or with a
        `limit` at least so many where there are as many. The call may take all the time there is. PIN_COLLECTED,
        NOT_IMPLEMENTED (its storage)."""
        found: dict[str, pb.PinnedDataset] = {}
        spellings: dict[str, list[str]] = {}
        for dataset in pinned.datasets:
            found.setdefault(dataset.dataset.dataset_id, dataset)
            spellings.setdefault(dataset.dataset.dataset_id, []).append(dataset.name)
        stored = [dataset for dataset in found.values() if not dataset.dataset.virtual_sql]
        for dataset in stored:
            if dataset.dataset.spec.storage == Storage.STORAGE_POSTGRES:
                message = f'dataset "{dataset.dataset.dataset_id}" is stored in Postgres, which queries cannot read yet'
                raise TraceError(ErrorReason.ERROR_REASON_NOT_IMPLEMENTED, message)
        answers: Mapping[str, _Answer] = {}
        if pinned.files and all(_is_told_whole(dataset, demands) for dataset in stored):
            answers = _gathered(pinned.datasets, pinned.files)
        elif stored:
            request = pb.ResolveDatasetsRequest(items=[_item(dataset, demands, limit) for dataset in stored])
            with _translated():
                call = self._stub.ResolveDatasets(request, timeout=timeout)
                asker.asks(call)
                try:
                    answers = _gathered(stored, call)
                finally:
                    call.cancel()  # which it may be only where not all was wanted
        return [
            _resolved(dataset, spellings[dataset_id], answers.get(dataset_id)) for dataset_id, dataset in found.items()
        ]


def _named_bounds(named: Demands) -> Iterator[pb.NamedBounds]:
    for name, mentions in named.items():
        for column, bounds in bounds_by_column(mentions):
            yield pb.NamedBounds(name=name, column=column, bounds=bounds)


def _item(dataset: pb.PinnedDataset, demands: Demands, limit: int) -> pb.ResolveItem:
    bounds = _bounds(dataset, demands) if _has_cursor(dataset) else None
    return pb.ResolveItem(pin=dataset.pin, bounds=bounds, limit=limit)


def _bounds(dataset: pb.PinnedDataset, demands: Demands) -> CursorBounds | None:
    return cursor_bounds(demands.get(dataset.dataset.dataset_id, ()), dataset.dataset.spec.cursor)


def _has_cursor(dataset: pb.PinnedDataset) -> bool:
    spec = dataset.dataset.spec
    if spec.storage == Storage.STORAGE_NONE:
        return False  # its rows are scopes
    return may_be_bounded(spec.cursor, spec.schema or dataset.dataset.served_version.schema)


def _is_told_whole(dataset: pb.PinnedDataset, demands: Demands) -> bool:
    """Whether no file is missing among those that came with the pin: they were bounded before the schema was known."""
    return _has_cursor(dataset) or _bounds(dataset, demands) is None


def _gathered(datasets: Sequence[pb.PinnedDataset], pages: Iterable[pb.ResolveDatasetsResponse]) -> dict[str, _Answer]:
    """By dataset, what pages tell of these, whose index they have."""
    answers = [_Answer() for _ in datasets]
    file_count = scope_count = 0
    for page in pages:
        dataset, answer = datasets[page.item_index], answers[page.item_index]
        if page.HasField("error"):
            raise TraceError(page.error.reason, page.error.message, metadata=dict(page.error.metadata))
        answer.artifacts += page.artifacts
        if page.events:
            answer.batches.append(scope_rows(dataset.dataset.spec.cursor.type, page.events))
        answer.last = page.last
        scope_count += len(page.events)
        file_count += len(page.artifacts)
        if scope_count > _MOST_SCOPES:
            raise _too_many(_MOST_SCOPES, "scopes", dataset)
        if file_count > _MOST_FILES:
            raise _too_many(_MOST_FILES, "files", dataset)
    for dataset, answer in zip(datasets, answers, strict=True):
        if not answer.last:
            message = f'the files of dataset "{dataset.dataset.dataset_id}" were not all told'
            raise TraceError(ErrorReason.ERROR_REASON_UNAVAILABLE, message)
    return {dataset.dataset.dataset_id: answer for dataset, answer in zip(datasets, answers, strict=True)}


def _too_many(most: int, what: str, dataset: pb.PinnedDataset) -> TraceError:
    """`dataset` is where it was seen."""
    column = dataset.dataset.spec.cursor.column
    advice = f": say within which {column} its rows are, such as WHERE {column} BETWEEN ... AND ..." if column else ""
    message = f'the query reads more than {most:,} {what}, at dataset "{dataset.dataset.dataset_id}"{advice}'
    metadata = {"limit": what, "dataset_id": dataset.dataset.dataset_id}
    return TraceError(ErrorReason.ERROR_REASON_QUERY_LIMIT, message, metadata=metadata)


def _resolved(dataset: pb.PinnedDataset, names: list[str], answer: _Answer | None) -> ResolvedDataset:
    dataset_id = dataset.dataset.dataset_id
    # To the engine, names that differ in ASCII case alone are one; ids are unique under more than that.
    others = {folded(name): name for name in names if name}
    others.pop(folded(dataset_id), None)
    if answer is None:
        return ResolvedDataset(dataset, tuple(others.values()))
    scopes = None
    if dataset.dataset.spec.storage == Storage.STORAGE_NONE:
        scopes = pa.Table.from_batches(answer.batches, scope_schema(dataset.dataset.spec.cursor.type))
    return ResolvedDataset(dataset, tuple(others.values()), tuple(answer.artifacts), scopes)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as error:
        raise from_rpc_error(error) from error
