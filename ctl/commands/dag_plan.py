"""`tracectl dag plan`: what a deploy of a document would do, before it is done."""

from typing import Annotated

import typer

from ctl.commands.changes import being_built
from ctl.commands.dag import DocumentArgument, faulty_document, plan_document
from ctl.commands.options import HomeOption, Output, OutputOption
from ctl.connection import connect
from ctl.document import Document, UnreadableDocument
from ctl.home import DEFAULT_HOME
from ctl.render import console, machine, plans


def plan(
    file: DocumentArgument,
    no_rematerialize: Annotated[
        bool,
        typer.Option(
            "--no-rematerialize", help="Take jobs over as they are of which only execution_strategy changed, on record."
        ),
    ] = False,
    home: HomeOption = DEFAULT_HOME,
    output: OutputOption = Output.TABLE,
) -> None:
    """Shows what a deploy of a document would do, and changes nothing.

    Per job: whether it is added, changed, downstream of a change, reused, removed, or goes on as before, and for which
    fields; the tasks that would run before the cutover, and how long they take by the job's history, with the 80 %
    interval. Then who else reads what changes, and what taking it back would cost. The plan is kept for 30 days. In
    JSON the answer is PlanDagResponse.

    \b
    Examples:
      tracectl dag plan examples/ethereum/dag.yaml
      tracectl dag plan dag.yaml --output json
    """
    try:
        document = Document.read(file)
    except UnreadableDocument as error:
        raise faulty_document(error.document, [error.problem], exit_code=error.exit_code, undone="planned") from None
    with connect(home) as connection:
        planned = plan_document(connection, document, no_rematerialize=no_rematerialize, undone="planned")
        if output is Output.JSON:
            machine.print_message(planned.answer)
            return
        building = being_built(connection, planned.answer.dag) if planned.answer.base_version else None
    console.stdout().print(plans.plan(planned.answer, planned.spec))
    if building is not None:
        what = f"{building.dag} version {building.version} is being built: until it has taken over or is given up"
        console.stdout().print(f"[waiting]{what}, another document is not deployed[/waiting]")
