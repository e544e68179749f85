"""SourceService with canned data."""

from typing import Any

from tests.ctl.canned import Canned
from traceapi.control.v1 import rerun_pb2, source_service_pb2, source_service_pb2_grpc


class FakeSources(source_service_pb2_grpc.SourceServiceServicer):
    """Makes the changeable tasks in pages of two."""

    def __init__(self, canned: Canned) -> None:
        self._canned = canned

    def BackfillJob(self, request: Any, context: Any) -> Any:
        self._canned.requests.append(request)
        count = self._canned.changeable
        if request.dry_run:
            return source_service_pb2.BackfillJobResponse(
                task_count=count,
                readers=self._canned.readers,
                dag="ethereum",
                jobs=[rerun_pb2.RerunJob(dag="ethereum", job=request.job)],
            )
        done = int(request.page_token or 0)
        made = min(2, count - done)
        token = str(done + made) if done + made < count else ""
        return source_service_pb2.BackfillJobResponse(task_count=made, next_page_token=token, dag="ethereum")
