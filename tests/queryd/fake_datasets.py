"""A DatasetService as the contract has it, over datasets that a test makes: real Parquet files, pins that end."""

import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from threading import Condition
from typing import Self

import grpc
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kernel.artifacts import ArtifactStore, open_store
from kernel.column_types import schema_digest
from kernel.dataset_sql import table_names
from kernel.errors import TraceError
from kernel.likeness import nearest
from kernel.scopes import parse_cursor
from traceapi.control.v1 import dataset_service_pb2 as pb
from traceapi.control.v1.dataset_service_pb2_grpc import DatasetServiceServicer
from traceapi.control.v1.query_record_pb2 import (
    ListQueryRecordsRequest,
    ListQueryRecordsResponse,
    QueryRecord,
    RecordQueriesRequest,
    RecordQueriesResponse,
)
from traceapi.types.v1.artifact_pb2 import Artifact
from traceapi.types.v1.dag_pb2 import CursorSpec, OutputSpec, Storage
from traceapi.types.v1.dataset_pb2 import CursorBounds, Dataset, DatasetPin, Pin
from traceapi.types.v1.errors_pb2 import ErrorReason, ItemError
from traceapi.types.v1.event_pb2 import Event, Watermark
from traceapi.types.v1.scope_pb2 import CURSOR_TYPE_INT64, CursorRange, CursorType, CursorValue, RangeManifest, Scope
from wrapper.outputs.columns import stored_schema


def integer_range(first: int, last: int) -> Scope:
    """A closed range of int64 cursors."""
    return Scope(range=CursorRange(first=CursorValue(int64_value=first), last=CursorValue(int64_value=last)))


def range_event(first: int, last: int, units: int | None = None, revision: int = 0) -> Event:
    """An event of such a range, with a manifest where the number of units is given."""
    scope = integer_range(first, last)
    manifest = None if units is None else RangeManifest(boundaries=scope.range, unit_count=units)
    scope.revision = revision
    return Event(event_id=str(uuid.uuid4()), scope=scope, manifest=manifest)


@dataclass
class Version:
    """One dataset with one version, and what each publication added to it."""

    dataset: Dataset
    number: int = 0
    artifacts: list[Artifact] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    watermark: str | None = None

    @property
    def version_id(self) -> str:
        return self.dataset.served_version_id

    def pin(self, number: int | None = None) -> DatasetPin:
        chosen = self.number if number is None else number
        return DatasetPin(
            dataset_id=self.dataset.dataset_id, dataset_version_id=self.version_id, publication_number=chosen
        )


class FakeDatasets(DatasetServiceServicer):
    """Thread-safe where queries meet it. `page_size` is small, so that every test pages. With a pin no more than
    `few` files of a dataset are told."""

    def __init__(self, root: Path, store_url: str = "") -> None:
        """`root` is the store's folder, or, with the URL of another store, where files are prepared."""
        self.root = root
        self.store_url = store_url or root.as_uri()
        self.store: ArtifactStore = open_store(self.store_url)
        self.page_size = 2
        self.few = 100
        self.versions: dict[str, Version] = {}
        self.leases: set[str] = set()
        self.pin_requests: list[list[str]] = []
        self.renewed: list[str] = []
        self.resolved: list[pb.ResolveItem] = []
        self.lost_pins: set[str] = set()
        self.records: list[QueryRecord] = []
        self.unrecorded: list[list[str]] = []
        self.refuse_records = False
        self.resolving = threading.Event()  # while it is not set, no resolution is answered
        self.resolving.set()
        self.resolving_calls = 0
        self.pinning = threading.Event()  # while it is not set, no pin is answered
        self.pinning.set()
        self.changed = Condition()

    # What a test arranges.

    def add(
        self,
        dataset_id: str,
        *,
        schema: Mapping[str, str] | None = None,
        storage: Storage.ValueType = Storage.STORAGE_PARQUET,
        cursor_type: CursorType.ValueType = CURSOR_TYPE_INT64,
        virtual_sql: str = "",
        description: str = "",
        column_descriptions: Mapping[str, str] | None = None,
        column_order: Sequence[str] | None = None,
    ) -> Self:
        """`column_order` is that of `schema` where nothing else is said; empty for a version without a record of it."""
        cursor = CursorSpec(column="number", type=cursor_type) if cursor_type else None
        dataset = Dataset(
            dataset_id=dataset_id,
            dag="test",
            served_version_id=str(uuid.uuid4()),
            spec=OutputSpec(
                storage=storage,
                cursor=cursor,
                schema=schema or {},
                column_order=list(schema or {}) if column_order is None else column_order,
                description=description,
                column_descriptions=column_descriptions or {},
            ),
            virtual_sql=virtual_sql,
        )
        self.versions[dataset_id.casefold()] = Version(dataset)
        return self

    def publish(self, dataset_id: str, table: pa.Table, row_group_rows: int | None = None) -> Artifact:
        """Adds one file, in a publication of its own."""
        version = self.versions[dataset_id.casefold()]
        version.number += 1
        if not version.dataset.spec.schema and not version.dataset.served_version.schema:
            words = stored_schema(table.schema, {})[1]
            version.dataset.served_version.schema.update(words)
            version.dataset.served_version.column_order.extend(words)
        source = self.root.parent / f"{uuid.uuid4()}.parquet"
        pq.write_table(table, source, row_group_size=row_group_rows)
        stored = self.store.put(f"data/{version.version_id}/{uuid.uuid4()}-1-0.parquet", source)
        source.unlink()
        artifact = Artifact(
            artifact_id=str(uuid.uuid4()),
            dataset_id=version.dataset.dataset_id,
            dataset_version_id=version.version_id,
            key=stored.key,
            scope=_scope_of(table, version),
            row_count=table.num_rows,
            size_bytes=stored.size_bytes,
            sha256=stored.sha256,
            schema_digest=schema_digest({}),
            publication_number=version.number,
        )
        version.artifacts.append(artifact)
        return artifact

    def emit(self, dataset_id: str, events: Sequence[Event]) -> None:
        """Adds events of a dataset without files."""
        version = self.versions[dataset_id.casefold()]
        version.number += 1
        for event in events:
            event.publication_number = version.number
        version.events += events

    def move_watermark(self, dataset_id: str, cursor: str) -> None:
        with self.changed:
            self.versions[dataset_id.casefold()].watermark = cursor

    @contextmanager
    def restored(self) -> Iterator[None]:
        """After the block the datasets are what they were before it."""
        versions, few, page_size = deepcopy(self.versions), self.few, self.page_size
        yield
        with self.changed:
            self.versions, self.few, self.page_size = versions, few, page_size

    def lose_pins(self) -> None:
        """All leases that are held now end, as if they had not been renewed in time."""
        with self.changed:
            self.lost_pins |= self.leases

    def wait_for_pin_requests(self, count: int, timeout: float = 20) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.pin_requests) >= count, timeout), self.pin_requests

    def wait_released(self, timeout: float = 20) -> None:
        """Returns when no query holds a pin."""
        with self.changed:
            assert self.changed.wait_for(lambda: not self.leases, timeout), self.leases

    def recorded(self, query_id: str, timeout: float = 20) -> QueryRecord:
        """The one record of a query, once it is there."""
        with self.changed:
            assert self.changed.wait_for(lambda: self._records_of(query_id), timeout), self.records
            (record,) = self._records_of(query_id)
            return record

    def _records_of(self, query_id: str) -> list[QueryRecord]:
        return [record for record in self.records if record.query_id == query_id]

    # The service.

    def RecordQueries(self, request: RecordQueriesRequest, context: grpc.ServicerContext) -> RecordQueriesResponse:
        with self.changed:
            if self.refuse_records:
                self.unrecorded.append([record.record_id for record in request.records])
                self.changed.notify_all()
                raise TraceError(ErrorReason.ERROR_REASON_UNAVAILABLE, "the database does not answer")
            self.records += request.records
            self.changed.notify_all()
            return RecordQueriesResponse()

    def PinDatasets(self, request: pb.PinDatasetsRequest, context: grpc.ServicerContext) -> pb.PinDatasetsResponse:
        with self.changed:
            self.pin_requests.append(list(request.names))
            self.changed.notify_all()
        self.pinning.wait(300)
        with self.changed:
            named = [(name, self._find(name)) for name in request.names]
            known = {version.version_id for _, version in named}
            pending = [version for _, version in named]
            while pending:
                for behind in self._behind(pending.pop()):
                    if behind.version_id not in known:
                        known.add(behind.version_id)
                        pending.append(behind)
                        named.append(("", behind))
            given = {pin.dataset_version_id: pin.publication_number for pin in request.pin.datasets}
            response = pb.PinDatasetsResponse(pin=Pin(pin_id=str(uuid.uuid4()), deploy_number=1))
            for name, version in named:
                if given and version.version_id not in given:
                    raise TraceError(ErrorReason.ERROR_REASON_PIN_COLLECTED, "the pin does not hold it")
                pin = version.pin(given.get(version.version_id))
                watermark = None if given else _watermark(version)  # how far it was then is not on record
                response.datasets.append(
                    pb.PinnedDataset(name=name, pin=pin, dataset=version.dataset, watermark=watermark)
                )
                response.pin.datasets.append(pin)
            self.leases.add(response.pin.pin_id)
            response.files.extend(self._few_files(request, response) or ())
            return response

    def _few_files(
        self, request: pb.PinDatasetsRequest, pinned: pb.PinDatasetsResponse
    ) -> list[pb.ResolveDatasetsResponse] | None:
        """As the contract says when there are some."""
        versions = [self._version(item.pin) for item in pinned.datasets]
        twice = len({version.version_id for version in versions}) < len(versions)
        if not request.files_wanted or twice or any(version.dataset.virtual_sql for version in versions):
            return None
        pages: list[pb.ResolveDatasetsResponse] = []
        for index, (item, version) in enumerate(zip(pinned.datasets, versions, strict=True)):
            fitting = (named.bounds for named in request.bounds if _fits(named, item.name, version))
            wanted = pb.ResolveItem(pin=item.pin, bounds=next(fitting, None))
            artifacts, events = self._visible(version, wanted)
            if max(len(artifacts), len(events)) > self.few:
                return None
            pages.append(pb.ResolveDatasetsResponse(item_index=index, artifacts=artifacts, events=events, last=True))
            self.resolved.append(wanted)
        return pages

    def ResolveDatasets(
        self, request: pb.ResolveDatasetsRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.ResolveDatasetsResponse]:
        with self.changed:
            self.resolving_calls += 1
            self.changed.notify_all()
        self.resolving.wait(300)
        by_id = {version.version_id: version for version in self.versions.values()}
        for index, item in enumerate(request.items):
            version = by_id.get(item.pin.dataset_version_id)
            if version is None:
                error = ItemError(reason=ErrorReason.ERROR_REASON_PIN_COLLECTED, message="it was collected")
                yield pb.ResolveDatasetsResponse(item_index=index, last=True, error=error)
                continue
            self.resolved.append(item)
            artifacts, events = self._visible(version, item)
            if item.limit:
                artifacts, events = artifacts[: item.limit], events[: item.limit]
            starts = range(0, max(len(artifacts), len(events), 1), self.page_size)
            for start in starts:
                end = start + self.page_size
                yield pb.ResolveDatasetsResponse(
                    item_index=index, artifacts=artifacts[start:end], events=events[start:end], last=start == starts[-1]
                )

    def ListDatasets(self, request: pb.ListDatasetsRequest, context: grpc.ServicerContext) -> pb.ListDatasetsResponse:
        known = sorted(version.dataset.dataset_id for version in self.versions.values())
        page = [dataset_id for dataset_id in known if dataset_id > request.page_token][: self.page_size]
        found = [self._find(dataset_id).dataset for dataset_id in page]
        more = bool(page) and page[-1] != known[-1]
        return pb.ListDatasetsResponse(datasets=found, next_page_token=page[-1] if more else "")

    def RenewPin(self, request: pb.RenewPinRequest, context: grpc.ServicerContext) -> pb.RenewPinResponse:
        with self.changed:
            if request.pin_id in self.lost_pins or request.pin_id not in self.leases:
                raise TraceError(ErrorReason.ERROR_REASON_PIN_EXPIRED, f"pin {request.pin_id} has expired")
            self.renewed.append(request.pin_id)
            self.changed.notify_all()
        return pb.RenewPinResponse()

    def ReleasePin(self, request: pb.ReleasePinRequest, context: grpc.ServicerContext) -> pb.ReleasePinResponse:
        with self.changed:
            self.leases.discard(request.pin_id)
            self.changed.notify_all()
        return pb.ReleasePinResponse()

    # What queryd may not call.

    def GetDataset(self, request: pb.GetDatasetRequest, context: grpc.ServicerContext) -> pb.GetDatasetResponse:
        raise NotImplementedError

    def ListDatasetVersions(
        self, request: pb.ListDatasetVersionsRequest, context: grpc.ServicerContext
    ) -> pb.ListDatasetVersionsResponse:
        raise NotImplementedError

    def ListQueryRecords(
        self, request: ListQueryRecordsRequest, context: grpc.ServicerContext
    ) -> ListQueryRecordsResponse:
        raise NotImplementedError

    def GetLineage(self, request: pb.GetLineageRequest, context: grpc.ServicerContext) -> pb.GetLineageResponse:
        raise NotImplementedError

    def ListEvents(self, request: pb.ListEventsRequest, context: grpc.ServicerContext) -> pb.ListEventsResponse:
        raise NotImplementedError

    def _version(self, pin: DatasetPin) -> Version:
        return next(found for found in self.versions.values() if found.version_id == pin.dataset_version_id)

    def _visible(self, version: Version, item: pb.ResolveItem) -> tuple[list[Artifact], list[Event]]:
        number = item.pin.publication_number
        artifacts = [
            found
            for found in version.artifacts
            if found.publication_number <= number and _meets(found.scope, item.bounds)
        ]
        return artifacts, [found for found in version.events if found.publication_number <= number]

    def _find(self, name: str) -> Version:
        version = self.versions.get(name.casefold())
        if version is None:
            known = sorted(found.dataset.dataset_id for found in self.versions.values())
            message = f"no dataset is called {name}{nearest(name, known)}"
            raise TraceError(ErrorReason.ERROR_REASON_DATASET_NOT_FOUND, message, metadata={"name": name})
        return version

    def _behind(self, version: Version) -> list[Version]:
        if not version.dataset.virtual_sql:
            return []
        return [self._find(name.dataset_id) for name in table_names(version.dataset.virtual_sql)]


def _scope_of(table: pa.Table, version: Version) -> Scope:
    """From the least to the largest cursor, where there is one; else all scopes differ."""
    if "number" not in table.column_names or table.num_rows == 0:
        return integer_range(len(version.artifacts), len(version.artifacts))
    ends = pc.min_max(table["number"])
    return integer_range(ends["min"].as_py(), ends["max"].as_py())


def _fits(named: pb.NamedBounds, name: str, version: Version) -> bool:
    cursor = version.dataset.spec.cursor
    end = named.bounds.lower if named.bounds.HasField("lower") else named.bounds.upper
    of_type = cursor.type == CURSOR_TYPE_INT64 and end.HasField("int64_value")
    return named.name == name and named.column.lower() == cursor.column.lower() and of_type


def _meets(scope: Scope, bounds: CursorBounds) -> bool:
    below = bounds.HasField("upper") and scope.range.first.int64_value > bounds.upper.int64_value
    above = bounds.HasField("lower") and scope.range.last.int64_value < bounds.lower.int64_value
    return not below and not above


def _watermark(version: Version) -> Watermark | None:
    if version.watermark is None:
        return None
    cursor = parse_cursor(version.watermark, version.dataset.spec.cursor.type)
    return Watermark(dataset_id=version.dataset.dataset_id, dataset_version_id=version.version_id, cursor=cursor)
