"""`tracectl dag pause` and `resume`: by name, so that a pause outlives the versions of what it pauses."""

from typing import Annotated

import typer
from rich.text import Text

from ctl.commands.options import HomeOption, Output, OutputOption
from ctl.connection import CALL_SECONDS, connect
from ctl.home import DEFAULT_HOME
from ctl.render import console, machine
from traceapi.control.v1 import dag_service_pb2 as api

_Dag = Annotated[str, typer.Argument(metavar="DAG", help="The DAG's name.", show_default=False)]
_Jobs = Annotated[list[str] | None, typer.Argument(metavar="JOB", help="Only these jobs of it.", show_default=False)]


def pause(dag: _Dag, jobs: _Jobs = None, home: HomeOption = DEFAULT_HOME, output: OutputOption = Output.TABLE) -> None:
    """Stops releasing tasks of a DAG, or of some of its jobs; what runs may finish.

    A source's run is handed back within a third of its worker's `lease_seconds`, and goes on where it was once it is
    resumed.

    \b
    Examples:
      tracectl dag pause ethereum
      tracectl dag pause ethereum checked ranges
    """
    with connect(home) as connection, connection.errors(f"DAG {dag}"):
        answer = connection.dags.PauseDag(api.PauseDagRequest(dag=dag, jobs=jobs), timeout=CALL_SECONDS)
    _tell(answer, dag, output)


def resume(dag: _Dag, jobs: _Jobs = None, home: HomeOption = DEFAULT_HOME, output: OutputOption = Output.TABLE) -> None:
    """Releases them again: a DAG with all of its jobs, or some jobs. A job stays paused while its DAG is.

    \b
    Examples:
      tracectl dag resume ethereum
      tracectl dag resume ethereum checked
    """
    with connect(home) as connection, connection.errors(f"DAG {dag}"):
        answer = connection.dags.ResumeDag(api.ResumeDagRequest(dag=dag, jobs=jobs), timeout=CALL_SECONDS)
    _tell(answer, dag, output)


def _tell(answer: api.PauseDagResponse | api.ResumeDagResponse, dag: str, output: Output) -> None:
    if output is Output.JSON:
        machine.print_message(answer)
        return
    if answer.paused_jobs:
        text = Text.assemble((dag, "name"), ": paused are ", (", ".join(answer.paused_jobs), "waiting"))
    else:
        text = Text.assemble((dag, "name"), ": ", ("nothing is paused", "good"))
    console.stdout().print(text)
