"""DatasetService, RetentionService and QueryService with canned data."""

from collections.abc import Iterator
from typing import Any

from google.protobuf import json_format

from tests.ctl.canned import SPEC, Canned, int64, int64_range, page, refuse, task_id
from traceapi.control.v1 import (
    dataset_service_pb2,
    dataset_service_pb2_grpc,
    query_record_pb2,
    retention_service_pb2,
    retention_service_pb2_grpc,
)
from traceapi.query.v1 import query_service_pb2, query_service_pb2_grpc
from traceapi.types.v1 import dag_pb2, dataset_pb2, errors_pb2, event_pb2, scope_pb2


class FakeDatasets(dataset_service_pb2_grpc.DatasetServiceServicer):
    def __init__(self, canned: Canned) -> None:
        self._canned = canned

    def ListDatasets(self, request: Any, context: Any) -> Any:
        return dataset_service_pb2.ListDatasetsResponse(datasets=[self._blocks(), self._miners()])

    def GetDataset(self, request: Any, context: Any) -> Any:
        for dataset in (self._blocks(), self._miners()):
            if dataset.dataset_id == request.dataset_id:
                return dataset_service_pb2.GetDatasetResponse(dataset=dataset)
        return refuse(context, errors_pb2.ERROR_REASON_DATASET_NOT_FOUND, f"no dataset {request.dataset_id!r}")

    def ListQueryRecords(self, request: Any, context: Any) -> Any:
        self._canned.requests.append(request)
        found = [record for record in self._canned.query_records if request.query_id in ("", record.query_id)]
        if not found and request.query_id:
            return refuse(context, errors_pb2.ERROR_REASON_QUERY_NOT_FOUND, f"no query {request.query_id} is on record")
        page_of, token = page(found, request.page_size, request.page_token)
        return query_record_pb2.ListQueryRecordsResponse(records=page_of, next_page_token=token)

    def GetLineage(self, request: Any, context: Any) -> Any:
        self._canned.requests.append(request)
        edge = dataset_service_pb2.LineageEdge(
            from_dataset_id="other.raw",
            to_dataset_id=request.dataset_id,
            dag="ethereum",
            job="blocks",
            outdated=True,
            passed_scope_count=1204,
        )
        return dataset_service_pb2.GetLineageResponse(edges=[edge])

    def ListEvents(self, request: Any, context: Any) -> Any:
        self._canned.requests.append(request)
        boundaries = int64_range(500_000, 500_099).range
        manifest = scope_pb2.RangeManifest(boundaries=boundaries, unit_count=100, members=[boundaries])
        event = event_pb2.Event(
            event_id=task_id(1),
            dataset_id="eth.block_ranges",
            scope=int64_range(500_000, 500_099),
            publication_number=7,
            manifest=manifest,
        )
        return dataset_service_pb2.ListEventsResponse(events=[event])

    def _blocks(self) -> dataset_pb2.Dataset:
        version = dataset_pb2.DatasetVersion(
            publication_number=12,
            watermark=int64(501_000),
            event_count=1001,
            artifact_count=2,
            row_count=1001,
            size_bytes=150_000,
            schema={"number": "int64", "miner": "string"},
        )
        spec = json_format.ParseDict(SPEC["jobs"]["blocks"]["outputs"]["eth.blocks"], dag_pb2.OutputSpec())
        return dataset_pb2.Dataset(
            dataset_id="eth.blocks", dag="ethereum", spec=spec, producer_jobs=["blocks"], served_version=version
        )

    def _miners(self) -> dataset_pb2.Dataset:
        sql = SPEC["jobs"]["miners"]["virtual"]["sql"]
        return dataset_pb2.Dataset(dataset_id="eth.miners", dag="ethereum", virtual_sql=sql, producer_jobs=["miners"])


class FakeRetention(retention_service_pb2_grpc.RetentionServiceServicer):
    """Three orphans; two unused versions, of which one comes to be held, and one that is being taken."""

    def __init__(self, canned: Canned) -> None:
        self._canned = canned
        self._left = 3

    def CollectOrphans(self, request: Any, context: Any) -> Iterator[Any]:
        self._canned.requests.append(request)
        lost = [
            retention_service_pb2.Orphan(key=f"data/{number}", dataset_id=dataset_id, size_bytes=size)
            for number, (dataset_id, size) in enumerate([("eth.blocks", 1024), ("eth.blocks", 1024), ("", 2048)])
        ]
        yield retention_service_pb2.CollectOrphansResponse(
            looked_at_count=1000, orphan_count=2, orphan_bytes=2048, orphans=lost[:2]
        )
        whole = retention_service_pb2.CollectOrphansResponse(
            looked_at_count=2000, orphan_count=3, orphan_bytes=4096, orphans=lost[2:]
        )
        yield whole
        del whole.orphans[:]
        whole.unfinished_count = 1
        yield whole

    def ListUnusedVersions(self, request: Any, context: Any) -> Any:
        self._canned.requests.append(request)
        found = [
            retention_service_pb2.UnusedVersion(
                dataset_version_id=task_id(number),
                dataset_id="eth.checked",
                dag="ethereum",
                file_count=10,
                row_count=12_345,
                size_bytes=1 << 20,
                event_count=678,
            )
            for number in (1, 2, 3)
        ]
        for version in found:
            version.unused_since_time.FromJsonString("2026-10-01T00:00:00Z")
        found[2].condemned_time.FromJsonString("2026-10-02T00:00:00Z")
        page_of, token = page(found, min(request.page_size, 2), request.page_token)
        return retention_service_pb2.ListUnusedVersionsResponse(versions=page_of, next_page_token=token)

    def CollectVersions(self, request: Any, context: Any) -> Any:
        self._canned.requests.append(request)
        self._left -= 1
        of = retention_service_pb2.CollectedVersion
        results = [
            of(outcome=retention_service_pb2.COLLECT_OUTCOME_CONDEMNED),
            of(outcome=retention_service_pb2.COLLECT_OUTCOME_HELD, hold=retention_service_pb2.VERSION_HOLD_PINNED),
        ][: len(request.dataset_version_ids)]
        for result, version_id in zip(results, request.dataset_version_ids, strict=True):
            result.dataset_version_id = version_id
        return retention_service_pb2.CollectVersionsResponse(
            results=results,
            removed_file_count=10,
            removed_bytes=1024,
            removed_row_count=1000,
            removed_version_count=1,
            left_version_count=self._left,
        )


class FakeQueries(query_service_pb2_grpc.QueryServiceServicer):
    """Runs the SQL by DuckDB, without any dataset."""

    def __init__(self, canned: Canned) -> None:
        self._canned = canned

    def Query(self, request: Any, context: Any) -> Iterator[Any]:
        # Here, because they are slow to load and the stand-ins of a stack need no queries.
        import duckdb
        import pyarrow as pa

        self._canned.requests.append(request)
        context.add_callback(self._canned.queries_cancelled.set)
        try:
            with duckdb.connect() as connection:
                table = connection.sql(request.sql).to_arrow_table()
        except duckdb.Error as error:
            refuse(context, errors_pb2.ERROR_REASON_QUERY_FAILED, str(error))
            return
        pin = dataset_pb2.Pin(pin_id=task_id(1), deploy_number=3)
        pin.datasets.add(dataset_id="eth.blocks", dataset_version_id=task_id(2), publication_number=12)
        yield query_service_pb2.QueryResponse(started=query_service_pb2.QueryStarted(pin=pin))
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=1000)
        data = sink.getvalue().to_pybytes()
        for start in range(0, len(data), 777):  # never at a message's border
            yield query_service_pb2.QueryResponse(arrow_ipc=data[start : start + 777])
        finished = query_service_pb2.QueryFinished(row_count=table.num_rows)
        finished.elapsed_duration.FromMilliseconds(12)
        yield query_service_pb2.QueryResponse(finished=finished)

    def ExplainQuery(self, request: Any, context: Any) -> Any:
        self._canned.requests.append(request)
        answer = query_service_pb2.ExplainQueryResponse(plan=f"SEQ_SCAN at {request.deploy_number or 'now'}")
        pin = dataset_pb2.DatasetPin(dataset_id="eth.blocks", dataset_version_id=task_id(2), publication_number=12)
        answer.datasets.add(pin=pin, file_count=3, row_count=1200, file_bytes=1 << 20)
        answer.datasets.add(pin=dataset_pb2.DatasetPin(dataset_id="eth.miners"), virtual=True)
        return answer

    def ListQueries(self, request: Any, context: Any) -> Any:
        answer = query_service_pb2.ListQueriesResponse()
        for query_id, sql in self._canned.running_queries.items():
            query = answer.queries.add(query_id=query_id, actor="user:alice", sql=sql, row_count=7)
            query.started_time.GetCurrentTime()
        return answer

    def CancelQuery(self, request: Any, context: Any) -> Any:
        if self._canned.running_queries.pop(request.query_id, None) is None:
            refuse(context, errors_pb2.ERROR_REASON_QUERY_NOT_FOUND, f"no query {request.query_id} is running")
        return query_service_pb2.CancelQueryResponse()
