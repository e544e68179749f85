"""Programs that are ended in order and started again, one after the other, while work flows through them: what was
answered stays true, nothing fails, and no attempt is charged with it.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
import pytest_asyncio

from ctl.commands.dag import deploy_document
from ctl.connection import connect
from ctl.document import Document
from kernel.ids import new_id
from tests.programs.fleet import Fleet, running_fleet
from traceapi.control.v1 import dag_service_pb2 as dag_pb
from traceapi.control.v1.dag_service_pb2_grpc import DagServiceStub

pytestmark = [pytest.mark.acceptance, pytest.mark.faults]

NUMBERS = 300
TASKS = 1 + 2 * NUMBERS  # of the source, of `ranges`, of `echoes`
DOCUMENT = """
dag: rolling
jobs:
  numbers:
    source: replay
    config: {path: numbers.csv, cursor: number, rate: 30}
    outputs:
      r.numbers:
        cursor: {column: number, type: int64}
        schema: {number: int64, value: int64}
  ranges:
    operator: aggregator
    config: {size: 50}
    inputs: {r.numbers: {}}
    outputs: {r.ranges: {storage: none}}
  echoes:
    operator: noop
    inputs: {r.numbers: {}}
    outputs: {r.echoes: {storage: none}}
"""
SIDE = """
dag: {name}
jobs:
  view:
    virtual: {{sql: 'select max(number) as number from "r.numbers"'}}
    outputs: {{"{name}.view": {{}}}}
"""
DEADLINE = 90.0


@dataclass
class Flow:
    """The work under way, and the database by which it is watched."""

    fleet: Fleet
    database: psycopg.AsyncConnection[Any]
    deployed: dict[str, str] = field(default_factory=dict)
    """By DAG, the deployment that was answered."""

    async def value(self, statement: str) -> Any:
        row = await (await self.database.execute(statement)).fetchone()
        assert row is not None
        return row[0]

    async def until_succeeded(self, tasks: int) -> None:
        """Waits until so many tasks have ended well."""
        statement = "select job, state, count(*) from any_task join job_version using (job_version_id) group by 1, 2"
        counts: list[tuple[str, str, int]] = []
        try:
            async with asyncio.timeout(DEADLINE):
                while sum(count for _, state, count in counts if state == "succeeded") < tasks:
                    await asyncio.sleep(0.05)
                    counts = await (await self.database.execute(statement)).fetchall()
        except TimeoutError:
            pytest.fail(f"{tasks} tasks were to succeed: {counts}")

    async def deploy_on_and_on(self) -> None:
        """One small deploy after the other, through the list of dispatchers, until cancelled; no call may fail."""
        async with self.fleet.channel("control", "user") as channel:
            stub = DagServiceStub(channel)
            while True:
                name = f"side_{len(self.deployed)}"
                document = dag_pb.DagDocument(text=SIDE.format(name=name), file_name="dag.yaml")
                answer = await stub.DeployDag(
                    dag_pb.DeployDagRequest(document=document, request_id=new_id()), timeout=20
                )
                self.deployed[name] = answer.deployment.deployment_id

    async def assert_nothing_was_lost(self) -> None:
        """Every event is one task for each consumer, and each attempt ended well or was returned."""
        assert await self.value("select count(*) from any_task") == TASKS
        assert await self.value("select count(*) from any_task where failed_attempts > 0 or lost_leases > 0") == 0
        assert await self.value("select count(*) from event") == 2 * NUMBERS + NUMBERS // 50
        logged = [event for program in self.fleet.programs for event in program.events()]
        assert [event for event in logged if event["level"] in ("error", "critical")] == []


@pytest_asyncio.fixture
async def flow(database: str, tmp_path: Path) -> AsyncIterator[Flow]:
    """Two dispatchers and two workers, with the work deployed."""
    (tmp_path / "dag.yaml").write_text(DOCUMENT)
    lines = ["number,value", *(f"{number},{number}" for number in range(1, NUMBERS + 1))]
    (tmp_path / "numbers.csv").write_text("\n".join(lines) + "\n")
    async with (
        running_fleet(tmp_path, database) as fleet,
        await psycopg.AsyncConnection.connect(database, autocommit=True) as connection,
    ):
        for kind in ("dispatcher", "dispatcher", "wrapper", "wrapper"):
            await fleet.start(kind, unanswered_wakeup_seconds="1")
        home = fleet.write_endpoints()
        with connect(home.root) as control:
            await asyncio.to_thread(deploy_document, control, Document.read(tmp_path / "dag.yaml"))
        yield Flow(fleet, connection)


async def test_dispatchers_in_turn(flow: Flow) -> None:
    """Every call that was answered stays true, and every call is answered."""
    async with asyncio.TaskGroup() as group:
        deploying = group.create_task(flow.deploy_on_and_on())
        await flow.until_succeeded(50)
        before = len(flow.deployed)
        for number, dispatcher in enumerate(flow.fleet.programs[:2], 1):
            await dispatcher.restart()
            await flow.until_succeeded(50 + 150 * number)
        during = len(flow.deployed) - before
        deploying.cancel()
    await flow.until_succeeded(TASKS)
    await flow.assert_nothing_was_lost()
    assert await flow.value("select max(attempt) from any_task") == 1
    async with flow.fleet.channel("control", "user") as channel:
        for name, deployment_id in flow.deployed.items():
            found = await DagServiceStub(channel).GetDag(dag_pb.GetDagRequest(dag=name), timeout=20)
            assert found.deployment.deployment_id == deployment_id
    assert during >= 2  # each restart was met by a call, at least


async def test_workers_in_turn(flow: Flow) -> None:
    """What a worker has in hand ends, or is handed back and taken up by another one at once."""
    for number, wrapper in enumerate(flow.fleet.programs[2:], 1):
        await flow.until_succeeded(150 * number)
        await wrapper.restart()
    await flow.until_succeeded(TASKS)
    await flow.assert_nothing_was_lost()


async def test_one_address_of_the_list_is_enough(flow: Flow) -> None:
    """A dispatcher that is gone for good is not missed, neither by those who are connected nor by those who come."""
    assert await flow.fleet.programs[0].terminate() == 0
    async with flow.fleet.channel("control", "user") as channel:
        listed = await DagServiceStub(channel).ListDags(dag_pb.ListDagsRequest(), timeout=20)
    assert [dag.dag for dag in listed.dags] == ["rolling"]
    await flow.until_succeeded(TASKS)
    await flow.assert_nothing_was_lost()
