"""`tracectl queries`: the queries that run now, and how to stop one; those that have ended are in query_history.py."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from ctl.commands.options import HomeOption, Output, OutputOption
from ctl.commands.registry import command
from ctl.connection import CALL_SECONDS, connect
from ctl.home import DEFAULT_HOME
from ctl.render import console, machine
from ctl.render import queries as rendered
from traceapi.query.v1 import query_service_pb2 as api

app = typer.Typer(
    help="Queries: those that run, and how to stop one; those that have ended, on record.", no_args_is_help=True
)


@command(app, "ls")
def list_queries(home: HomeOption = DEFAULT_HOME, output: OutputOption = Output.TABLE) -> None:
    """Lists the queries that run, or wait for a place, oldest first.

    \b
    Examples:
      tracectl queries ls
      tracectl queries ls --output json
    """
    with connect(home) as connection, connection.errors():
        found = connection.queries.ListQueries(api.ListQueriesRequest(), timeout=CALL_SECONDS)
    if output is Output.JSON:
        machine.print_message(found)
        return
    table = rendered.listing(found.queries, datetime.now(UTC))
    console.print_list(table, len(found.queries), more=False, what="queries that run")


@command(app, "stop")
def stop_query(
    query_id: Annotated[str, typer.Argument(metavar="QUERY", help="Its id, from `queries ls`.", show_default=False)],
    home: HomeOption = DEFAULT_HOME,
    output: OutputOption = Output.TABLE,
) -> None:
    """Stops a query that runs; whoever runs it hears who stopped it.

    \b
    Examples:
      tracectl queries stop 0192b0c4-0000-7000-8000-000000000001
    """
    with connect(home) as connection, connection.errors():
        stopped = connection.queries.CancelQuery(api.CancelQueryRequest(query_id=query_id), timeout=CALL_SECONDS)
    if output is Output.JSON:
        machine.print_message(stopped)
        return
    console.stdout().print(f"stopped query {query_id}")
