"""`tracectl up`, `down`, `status`: the embedded stack of one home."""

import json
import sys
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from ctl.commands.options import HomeOption, Output, OutputOption
from ctl.connection import connect
from ctl.errors import CtlError, ExitCode
from ctl.home import DEFAULT_HOME, Endpoints, Home
from ctl.local.launch import start_detached, stop_stack
from ctl.local.programs import StackSettings
from ctl.outputs import even_unheard, outliving_readers
from ctl.render import console, machine, stack_status
from ctl.stack_status import read_status


class Sandbox(StrEnum):
    """How operators' code is shut in."""

    BUBBLEWRAP = "bubblewrap"
    PLAIN = "plain"


PortOption = Annotated[
    int,
    typer.Option(
        "--port", min=0, max=65533, help="N is control's, N+1 the internal listener's, N+2 queryd's; 0 takes free ones."
    ),
]
SandboxOption = Annotated[
    Sandbox,
    typer.Option(
        envvar="TRACE_SANDBOX",
        help="How operators' code is shut in. `plain` is the opt-out for machines without user namespaces: then a"
        " DAG's code can do what you can.",
    ),
]

ReplayRootOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--replay-root",
        metavar="DIR",
        readable=False,
        help="`replay` may read files below this folder in place, by absolute paths in documents; can be repeated."
        " Without it, what TRACE_REPLAY_ROOTS lists, separated by commas.",
    ),
]


ArtifactsOption = Annotated[
    str,
    typer.Option(
        "--artifacts",
        metavar="URL",
        help="Where artifacts are kept: file:///folder, or s3://bucket/prefix?endpoint=...&region=... with the"
        " credential in the environment. By default in the home; a home keeps the one that it began with.",
    ),
]


def up(
    home: HomeOption = DEFAULT_HOME,
    port: PortOption = 7401,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return once it serves; it goes on by itself.")
    ] = False,
    sandbox: SandboxOption = Sandbox.BUBBLEWRAP,
    replay_root: ReplayRootOption = None,
    artifacts: ArtifactsOption = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """Starts a whole stack: Postgres, dispatcher, one wrapper, queryd; all data is in the home folder, which nobody
    but you may enter.

    Without --detach it stays in the foreground; Ctrl-C stops everything in order, a second one at once. A program that
    dies is reported with the end of its log, and started again. DIR/endpoints.json records addresses and where the
    credentials are; in JSON, the answer is that document.

    \b
    Examples:
      tracectl up
      tracectl up --detach --home /srv/trace --port 0
      tracectl up --replay-root /data
      tracectl up --home s3 --artifacts "s3://bucket/prefix?endpoint=http://127.0.0.1:8333"
    """
    found = Home.at(home)
    settings = StackSettings(port, sandbox.value, _replay_roots(found, replay_root or ()), artifacts)
    report = _reporter(output)

    def on_ready(endpoints: Endpoints) -> None:
        with even_unheard(sys.stdout):
            if output is Output.JSON:
                machine.print_document(json.loads(endpoints.to_json()))
            else:
                console.stdout().print(stack_status.ready(found, endpoints, detached=detach))

    # It brings the database's driver along, which no other command needs.
    from ctl.local.supervisor import run_stack

    with outliving_readers():
        if detach:
            on_ready(start_detached(found, settings, report))
        else:
            run_stack(found, settings, report, on_ready)


def _reporter(output: Output) -> Callable[[str], None]:
    """Tells how a start or a stop goes, which goes on whether or not it can be told."""
    progress = console.stderr() if output is Output.JSON else console.stdout()

    def report(line: str) -> None:
        with even_unheard(progress.file):
            progress.print(line, markup=False, style="hint")

    return report


def _replay_roots(home: Home, folders: Sequence[Path]) -> tuple[Path, ...]:
    """The folders, absolute. Raises CtlError for one that the worker would refuse."""
    found = tuple(folder.expanduser().resolve() for folder in folders)
    for root in found:
        if not root.is_dir():
            fault, remedy = "there is no such folder", "name a folder"
        elif home.root.is_relative_to(root) or root.is_relative_to(home.root):
            fault = f"the folder and the stack's home {home.root}, which holds its credentials, overlap"
            remedy = "name a folder of data only, or another --home"
        elif "," in str(root):
            fault, remedy = "the worker's list of folders is separated by commas", "rename the folder"
        else:
            continue
        raise CtlError(fault, where=f"--replay-root {root}", remedy=remedy, exit_code=ExitCode.USAGE)
    return found


def down(home: HomeOption = DEFAULT_HOME, output: OutputOption = Output.TABLE) -> None:
    """Stops the stack of a home, in order, and what a crash may have left of one. The data stay.

    Where none runs there is nothing to do, and the exit code is 0. In JSON: `home`, and `stopped`, which is false where
    there was nothing to stop.

    \b
    Examples:
      tracectl down
      tracectl down --home /srv/trace
      tracectl down --output json
    """
    found = Home.at(home)
    with outliving_readers():
        stopped = stop_stack(found, _reporter(output))
        with even_unheard(sys.stdout):
            if output is Output.JSON:
                machine.print_document({"home": str(found.root), "stopped": stopped})
            elif stopped:
                console.stdout().print(Text(f"the stack on {found.root} is stopped", "good"))
            else:
                console.stdout().print(f"no stack runs on {found.root}", markup=False)


def status(home: HomeOption = DEFAULT_HOME, output: OutputOption = Output.TABLE) -> None:
    """Shows the programs, their addresses, what the worker does, and the tasks of each job by state.

    Exits with 3 when no stack runs, with 1 when a program of it does not answer. In JSON: `endpoints` is
    endpoints.json, `programs` says who answers, `workers` holds GetStatusResponse, `taskCounts` CountTasksResponse,
    or null where the dispatcher does not answer.

    \b
    Examples:
      tracectl status
      tracectl status --output json
    """
    with connect(home) as connection:
        found = read_status(connection)
    if output is Output.JSON:
        machine.print_document(found.to_document())
    else:
        console.stdout().print(stack_status.status(found))
    silent = [program.name for program in found.programs if not program.answers]
    if silent:
        exit_code = ExitCode.UNREACHABLE if len(silent) == len(found.programs) else ExitCode.FAULTY
        raise CtlError(
            f"no answer from {', '.join(silent)}",
            where=str(connection.home.logs),
            remedy=f"read the logs there; start again with: tracectl down{connection.home.option()};"
            f" tracectl up{connection.home.option()}",
            exit_code=exit_code,
        )
