"""`tracectl why`: the one reason that holds a task."""

from collections.abc import Mapping
from typing import Annotated

import typer
from rich.text import Text

from ctl.commands.options import HomeOption, Output, OutputOption
from ctl.connection import CALL_SECONDS, connect
from ctl.errors import CtlError, ExitCode
from ctl.home import DEFAULT_HOME
from ctl.render import console, machine, tables, values
from ctl.scope_text import scope_of
from ctl.task_ids import is_task_id
from traceapi.control.v1 import task_service_pb2 as api
from traceapi.types.v1 import errors_pb2

_REMEDIES: Mapping[int, str] = {
    errors_pb2.ERROR_REASON_TASK_NOT_FOUND: "see how far its inputs are: tracectl dataset ls{home}",
}


def why(
    subject: Annotated[
        str,
        typer.Argument(metavar="TASK|DATASET@SCOPE", help="A task's id, or a dataset at a scope.", show_default=False),
    ],
    home: HomeOption = DEFAULT_HOME,
    output: OutputOption = Output.TABLE,
) -> None:
    """Names exactly one reason that holds a task, or that a dataset has nothing at a scope yet.

    \b
    Examples:
      tracectl why 0198c0de-0000-7000-8000-000000000001
      tracectl why eth.checked@500000..500099
      tracectl why eth.blocks@501000 --output json
    """
    dataset_id, at, scope = subject.rpartition("@")
    if not is_task_id(subject) and not dataset_id:
        raise CtlError(
            f"neither a task's id nor a dataset at a scope: {subject!r}",
            remedy="write TASK, as tracectl task ls lists them, or DATASET@SCOPE, such as eth.checked@500000..500099",
            exit_code=ExitCode.USAGE,
        )
    with connect(home) as connection, connection.errors(subject, remedies=_REMEDIES if at else None):
        request = api.ExplainTaskRequest(task_id=subject)
        if at:
            of_dataset = api.DatasetScope(dataset_id=dataset_id, scope=scope_of(connection, dataset_id, scope))
            request = api.ExplainTaskRequest(dataset_scope=of_dataset)
        answer = connection.tasks.ExplainTask(request, timeout=CALL_SECONDS)
    if output is Output.JSON:
        machine.print_message(answer)
        return
    of = answer.task
    hold = api.HoldKind.Name(answer.hold).removeprefix("HOLD_KIND_").lower().replace("_", " ")
    facts: dict[str, Text | str] = {
        "task": of.task_id,
        "job": Text(f"{of.dag}/") + Text(of.job, "name"),
        "scope": values.task_scope(of),
        "state": values.task_state(of.state),
        "held by": Text(hold, "good" if answer.hold == api.HOLD_KIND_NONE else "waiting"),
        "why": answer.explanation,
    }
    if answer.HasField("awaited_watermark"):
        facts["complete up to"] = values.cursor(answer.awaited_watermark.cursor)
    console.stdout().print(tables.facts(facts))
