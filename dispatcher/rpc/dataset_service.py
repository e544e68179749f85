"""DatasetService: what there is and how to read it. Parses, calls the slices, converts."""

from collections.abc import AsyncIterator

import grpc

from dispatcher.datasets import store
from dispatcher.datasets.manifest import Manifest
from dispatcher.datasets.pins import is_stored, pin_datasets
from dispatcher.datasets.rows import (
    Bounds,
    DatasetRow,
)
from dispatcher.db.pipeline import pipelined
from dispatcher.db.pool import Pool, transaction, unflushed_transaction
from dispatcher.events import store as events_store
from dispatcher.events.rows import (
    EventQuery,
)
from dispatcher.rpc import convert
from dispatcher.rpc.faults import translated
from dispatcher.rpc.naming import named_dataset, require_names, scope_in
from dispatcher.rpc.paging import page_size, task_page_token, uuid_token
from dispatcher.rpc.pinning import (
    cursor_bounds,
    cursor_message,
    dataset_message,
    files_page,
    lease_of,
    pin_response,
    pin_wish,
)
from dispatcher.rpc.query_records import list_query_records, record_queries
from kernel.column_types import ordered_columns
from kernel.credentials import Role
from kernel.errors import TraceError
from kernel.ids import IdSource
from kernel.scopes import ScopeKey, scope_key
from kernel.servers import current_actor
from traceapi.control.v1 import dataset_service_pb2 as pb
from traceapi.control.v1 import query_record_pb2 as record_pb
from traceapi.control.v1.dataset_service_pb2_grpc import DatasetServiceServicer
from traceapi.types.v1 import dataset_pb2, scope_pb2
from traceapi.types.v1.errors_pb2 import ErrorReason, ItemError

Context = grpc.aio.ServicerContext[object, object]

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
            dataset=dataset_message(row, totals[row.dataset_version_id]),
            artifacts=[convert.artifact(item) for item in shown],
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
            datasets=[dataset_message(row, totals[row.dataset_version_id]) for row in found],
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
                    watermark=cursor_message(row.cursor_type, row.watermark),
                    schema=row.schema or {},
                    column_order=ordered_columns(row.schema or {}, row.column_order or ()),
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
        wish, actor = pin_wish(request), current_actor()
        # What a crash of the database may undo is a lease: queryd hears so when it renews it, and stops the query.
        # Who pins for a day need not renew it before.
        flushed = actor.role is not Role.QUERYD
        with translated():
            async with self._pool.connection() as connection, pipelined(connection, flushed=flushed, planned_once=True):
                pinned = await pin_datasets(connection, wish, str(actor), self._new_id())
        return pin_response(list(request.names), pinned)

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
                bounds = cursor_bounds(item.bounds) if item.HasField("bounds") and row.cursor_type else Bounds()
                manifest = Manifest(row.dataset_version_id, item.pin.publication_number, bounds, stored=is_stored(row))
                async for page in manifest.pages(self._pool, item.limit or None):
                    yield files_page(index, page)

    async def RenewPin(self, request: pb.RenewPinRequest, context: Context) -> pb.RenewPinResponse:
        with translated():
            async with transaction(self._pool) as connection:
                expires_at = await store.renew_pin(connection, request.pin_id, lease_of(request))
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
