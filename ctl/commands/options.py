"""Options that many commands share.

Paths are declared with `readable=False`: the words for what cannot be read are the command's own, not typer's.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Output(StrEnum):
    """For people, or for programs."""

    TABLE = "table"
    JSON = "json"


class QueryOutput(StrEnum):
    """How the rows of a query are printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


HomeOption = Annotated[
    Path,
    typer.Option(
        "--home",
        envvar="TRACE_HOME",
        help="The folder of the stack.",
        metavar="DIR",
        show_default=".trace",
        readable=False,
    ),
]
OutputOption = Annotated[
    Output, typer.Option("--output", "-o", help="`table` for people, `json` for the contract's messages.")
]
LARGEST_NUMBER = 2**63 - 1
"""Of a version or a deploy: what a request and the database can hold."""

LimitOption = Annotated[int, typer.Option("--limit", "-n", min=0, help="At most so many; 0 for all.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask first.")]
DagOption = Annotated[str, typer.Option("--dag", help="Only of this DAG.", show_default=False)]
ScopeOption = Annotated[
    str,
    typer.Option(
        "--scope", help="Only where the scope meets this one: `500000` or `500000..500099`.", show_default=False
    ),
]
