"""`tracectl dag plan`: what a deploy of a document would do, before it is done."""

from typing import Annotated

import typer

from ctl import document as documents
from ctl.commands.dag import DocumentArgument, check_document, faulty_document
from ctl.commands.options import HomeOption, Output, OutputOption
from ctl.connection import connect
from ctl.document import Document, UnreadableDocument
from ctl.home import DEFAULT_HOME
from ctl.render import console, machine, plans
from traceapi.control.v1 import dag_service_pb2 as api

_PLAN_SECONDS = 60.0


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
        checked = check_document(connection, document)
        if checked.answer.problems:
            raise faulty_document(
                document, checked.answer.problems, more=checked.answer.more_problems, undone="planned"
            )
        bundles = documents.upload_bundles(connection, checked.bundles)
        request = api.PlanDagRequest(document=document.message(), bundles=bundles, no_rematerialize=no_rematerialize)
        with connection.errors(str(document.path)):
            answer = connection.dags.PlanDag(request, timeout=_PLAN_SECONDS)
    if output is Output.JSON:
        machine.print_message(answer)
    else:
        console.stdout().print(plans.plan(answer, checked.answer.spec))
