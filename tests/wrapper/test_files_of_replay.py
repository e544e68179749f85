"""What `replay` reads on its worker: what travelled with the document, which is data and never code."""

from tests.wrapper.stack import Stack, running_wrapper, writes
from traceapi.types.v1.job_pb2 import JobDetails

COLUMNS = {"number": "int64"}


def replayed(stack: Stack, path: str, **fields: object) -> JobDetails:
    """A job that replays the column `number` of the file."""
    job = stack.job(source=True, operator="replay", outputs=[writes("x.numbers", schema=COLUMNS)], **fields)
    job.config.update({"path": path, "cursor": "number"})
    return job


async def test_a_replayed_file_is_never_imported(stack: Stack) -> None:
    """Its process has the worker's rights: what a document brings along must not become its code."""
    job = replayed(stack, "wrapper.py", bundles={"wrapper.py": stack.bundle({"wrapper.py": "number\n1\n"})})
    async with running_wrapper(stack):
        run = await stack.dispatcher.add_task(job)
        await stack.dispatcher.all_end()
    assert [failure.message for failure in run.failures] == []
    assert len(stack.dispatcher.events_of("x.numbers")) == 1
