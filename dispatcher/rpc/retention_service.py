"""RetentionService: what nobody needs any more, and its end. Parses, calls the slice, converts."""

from collections.abc import AsyncIterator

import grpc

from dispatcher.collecting.collector import Collector
from dispatcher.collecting.condemning import Unused, Verdict
from dispatcher.collecting.sweep import Orphan
from dispatcher.db.pool import transaction
from dispatcher.rpc import convert
from dispatcher.rpc.faults import translated
from dispatcher.rpc.naming import require_names
from dispatcher.rpc.paging import page_size, uuid_token
from kernel.servers import current_actor
from traceapi.control.v1 import retention_service_pb2 as pb
from traceapi.control.v1.retention_service_pb2_grpc import RetentionServiceServicer

Context = grpc.aio.ServicerContext[object, object]


class RetentionService(RetentionServiceServicer):
    """One for each dispatcher; holds no state but what it was given."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    async def CollectOrphans(
        self, request: pb.CollectOrphansRequest, context: Context
    ) -> AsyncIterator[pb.CollectOrphansResponse]:
        counted = pb.CollectOrphansResponse()
        with translated():
            async for swept in self._collector.sweep(str(current_actor()), dry_run=request.dry_run):
                counted.looked_at_count += swept.looked_at
                counted.strange_count += swept.strange
                counted.orphan_count += len(swept.orphans)
                counted.orphan_bytes += sum(orphan.size_bytes for orphan in swept.orphans)
                counted.unfinished_count += swept.unfinished
                counted.unfinished_bytes += swept.unfinished_bytes
                answer = pb.CollectOrphansResponse(orphans=[_orphan(orphan) for orphan in swept.orphans])
                answer.MergeFrom(counted)
                yield answer

    async def ListUnusedVersions(
        self, request: pb.ListUnusedVersionsRequest, context: Context
    ) -> pb.ListUnusedVersionsResponse:
        with translated():
            async with transaction(self._collector.pool) as connection:
                await require_names(connection, request.dag)
            page = await self._collector.unused_versions(
                request.dag or None, uuid_token(request.page_token), page_size(request.page_size)
            )
        return pb.ListUnusedVersionsResponse(
            versions=[_unused(version) for version in page.versions], next_page_token=page.last_id or ""
        )

    async def CollectVersions(self, request: pb.CollectVersionsRequest, context: Context) -> pb.CollectVersionsResponse:
        actor = str(current_actor())
        with translated():
            verdicts = await self._collector.condemn(list(request.dataset_version_ids), actor)
            removed, left = await self._collector.remove_for_a_while(actor)
        return pb.CollectVersionsResponse(
            results=[_collected(version_id, verdicts[version_id]) for version_id in request.dataset_version_ids],
            removed_file_count=removed.files,
            removed_bytes=removed.size_bytes,
            removed_row_count=removed.rows,
            removed_version_count=removed.versions,
            left_version_count=left,
        )


def _orphan(of: Orphan) -> pb.Orphan:
    return pb.Orphan(
        key=of.key,
        dataset_id=of.dataset_id,
        size_bytes=of.size_bytes,
        modified_time=convert.timestamp(of.modified_at),
    )


def _unused(version: Unused) -> pb.UnusedVersion:
    return pb.UnusedVersion(
        dataset_version_id=version.of.dataset_version_id,
        dataset_id=version.of.dataset_id,
        dag=version.dag,
        file_count=version.size.file_count,
        row_count=version.size.row_count,
        size_bytes=version.size.size_bytes,
        event_count=version.size.event_count,
        unused_since_time=convert.timestamp(version.of.unused_since),
        condemned_time=convert.timestamp(version.of.condemned_at),
    )


def _collected(version_id: str, verdict: Verdict) -> pb.CollectedVersion:
    return pb.CollectedVersion(
        dataset_version_id=version_id,
        outcome=pb.CollectOutcome.Value(f"COLLECT_OUTCOME_{verdict.outcome.name}"),
        hold=pb.VersionHold.Value(f"VERSION_HOLD_{verdict.hold.name}") if verdict.hold else pb.VERSION_HOLD_UNSPECIFIED,
    )
