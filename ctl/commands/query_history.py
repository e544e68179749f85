"""`tracectl queries history` and `queries show`: queries that have ended, who asked them and what became of them."""

from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Group
from rich.text import Text

from ctl.commands.options import HomeOption, LimitOption, Output, OutputOption
from ctl.connection import CALL_SECONDS, connect
from ctl.home import DEFAULT_HOME
from ctl.paging import collect
from ctl.render import console, machine, query_records
from ctl.since import since as moment
from traceapi.control.v1 import query_record_pb2 as api

_SHOWN = 50


def history(
    actor: Annotated[
        str, typer.Option("--actor", help="Only of this one, such as `user:alice`.", show_default=False)
    ] = "",
    dataset: Annotated[
        str, typer.Option("--dataset", help="Only those that read this dataset.", show_default=False)
    ] = "",
    since: Annotated[
        str,
        typer.Option("--since", help="Only those that ended since: `30m`, `7d`, `2026-05-01`.", show_default=False),
    ] = "",
    limit: LimitOption = _SHOWN,
    home: HomeOption = DEFAULT_HOME,
    output: OutputOption = Output.TABLE,
) -> None:
    """Lists queries that have ended, the latest first: who asked, of which datasets, how it ended, and how much was
    answered. A query is in it about a second after its end.

    What was refused or stopped is in it too. The text is not kept, its SHA-256 is: `printf %s "$SQL" | sha256sum`. In
    JSON the answer is ListQueryRecordsResponse.

    \b
    Examples:
      tracectl queries history
      tracectl queries history --actor user:alice --since 7d
      tracectl queries history --dataset eth.blocks --limit 0 --output json
    """
    request = api.ListQueryRecordsRequest(actor=actor, dataset_id=dataset, since_time=moment(since, datetime.now(UTC)))

    def page(size: int, token: str) -> api.ListQueryRecordsResponse:
        request.page_size, request.page_token = size, token
        return connection.datasets.ListQueryRecords(request, timeout=CALL_SECONDS)

    with connect(home) as connection, connection.errors():
        found = collect(page, lambda answer: len(answer.records), limit)
    if output is Output.JSON:
        machine.print_message(found)
        return
    more = bool(found.next_page_token)
    console.print_list(query_records.records(found.records), len(found.records), more=more, what="queries on record")


def show(
    query_id: Annotated[
        str, typer.Argument(metavar="QUERY", help="Its id, from `queries history`.", show_default=False)
    ],
    home: HomeOption = DEFAULT_HOME,
    output: OutputOption = Output.TABLE,
) -> None:
    """Shows a query that has ended: who asked it, by which call, at which pin it read what, and how it ended.

    Clients may make ids themselves: of several queries with one id all are shown, the latest first. In JSON the answer
    is ListQueryRecordsResponse.

    \b
    Examples:
      tracectl queries show 0192b0c4-0000-7000-8000-000000000001
      tracectl queries show 0192b0c4-0000-7000-8000-000000000001 --output json
    """
    with connect(home) as connection, connection.errors(f"query {query_id}"):
        found = collect(
            lambda size, token: connection.datasets.ListQueryRecords(
                api.ListQueryRecordsRequest(query_id=query_id, page_size=size, page_token=token), timeout=CALL_SECONDS
            ),
            lambda answer: len(answer.records),
            0,
        )
    if output is Output.JSON:
        machine.print_message(found)
        return
    screen = console.stdout()
    for number, record in enumerate(found.records):
        screen.print(Group(Text(), query_records.record(record)) if number else query_records.record(record))
        if record.datasets:  # on a line of its own, however long: somebody copies it
            screen.print(f"\nto read this state again:\n{query_records.again(record)}", style="hint", soft_wrap=True)
