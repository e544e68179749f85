"""SourceService with canned data."""

from typing import Any, Protocol

from traceapi.control.v1 import rerun_pb2, source_service_pb2, source_service_pb2_grpc


class Changeable(Protocol):
    """What it answers from, and where it says what it was asked."""

    changeable: int
    readers: list[rerun_pb2.RerunReader]
    requests: list[Any]


class FakeSources(source_service_pb2_grpc.SourceServiceServicer):
    """Makes the changeable tasks in pages of two."""

    def __init__(self, canned: Changeable) -> None:
        self._canned = canned

    def TriggerSource(self, request: Any, context: Any) -> Any:
        raise NotImplementedError

    def EmitExternalEvents(self, request: Any, context: Any) -> Any:
        raise NotImplementedError

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
