"""Programs that are woken over SQS: a DAG runs through, also among rubbish, also where SQS loses everything, and no
task is tried twice."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest
import pytest_asyncio

from ctl.commands.dag import deploy_document
from ctl.connection import connect
from ctl.document import Document
from kernel.sqs import sqs_client
from tests.programs.fleet import Fleet, running_fleet
from tests.sqs_server import CREDENTIAL, SqsServer, running_sqs_server

pytestmark = pytest.mark.acceptance

PREFIX = "fleet"
NUMBERS = 120
DOCUMENT = """
dag: woken
jobs:
  numbers:
    source: replay
    config: {path: numbers.csv, cursor: number}
    outputs:
      w.numbers: {cursor: {column: number, type: int64}, schema: {number: int64}}
  ranges:
    operator: aggregator
    config: {size: 20}
    inputs: {w.numbers: {}}
    outputs: {w.ranges: {storage: none}}
  echoes:
    operator: noop
    inputs: {w.numbers: {}}
    outputs: {w.echoes: {storage: none}}
"""
DEADLINE = 90.0


@pytest.fixture
def sqs(monkeypatch: pytest.MonkeyPatch) -> Iterator[SqsServer]:
    """A server, whose credential the programs have."""
    for name, value in CREDENTIAL.items():
        monkeypatch.setenv(name, value)
    with running_sqs_server() as server:
        yield server


@pytest_asyncio.fixture
async def fleet(tmp_path: Path, database: str, sqs: SqsServer) -> AsyncIterator[Fleet]:
    """A dispatcher and two workers, woken over SQS; a lost wake-up would cost more time than the test has."""
    async with running_fleet(tmp_path, database) as running:
        await running.start("dispatcher", wakeups=sqs.url(PREFIX), unanswered_wakeup_seconds="600")
        for _ in range(2):
            await running.start("wrapper", wakeups=sqs.url(PREFIX))
        yield running


async def test_where_sqs_loses_everything_a_dag_runs_through(sqs: SqsServer, database: str, tmp_path: Path) -> None:
    """The workers receive from other queues than the dispatcher sends to: no message ever reaches one."""
    lost = sqs.make_queue(PREFIX)
    sqs.make_queue("elsewhere")
    async with running_fleet(tmp_path, database) as fleet:
        await fleet.start("dispatcher", wakeups=sqs.url(PREFIX), unanswered_wakeup_seconds="0.5")
        for _ in range(2):
            await fleet.start("wrapper", wakeups=sqs.url("elsewhere"))
        await _runs_through(fleet, database, tmp_path)
    assert await asyncio.to_thread(sqs.left, PREFIX, lost) >= NUMBERS


async def test_a_dag_runs_through_over_sqs(fleet: Fleet, sqs: SqsServer, database: str, tmp_path: Path) -> None:
    url = sqs.make_queue(PREFIX)
    client = sqs_client(sqs.location(PREFIX))
    for body in ("rubbish", "0198c0de-0000-7000-8000-00000000dead"):
        for _ in range(20):
            client.send_message(QueueUrl=url, MessageBody=body)
    await _runs_through(fleet, database, tmp_path)
    async with asyncio.timeout(DEADLINE):
        while await asyncio.to_thread(sqs.left, PREFIX, url):
            pass


async def _runs_through(fleet: Fleet, database: str, tmp_path: Path) -> None:
    """Each task succeeds, at its first attempt."""
    (tmp_path / "numbers.csv").write_text("\n".join(["number", *map(str, range(NUMBERS))]) + "\n")
    (tmp_path / "dag.yaml").write_text(DOCUMENT)
    home = fleet.write_endpoints()
    with connect(home.root) as control:
        await asyncio.to_thread(deploy_document, control, Document.read(tmp_path / "dag.yaml"))
    async with asyncio.timeout(DEADLINE), await psycopg.AsyncConnection.connect(database, autocommit=True) as watching:
        while not await _done(watching):
            pass
        cursor = await watching.execute("select max(attempt) from any_task")
        assert await cursor.fetchone() == (1,)


async def _done(connection: psycopg.AsyncConnection) -> bool:
    cursor = await connection.execute("select count(*) filter (where state = 'succeeded') from any_task")
    row = await cursor.fetchone()
    return row is not None and row[0] == 1 + 2 * NUMBERS
