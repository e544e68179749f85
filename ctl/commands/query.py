"""`tracectl query`: SQL over datasets, answered at one pinned state."""

import sys
from typing import Annotated

import typer

from ctl.commands.options import HomeOption, QueryOutput
from ctl.connection import connect
from ctl.errors import CtlError, ExitCode
from ctl.home import DEFAULT_HOME
from ctl.render import console, machine

_TABLE_ROWS = 1000
_MOST_BYTES = 1024 * 1024
"""Of SQL: what a QueryRequest takes."""


def query(
    sql: Annotated[str, typer.Argument(metavar="SQL", help="One SELECT; `-` reads it from standard input.")],
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            "-n",
            min=0,
            help="At most so many rows; 0 for all. A table shows 1,000 unless told, and never more than 10,000.",
            show_default=False,
        ),
    ] = None,
    timeout: Annotated[float, typer.Option("--timeout", min=0.001, max=3600, help="Seconds.")] = 60.0,
    home: HomeOption = DEFAULT_HOME,
    output: Annotated[
        QueryOutput,
        typer.Option(
            "--output", "-o", help="`json`: an object a line, decimals and times as strings; `csv`: RFC 4180."
        ),
    ] = QueryOutput.TABLE,
) -> None:
    """Runs one SELECT over datasets. Every dataset is pinned once, at the start.

    A dataset is written in double quotes, "eth.blocks"; the bare form where it is unambiguous. A table shortens long
    values and writes control characters out; csv and json are exact.

    \b
    Examples:
      tracectl query 'select count(*) from "eth.blocks"'
      tracectl query 'select * from "eth.gas_by_miner"' --output csv > gas.csv
      echo 'select 1 as one' | tracectl query - --output json
    """
    text = _read_stdin() if sql == "-" else sql
    if not text.strip():
        raise CtlError("there is no SQL", remedy="write one SELECT", exit_code=ExitCode.USAGE)
    # Arrow takes a while to load, and no other command needs it.
    from ctl.query_stream import QueryStream
    from ctl.render import results

    with connect(home) as connection, connection.errors(), QueryStream(connection, text, timeout=timeout) as stream:
        if output is QueryOutput.TABLE:
            results.print_table(stream, console.stdout(), _TABLE_ROWS if limit is None else limit or results.MOST_ROWS)
            return
        print_rows = results.print_csv if output is QueryOutput.CSV else results.print_json
        if print_rows(stream, machine.stdout(), limit or None):
            console.stderr().print(f"[hint]the first {limit:,} rows; without --limit it is all[/hint]")


def _read_stdin() -> str:
    """Raises CtlError for what is no text, or has no end."""
    data = sys.stdin.buffer.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise CtlError(
            f"the SQL on standard input is too long: at most {_MOST_BYTES:,} bytes are read",
            remedy="write one SELECT",
            exit_code=ExitCode.USAGE,
        )
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise CtlError(
            "the SQL on standard input is not UTF-8", remedy="write it in UTF-8", exit_code=ExitCode.USAGE
        ) from None
