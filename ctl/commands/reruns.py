"""`tracectl backfill` and `task rerun`: what was done is done again, with a count first and progress after.

New tasks are made in pages, each a transaction of its own: interrupted, what is made stays, and the same command goes
on, because a scope whose task has not ended is left out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ctl.commands.options import DagOption, HomeOption, Output, OutputOption, ScopeOption, YesOption
from ctl.commands.task_changes import task_filter
from ctl.confirm import confirm
from ctl.connection import CALL_SECONDS, Connection, connect
from ctl.errors import CtlError, ExitCode
from ctl.home import DEFAULT_HOME
from ctl.render import console, machine, values
from ctl.render.printable import printable
from ctl.rerun_watch import Concerned, Count, count_reruns, follow_reruns
from ctl.scope_text import parse_scope
from ctl.task_ids import named_tasks, states_of
from kernel.ids import new_id
from traceapi.control.v1 import source_service_pb2, task_service_pb2
from traceapi.control.v1.rerun_pb2 import RerunEffect, RerunReader

Answer = source_service_pb2.BackfillJobResponse | task_service_pb2.RerunTasksResponse

_COUNTING_SECONDS = 300.0
_BECOMES = {
    RerunEffect.RERUN_EFFECT_FOLLOWS: "runs again for each of them",
    RerunEffect.RERUN_EFFECT_READS_ONLY: "only reads them: what it made stays, until you run it again after this",
    RerunEffect.RERUN_EFFECT_REFUSES_LATE: (
        "is ordered and refuses what is late: a scope before its position becomes a DEAD task, which holds it until you"
        " skip it"
    ),
    RerunEffect.RERUN_EFFECT_SKIPS_LATE: "is ordered, and passes over scopes before its position",
}

_DryRun = Annotated[bool, typer.Option("--dry-run", help="Only count, and say what becomes of the readers.")]
_Wait = Annotated[bool, typer.Option("--wait", help="Until all of it has ended, downstream too; 1 if some is DEAD.")]


@dataclass(frozen=True, slots=True)
class _Rerun:
    """`call` makes a page of new tasks, or counts with its second argument; its third is the page's token."""

    what: str
    dag: str
    call: Callable[[Connection, bool, str], Answer]


def backfill(
    job: Annotated[str, typer.Argument(metavar="JOB", help="The job.", show_default=False)],
    first: Annotated[str, typer.Option("--from", help="The first scope: `500000`.", show_default=False)],
    last: Annotated[str, typer.Option("--to", help="The last scope: `500499`.", show_default=False)],
    dag: DagOption = "",
    dry_run: _DryRun = False,
    yes: YesOption = False,
    wait: _Wait = False,
    home: HomeOption = DEFAULT_HOME,
    output: OutputOption = Output.TABLE,
) -> None:
    """Runs a job again for scopes that were done, and what reads its outputs after it.

    The new files take the place of the earlier ones scope by scope, as they come. Live work goes first (`tracectl
    queue`). A scope whose task has not ended is left out.

    \b
    Examples:
      tracectl backfill checked --from 500000 --to 500499 --dry-run
      tracectl backfill checked --dag ethereum --from 500000 --to 500499 --yes --wait
      tracectl backfill hourly --from 2024-05-01T00:00:00Z --to 2024-05-01T23:00:00Z
    """
    bounds = parse_scope(f"{first}..{last}").range
    request_id = new_id()

    def call(connection: Connection, counting: bool, token: str) -> Answer:
        request = source_service_pb2.BackfillJobRequest(
            dag=dag, job=job, range=bounds, request_id=request_id, dry_run=counting, page_token=token
        )
        return connection.sources.BackfillJob(request, timeout=_COUNTING_SECONDS if counting else CALL_SECONDS)

    _carry_out(_Rerun(f" of {job}", dag, call), [], dry_run=dry_run, yes=yes, wait=wait, home=home, output=output)


def rerun(
    task_ids: Annotated[
        list[str] | None, typer.Argument(metavar="TASK", help="The tasks' ids.", show_default=False)
    ] = None,
    dag: DagOption = "",
    job: Annotated[str, typer.Option("--job", help="Only of this job.", show_default=False)] = "",
    state: Annotated[
        list[str] | None,
        typer.Option("--state", help="Only in this state: succeeded, dead, ... Repeatable.", show_default=False),
    ] = None,
    scope: ScopeOption = "",
    dry_run: _DryRun = False,
    yes: YesOption = False,
    wait: _Wait = False,
    home: HomeOption = DEFAULT_HOME,
    output: OutputOption = Output.TABLE,
) -> None:
    """Runs tasks that ended again, each as a new task, and what reads their outputs after them.

    A DEAD task that only needs another try is better retried (`task retry`); run again, it is skipped in favour of its
    new task.

    \b
    Examples:
      tracectl task rerun 0198c0de-0000-7000-8000-000000000001 --wait
      tracectl task rerun --dag ethereum --job checked --scope 500000..500499 --dry-run
      tracectl task rerun --job checked --state skipped --yes
    """
    ids = task_ids or []
    chosen = task_filter(ids, dag, job, state or [], scope)
    request_id = new_id()

    def call(connection: Connection, counting: bool, token: str) -> Answer:
        request = task_service_pb2.RerunTasksRequest(
            filter=chosen, request_id=request_id, dry_run=counting, page_token=token
        )
        return connection.tasks.RerunTasks(request, timeout=_COUNTING_SECONDS if counting else CALL_SECONDS)

    _carry_out(_Rerun("", dag, call), ids, dry_run=dry_run, yes=yes, wait=wait, home=home, output=output)


def _carry_out(
    of: _Rerun, task_ids: list[str], *, dry_run: bool, yes: bool, wait: bool, home: Path, output: Output
) -> None:
    with connect(home) as connection, connection.errors():
        counted = of.call(connection, True, "")
        named = named_tasks(connection, task_ids) if counted.task_count < len(set(task_ids)) else []
        if dry_run or not counted.task_count:
            none = "nothing to run again" + (f": what is named is {states_of(named)}" if named else "")
            found = f"{_tasks(counted.task_count)} would be run again"
            _tell(counted, found if counted.task_count else none, output, counted.readers)
            return
        if not yes and not task_ids:
            _print_lines(console.stderr(), counted.readers)
        question = f"Run {_tasks(counted.task_count)}{of.what} again?"
        confirm(question, yes=yes or bool(task_ids), remedy="look at it with --dry-run, then give --yes")
        dag = getattr(counted, "dag", "") or of.dag
        concerned = Concerned.by(counted.jobs, counted.readers)
        before = count_reruns(connection, concerned)
        answer = _pages(connection, of, counted.task_count)
        after = follow_reruns(connection, concerned, before) if wait else Count()
    _tell(answer, f"{_tasks(answer.task_count)} {'have run again' if wait else 'are queued again'}", output, ())
    if (dead := after.dead - before.dead) > 0:
        raise CtlError(
            f"{_tasks(dead)} of it {'is' if dead == 1 else 'are'} DEAD",
            remedy=f"look at them with: tracectl task ls --state dead{f' --dag {dag}' if dag else ''}",
            exit_code=ExitCode.FAULTY,
        )


def _pages(connection: Connection, of: _Rerun, total: int) -> Answer:
    """All pages as one answer, with a bar on a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    screen = console.stderr()
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as progress:
        bar = progress.add_task("making tasks", total=total)
        answer = of.call(connection, False, "")
        progress.update(bar, completed=answer.task_count)
        while answer.next_page_token:
            page = of.call(connection, False, answer.next_page_token)
            answer.task_count += page.task_count
            answer.next_page_token = page.next_page_token
            progress.update(bar, completed=answer.task_count)
    return answer


def _tell(answer: Answer, text: str, output: Output, readers: Sequence[RerunReader]) -> None:
    if output is Output.JSON:
        machine.print_message(answer)
        return
    console.stdout().print(text, markup=False)
    _print_lines(console.stdout(), readers)


def _print_lines(screen: Console, readers: Sequence[RerunReader]) -> None:
    """What becomes of those that read it."""
    for reader in readers:
        if (becomes := _BECOMES.get(reader.effect)) is not None:
            screen.print(printable(f"  {reader.dag}/{reader.job} {becomes}"), markup=False, soft_wrap=True)


def _tasks(count: int) -> str:
    return f"{values.count(count)} task{'s' if count != 1 else ''}"
