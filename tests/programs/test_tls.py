"""All programs on addresses that other machines could call: TLS on every listener and every client, tracectl too."""

import asyncio
import json
from pathlib import Path
from typing import Any

import grpc
import pytest

from kernel.channels import aio_channel
from kernel.tls import client_tls
from tests.acceptance.conftest import tracectl
from tests.certificates import Authority
from tests.programs.fleet import NAME, Fleet, running_fleet
from traceapi.control.v1.task_service_pb2 import CountTasksRequest
from traceapi.control.v1.task_service_pb2_grpc import TaskServiceStub

pytestmark = pytest.mark.acceptance

DOCUMENT = """
dag: encrypted
jobs:
  numbers:
    source: replay
    config: {path: numbers.csv, cursor: number}
    outputs:
      t.numbers:
        cursor: {column: number, type: int64}
        schema: {number: int64, value: int64}
"""


async def test_a_dag_is_deployed_run_and_queried_over_tls_alone(database: str, tmp_path: Path) -> None:
    (tmp_path / "dag.yaml").write_text(DOCUMENT)
    (tmp_path / "numbers.csv").write_text("number,value\n1,10\n2,32\n")
    async with running_fleet(tmp_path, database, Authority.make(tmp_path / "authority")) as fleet:
        for kind in ("dispatcher", "dispatcher", "wrapper", "queryd"):
            await fleet.start(kind)
        home = fleet.write_endpoints().root
        await tell(home, "dag", "deploy", str(tmp_path / "dag.yaml"), "--wait")
        status = json.loads(await tell(home, "status", "--output", "json"))
        rows = json.loads(await tell(home, "query", 'select sum(value) as s from "t.numbers"', "--output", "json"))
        await nobody_is_served_in_the_clear(fleet)
        await nobody_calls_a_server_of_another_authority(fleet, Authority.make(tmp_path / "other"))
    assert all(program["answers"] for program in status["programs"]), status
    assert rows == {"s": "42"}


async def nobody_is_served_in_the_clear(fleet: Fleet) -> None:
    async with aio_channel(fleet.addresses("control"), token=fleet.token("user"), actor_name="tester") as channel:
        await unavailable(channel)


async def nobody_calls_a_server_of_another_authority(fleet: Fleet, other: Authority) -> None:
    tls = client_tls(other.file, NAME)
    token = fleet.token("user")
    async with aio_channel(fleet.addresses("control"), token=token, actor_name="tester", tls=tls) as channel:
        await unavailable(channel)


async def unavailable(channel: grpc.aio.Channel) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        await TaskServiceStub(channel).CountTasks(CountTasksRequest(), timeout=20)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def tell(home: Path, *arguments: str) -> Any:
    """What tracectl prints."""
    done = await asyncio.to_thread(tracectl, *arguments, home=home)
    assert done.returncode == 0, done.stderr
    return done.stdout
