"""`tracectl query`: SQL over datasets, answered at one pinned state."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from ctl.as_of import AsOf, give, read_as_of
from ctl.commands.options import HomeOption, QueryOutput
from ctl.connection import CALL_SECONDS, connect
from ctl.errors import CtlError, ExitCode
from ctl.home import DEFAULT_HOME
from ctl.render import console, machine, queries
from traceapi.query.v1 import query_service_pb2 as api
from traceapi.types.v1.event_pb2 import Watermark
from traceapi.types.v1.scope_pb2 import CursorValue

_TABLE_ROWS = 1000
_SECONDS = 60.0
_MOST_BYTES = 1024 * 1024
"""Of SQL: what a QueryRequest takes."""


_Limit = Annotated[
    int | None,
    typer.Option(
        "--limit",
        "-n",
        min=0,
        help="At most so many rows; 0 for all. A table shows 1,000 unless told, and never more than 10,000.",
        show_default=False,
    ),
]
_AsOf = Annotated[
    str | None,
    typer.Option(
        "--as-of",
        metavar="NUMBER|PIN",
        help="Read what was served at this deploy, whose number stands below each table and in `dag history`; or the"
        " very state that a query read: `queries show` has its pin.",
        show_default=False,
    ),
]
_Timeout = Annotated[
    float | None, typer.Option("--timeout", min=0.001, max=3600, help="Seconds.", show_default=f"{_SECONDS:g}")
]
_MinWatermark = Annotated[
    list[str],
    typer.Option(
        "--min-watermark",
        metavar="DATASET=CURSOR",
        help="First wait until the dataset is complete up to there, for as long as --timeout allows. May be repeated.",
        show_default=False,
    ),
]
_Output = Annotated[
    QueryOutput,
    typer.Option("--output", "-o", help="`json`: an object a line, decimals and times as strings; `csv`: RFC 4180."),
]


def query(
    sql: Annotated[str, typer.Argument(metavar="SQL", help="One SELECT; `-` reads it from standard input.")],
    limit: _Limit = None,
    timeout: _Timeout = None,
    as_of: _AsOf = None,
    min_watermark: _MinWatermark = [],  # noqa: B006 - typer copies it
    explain: Annotated[
        bool, typer.Option("--explain", help="Only say what would be read, and how: datasets, files, bytes, the plan.")
    ] = False,
    home: HomeOption = DEFAULT_HOME,
    output: _Output = QueryOutput.TABLE,
) -> None:
    """Runs one SELECT over datasets. Every dataset is pinned once, at the start.

    A dataset is written in double quotes, "eth.blocks"; the bare form where it is unambiguous. A table shortens long
    values and writes control characters out; csv and json are exact. Values stand in the text: parameters (`?`, `$1`)
    are for drivers, which send them beside it.

    \b
    Examples:
      tracectl query 'select count(*) from "eth.blocks"'
      tracectl query 'select * from "eth.gas_by_miner"' --output csv > gas.csv
      tracectl query 'select * from "eth.blocks" where number = 500000' --explain
      tracectl query 'select count(*) from "eth.blocks"' --as-of 3
      tracectl query 'select max(number) from "eth.blocks"' --min-watermark eth.blocks=500900
      echo 'select 1 as one' | tracectl query - --output json
    """
    text = _read_stdin() if sql == "-" else sql
    if not text.strip():
        raise CtlError("there is no SQL", remedy="write one SELECT", exit_code=ExitCode.USAGE)
    if explain:
        _refuse_with_explain({"--limit": limit, "--timeout": timeout, "--min-watermark": min_watermark or None})
        _explain(text, read_as_of(as_of), home, output)
    else:
        watermarks = _watermarks(min_watermark)
        _run(text, limit, _SECONDS if timeout is None else timeout, read_as_of(as_of), watermarks, home, output)


def _refuse_with_explain(given: Mapping[str, object]) -> None:
    """Nothing runs, so nothing can be stopped or waited for. Raises CtlError."""
    for option, value in given.items():
        if value is not None:
            raise CtlError(f"--explain has no {option}", remedy=f"leave {option} out", exit_code=ExitCode.USAGE)


def _watermarks(written: Sequence[str]) -> list[Watermark]:
    """The server reads each cursor as its dataset's are written. Raises CtlError."""
    found = []
    for text in written:
        dataset_id, equals, cursor = text.partition("=")
        if not (dataset_id and equals and cursor):
            raise CtlError(
                f"{text!r} is no dataset with a cursor",
                remedy="write one such as --min-watermark eth.blocks=500000",
                exit_code=ExitCode.USAGE,
            )
        found.append(Watermark(dataset_id=dataset_id, cursor=CursorValue(string_value=cursor)))
    return found


def _run(
    sql: str,
    limit: int | None,
    timeout: float,
    as_of: AsOf,
    min_watermarks: Sequence[Watermark],
    home: Path,
    output: QueryOutput,
) -> None:
    # Arrow takes a while to load, and no other command needs it.
    from ctl.query_stream import QueryStream
    from ctl.render import results
    from ctl.render.query_progress import shown

    with (
        connect(home) as connection,
        connection.errors(),
        QueryStream(connection, sql, timeout=timeout, as_of=as_of, min_watermarks=min_watermarks) as stream,
    ):
        if output is QueryOutput.TABLE:
            most = _TABLE_ROWS if limit is None else limit or results.MOST_ROWS
            results.print_table(stream, console.stdout(), most, lambda: shown(stream))
            return
        print_rows = results.print_csv if output is QueryOutput.CSV else results.print_json
        with shown(stream, beside=sys.stdout):
            cut = print_rows(stream, machine.stdout(), limit or None)
        if cut:
            console.stderr().print(f"[hint]the first {limit:,} rows; without --limit it is all[/hint]")


def _explain(sql: str, as_of: AsOf, home: Path, output: QueryOutput) -> None:
    if output is QueryOutput.CSV:
        raise CtlError("--explain has no CSV", remedy="leave --output out, or give it json", exit_code=ExitCode.USAGE)
    request = api.ExplainQueryRequest(sql=sql)
    give(as_of, request)
    with connect(home) as connection, connection.errors():
        explained = connection.queries.ExplainQuery(request, timeout=CALL_SECONDS)
    if output is QueryOutput.JSON:
        machine.print_message(explained)
    else:
        console.stdout().print(queries.explanation(explained))


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
