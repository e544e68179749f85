"""`tracectl queue`: how much of the workers' room is used, by whom, and how much may be."""

from functools import partial
from typing import Annotated

import typer

from ctl.commands.options import HomeOption, Output, OutputOption
from ctl.commands.registry import command
from ctl.connection import CALL_SECONDS, connect
from ctl.errors import CtlError, ExitCode
from ctl.home import DEFAULT_HOME
from ctl.render import console, machine, queues
from traceapi.control.v1 import queue_service_pb2 as api

app = typer.Typer(
    help="Queues: the room of workers, shared by live work, rebuilds and backfills.", no_args_is_help=True
)

# What SetQueueRequest takes; its fields could not hold much more.
_places = partial(typer.Option, min=0, max=1_000_000, show_default=False)
_weight = partial(typer.Option, min=1, max=1_000, show_default=False)


@command(app, "ls")
def list_queues(home: HomeOption = DEFAULT_HOME, output: OutputOption = Output.TABLE) -> None:
    """Lists queues: what is out of each class and what waits, the window, the shares, and what workers can take.

    \b
    Examples:
      tracectl queue ls
      tracectl queue ls --output json
    """
    with connect(home) as connection, connection.errors():
        found = connection.queues.ListQueues(api.ListQueuesRequest(), timeout=CALL_SECONDS)
    if output is Output.JSON:
        machine.print_message(found)
        return
    console.print_list(queues.listing(found.queues), len(found.queues), more=False, what="queues")


@command(app, "set")
def set_queue(
    queue: Annotated[str, typer.Argument(metavar="QUEUE", help="The queue's name.", show_default=False)],
    window: Annotated[
        int | None,
        _places("--window", help="Tasks that may be out at once; 0 for no limit."),
    ] = None,
    live: Annotated[int | None, _weight("--live", help="The share of live work; a weight.")] = None,
    rematerialization: Annotated[
        int | None, _weight("--rematerialization", help="The share of rebuilds; a weight.")
    ] = None,
    backfill: Annotated[int | None, _weight("--backfill", help="The share of backfills; a weight.")] = None,
    reserve: Annotated[int | None, _places("--reserve", help="Places that are kept for live work.")] = None,
    home: HomeOption = DEFAULT_HOME,
    output: OutputOption = Output.TABLE,
) -> None:
    """Sets a queue's window and shares, from the next release on; what is not named stays as it is.

    A class uses what others leave free; its share counts where several have tasks that may go. What is out stays out.

    \b
    Examples:
      tracectl queue set default --window 64
      tracectl queue set default --live 70 --backfill 5
      tracectl queue set big-machines --reserve 4
      tracectl queue set default --window 0
    """
    given = {
        "window_size": window,
        "live_share": live,
        "rematerialization_share": rematerialization,
        "backfill_share": backfill,
        "live_reserve": reserve,
    }
    change = {name: value for name, value in given.items() if value is not None}
    if not change:
        raise CtlError(
            "nothing to set",
            remedy="name --window, --live, --rematerialization, --backfill or --reserve; queue ls shows what is set",
            exit_code=ExitCode.USAGE,
        )
    with connect(home) as connection, connection.errors(f"queue {queue}"):
        answer = connection.queues.SetQueue(api.SetQueueRequest(queue=queue, **change), timeout=CALL_SECONDS)
    if output is Output.JSON:
        machine.print_message(answer)
    else:
        console.stdout().print(queues.listing([answer.queue]))
