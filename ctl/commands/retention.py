"""`tracectl gc`: takes what nobody needs any more.

Without an option the orphans of lost attempts, which the dispatchers also take by themselves. With `--versions` what a
person gives up, after a look at it. Interrupted, what is done stays, and the same command goes on.
"""

import sys
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

from ctl.commands.options import DagOption, HomeOption, Output, OutputOption
from ctl.connection import CALL_SECONDS, Connection, connect
from ctl.errors import CtlError, ExitCode
from ctl.home import DEFAULT_HOME
from ctl.paging import collect
from ctl.render import console, machine, retention
from traceapi.control.v1 import retention_service_pb2 as api

_SWEEP_SECONDS = 24 * 3600.0
_NAMED_AT_ONCE = 1_000


def gc(
    versions: Annotated[
        bool, typer.Option("--versions", help="Take dataset versions that nothing can reach, not orphans.")
    ] = False,
    dag: DagOption = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be taken.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before versions are taken.")] = False,
    home: HomeOption = DEFAULT_HOME,
    output: OutputOption = Output.TABLE,
) -> None:
    """Takes what nobody needs any more: files of lost attempts, or, with --versions, dataset versions.

    A file is an orphan when no dataset names it and no attempt can come to do so; the dispatchers take orphans by
    themselves too, after a day. A dataset version goes only when you say so, with its events, tasks and files, and only
    if nothing reaches it: no pointer, no rollback within the window, no running query or task.

    \b
    Examples:
      tracectl gc --dry-run
      tracectl gc
      tracectl gc --versions --dry-run
      tracectl gc --versions --dag ethereum
      tracectl gc --versions --yes --output json
    """
    if dag and not versions:
        raise CtlError(
            "orphans are not looked for by DAG",
            remedy="leave --dag out, or add --versions",
            exit_code=ExitCode.USAGE,
        )
    with connect(home) as connection, connection.errors():
        if versions:
            _versions(connection, dag, dry_run, yes, output)
        else:
            _orphans(connection, dry_run, output)


def _orphans(connection: Connection, dry_run: bool, output: Output) -> None:
    """One sweep, with what it has found so far on a terminal."""
    whole = api.CollectOrphansResponse()
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False))
    screen = console.stderr()
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as progress:
        bar = progress.add_task("looking")
        request = api.CollectOrphansRequest(dry_run=dry_run)
        for answer in connection.retention.CollectOrphans(request, timeout=_SWEEP_SECONDS):
            orphans = [*whole.orphans, *answer.orphans]
            whole.CopyFrom(answer)
            del whole.orphans[:]
            whole.orphans.extend(orphans)
            progress.update(bar, description=retention.swept(whole, dry_run))
    if output is Output.JSON:
        machine.print_message(whole)
        return
    if whole.orphans:
        console.stdout().print(retention.orphans(whole.orphans))
    console.stdout().print(retention.swept(whole, dry_run), markup=False)


def _versions(connection: Connection, dag: str, dry_run: bool, yes: bool, output: Output) -> None:
    found = _unused(connection, dag)
    chosen = [version for version in found.versions if not version.HasField("condemned_time")]
    if dry_run:
        if output is Output.JSON:
            machine.print_message(found)
        else:
            console.print_list(
                retention.versions(found.versions), len(found.versions), more=False, what="versions to take"
            )
        return
    if chosen and not yes:
        console.stderr().print(retention.versions(found.versions))
        _confirm(retention.question(chosen))
    answer = _collect(connection, [version.dataset_version_id for version in chosen], len(found.versions))
    if output is Output.JSON:
        machine.print_message(answer)
        return
    held = [result for result in answer.results if result.outcome == api.COLLECT_OUTCOME_HELD]
    if held:
        console.stdout().print(retention.held(held, found.versions))
    console.stdout().print(retention.collected(answer), markup=False)


def _unused(connection: Connection, dag: str) -> api.ListUnusedVersionsResponse:
    return collect(
        lambda size, token: connection.retention.ListUnusedVersions(
            api.ListUnusedVersionsRequest(dag=dag, page_size=size, page_token=token), timeout=CALL_SECONDS
        ),
        lambda answer: len(answer.versions),
        0,
    )


def _collect(connection: Connection, version_ids: list[str], total: int) -> api.CollectVersionsResponse:
    """Condemns, and removes until nothing condemned is left; all answers as one, with a bar on a terminal."""
    whole = api.CollectVersionsResponse()
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    screen = console.stderr()
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as progress:
        bar = progress.add_task("taking", total=total)
        pages = [version_ids[at : at + _NAMED_AT_ONCE] for at in range(0, len(version_ids), _NAMED_AT_ONCE)] or [[]]
        while pages:
            request = api.CollectVersionsRequest(dataset_version_ids=pages.pop(0))
            answer = connection.retention.CollectVersions(request, timeout=CALL_SECONDS)
            _add(whole, answer)
            if answer.left_version_count and not pages:
                pages.append([])
            progress.update(
                bar,
                completed=whole.removed_version_count,
                total=max(total, whole.removed_version_count + answer.left_version_count),
                description=retention.collected(whole),
            )
    return whole


def _add(whole: api.CollectVersionsResponse, answer: api.CollectVersionsResponse) -> None:
    whole.results.extend(answer.results)
    whole.removed_file_count += answer.removed_file_count
    whole.removed_bytes += answer.removed_bytes
    whole.removed_row_count += answer.removed_row_count
    whole.removed_version_count += answer.removed_version_count
    whole.left_version_count = answer.left_version_count


def _confirm(question: str) -> None:
    """Raises CtlError (usage) where nobody can be asked, and typer.Abort for a no."""
    if not sys.stdin.isatty():
        raise CtlError(
            "nobody can be asked before dataset versions are taken",
            remedy="look at them with --dry-run, then give --yes",
            exit_code=ExitCode.USAGE,
        )
    typer.confirm(question, abort=True, err=True)
