"""TaskService with canned data."""

from typing import Any

from tests.ctl.canned import Canned, page, refuse, tasks
from traceapi.control.v1 import task_service_pb2, task_service_pb2_grpc
from traceapi.types.v1 import errors_pb2, task_pb2

_TRACEBACK = 'Traceback (most recent call last):\n  File "checks.py", line 7, in links\nValueError: broken link\n'


class FakeTasks(task_service_pb2_grpc.TaskServiceServicer):
    def __init__(self, canned: Canned) -> None:
        self._canned = canned
        self._shown: task_pb2.Task | None = None

    def ListTasks(self, request: Any, context: Any) -> Any:
        self._canned.requests.append(request)
        wanted = [task for task in tasks() if not request.filter.states or task.state in request.filter.states]
        if request.filter.task_ids:
            wanted = [task for task in wanted if task.task_id in request.filter.task_ids]
        found, token = page(wanted, request.page_size, request.page_token)
        return task_service_pb2.ListTasksResponse(tasks=found, next_page_token=token)

    def GetTask(self, request: Any, context: Any) -> Any:
        if self._canned.task_looks:
            look = self._canned.task_looks.pop(0)
            if look is None:
                return refuse(context, errors_pb2.ERROR_REASON_UNAVAILABLE, "the dispatcher restarts")
            self._shown = look
            return task_service_pb2.GetTaskResponse(task=look)
        found = next((task for task in tasks() if task.task_id == request.task_id), None)
        if found is None:
            return refuse(context, errors_pb2.ERROR_REASON_TASK_NOT_FOUND, f"no task {request.task_id}")
        failure = task_pb2.TaskFailure(
            error_class=task_pb2.ERROR_CLASS_USER, message="ValueError: broken link", traceback=_TRACEBACK
        )
        attempt = task_pb2.Attempt(
            attempt=1, worker_id="local", outcome=task_pb2.ATTEMPT_OUTCOME_FAILED, failure=failure
        )
        return task_service_pb2.GetTaskResponse(
            task=found, attempts=[attempt], earlier_attempt_count=self._canned.earlier_attempts
        )

    def CancelTasks(self, request: Any, context: Any) -> Any:
        return task_service_pb2.CancelTasksResponse(**self._changed(request))

    def RetryTasks(self, request: Any, context: Any) -> Any:
        return task_service_pb2.RetryTasksResponse(**self._changed(request))

    def SkipTasks(self, request: Any, context: Any) -> Any:
        return task_service_pb2.SkipTasksResponse(**self._changed(request))

    def RerunTasks(self, request: Any, context: Any) -> Any:
        return task_service_pb2.RerunTasksResponse(**self._changed(request))

    def ExplainTask(self, request: Any, context: Any) -> Any:
        self._canned.requests.append(request)
        if self._shown is not None:
            return task_service_pb2.ExplainTaskResponse(
                task=self._shown,
                hold=task_service_pb2.HOLD_KIND_STREAM,
                explanation="another task of its stream comes first",
            )
        return task_service_pb2.ExplainTaskResponse(
            task=tasks()[0], hold=task_service_pb2.HOLD_KIND_DEAD, explanation="it is DEAD: out of attempts"
        )

    def _changed(self, request: Any) -> dict[str, Any]:
        """`changeable` tasks in pages of two."""
        self._canned.requests.append(request)
        total = self._canned.changeable
        if request.dry_run:
            return {"task_count": total}
        part, token = page(list(range(total)), 2, request.page_token)
        return {"task_count": len(part), "next_page_token": token}

    def CountTasks(self, request: Any, context: Any) -> Any:
        self._canned.requests.append(request)
        if self._canned.count_looks:
            return task_service_pb2.CountTasksResponse(counts=self._canned.count_looks.pop(0))
        count = task_service_pb2.JobTaskCount(
            dag="ethereum", job="checked", state=task_pb2.TASK_STATE_SUCCEEDED, count=10
        )
        return task_service_pb2.CountTasksResponse(counts=[count])
