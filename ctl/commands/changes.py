"""`tracectl dag watch`, `cutover`, `abort`, `rollback` and `rm`: a change to a DAG after it was deployed."""

import time
from typing import Annotated

import grpc
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from ctl.commands.options import LARGEST_NUMBER, HomeOption, Output, OutputOption, YesOption
from ctl.confirm import confirm
from ctl.connection import CALL_SECONDS, Connection, connect
from ctl.errors import CtlError
from ctl.home import DEFAULT_HOME
from ctl.render import console, machine, values
from ctl.watch import follow_deployment
from kernel.errors import from_rpc_error
from kernel.ids import new_id
from traceapi.control.v1 import dag_service_pb2 as api
from traceapi.control.v1.deployment_pb2 import DEPLOYMENT_STATE_BUILDING, DEPLOYMENT_STATE_HELD, Deployment
from traceapi.types.v1.errors_pb2 import ErrorReason

_Dag = Annotated[str, typer.Argument(metavar="DAG", help="The DAG's name.", show_default=False)]
_SWITCH_SECONDS = 60.0
_CUTOVER_SECONDS = 180.0
"""It waits for the last scopes, up to two minutes where tasks take long."""
_LOOK_SECONDS = 0.5
_NOTHING_ACTIVE = (ErrorReason.ERROR_REASON_DAG_NOT_FOUND, ErrorReason.ERROR_REASON_DAG_NOT_ACTIVE)


def watch(dag: _Dag, home: HomeOption = DEFAULT_HOME, output: OutputOption = Output.TABLE) -> None:
    """Follows the version that is being built, until it takes over or waits for you; without one, the active version
    until it has caught up. What sources that go on bring from then on is not waited for.

    A bar for each job with counts, rate and time left, and what the cutover waits for. Ctrl-C ends the watching, not
    the deployment. In JSON the answer is the last WatchDeploymentResponse.

    \b
    Examples:
      tracectl dag watch ethereum
      tracectl dag watch ethereum --output json
    """
    with connect(home) as connection:
        deployment = being_built(connection, dag) or _active(connection, dag)
        screen = console.stdout() if output is Output.TABLE else console.stderr()
        followed = follow_deployment(connection, deployment, screen, to_the_end=False)
        if output is Output.JSON:
            machine.print_message(followed.state)
        else:
            console.stdout().print(outcome(followed.state))


def cut_over(
    dag: _Dag,
    watermarks_may_go_back: Annotated[
        bool,
        typer.Option(
            "--watermarks-may-go-back", help="Also where it lacks the last scopes, and is complete up to less."
        ),
    ] = False,
    cursors_may_differ: Annotated[
        bool,
        typer.Option(
            "--cursors-may-differ", help="Also where cursors have another type than before, which nobody can compare."
        ),
    ] = False,
    home: HomeOption = DEFAULT_HOME,
    output: OutputOption = Output.TABLE,
) -> None:
    """Puts the version that was built in the place of the active one, in one transaction.

    Needed after `dag deploy --hold`, where cursors changed their type, and where a source changed that has no
    watermark; otherwise it happens by itself once the version has caught up. Waits up to 30 s for the last scopes, or
    two minutes where tasks take long, and halts releases of the active version meanwhile. Asked for twice at once, both
    wait for the same.

    \b
    Examples:
      tracectl dag cutover ethereum
      tracectl dag cutover ethereum --cursors-may-differ
      tracectl dag cutover ethereum --watermarks-may-go-back
    """
    with connect(home) as connection:
        deployment = _required(connection, dag)
        request = api.CutOverDagRequest(
            deployment_id=deployment.deployment_id,
            watermarks_may_go_back=watermarks_may_go_back,
            cursors_may_differ=cursors_may_differ,
        )
        with connection.errors(f"DAG {dag}"):
            answer = connection.dags.CutOverDag(request, timeout=_CUTOVER_SECONDS)
    _tell(answer, answer.deployment, "is active", output)


def abort(dag: _Dag, home: HomeOption = DEFAULT_HOME, output: OutputOption = Output.TABLE) -> None:
    """Gives up the version that is being built. What is active stays as it is; what was built is kept for reuse.

    \b
    Examples:
      tracectl dag abort ethereum
    """
    with connect(home) as connection:
        deployment = _required(connection, dag)
        with connection.errors(f"DAG {dag}"):
            answer = connection.dags.AbortDeployment(
                api.AbortDeploymentRequest(deployment_id=deployment.deployment_id), timeout=_SWITCH_SECONDS
            )
    _tell(answer, answer.deployment, "is given up", output)


def roll_back(
    dag: _Dag,
    to: Annotated[
        int,
        typer.Option(
            "--to",
            metavar="N",
            min=0,
            max=LARGEST_NUMBER,
            help="The version to restore [default: the one before].",
            show_default=False,
        ),
    ] = 0,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Follow it until it has caught up.")] = False,
    yes: YesOption = False,
    home: HomeOption = DEFAULT_HOME,
    output: OutputOption = Output.TABLE,
) -> None:
    """Restores an earlier version: its datasets and its jobs, in one transaction.

    The events that it missed meanwhile are run then, by its own code. What the version that goes had in work is
    cancelled; jobs that both versions have go on undisturbed. A version that is being built is given up: the question
    names it. Rolled back twice, the DAG is where it was.

    \b
    Examples:
      tracectl dag rollback ethereum
      tracectl dag rollback ethereum --to 3 --yes --wait
    """
    with connect(home) as connection:
        active, building = _active(connection, dag), being_built(connection, dag)
        which = f"version {to}" if to else "the version before it"
        question = f"{dag} version {active.version} is active. {_given_up(building)}Restore {which}?"
        confirm(question, yes=yes, remedy=f"look at `tracectl dag versions {dag}`, then give --yes")
        request = api.RollbackDagRequest(dag=dag, to_version=to, request_id=new_id())
        with connection.errors(f"DAG {dag}"):
            answer = connection.dags.RollbackDag(request, timeout=_SWITCH_SECONDS)
        if output is Output.JSON:
            machine.print_message(answer)
        else:
            lag = f"; {values.count(answer.lag_event_count)} events to catch up with" if answer.lag_event_count else ""
            console.stdout().print(_line(answer.deployment, f"is active again{lag}"))
            if building is not None:
                console.stdout().print(_line(building, "was being built, and is given up"))
        if wait:
            _catch_up(connection, request, answer.lag_event_count)


def remove(
    dag: _Dag,
    despite_readers: Annotated[
        bool, typer.Option("--despite-readers", help="Also while other DAGs read its datasets.")
    ] = False,
    yes: YesOption = False,
    home: HomeOption = DEFAULT_HOME,
    output: OutputOption = Output.TABLE,
) -> None:
    """Ends a DAG, also one whose first version is being built: nothing of it runs any more. Its datasets can be read as
    they are until they are collected.

    Refused while jobs of other DAGs read them, unless told. Deployed again, it goes on where it was.

    \b
    Examples:
      tracectl dag rm ethereum
      tracectl dag rm ethereum --despite-readers --yes
    """
    with connect(home) as connection:
        question = f"{_standing(connection, dag)}End it?"
        confirm(question, yes=yes, remedy="give --yes")
        with connection.errors(f"DAG {dag}"):
            request = api.RemoveDagRequest(dag=dag, despite_readers=despite_readers)
            answer = connection.dags.RemoveDag(request, timeout=_SWITCH_SECONDS)
    if output is Output.JSON:
        machine.print_message(answer)
    else:
        readers = f"; {', '.join(answer.reader_dags)} read its datasets" if answer.reader_dags else ""
        console.stdout().print(Text.assemble((dag, "name"), (" is ended", "good"), readers))


def outcome(state: api.WatchDeploymentResponse) -> Text:
    """How a watch ended, in a line."""
    deployment = state.deployment
    if deployment.state == DEPLOYMENT_STATE_HELD:
        missing = f" ({state.waiting_for})" if state.waiting_for else ""
        return _line(deployment, f"is built; put it in place with: tracectl dag cutover {deployment.dag}{missing}")
    if deployment.state == DEPLOYMENT_STATE_BUILDING:
        return Text.assemble(
            (deployment.dag, "name"), f" version {deployment.version} waits: ", (state.waiting_for, "waiting")
        )
    return _line(deployment, f"is {values.deployment_state(deployment.state).plain}")


def _catch_up(connection: Connection, request: api.RollbackDagRequest, lag: int) -> None:
    """Asks the same call again, which answers how far it is, until nothing is left of what was missed."""
    columns = (TextColumn("catching up"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    screen = console.stderr()
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as progress:
        bar = progress.add_task("catching up", total=lag)
        while lag:
            time.sleep(_LOOK_SECONDS)
            with connection.errors(f"DAG {request.dag}"):
                lag = connection.dags.RollbackDag(request, timeout=_SWITCH_SECONDS).lag_event_count
            total = max(progress.tasks[bar].total or 0, lag)
            progress.update(bar, total=total, completed=total - lag)


def _tell(
    answer: api.CutOverDagResponse | api.AbortDeploymentResponse, of: Deployment, what: str, output: Output
) -> None:
    if output is Output.JSON:
        machine.print_message(answer)
    else:
        console.stdout().print(_line(of, what))


def _line(deployment: Deployment, what: str) -> Text:
    number = f" (deploy number {deployment.deploy_number})" if deployment.deploy_number else ""
    return Text.assemble((deployment.dag, "name"), f" version {deployment.version} ", (what, "good"), number)


def being_built(connection: Connection, dag: str) -> Deployment | None:
    """At most one is; not always the newest, since a later one may have been begun and given up before it."""
    with connection.errors(f"DAG {dag}"):
        request = api.ListDagHistoryRequest(dag=dag, page_size=1, being_built=True)
        found = connection.dags.ListDagHistory(request, timeout=CALL_SECONDS).deployments
    return found[0] if found else None


def _given_up(building: Deployment | None) -> str:
    """A sentence of a question about what ends a build, or nothing."""
    return f"Version {building.version}, which is being built, is given up by this. " if building is not None else ""


def _standing(connection: Connection, dag: str) -> str:
    """What there is of a DAG, as the sentences before a question."""
    building = being_built(connection, dag)
    if building is None:
        return f"{dag} version {_active(connection, dag).version} is active. "
    with connection.errors(f"DAG {dag}"):
        try:
            active = connection.dags.GetDag(api.GetDagRequest(dag=dag), timeout=CALL_SECONDS).deployment
        except grpc.RpcError as error:
            if from_rpc_error(error).reason not in _NOTHING_ACTIVE:
                raise
            return f"Nothing of {dag} is active. {_given_up(building)}"
    return f"{dag} version {active.version} is active. {_given_up(building)}"


def _required(connection: Connection, dag: str) -> Deployment:
    if (deployment := being_built(connection, dag)) is None:
        _active(connection, dag)  # of a removed DAG that is said first
        option = connection.home.option()
        raise CtlError(
            f"no version of {dag} is being built",
            remedy=f"deploy a changed document with `tracectl dag deploy FILE{option}`,"
            f" or see what there is with `tracectl dag versions {dag}{option}`",
        )
    return deployment


def _active(connection: Connection, dag: str) -> Deployment:
    with connection.errors(f"DAG {dag}"):
        return connection.dags.GetDag(api.GetDagRequest(dag=dag), timeout=CALL_SECONDS).deployment
