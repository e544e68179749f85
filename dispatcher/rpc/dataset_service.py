"""DatasetService: what there is and how to read it. Parses, calls the slices, converts."""

from collections.abc import AsyncIterator
from datetime import timedelta

import grpc

from dispatcher.datasets import store
from dispatcher.datasets.manifest import Manifest
from dispatcher.datasets.pins import GivenPin, Pinned, PinWish, pin_datasets
from dispatcher.datasets.rows import (
    Bounds,
    DatasetRow,
    PinnedRow,
    Totals,
)
from dispatcher.db.pool import Pool, transaction, unflushed_transaction
from dispatcher.events import store as events_store
from dispatcher.events.rows import (
    EventQuery,
)
from dispatcher.rpc import convert
from dispatcher.rpc.faults import translated
from dispatcher.rpc.naming import named_dataset, require_names, scope_in
from dispatcher.rpc.paging import page_size, task_page_token, uuid_token
from dispatcher.rpc.query_records import list_query_records, record_queries
from kernel.credentials import Role
from kernel.errors import TraceError
from kernel.ids import IdSource
from kernel.scopes import ScopeKey, cursor_key, cursor_value, scope_key
from kernel.servers import current_actor
from traceapi.control.v1 import dataset_service_pb2 as pb
from traceapi.control.v1 import query_record_pb2 as record_pb
from traceapi.control.v1.dataset_service_pb2_grpc import DatasetServiceServicer
from traceapi.types.v1 import dataset_pb2, event_pb2, scope_pb2
from traceapi.types.v1.dag_pb2 import OutputSpec, Storage
from traceapi.types.v1.errors_pb2 import ErrorReason, ItemError

Context = grpc.aio.ServicerContext[object, object]

DEFAULT_PIN_LEASE = timedelta(seconds=60)
SHOWN_ARTIFACTS = 100


class DatasetService(DatasetServiceServicer):
    """One for each dispatcher; holds no state but what it was given."""

    def __init__(self, pool: Pool, new_id: IdSource) -> None:
        self._pool = pool
        self._new_id = new_id

    async def GetDataset(self, request: pb.GetDatasetRequest, context: Context) -> pb.GetDatasetResponse:
        with translated():
            async with transaction(self._pool) as connection:
                row = await named_dataset(connection, request.dataset_id)
                totals = await store.version_totals(connection, [row.dataset_version_id])
                artifacts = await store.visible_artifacts(
                    connection, row.dataset_version_id, row.number, Bounds(), None
                )
        shown = artifacts[:SHOWN_ARTIFACTS]
        return pb.GetDatasetResponse(
            dataset=_dataset(row, totals[row.dataset_version_id]), artifacts=[convert.artifact(item) for item in shown]
        )

    async def ListDatasets(self, request: pb.ListDatasetsRequest, context: Context) -> pb.ListDatasetsResponse:
        limit = page_size(request.page_size)
        with translated():
            async with transaction(self._pool) as connection:
                await require_names(connection, request.dag)
                found = await store.list_datasets(
                    connection, dag=request.dag or None, after=request.page_token or None, limit=limit
                )
                totals = await store.version_totals(connection, [row.dataset_version_id for row in found])
        return pb.ListDatasetsResponse(
            datasets=[_dataset(row, totals[row.dataset_version_id]) for row in found],
            next_page_token=task_page_token([row.dataset_id for row in found], limit),
        )

    async def ListDatasetVersions(
        self, request: pb.ListDatasetVersionsRequest, context: Context
    ) -> pb.ListDatasetVersionsResponse:
        limit = page_size(request.page_size)
        with translated():
            async with transaction(self._pool) as connection:
                dataset = await named_dataset(connection, request.dataset_id)
                found = await store.list_versions(connection, dataset.dataset_id, uuid_token(request.page_token), limit)
        return pb.ListDatasetVersionsResponse(
            versions=[
                dataset_pb2.DatasetVersion(
                    dataset_version_id=row.dataset_version_id,
                    dataset_id=row.dataset_id,
                    publication_number=row.number,
                    watermark=_cursor(row.cursor_type, row.watermark),
                    schema=row.schema or {},
                    created_time=convert.timestamp(row.created_at),
                )
                for row in found
            ],
            next_page_token=task_page_token([row.dataset_version_id for row in found], limit),
        )

    async def GetLineage(self, request: pb.GetLineageRequest, context: Context) -> pb.GetLineageResponse:
        with translated():
            async with transaction(self._pool) as connection:
                dataset = await named_dataset(connection, request.dataset_id)
                edges = await store.lineage(connection)
        reached, frontier = set[int](), {dataset.dataset_id}
        for _ in range(request.depth or 1):
            near = {
                index
                for index, edge in enumerate(edges)
                if edge.from_dataset_id in frontier or edge.to_dataset_id in frontier
            }
            reached |= near
            frontier = {name for i in near for name in (edges[i].from_dataset_id, edges[i].to_dataset_id)}
        return pb.GetLineageResponse(
            edges=[
                pb.LineageEdge(
                    from_dataset_id=edges[index].from_dataset_id,
                    to_dataset_id=edges[index].to_dataset_id,
                    dag=edges[index].dag,
                    job=edges[index].job,
                    outdated=edges[index].outdated,
                    passed_scope_count=edges[index].passed_scope_count,
                )
                for index in sorted(reached)
            ]
        )

    async def ListEvents(self, request: pb.ListEventsRequest, context: Context) -> pb.ListEventsResponse:
        limit = page_size(request.page_size)
        with translated():
            async with transaction(self._pool) as connection:
                dataset = await named_dataset(connection, request.dataset_id) if request.dataset_id else None
                key = _key(dataset, request.scope) if request.HasField("scope") else None
                query = EventQuery(
                    dataset_id=dataset.dataset_id if dataset else None,
                    first=key.first if key else None,
                    last=key.last if key else None,
                    before=uuid_token(request.page_token),
                    limit=limit,
                )
                found = await events_store.find_events(connection, query)
        return pb.ListEventsResponse(
            events=[convert.event(row) for row in found],
            next_page_token=task_page_token([row.event_id for row in found], limit),
        )

    async def PinDatasets(self, request: pb.PinDatasetsRequest, context: Context) -> pb.PinDatasetsResponse:
        lease = request.lease_duration.ToTimedelta() if request.HasField("lease_duration") else DEFAULT_PIN_LEASE
        given = None
        if request.HasField("pin"):
            numbers = {pin.dataset_version_id: pin.publication_number for pin in request.pin.datasets}
            given = GivenPin(request.pin.deploy_number, numbers)
        deploy_number = request.deploy_number if request.HasField("deploy_number") else None
        wish = PinWish(list(request.names), lease, deploy_number, given)
        with translated():
            # What a crash of the database may undo is a lease: queryd hears so when it renews it, and stops the query.
            # Who pins for a day need not renew it before.
            actor = current_actor()
            begin = unflushed_transaction if actor.role is Role.QUERYD else transaction
            async with begin(self._pool) as connection:
                pinned = await pin_datasets(connection, wish, str(actor), self._new_id())
        return _pin_response(list(request.names), pinned)

    async def ResolveDatasets(
        self, request: pb.ResolveDatasetsRequest, context: Context
    ) -> AsyncIterator[pb.ResolveDatasetsResponse]:
        numbers = {item.pin.dataset_version_id: item.pin.publication_number for item in request.items}
        with translated():
            async with transaction(self._pool) as connection:
                rows = {row.dataset_version_id: row for row in await store.pinned(connection, numbers)}
            for index, item in enumerate(request.items):
                row = rows.get(item.pin.dataset_version_id)
                if row is None:
                    error = ItemError(
                        reason=ErrorReason.ERROR_REASON_PIN_COLLECTED,
                        message=f"version {item.pin.dataset_version_id} of {item.pin.dataset_id} is not there",
                    )
                    yield pb.ResolveDatasetsResponse(item_index=index, last=True, error=error)
                    continue
                bounds = _bounds(item.bounds) if item.HasField("bounds") and row.cursor_type else Bounds()
                manifest = Manifest(self._pool, row.dataset_version_id, item.pin.publication_number, bounds)
                async for page in manifest.pages(stored=_stored(row)):
                    yield pb.ResolveDatasetsResponse(
                        item_index=index,
                        artifacts=[convert.artifact(file) for file in page.artifacts],
                        events=[convert.event(scope) for scope in page.scopes],
                        last=page.last,
                    )

    async def RenewPin(self, request: pb.RenewPinRequest, context: Context) -> pb.RenewPinResponse:
        lease = request.lease_duration.ToTimedelta() if request.HasField("lease_duration") else DEFAULT_PIN_LEASE
        with translated():
            async with transaction(self._pool) as connection:
                expires_at = await store.renew_pin(connection, request.pin_id, lease)
        if expires_at is None:
            raise TraceError(ErrorReason.ERROR_REASON_PIN_EXPIRED, f"pin {request.pin_id} has expired")
        return pb.RenewPinResponse(expires_time=convert.timestamp(expires_at))

    async def ReleasePin(self, request: pb.ReleasePinRequest, context: Context) -> pb.ReleasePinResponse:
        with translated():
            async with unflushed_transaction(self._pool) as connection:  # or it ends by itself
                await store.release_pin(connection, request.pin_id)
        return pb.ReleasePinResponse()

    async def RecordQueries(
        self, request: record_pb.RecordQueriesRequest, context: Context
    ) -> record_pb.RecordQueriesResponse:
        return await record_queries(self._pool, request)

    async def ListQueryRecords(
        self, request: record_pb.ListQueryRecordsRequest, context: Context
    ) -> record_pb.ListQueryRecordsResponse:
        return await list_query_records(self._pool, request)


def _key(dataset: DatasetRow | None, scope: scope_pb2.Scope) -> ScopeKey:
    """Over all datasets any scope may be asked for. Raises SCOPE_MISMATCH."""
    return scope_key(scope) if dataset is None else scope_in(dataset, scope)


def _cursor(cursor_type: int, key: bytes | None) -> scope_pb2.CursorValue | None:
    return cursor_value(scope_pb2.CursorType.ValueType(cursor_type), key) if key is not None else None


def _stored(row: PinnedRow) -> bool:
    return not row.virtual_sql and OutputSpec.FromString(row.spec).storage != Storage.STORAGE_NONE


def _bounds(bounds: dataset_pb2.CursorBounds) -> Bounds:
    everything = Bounds()
    lower = cursor_key(bounds.lower) if bounds.HasField("lower") else everything.lower
    upper = cursor_key(bounds.upper) if bounds.HasField("upper") else everything.upper
    return Bounds(lower, upper)


def _dataset(row: DatasetRow | PinnedRow, totals: Totals | None = None) -> dataset_pb2.Dataset:
    spec = OutputSpec.FromString(row.spec)
    dataset = dataset_pb2.Dataset(
        dataset_id=row.dataset_id,
        dag=row.dag,
        served_version_id=row.dataset_version_id,
        spec=spec,
        virtual_sql=row.virtual_sql,
        served_version=dataset_pb2.DatasetVersion(
            dataset_version_id=row.dataset_version_id,
            dataset_id=row.dataset_id,
            publication_number=row.number,
            watermark=_cursor(row.cursor_type, row.watermark),
            schema=row.schema or {},
        ),
    )
    if totals is not None:
        dataset.served_version.event_count = totals.event_count
        dataset.served_version.artifact_count = totals.artifact_count
        dataset.served_version.row_count = totals.row_count
        dataset.served_version.size_bytes = totals.size_bytes
    if isinstance(row, DatasetRow):
        dataset.producer_jobs.extend(row.producer_jobs)
        dataset.served_version.created_time.FromDatetime(row.created_at)
    return dataset


def _pin_response(names: list[str], pinned: Pinned) -> pb.PinDatasetsResponse:
    response = pb.PinDatasetsResponse()
    response.pin.pin_id = pinned.pin_id
    response.pin.deploy_number = pinned.deploy_number
    response.pin.expires_time.FromDatetime(pinned.expires_at)
    named = [(name, pinned.names[name]) for name in names]
    further = [("", dataset_id) for dataset_id in pinned.rows if dataset_id not in {d for _, d in named}]
    for name, dataset_id in [*named, *further]:
        row = pinned.rows[dataset_id]
        pin = dataset_pb2.DatasetPin(
            dataset_id=dataset_id, dataset_version_id=row.dataset_version_id, publication_number=row.number
        )
        item = response.datasets.add(name=name, pin=pin, dataset=_dataset(row))
        if row.watermark is not None:
            item.watermark.CopyFrom(
                event_pb2.Watermark(
                    dataset_id=dataset_id,
                    dataset_version_id=row.dataset_version_id,
                    cursor=_cursor(row.cursor_type, row.watermark),
                )
            )
    for row in pinned.rows.values():
        response.pin.datasets.add(
            dataset_id=row.dataset_id, dataset_version_id=row.dataset_version_id, publication_number=row.number
        )
    return response
