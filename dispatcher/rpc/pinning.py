"""PinDatasets and what it shares with ResolveDatasets: from requests to what is wished, from rows to messages."""

from collections import defaultdict
from datetime import timedelta

from dispatcher.datasets.manifest import Page
from dispatcher.datasets.pins import ColumnBounds, GivenPin, Pinned, PinWish
from dispatcher.datasets.rows import (
    Bounds,
    DatasetRow,
    PinnedRow,
    Totals,
)
from dispatcher.rpc import convert
from kernel.column_types import ordered_columns
from kernel.dataset_sql import folded
from kernel.scopes import cursor_key, cursor_value
from traceapi.control.v1 import dataset_service_pb2 as pb
from traceapi.types.v1 import dataset_pb2, event_pb2, scope_pb2
from traceapi.types.v1.dag_pb2 import OutputSpec

DEFAULT_PIN_LEASE = timedelta(seconds=60)
_CURSOR_TYPES = {
    "int64_value": scope_pb2.CURSOR_TYPE_INT64,
    "timestamp_value": scope_pb2.CURSOR_TYPE_TIMESTAMP,
    "string_value": scope_pb2.CURSOR_TYPE_STRING,
}


def lease_of(request: pb.PinDatasetsRequest | pb.RenewPinRequest) -> timedelta:
    """How long it is to last."""
    return request.lease_duration.ToTimedelta() if request.HasField("lease_duration") else DEFAULT_PIN_LEASE


def pin_wish(request: pb.PinDatasetsRequest) -> PinWish:
    """What is asked for; bounds whose ends are of two types mean nothing."""
    given = None
    if request.HasField("pin"):
        numbers = {pin.dataset_version_id: pin.publication_number for pin in request.pin.datasets}
        given = GivenPin(request.pin.deploy_number, numbers)
    deploy_number = request.deploy_number if request.HasField("deploy_number") else None
    bounds = _bounds_by_name(request) if request.files_wanted else None
    return PinWish(list(request.names), lease_of(request), deploy_number, given, bounds)


def files_page(item_index: int, page: Page) -> pb.ResolveDatasetsResponse:
    """A page of an item's files, or of its scopes."""
    return pb.ResolveDatasetsResponse(
        item_index=item_index,
        artifacts=[convert.artifact(file) for file in page.artifacts],
        events=[convert.event(scope) for scope in page.scopes],
        last=page.last,
    )


def _bounds_by_name(request: pb.PinDatasetsRequest) -> dict[str, list[ColumnBounds]]:
    found = defaultdict[str, list[ColumnBounds]](list)
    for named in request.bounds:
        ends = [end for end in ("lower", "upper") if named.bounds.HasField(end)]
        kinds = {getattr(named.bounds, end).WhichOneof("value") for end in ends} & _CURSOR_TYPES.keys()
        if len(kinds) == 1:
            bounds = ColumnBounds(folded(named.column), _CURSOR_TYPES[kinds.pop()], cursor_bounds(named.bounds))
            found[named.name].append(bounds)
    return found


def cursor_message(cursor_type: int, key: bytes | None) -> scope_pb2.CursorValue | None:
    """None for a watermark that never moved."""
    return cursor_value(scope_pb2.CursorType.ValueType(cursor_type), key) if key is not None else None


def cursor_bounds(bounds: dataset_pb2.CursorBounds) -> Bounds:
    """As keys; an end that is not given is none."""
    everything = Bounds()
    lower = cursor_key(bounds.lower) if bounds.HasField("lower") else everything.lower
    upper = cursor_key(bounds.upper) if bounds.HasField("upper") else everything.upper
    return Bounds(lower, upper)


def dataset_message(row: DatasetRow | PinnedRow, totals: Totals | None = None) -> dataset_pb2.Dataset:
    """A dataset with its served version, or the one that is pinned."""
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
            watermark=cursor_message(row.cursor_type, row.watermark),
            schema=row.schema or {},
            column_order=ordered_columns(row.schema or {}, row.column_order or ()),
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


def pin_response(names: list[str], pinned: Pinned) -> pb.PinDatasetsResponse:
    """`names` are those of the request, in order."""
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
        item = response.datasets.add(name=name, pin=pin, dataset=dataset_message(row))
        if row.watermark is not None:
            item.watermark.CopyFrom(
                event_pb2.Watermark(
                    dataset_id=dataset_id,
                    dataset_version_id=row.dataset_version_id,
                    cursor=cursor_message(row.cursor_type, row.watermark),
                )
            )
        if pinned.files is not None:
            response.files.append(files_page(len(response.datasets) - 1, pinned.files[dataset_id]))
    for row in pinned.rows.values():
        response.pin.datasets.add(
            dataset_id=row.dataset_id, dataset_version_id=row.dataset_version_id, publication_number=row.number
        )
    return response
