"""`tracectl event`: what became new, where."""

from typing import Annotated

import typer

from ctl.commands.options import HomeOption, LimitOption, Output, OutputOption, ScopeOption
from ctl.commands.registry import command
from ctl.connection import CALL_SECONDS, Connection, connect
from ctl.home import DEFAULT_HOME
from ctl.paging import collect
from ctl.render import console, machine, tables
from ctl.scope_text import parse_scope, scope_of
from traceapi.control.v1 import dataset_service_pb2 as api
from traceapi.types.v1 import scope_pb2

app = typer.Typer(help="Events: 'this dataset has something new at this scope'.", no_args_is_help=True)


@command(app, "ls")
def list_events(
    dataset: Annotated[str, typer.Option("--dataset", "-d", help="Only of this dataset.", show_default=False)] = "",
    scope: ScopeOption = "",
    limit: LimitOption = 50,
    home: HomeOption = DEFAULT_HOME,
    output: OutputOption = Output.TABLE,
) -> None:
    """Lists events, newest first.

    \b
    Examples:
      tracectl event ls --dataset eth.block_ranges
      tracectl event ls --dataset eth.blocks --scope 500000..500009 --output json
    """
    with connect(home) as connection, connection.errors(f"dataset {dataset}" if dataset else ""):
        chosen = _scope(connection, dataset, scope) if scope else None
        found = collect(
            lambda size, token: connection.datasets.ListEvents(
                api.ListEventsRequest(dataset_id=dataset, scope=chosen, page_size=size, page_token=token),
                timeout=CALL_SECONDS,
            ),
            lambda answer: len(answer.events),
            limit,
        )
    if output is Output.JSON:
        machine.print_message(found)
        return
    console.print_list(tables.events(found.events), len(found.events), more=bool(found.next_page_token), what="events")


def _scope(connection: Connection, dataset: str, text: str) -> scope_pb2.Scope:
    return scope_of(connection, dataset, text) if dataset else parse_scope(text)
