"""The largest documents: what one transaction writes stays within its rows, and all of it becomes true at once."""
# ruff: noqa: S608 -- documents that hold SQL, and names of tables of a list

import pytest

from dispatcher.deploy import paging
from kernel.ids import new_id
from tests.dispatcher.builders import CHAIN
from tests.dispatcher.in_process import InProcess
from traceapi.control.v1 import dag_service_pb2 as pb

JOBS = 2_000
MAX_ROWS = 5_000
TABLES = "select relname::text from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace"


def _large(jobs: int) -> str:
    """A source, and in turn `sql` jobs that read ten datasets, aggregators of them, splitters and virtual nodes."""
    source = "{cursor: {column: number, type: int64}, schema: {number: int64, value: int64}}"
    lines = [
        "dag: large",
        "jobs:",
        f"  j0: {{source: replay, config: {{path: /data/b.csv, cursor: number}}, outputs: {{d0: {source}}}}}",
    ]
    for number in range(1, jobs):
        name = f"  j{number}: "
        if number % 4 == 1:
            read = "".join(f", d{other}: {{trigger: false}}" for other in range(max(1, number - 40), number, 4))
            lines.append(
                f"{name}{{operator: sql, config: {{sql: select number from d0}}, inputs: {{d0: {{}}{read}}},"
                f" outputs: {{d{number}: {{schema: {{number: int64}}}}}}}}"
            )
        elif number % 4 == 2:
            lines.append(
                f"{name}{{operator: aggregator, config: {{size: 10}}, inputs: {{d{number - 1}: {{}}}},"
                f" outputs: {{d{number}: {{storage: none}}}}}}"
            )
        elif number % 4 == 3:
            lines.append(
                f"{name}{{operator: splitter, inputs: {{d0: {{}}}}, outputs: {{d{number}: {{storage: none}}}}}}"
            )
        else:
            sql = f"select max(number) as top from d{number - 3}"
            lines.append(f"{name}{{virtual: {{sql: {sql}}}, outputs: {{d{number}: {{}}}}}}")
    return "\n".join(lines) + "\n"


async def _deploy(dispatcher: InProcess, document: str) -> pb.DeployDagResponse:
    source = pb.DagDocument(text=document, file_name="dag.yaml")
    return await dispatcher.dags.DeployDag(pb.DeployDagRequest(document=source, request_id=new_id()))


async def _rows_by_transaction(dispatcher: InProcess) -> dict[str, int]:
    """Rows that each transaction wrote and that nobody has written since."""
    tables = [table for (table,) in await dispatcher.rows(TABLES)]
    counts = " union all ".join(f"select xmin::text as tx, count(*) as n from {table} group by 1" for table in tables)
    return dict(await dispatcher.rows(f"select tx, sum(n)::int from ({counts}) t group by tx"))


async def _active_transaction(dispatcher: InProcess) -> int:
    written = await _rows_by_transaction(dispatcher)
    return written[await dispatcher.value("select xmin::text from activation")]


async def test_going_active_takes_a_row_for_each_dataset_trigger_and_source_and_six(dispatcher: InProcess) -> None:
    """What the document is refused by (dispatcher/dag/size.py) is what is written."""
    await _deploy(dispatcher, CHAIN)
    assert await _active_transaction(dispatcher) == 3 + 2 + 1 + 6


async def test_no_transaction_exceeds_its_rows(dispatcher: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "PAGE_ROWS", 40)
    await _deploy(dispatcher, _large(30))
    written = await _rows_by_transaction(dispatcher)
    active = await dispatcher.value("select xmin::text from activation")
    assert len(written) > 6
    assert max(rows for transaction, rows in written.items() if transaction != active) <= 40


@pytest.mark.slow
async def test_two_thousand_jobs_are_deployed_in_transactions_of_five_thousand_rows(dispatcher: InProcess) -> None:
    response = await _deploy(dispatcher, _large(JOBS))
    assert len(response.deployment.jobs) == JOBS
    written = await _rows_by_transaction(dispatcher)
    assert sum(written.values()) > 20_000
    assert max(written.values()) <= MAX_ROWS
    assert await _active_transaction(dispatcher) == JOBS + 1_500 + 1 + 6
    assert await dispatcher.value("select count(*) from pointer") == JOBS
    assert len(await dispatcher.release()) == 1
