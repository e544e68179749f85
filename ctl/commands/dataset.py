"""`tracectl dataset`: what there is to read."""

from typing import Annotated

import typer

from ctl.commands.options import DagOption, HomeOption, LimitOption, Output, OutputOption
from ctl.commands.registry import command
from ctl.connection import CALL_SECONDS, connect
from ctl.home import DEFAULT_HOME
from ctl.paging import collect
from ctl.render import console, machine, tables
from traceapi.control.v1 import dataset_service_pb2 as api

app = typer.Typer(help="Datasets: named collections, each produced by one DAG.", no_args_is_help=True)


@command(app, "ls")
def list_datasets(
    dag: DagOption = "",
    limit: LimitOption = 0,
    home: HomeOption = DEFAULT_HOME,
    output: OutputOption = Output.TABLE,
) -> None:
    """Lists datasets with how much they hold and up to where they are complete.

    \b
    Examples:
      tracectl dataset ls
      tracectl dataset ls --dag ethereum --output json
    """
    with connect(home) as connection, connection.errors():
        found = collect(
            lambda size, token: connection.datasets.ListDatasets(
                api.ListDatasetsRequest(dag=dag, page_size=size, page_token=token), timeout=CALL_SECONDS
            ),
            lambda answer: len(answer.datasets),
            limit,
        )
    if output is Output.JSON:
        machine.print_message(found)
        return
    count, more = len(found.datasets), bool(found.next_page_token)
    console.print_list(tables.datasets(found.datasets), count, more=more, what="datasets")


@command(app, "show")
def show_dataset(
    dataset_id: Annotated[str, typer.Argument(metavar="DATASET", help="The dataset's id.", show_default=False)],
    home: HomeOption = DEFAULT_HOME,
    output: OutputOption = Output.TABLE,
) -> None:
    """Shows a dataset: its columns, its newest files, or the SQL behind it; and whether it is outdated.

    \b
    Examples:
      tracectl dataset show eth.blocks
      tracectl dataset show eth.gas_by_miner --output json
    """
    with connect(home) as connection, connection.errors(f"dataset {dataset_id}"):
        request = api.GetDatasetRequest(dataset_id=dataset_id)
        found = connection.datasets.GetDataset(request, timeout=CALL_SECONDS)
        if output is Output.TABLE:
            near = api.GetLineageRequest(dataset_id=found.dataset.dataset_id)
            edges = connection.datasets.GetLineage(near, timeout=CALL_SECONDS).edges
    if output is Output.JSON:
        machine.print_message(found)
    else:
        console.stdout().print(tables.dataset(found, edges))
