"""A dispatcher is killed at each step of the collector: what was given up is as before, or goes on to its end."""

import asyncio
import signal
import uuid
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from dispatcher.db.pool import Pool
from kernel.ids import new_id
from tests.dispatcher.giving_up import GivenUp, fill, replace
from tests.dispatcher.in_process import DEADLINE, InProcess, in_process_dispatcher
from tests.dispatcher.running import running_dispatcher
from traceapi.control.v1 import retention_service_pb2 as pb

NO_WINDOW = {"TRACE_ROLLBACK_VERSIONS": "0", "TRACE_ROLLBACK_DAYS": "0", "TRACE_ORPHAN_SWEEP_SECONDS": "0"}
CRASHING = "tests.dispatcher.crashing"


@pytest.mark.parametrize(
    ("point", "begun"),
    [
        ("condemn.written:1", False),
        ("condemn.committed:1", True),
        ("collect.files:1", True),
        ("collect.files:2", True),
        *((f"collect.{step}:{hit}", True) for step in ("written", "committed") for hit in (1, 2, 4)),
        *((f"collect.finished:{hit}", True) for hit in (1, 2, 3)),
    ],
)
async def test_a_dispatcher_that_dies_while_it_collects_leaves_nothing_dangling(
    pool: Pool, database: str, tmp_path: Path, point: str, begun: bool
) -> None:
    async with in_process_dispatcher(pool, tmp_path / "artifacts") as dispatcher:
        await fill(dispatcher, [1, 2, 3])
        former = await replace(dispatcher)
        before = await former.left(dispatcher)
        request = pb.CollectVersionsRequest(dataset_version_ids=former.ids)
        settings = {**NO_WINDOW, "TEST_CRASH": point}
        async with running_dispatcher(database, tmp_path, settings=settings, module=CRASHING) as dying:
            with pytest.raises(grpc.aio.AioRpcError):
                await dying.retention.CollectVersions(request, timeout=DEADLINE)
            assert await asyncio.wait_for(dying.process.wait(), DEADLINE) == -signal.SIGKILL
        await _nothing_dangles(dispatcher)
        condemned = await dispatcher.value("select count(*) from dataset_version where condemned_at is not null")
        if not begun:
            assert (condemned, await former.left(dispatcher)) == (0, before)
        async with running_dispatcher(database, tmp_path, settings=NO_WINDOW) as running:
            if not begun:
                await running.retention.CollectVersions(request)
            await _gone(dispatcher, former)
        await _nothing_dangles(dispatcher)


async def test_a_dispatcher_that_dies_in_a_sweep_begins_another(pool: Pool, database: str, tmp_path: Path) -> None:
    async with in_process_dispatcher(pool, tmp_path / "artifacts") as dispatcher:
        await fill(dispatcher, [1, 2])
        kept = {found.key for found in dispatcher.store.list("")}
        for _ in range(3):
            dispatcher.store.put_bytes(f"data/{new_id()}/{uuid.uuid4()}-1-0.parquet", b"x")
        settings = {"TRACE_ORPHAN_GRACE_SECONDS": "0", "TRACE_ORPHAN_SWEEP_SECONDS": "1"}
        dies = {**settings, "TEST_CRASH": "sweep.deleted:1"}
        async with running_dispatcher(database, tmp_path, settings=dies, module=CRASHING) as dying:
            assert await asyncio.wait_for(dying.process.wait(), DEADLINE) == -signal.SIGKILL
        dispatcher.store.put_bytes(f"data/{new_id()}/{uuid.uuid4()}-1-0.parquet", b"x")
        async with running_dispatcher(database, tmp_path, settings=settings):
            await _until_true(lambda: {found.key for found in dispatcher.store.list("")} == kept)
        await _nothing_dangles(dispatcher)


async def _gone(dispatcher: InProcess, former: GivenUp) -> None:
    """By the duty alone."""
    async with asyncio.timeout(DEADLINE):
        while await former.left(dispatcher):
            await _a_moment()


async def _until_true(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():
            await _a_moment()


async def _a_moment() -> None:
    """Between two looks at what another process does."""
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.Event().wait(), 0.02)


async def _nothing_dangles(dispatcher: InProcess) -> None:
    """What can be read has its files, and every row has what it points to."""
    keys = await dispatcher.rows(
        "select a.object_key from artifact a join dataset_version v using (dataset_version_id)"
        " where v.condemned_at is null"
    )
    assert {key for (key,) in keys} <= {found.key for found in dispatcher.store.list("")}
    for query in (
        "select count(*) from artifact a where not exists"
        " (select 1 from dataset_version v where v.dataset_version_id = a.dataset_version_id)",
        "select count(*) from event e where not exists"
        " (select 1 from dataset_version v where v.dataset_version_id = e.dataset_version_id)",
        "select count(*) from any_task t where not exists"
        " (select 1 from job_version j where j.job_version_id = t.job_version_id)",
        "select count(*) from attempt a where not exists (select 1 from task t where t.task_id = a.task_id)",
        "select count(*) from job_version j where not exists"
        " (select 1 from job_output o where o.job_version_id = j.job_version_id)",
    ):
        assert await dispatcher.value(query) == 0, query
