"""The command line `tracectl`: puts the commands together, and turns expected failures into words and exit codes."""

from typing import Any

import grpc
import typer
from typer.core import TyperGroup

from ctl.commands import (
    changes,
    dag,
    dag_plan,
    dataset,
    event,
    history,
    pauses,
    queries,
    query,
    query_history,
    queue,
    reruns,
    retention,
    stack,
    task,
    task_changes,
    why,
)
from ctl.commands.registry import command
from ctl.errors import CtlError, from_trace_error
from ctl.render import console
from kernel.errors import TraceError, from_rpc_error


class ReportingGroup(TyperGroup):
    """Prints what, where and remedy of an expected failure, and exits with its code. Defects keep their traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except CtlError as error:
            failure = error
        except TraceError as error:
            failure = from_trace_error(error)
        except grpc.RpcError as error:
            failure = from_trace_error(from_rpc_error(error))
        console.print_error(failure)
        raise typer.Exit(int(failure.exit_code))


app = typer.Typer(
    name="tracectl",
    cls=ReportingGroup,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=True,
    help="""Runs and looks at Trace: event-driven data pipelines, and SQL over their results.

    \b
    Start here:
      tracectl up --detach
      tracectl dag deploy examples/ethereum/dag.yaml --wait
      tracectl query 'select count(*) from "eth.blocks"'

    \b
    Exit codes:
      0  done
      1  the work, the document or the query has a fault
      2  the command line is wrong
      3  no stack to connect to, no answer, or it does not let you in

    Ctrl-C ends a command with 130, and a reader that goes early (`| head`) with 141; `up` and `down` go on without one.
    """,
)
command(app, "up")(stack.up)
command(app, "down")(stack.down)
command(app, "status")(stack.status)
command(dag.app, "plan")(dag_plan.plan)
command(dag.app, "watch")(changes.watch)
command(dag.app, "cutover")(changes.cut_over)
command(dag.app, "abort")(changes.abort)
command(dag.app, "rollback")(changes.roll_back)
command(dag.app, "history")(history.history)
command(dag.app, "versions")(history.versions)
command(dag.app, "rm")(changes.remove)
command(dag.app, "pause")(pauses.pause)
command(dag.app, "resume")(pauses.resume)
app.add_typer(dag.app, name="dag")
command(task.app, "cancel")(task_changes.cancel)
command(task.app, "retry")(task_changes.retry)
command(task.app, "skip")(task_changes.skip)
command(task.app, "rerun")(reruns.rerun)
app.add_typer(task.app, name="task")
app.add_typer(event.app, name="event")
app.add_typer(dataset.app, name="dataset")
app.add_typer(queue.app, name="queue")
command(app, "backfill")(reruns.backfill)
command(app, "query")(query.query)
command(queries.app, "history")(query_history.history)
command(queries.app, "show")(query_history.show)
app.add_typer(queries.app, name="queries")
command(app, "gc")(retention.gc)
command(app, "why")(why.why)


@app.callback()
def _root() -> None:
    """Only there so that the group has its own help."""
