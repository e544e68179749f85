"""`tracectl task cancel`, `retry` and `skip`: by id or by filter, with a count first and a bar after.

A change is made in pages, each a transaction of its own: interrupted, what is done stays, and the same command goes on.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ctl.commands.options import DagOption, HomeOption, Output, OutputOption, ScopeOption
from ctl.commands.task import parse_state
from ctl.connection import CALL_SECONDS, Connection, connect
from ctl.errors import CtlError, ExitCode
from ctl.home import DEFAULT_HOME
from ctl.render import console, machine, values
from ctl.scope_text import parse_scope
from ctl.task_ids import check_task_ids, named_tasks, states_of
from traceapi.control.v1 import task_service_pb2 as api

Answer = api.CancelTasksResponse | api.RetryTasksResponse | api.SkipTasksResponse

_TaskIds = Annotated[list[str] | None, typer.Argument(metavar="TASK", help="The tasks' ids.", show_default=False)]
_Job = Annotated[str, typer.Option("--job", help="Only of this job.", show_default=False)]
_State = Annotated[
    list[str] | None,
    typer.Option("--state", help="Only in this state: queued, running, ... Repeatable.", show_default=False),
]
_All = Annotated[bool, typer.Option("--all", help="Every task that it can happen to, without any other condition.")]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Only count.")]
_Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before tasks that a filter finds are changed.")]


@dataclass(frozen=True, slots=True)
class _Change:
    """`call` makes one page of the change, or counts with its second argument; its third is the page's token."""

    verb: str
    done: str
    call: Callable[[Connection, bool, str], Answer]


def cancel(
    task_ids: _TaskIds = None,
    dag: DagOption = "",
    job: _Job = "",
    state: _State = None,
    scope: ScopeOption = "",
    all_tasks: _All = False,
    reason: Annotated[str, typer.Option("--reason", help="For the record.", show_default=False)] = "",
    dry_run: _DryRun = False,
    yes: _Yes = False,
    home: HomeOption = DEFAULT_HOME,
    output: OutputOption = Output.TABLE,
) -> None:
    """Cancels tasks: what waits ends at once; what runs is told to stop, and ended if it does not.

    A cancelled task is final. Its scope counts as done, so that nothing waits for it.

    \b
    Examples:
      tracectl task cancel 0198c0de-0000-7000-8000-000000000001
      tracectl task cancel --dag ethereum --job checked --dry-run
      tracectl task cancel --job checked --scope 500000..500499 --reason "wrong range" --yes
    """
    chosen = task_filter(task_ids or [], dag, job, state or [], scope, all_tasks)

    def call(connection: Connection, counting: bool, token: str) -> Answer:
        request = api.CancelTasksRequest(filter=chosen, reason=reason, dry_run=counting, page_token=token)
        return connection.tasks.CancelTasks(request, timeout=CALL_SECONDS)

    _carry_out(
        _Change("cancel", "cancelled", call),
        task_ids=task_ids or [],
        dry_run=dry_run,
        yes=yes,
        home=home,
        output=output,
    )


def retry(
    task_ids: _TaskIds = None,
    dag: DagOption = "",
    job: _Job = "",
    scope: ScopeOption = "",
    all_tasks: _All = False,
    dry_run: _DryRun = False,
    yes: _Yes = False,
    home: HomeOption = DEFAULT_HOME,
    output: OutputOption = Output.TABLE,
) -> None:
    """Gives DEAD tasks another round of attempts.

    \b
    Examples:
      tracectl task retry 0198c0de-0000-7000-8000-000000000001
      tracectl task retry --dag ethereum --dry-run
      tracectl task retry --all --yes
    """
    chosen = task_filter(task_ids or [], dag, job, [], scope, all_tasks)

    def call(connection: Connection, counting: bool, token: str) -> Answer:
        request = api.RetryTasksRequest(filter=chosen, dry_run=counting, page_token=token)
        return connection.tasks.RetryTasks(request, timeout=CALL_SECONDS)

    _carry_out(
        _Change("retry", "queued again", call),
        task_ids=task_ids or [],
        dry_run=dry_run,
        yes=yes,
        home=home,
        output=output,
    )


def skip(
    reason: Annotated[str, typer.Option("--reason", help="For the record; required.", show_default=False)],
    task_ids: _TaskIds = None,
    dag: DagOption = "",
    job: _Job = "",
    scope: ScopeOption = "",
    all_tasks: _All = False,
    dry_run: _DryRun = False,
    yes: _Yes = False,
    home: HomeOption = DEFAULT_HOME,
    output: OutputOption = Output.TABLE,
) -> None:
    """Passes over DEAD tasks, on record: their scope counts as done for watermarks and ordered streams.

    \b
    Examples:
      tracectl task skip 0198c0de-0000-7000-8000-000000000001 --reason "the block is known to be broken"
      tracectl task skip --dag ethereum --job ranges --reason "known" --dry-run
    """
    chosen = task_filter(task_ids or [], dag, job, [], scope, all_tasks)

    def call(connection: Connection, counting: bool, token: str) -> Answer:
        request = api.SkipTasksRequest(filter=chosen, reason=reason, dry_run=counting, page_token=token)
        return connection.tasks.SkipTasks(request, timeout=CALL_SECONDS)

    _carry_out(_Change("skip", "skipped", call), task_ids=task_ids, dry_run=dry_run, yes=yes, home=home, output=output)


def task_filter(
    task_ids: list[str], dag: str, job: str, states: list[str], scope: str, all_tasks: bool | None = None
) -> api.TaskFilter:
    """Raises CtlError (usage) where nothing was chosen: an empty filter would mean every task. `all_tasks` is None
    where nobody can choose all."""
    if not (task_ids or dag or job or states or scope or all_tasks):
        every = "; --all takes every one" if all_tasks is not None else ""
        raise CtlError(
            "no task was chosen",
            remedy=f"name tasks by id, or choose them by --dag, --job, --state or --scope{every}",
            exit_code=ExitCode.USAGE,
        )
    check_task_ids(task_ids)
    chosen = api.TaskFilter(task_ids=task_ids, dag=dag, job=job, states=[parse_state(word) for word in states])
    if scope:
        chosen.scope.CopyFrom(parse_scope(scope))
    return chosen


def _carry_out(
    change: _Change, *, task_ids: list[str] | None, dry_run: bool, yes: bool, home: Path, output: Output
) -> None:
    ids = task_ids or []
    with connect(home) as connection, connection.errors():
        counted = change.call(connection, True, "")
        count = counted.task_count
        named = named_tasks(connection, ids) if count < len(set(ids)) else []
        if dry_run or not count:
            none = f"no task to {change.verb}" + (f": what is named is {states_of(named)}" if named else "")
            _tell(counted, f"{_tasks(count)} would be {change.done}" if count else none, output)
            return
        if not ids and not yes:
            _confirm(f"{change.verb.capitalize()} {_tasks(count)}?")
        answer = _pages(connection, change, count)
    _tell(answer, f"{_tasks(answer.task_count)} {change.done}", output)


def _pages(connection: Connection, change: _Change, total: int) -> Answer:
    """All pages as one answer, with a bar on a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    screen = console.stderr()
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as progress:
        bar = progress.add_task(change.verb, total=total)
        answer = change.call(connection, False, "")
        progress.update(bar, completed=answer.task_count)
        while answer.next_page_token:
            page = change.call(connection, False, answer.next_page_token)
            answer.task_count += page.task_count
            answer.next_page_token = page.next_page_token
            progress.update(bar, completed=answer.task_count)
    return answer


def _confirm(question: str) -> None:
    """Raises CtlError (usage) where nobody can be asked, and typer.Abort for a no."""
    if not sys.stdin.isatty():
        raise CtlError(
            "nobody can be asked before tasks that a filter finds are changed",
            remedy="look at them with --dry-run, then give --yes",
            exit_code=ExitCode.USAGE,
        )
    typer.confirm(question, abort=True, err=True)


def _tell(answer: Answer, text: str, output: Output) -> None:
    if output is Output.JSON:
        machine.print_message(answer)
    else:
        console.stdout().print(text, markup=False)


def _tasks(count: int) -> str:
    return f"{values.count(count)} task{'s' if count != 1 else ''}"
