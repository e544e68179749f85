"""`tracectl task`: what ran, what waits, and what went wrong."""

from typing import Annotated

import typer

from ctl.commands.options import DagOption, HomeOption, LimitOption, Output, OutputOption, ScopeOption
from ctl.commands.registry import command
from ctl.connection import CALL_SECONDS, connect
from ctl.errors import CtlError, ExitCode
from ctl.home import DEFAULT_HOME
from ctl.paging import collect
from ctl.render import console, machine, tables, values
from ctl.scope_text import parse_scope
from ctl.task_ids import check_task_ids
from ctl.task_watch import follow_task, follow_task_as_messages
from traceapi.control.v1 import task_service_pb2 as api
from traceapi.types.v1 import task_pb2

app = typer.Typer(help="Tasks: units of work, each caused by exactly one event.", no_args_is_help=True)


@command(app, "ls")
def list_tasks(
    dag: DagOption = "",
    job: Annotated[str, typer.Option("--job", help="Only of this job.", show_default=False)] = "",
    state: Annotated[
        list[str] | None,
        typer.Option("--state", help="Only in this state: queued, running, dead, ... Repeatable.", show_default=False),
    ] = None,
    scope: ScopeOption = "",
    limit: LimitOption = 50,
    home: HomeOption = DEFAULT_HOME,
    output: OutputOption = Output.TABLE,
) -> None:
    """Lists tasks, newest first.

    \b
    Examples:
      tracectl task ls --job checked
      tracectl task ls --state dead --state backoff
      tracectl task ls --scope 500000..500099 --limit 0 --output json
    """
    chosen = api.TaskFilter(dag=dag, job=job, states=[parse_state(word) for word in state or ()])
    if scope:
        chosen.scope.CopyFrom(parse_scope(scope))
    with connect(home) as connection, connection.errors():
        found = collect(
            lambda size, token: connection.tasks.ListTasks(
                api.ListTasksRequest(filter=chosen, page_size=size, page_token=token), timeout=CALL_SECONDS
            ),
            lambda answer: len(answer.tasks),
            limit,
        )
    if output is Output.JSON:
        machine.print_message(found)
        return
    console.print_list(tables.tasks(found.tasks), len(found.tasks), more=bool(found.next_page_token), what="tasks")


@command(app, "show")
def show_task(
    task_id: Annotated[str, typer.Argument(metavar="TASK", help="The task's id.", show_default=False)],
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Follow it until it ends.")] = False,
    home: HomeOption = DEFAULT_HOME,
    output: OutputOption = Output.TABLE,
) -> None:
    """Shows a task with its last attempts, their tracebacks, and the events it caused.

    With --watch its state, its attempt, its progress and what holds it, until it ends; then the rest. With
    --output json a line for each change. Exits with 1 when it ends as DEAD.

    \b
    Examples:
      tracectl task show 0198c0de-0000-7000-8000-000000000001
      tracectl task show 0198c0de-0000-7000-8000-000000000001 --watch
      tracectl task show 0198c0de-0000-7000-8000-000000000001 --output json
    """
    check_task_ids([task_id])
    with connect(home) as connection:
        if not watch:
            with connection.errors(f"task {task_id}"):
                found = connection.tasks.GetTask(api.GetTaskRequest(task_id=task_id), timeout=CALL_SECONDS)
        elif output is Output.JSON:
            found = follow_task_as_messages(connection, task_id)
        else:
            found = follow_task(connection, task_id, console.stdout())
    if output is Output.TABLE:
        console.stdout().print(tables.task(found))
    elif not watch:
        machine.print_message(found)
    if watch and found.task.state == task_pb2.TASK_STATE_DEAD:
        raise typer.Exit(int(ExitCode.FAULTY))


def parse_state(word: str) -> task_pb2.TaskState.ValueType:
    """`dead` or `TASK_STATE_DEAD`. Raises CtlError (usage) naming the states that there are."""
    names = {values.word(name, "TASK_STATE_"): number for name, number in task_pb2.TaskState.items() if number}
    name = values.word(word.strip().upper(), "TASK_STATE_")
    if name not in names:
        raise CtlError(
            f"no task state is called {word!r}", remedy=f"one of {', '.join(names)}", exit_code=ExitCode.USAGE
        )
    return names[name]
