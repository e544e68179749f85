"""The demo's second act: a change to the example goes in and comes out again, and no query sees a mixture."""

import time
from dataclasses import replace

from rich.console import Console
from rich.syntax import Syntax
from rich.text import Text

from ctl.commands.dag import plan_document
from ctl.connection import CALL_SECONDS, Connection
from ctl.document import Document
from ctl.errors import CtlError
from ctl.render import plans
from ctl.render.values import duration
from ctl.watch import follow_deployment
from kernel.ids import new_id
from traceapi.control.v1 import dag_service_pb2 as api
from traceapi.control.v1.deployment_pb2 import DEPLOYMENT_STATE_ACTIVE

_SECONDS = 60.0
_EDITS = (
    ("            count(t.hash) as transactions,\n", "            count(distinct t.from_address) as senders,\n"),
    ("          transactions: int64\n", "          senders: int64\n"),
)
"""After the line of the document that is named first comes the second: a column more in the job `block_fees`."""

COLUMNS = 'select count(*) as blocks, sum(senders) as senders from "eth.block_fees"'


def changed(document: Document) -> Document:
    """The example with the edit. Raises CtlError where the document is not the one that the edit is of."""
    text = document.text
    for line, added in _EDITS:
        if text.count(line) != 1:
            raise CtlError(
                "the example is not as the demo knows it", where=str(document.path), remedy="restore the file"
            )
        text = text.replace(line, line + added)
    return replace(document, text=text)


def show_edit(screen: Console) -> None:
    """As a diff."""
    lines = [f"  {line.strip()}\n+ {added.strip()}" for line, added in _EDITS]
    screen.print(Syntax("\n".join(lines), "diff", background_color="default"))


def deploy(connection: Connection, document: Document, screen: Console, give_up_after: float) -> None:
    """Plans the change, deploys the plan, and follows it until it has taken over."""
    planned = plan_document(connection, document, no_rematerialize=False, undone="deployed")
    screen.print(plans.plan(planned.answer, planned.spec))
    with connection.errors(planned.answer.dag):
        request = api.DeployDagRequest(plan_id=planned.answer.plan_id, request_id=new_id())
        deployment = connection.dags.DeployDag(request, timeout=_SECONDS).deployment
    followed = follow_deployment(connection, deployment, screen, give_up_after=give_up_after)
    if followed.state.deployment.state != DEPLOYMENT_STATE_ACTIVE:
        raise CtlError("the change has not taken over", where=str(connection.home.logs), remedy="read the logs there")
    screen.print(Text("All of its datasets and jobs moved in one transaction.", "good"))


def roll_back(connection: Connection, dag: str, screen: Console) -> None:
    """Takes the change back, and says how long that took."""
    with connection.errors(dag):
        began = time.monotonic()
        answer = connection.dags.RollbackDag(api.RollbackDagRequest(dag=dag, request_id=new_id()), timeout=CALL_SECONDS)
        took = time.monotonic() - began
    version = answer.deployment.version
    screen.print(Text(f"Version {version} is active again, {duration(took)} after it was asked for.", "good"))
