"""A source that a person pauses while it runs, and resumes: real programs, from the heartbeat to its next attempt."""

import asyncio
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ctl.commands.dag import deploy_document
from ctl.connection import connect
from ctl.document import Document
from tests.programs.fleet import running_fleet
from traceapi.control.v1 import dag_service_pb2 as dags
from traceapi.control.v1.dag_service_pb2_grpc import DagServiceStub

pytestmark = pytest.mark.acceptance

NUMBERS = 100_000
"""More than it comes to: it does not end by itself."""
DOCUMENT = """
dag: steady
jobs:
  numbers:
    source: replay
    config: {path: numbers.csv, cursor: number, rate: 20}
    outputs: {s.numbers: {cursor: {column: number, type: int64}, schema: {number: int64}}}
"""
EMITTED = "select count(*) from event where producer_attempt = %s"
RUN = "select state::text, attempt, failed_attempts, lost_leases from task"
OUTCOMES = "select array_agg(outcome::text order by attempt) from attempt"
NUMBERED = "select (get_byte(scope_first, 6) << 8) + get_byte(scope_first, 7) from event order by producer_attempt, 1"
DEADLINE = 60.0


async def _value(database: psycopg.AsyncConnection[Any], query: str, *parameters: object) -> Any:
    row = await (await database.execute(query, parameters)).fetchone()
    assert row is not None
    return row[0]


async def _until(database: psycopg.AsyncConnection[Any], query: str, *parameters: object, least: int) -> None:
    found = 0
    async with asyncio.timeout(DEADLINE):
        while found < least:
            await asyncio.sleep(0.02)
            found = await _value(database, query, *parameters)


async def test_a_paused_source_goes_on_where_it_was(database: str, tmp_path: Path) -> None:
    (tmp_path / "dag.yaml").write_text(DOCUMENT)
    (tmp_path / "numbers.csv").write_text("number\n" + "".join(f"{number}\n" for number in range(1, NUMBERS + 1)))
    async with (
        running_fleet(tmp_path, database) as fleet,
        await psycopg.AsyncConnection.connect(database, autocommit=True) as connection,
    ):
        await fleet.start("dispatcher")
        await fleet.start("wrapper", lease_seconds="3")
        with connect(fleet.write_endpoints().root) as control:
            await asyncio.to_thread(deploy_document, control, Document.read(tmp_path / "dag.yaml"))
        await _until(connection, EMITTED, 1, least=5)
        async with fleet.channel("control", "user") as channel:
            await DagServiceStub(channel).PauseDag(dags.PauseDagRequest(dag="steady", jobs=["numbers"]), timeout=20)
            await _until(connection, "select count(*) from task where state = 'queued'", least=1)
            assert await (await connection.execute(RUN)).fetchall() == [("queued", 1, 0, 0)]
            await DagServiceStub(channel).ResumeDag(dags.ResumeDagRequest(dag="steady"), timeout=20)
        await _until(connection, EMITTED, 2, least=5)
        assert await _value(connection, OUTCOMES) == ["returned"]
        numbers = [number for (number,) in await (await connection.execute(NUMBERED)).fetchall()]
        assert numbers == list(range(1, len(numbers) + 1))
