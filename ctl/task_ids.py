"""Tasks that a person names: whether they look like ids, and whether there are any."""

import re
from collections.abc import Sequence

from ctl.connection import CALL_SECONDS, Connection
from ctl.errors import CtlError, ExitCode
from ctl.render import values
from traceapi.control.v1 import task_service_pb2 as api
from traceapi.types.v1 import task_pb2

MOST = 1000
"""As many as one call takes."""

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)


def is_task_id(text: str) -> bool:
    return _UUID.fullmatch(text) is not None


def check_task_ids(task_ids: Sequence[str]) -> None:
    """Raises CtlError (usage)."""
    for task_id in task_ids:
        if not is_task_id(task_id):
            raise CtlError(
                f"not a task's id: {task_id!r}",
                remedy="write one such as 0198c0de-0000-7000-8000-000000000001; tracectl task ls lists them",
                exit_code=ExitCode.USAGE,
            )
    if len(task_ids) > MOST:
        raise CtlError(
            f"{len(task_ids):,} tasks are named, and at most {MOST:,} can be",
            remedy="name fewer at once, or choose them by --dag, --job, --state or --scope",
            exit_code=ExitCode.USAGE,
        )


def named_tasks(connection: Connection, task_ids: Sequence[str]) -> Sequence[task_pb2.Task]:
    """All of them. Raises CtlError where one is unknown, and grpc.RpcError."""
    request = api.ListTasksRequest(filter=api.TaskFilter(task_ids=task_ids))
    found = connection.tasks.ListTasks(request, timeout=CALL_SECONDS).tasks
    unknown = sorted({task_id.lower() for task_id in task_ids} - {task.task_id for task in found})
    if unknown:
        more = f", and {len(unknown) - 3:,} more" if len(unknown) > 3 else ""
        raise CtlError(
            f"there is no task {', '.join(unknown[:3])}{more}",
            remedy=f"correct the ids; the tasks are listed by: tracectl task ls{connection.home.option()}",
        )
    return found


def states_of(tasks: Sequence[task_pb2.Task]) -> str:
    """`succeeded`, or each state that is met: `queued, succeeded`."""
    return ", ".join(sorted({values.task_state(task.state).plain for task in tasks}))
