"""`tracectl dag`: check a document, deploy it, and look at what is deployed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.text import Text

from ctl import document as documents
from ctl.commands.changes import outcome
from ctl.commands.options import HomeOption, LimitOption, Output, OutputOption, YesOption
from ctl.commands.registry import command
from ctl.confirm import confirm
from ctl.connection import CALL_SECONDS, Connection, connect
from ctl.document import Document, UnreadableDocument
from ctl.errors import CtlError, ExitCode
from ctl.home import DEFAULT_HOME
from ctl.local_paths import pack_local_paths
from ctl.paging import collect
from ctl.render import console, graph, machine, plans, tables, values
from ctl.render.printable import printable
from ctl.render.svg import draw_svg
from ctl.watch import Followed, follow_deployment
from kernel.bundles import Bundle
from kernel.ids import new_id
from traceapi.control.v1 import dag_service_pb2 as api
from traceapi.control.v1.deployment_pb2 import DEPLOYMENT_STATE_BUILDING, DEPLOYMENT_STATE_HELD, Deployment
from traceapi.control.v1.plan_pb2 import JOB_CHANGE_SHARED, JOB_CHANGE_UNSPECIFIED
from traceapi.types.v1 import dag_pb2

app = typer.Typer(help="DAGs: jobs that meet in datasets.", no_args_is_help=True)

_DEPLOY_SECONDS = 120.0
_PLAN_SECONDS = 60.0

DocumentArgument = Annotated[
    Path, typer.Argument(metavar="FILE", help="The DAG document.", show_default=False, readable=False)
]


@command(app, "validate")
def validate_dag(file: DocumentArgument, home: HomeOption = DEFAULT_HOME, output: OutputOption = Output.TABLE) -> None:
    """Checks a document and prints all its problems, each with file, line and column. Changes nothing.

    Exits with 1 when there are any, and with 2 when the file cannot be read.

    \b
    Examples:
      tracectl dag validate examples/ethereum/dag.yaml
      tracectl dag validate dag.yaml --output json
    """
    exit_code = ExitCode.FAULTY
    try:
        document = Document.read(file)
    except UnreadableDocument as error:
        document, exit_code = error.document, error.exit_code
        answer = api.ValidateDagResponse(problems=[error.problem])
    else:
        with connect(home) as connection:
            answer = check_document(connection, document).answer
    if output is Output.JSON:
        machine.print_message(answer)
    elif answer.problems:
        console.stdout().print(documents.problems(document, answer.problems, more=answer.more_problems))
    else:
        spec = answer.spec
        datasets = sum(len(job.outputs) for job in spec.jobs.values())
        what = f"DAG {spec.dag}, {len(spec.jobs)} jobs, {datasets} datasets"
        console.stdout().print(Text.assemble((f"{file} can be deployed", "good"), f": {what}"))
    if answer.problems:
        raise typer.Exit(exit_code)


@command(app, "deploy")
def deploy_dag(
    file: DocumentArgument,
    wait: Annotated[
        bool,
        typer.Option("--wait", "-w", help="Follow it: a change until it has taken over, a first version to its end."),
    ] = False,
    hold: Annotated[bool, typer.Option("--hold", help="Build it, and wait for `tracectl dag cutover`.")] = False,
    no_rematerialize: Annotated[
        bool,
        typer.Option(
            "--no-rematerialize", help="Take jobs over as they are of which only execution_strategy changed, on record."
        ),
    ] = False,
    yes: YesOption = False,
    home: HomeOption = DEFAULT_HOME,
    output: OutputOption = Output.TABLE,
) -> None:
    """Deploys a document: checks it, uploads the code and files that it names, and makes it active.

    A change is built beside the active version, which goes on; once it has caught up, one transaction puts it in place,
    and `tracectl dag rollback` takes it back. What changes only how jobs run is active at once.

    A change is planned, shown and asked for first; it is refused where another version became active since.

    With --wait, shows progress until a change has taken over, or of a first version until the sources have ended and
    every task is final; it exits with 1 when tasks are DEAD. Deploying the active document again changes nothing. In
    JSON the answer is DeployDagResponse, with --wait the last WatchDeploymentResponse.

    \b
    Examples:
      tracectl dag deploy examples/ethereum/dag.yaml --wait
      tracectl dag deploy dag.yaml --hold --yes
      tracectl dag deploy dag.yaml --output json
    """
    try:
        document = Document.read(file)
    except UnreadableDocument as error:
        raise faulty_document(error.document, [error.problem], exit_code=error.exit_code) from None
    with connect(home) as connection:
        planned = plan_document(connection, document, no_rematerialize=no_rematerialize, undone="deployed")
        _ask(planned, file, yes=yes)
        with connection.errors(str(document.path)):
            request = api.DeployDagRequest(plan_id=planned.answer.plan_id, hold=hold, request_id=new_id())
            answer = connection.dags.DeployDag(request, timeout=_DEPLOY_SECONDS)
        if output is Output.TABLE:
            console.stdout().print(_deployed(answer))
        elif not wait:
            machine.print_message(answer)
        if wait:
            _wait(connection, answer.deployment, output)


def deploy_document(connection: Connection, document: Document, *, hold: bool = False) -> api.DeployDagResponse:
    """Validate, upload, deploy. Raises CtlError; a faulty document's problems are printed before."""
    checked = check_document(connection, document)
    if checked.answer.problems:
        raise faulty_document(document, checked.answer.problems, more=checked.answer.more_problems)
    bundles = documents.upload_bundles(connection, checked.bundles)
    with connection.errors(str(document.path)):
        request = api.DeployDagRequest(document=document.message(), bundles=bundles, hold=hold, request_id=new_id())
        return connection.dags.DeployDag(request, timeout=_DEPLOY_SECONDS)


@dataclass(frozen=True, slots=True)
class PlannedDocument:
    """The stored plan of a document, and what the document means."""

    answer: api.PlanDagResponse
    spec: dag_pb2.DagSpec

    @property
    def changes_something(self) -> bool:
        """It replaces an active version in something that is stored or runs."""
        same = (JOB_CHANGE_SHARED, JOB_CHANGE_UNSPECIFIED)
        return self.answer.base_version > 0 and any(job.change not in same for job in self.answer.jobs)


def plan_document(
    connection: Connection, document: Document, *, no_rematerialize: bool, undone: str
) -> PlannedDocument:
    """Validate, upload, plan. Raises CtlError; a faulty document's problems are printed before. `undone` is what was to
    be done with it."""
    checked = check_document(connection, document)
    if checked.answer.problems:
        raise faulty_document(document, checked.answer.problems, more=checked.answer.more_problems, undone=undone)
    bundles = documents.upload_bundles(connection, checked.bundles)
    request = api.PlanDagRequest(document=document.message(), bundles=bundles, no_rematerialize=no_rematerialize)
    with connection.errors(str(document.path)):
        return PlannedDocument(connection.dags.PlanDag(request, timeout=_PLAN_SECONDS), checked.answer.spec)


def _ask(planned: PlannedDocument, file: Path, *, yes: bool) -> None:
    """Shows a change, and asks for it. Raises CtlError where it is not wanted."""
    if planned.changes_something:
        console.stderr().print(plans.plan(planned.answer, planned.spec))
        question = f"Deploy this change of {planned.answer.dag}?"
        confirm(question, yes=yes, remedy=f"look at `tracectl dag plan {file}`, then give --yes")


@dataclass(frozen=True, slots=True)
class CheckedDocument:
    """`answer` has the problems of the local paths too; `bundles` are by path, of those that have none."""

    answer: api.ValidateDagResponse
    bundles: Mapping[str, Bundle]


def check_document(connection: Connection, document: Document) -> CheckedDocument:
    """What the dispatcher says of it, and what this disk says of the paths that it names."""
    answer = documents.validate(connection, document)
    packed = pack_local_paths(document, answer.spec, answer.local_paths)
    found = sorted([*answer.problems, *packed.problems], key=lambda problem: (problem.line, problem.column))
    del answer.problems[:]
    answer.problems.extend(found)
    return CheckedDocument(answer, packed.bundles)


def faulty_document(
    document: Document,
    found: Sequence[api.DagProblem],
    *,
    more: bool = False,
    exit_code: ExitCode = ExitCode.FAULTY,
    undone: str = "deployed",
) -> CtlError:
    """The error, after the problems were printed. `undone` is what was to be done with it."""
    console.stderr().print(documents.problems(document, found, more=more))
    return CtlError(
        f"the document was not {undone}",
        where=str(document.path),
        remedy="correct the problem above" if len(found) == 1 else "correct the problems listed above",
        exit_code=exit_code,
    )


def _deployed(answer: api.DeployDagResponse) -> str:
    deployment = answer.deployment
    what = f"[name]{deployment.dag}[/name] version {deployment.version}"
    if deployment.state in (DEPLOYMENT_STATE_BUILDING, DEPLOYMENT_STATE_HELD):
        again = " already" if answer.unchanged else ""
        return (
            f"[active]{what} is being built{again}[/active] beside what is active: tracectl dag watch {deployment.dag}"
        )
    if answer.unchanged:
        return f"[good]{what} is active already[/good]: this very document, nothing to do"
    return f"[good]{what} is deployed[/good] (deploy number {deployment.deploy_number or values.NOTHING})"


def _wait(connection: Connection, deployment: Deployment, output: Output) -> None:
    screen = console.stdout() if output is Output.TABLE else console.stderr()
    try:
        followed = follow_deployment(connection, deployment, screen)
    except KeyboardInterrupt:
        option = connection.home.option()
        again = f"tracectl dag watch {deployment.dag}{option}"
        console.stderr().print(f"the deployment goes on; follow it with: {again}", markup=False)
        raise
    if output is Output.JSON:
        machine.print_message(followed.state)
    elif deployment.state in (DEPLOYMENT_STATE_BUILDING, DEPLOYMENT_STATE_HELD):
        console.stdout().print(outcome(followed.state))
    check_followed(connection, followed)


def check_followed(connection: Connection, followed: Followed) -> None:
    """Raises CtlError when tasks are DEAD."""
    if followed.dead:
        option = connection.home.option()
        dag = followed.state.deployment.dag
        raise CtlError(
            f"{followed.dead} task{'s are' if followed.dead != 1 else ' is'} DEAD"
            + ("" if followed.state.settled else "; what is behind waits for them"),
            remedy=f"find them with `tracectl task ls --dag {dag} --state dead{option}`,"
            f" and what happened with `tracectl task show TASK{option}`",
        )


@command(app, "ls")
def list_dags(limit: LimitOption = 0, home: HomeOption = DEFAULT_HOME, output: OutputOption = Output.TABLE) -> None:
    """Lists the deployed DAGs with their tasks by state.

    \b
    Examples:
      tracectl dag ls
      tracectl dag ls --output json
    """
    with connect(home) as connection, connection.errors():
        found = collect(
            lambda size, token: connection.dags.ListDags(
                api.ListDagsRequest(page_size=size, page_token=token), timeout=CALL_SECONDS
            ),
            lambda answer: len(answer.dags),
            limit,
        )
    if output is Output.JSON:
        machine.print_message(found)
        return
    console.print_list(tables.dags(found.dags), len(found.dags), more=bool(found.next_page_token), what="DAGs")


@command(app, "show")
def show_dag(
    dag: Annotated[str, typer.Argument(metavar="DAG", help="The DAG's name.", show_default=False)],
    svg: Annotated[
        Path | None,
        typer.Option(
            "--svg", metavar="FILE", help="Write the picture there, as SVG.", show_default=False, readable=False
        ),
    ] = None,
    home: HomeOption = DEFAULT_HOME,
    output: OutputOption = Output.TABLE,
) -> None:
    """Draws a DAG: its jobs, the datasets between them, and how far each is. Dashed: inputs that are only read.

    \b
    Examples:
      tracectl dag show ethereum
      tracectl dag show ethereum --svg ethereum.svg
      tracectl dag show ethereum --output json
    """
    with connect(home) as connection, connection.errors(f"DAG {dag}"):
        found = connection.dags.GetDag(api.GetDagRequest(dag=dag), timeout=CALL_SECONDS)
    if svg is not None:
        _write_picture(svg, found.spec)
    if output is Output.JSON:
        machine.print_message(found)
        return
    screen = console.stdout()
    screen.print(tables.deployment(found.deployment))
    screen.print()
    screen.print(graph.draw(found.spec, screen.width, tables.job_details(found.deployment)))


def _write_picture(file: Path, spec: dag_pb2.DagSpec) -> None:
    picture = draw_svg(spec)
    try:
        file.write_text(picture, encoding="utf-8")
    except OSError as error:
        raise CtlError(
            f"cannot write the picture: {error.strerror}",
            where=str(file),
            remedy="name a file in a folder that is there and that you may write to",
            exit_code=ExitCode.USAGE,
        ) from error
    console.stderr().print(f"[hint]drawn:[/hint] {escape(printable(str(file)))}", soft_wrap=True)
