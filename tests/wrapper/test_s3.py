"""A worker whose artifacts are on S3: what it writes and reads, and that an outage of the store costs no attempt."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from kernel.ids import new_id
from tests.s3_faults import Answer, Faults, faulty_path_to
from tests.s3_server import BUCKET, READER, S3Server
from tests.wrapper.stack import Stack, between, open_stack, reads, running_wrapper, writes

FILLS = """
import pyarrow as pa
def main(task):
    numbers = range(task.scope.first, task.scope.last + 1)
    task.write_and_emit(task.job.output("numbers"), pa.table({"number": pa.array(numbers, pa.int64())}))
"""
DOUBLES = """
import pyarrow as pa
def main(task):
    numbers = task.read("numbers").column("number").to_pylist()
    doubled = {"number": numbers, "double": [2 * number for number in numbers]}
    task.write_and_emit(task.job.output("doubles"), pa.table(doubled))
"""


@pytest.fixture
def prefix() -> str:
    return new_id()


@pytest_asyncio.fixture
async def faults(s3: S3Server) -> AsyncIterator[Faults]:
    with faulty_path_to(s3.endpoint) as found:
        yield found


@pytest_asyncio.fixture
async def stack(s3: S3Server, faults: Faults, prefix: str, tmp_path: Path) -> AsyncIterator[Stack]:
    async with open_stack(tmp_path, s3.url(prefix, endpoint=faults.endpoint)) as opened:
        yield opened


async def test_files_are_written_to_the_store_and_read_from_it(stack: Stack, faults: Faults, prefix: str) -> None:
    """Through answers of 503, as of a store that is away for a while: every task succeeds at its first attempt."""
    fills = stack.python_job(FILLS, inputs=[reads("a", trigger=True)], outputs=[writes("numbers")])
    doubles = stack.python_job(
        DOUBLES, inputs=[reads("a", trigger=True), reads("numbers")], outputs=[writes("doubles")]
    )
    files = f"/{BUCKET}/{prefix}/data/"
    async with running_wrapper(stack, lease_seconds="60"):
        faults.plan(f"PUT {files}", Answer(503), times=9)
        filling = await stack.dispatcher.add_tasks(fills, [between(1, 10), between(11, 20)])
        await stack.dispatcher.all_end()
        faults.plan(f"HEAD {files}", Answer(503), times=9)
        faults.plan(f"GET {files}", Answer(503), times=5)
        doubling = await stack.dispatcher.add_tasks(doubles, [between(5, 12)])
        await stack.dispatcher.all_end()
    assert {(task.state, task.attempt) for task in filling + doubling} == {("succeeded", 1)}
    (written,) = [event.artifact for event in stack.dispatcher.events_of("doubles") if event.artifact]
    assert stack.table(written.key) == [{"number": number, "double": 2 * number} for number in range(5, 13)]


async def test_a_worker_that_may_not_write_does_not_start(stack: Stack) -> None:
    stack.environment.update(READER.environment)
    with pytest.raises(AssertionError, match="s3:PutObject"):
        async with running_wrapper(stack):
            pass
