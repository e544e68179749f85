"""`tracectl dag history` and `versions`: what was done to a DAG and by whom, and what came of it."""

from collections.abc import Callable
from typing import Annotated

import typer
from rich.console import RenderableType

from ctl.commands.options import HomeOption, LimitOption, Output, OutputOption
from ctl.connection import CALL_SECONDS, connect
from ctl.home import DEFAULT_HOME
from ctl.paging import collect
from ctl.render import changes, console, machine, tables
from traceapi.control.v1 import change_pb2
from traceapi.control.v1 import dag_service_pb2 as api

_Dag = Annotated[str, typer.Argument(metavar="DAG", help="The DAG's name.", show_default=False)]


def history(
    dag: _Dag, limit: LimitOption = 0, home: HomeOption = DEFAULT_HOME, output: OutputOption = Output.TABLE
) -> None:
    """Lists what was done to a DAG, newest first: plans, deploys, cutovers and what stood still for them,
    rollbacks, aborts, pauses, re-runs, what was collected, its removal; each with who did it, by which plan, and from
    which version to which.

    What was refused for what there was at that time is in it too, with the reason; the same refusal once a minute. The
    list is only ever added to, and stays when the DAG is removed. In JSON the answer is ListDagChangesResponse.

    \b
    Examples:
      tracectl dag history ethereum
      tracectl dag history ethereum --limit 20
      tracectl dag history ethereum --output json
    """
    with connect(home) as connection, connection.errors(f"DAG {dag}"):
        found = collect(
            lambda size, token: connection.dags.ListDagChanges(
                change_pb2.ListDagChangesRequest(dag=dag, page_size=size, page_token=token), timeout=CALL_SECONDS
            ),
            lambda answer: len(answer.changes),
            limit,
        )
    _print(found, output, lambda: changes.changes(found.changes), len(found.changes), "changes")


def versions(
    dag: _Dag, limit: LimitOption = 0, home: HomeOption = DEFAULT_HOME, output: OutputOption = Output.TABLE
) -> None:
    """Lists every version of a DAG, newest first: where it stands, who deployed it, and when it was active.

    \b
    Examples:
      tracectl dag versions ethereum
      tracectl dag versions ethereum --output json
    """
    with connect(home) as connection, connection.errors(f"DAG {dag}"):
        found = collect(
            lambda size, token: connection.dags.ListDagHistory(
                api.ListDagHistoryRequest(dag=dag, page_size=size, page_token=token), timeout=CALL_SECONDS
            ),
            lambda answer: len(answer.deployments),
            limit,
        )
    _print(found, output, lambda: tables.versions(found.deployments), len(found.deployments), "versions")


def _print(
    found: change_pb2.ListDagChangesResponse | api.ListDagHistoryResponse,
    output: Output,
    table: Callable[[], RenderableType],
    count: int,
    what: str,
) -> None:
    if output is Output.JSON:
        machine.print_message(found)
    else:
        console.print_list(table(), count, more=bool(found.next_page_token), what=what)
