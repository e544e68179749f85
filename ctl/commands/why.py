"""`tracectl why`: the one reason that holds a task."""

from typing import Annotated

import typer
from rich.text import Text

from ctl.commands.options import HomeOption, Output, OutputOption
from ctl.connection import CALL_SECONDS, connect
from ctl.home import DEFAULT_HOME
from ctl.render import console, machine, tables, values
from traceapi.control.v1 import task_service_pb2 as api


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
    request = api.ExplainTaskRequest(task_id=subject)
    if at:
        request = api.ExplainTaskRequest(
            dataset_scope=api.DatasetScope(dataset_id=dataset_id, scope=values.parse_scope(scope))
        )
    with connect(home) as connection, connection.errors(subject):
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
