"""The program as a whole: how it starts, what it tells, how it ends, and that nothing outlives it."""

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import grpc
import pytest

from kernel.channels import aio_channel
from tests.wrapper.stack import Stack, at, emits, reads, running_wrapper, wrapper_service, writes
from traceapi.wrapper.v1 import wrapper_service_pb2 as wrapper_pb2
from traceapi.wrapper.v1.wrapper_service_pb2_grpc import WrapperServiceStub

WAITS = """
import sys
def main(task):
    task.log.info("begun", cursor=task.scope.first)
    print("said aloud", flush=True)
    task.progress(1, 2, "steps")
    while not task.canceled:
        pass
"""
WAITS_FOR_FILE = """
import time
def main(task):
    task.progress(1, 2, "steps")
    time.sleep(1)
    task.emit("b")
"""
IDLE_SOURCE = """
from tracesdk.operators import Source
class main(Source):
    def run(self, source):
        source.emit_batch([], b"state")
        while not source.wait(60):
            pass
"""


async def test_status_tasks_and_logs_are_told_to_users(stack: Stack) -> None:
    job = stack.python_job(WAITS, job="waits", inputs=[reads("a", trigger=True)], outputs=[emits("b")])
    async with running_wrapper(stack, lease_seconds="1", queues="default,other") as running:
        task, *_ = await stack.dispatcher.add_tasks(job, [at(7)])
        await stack.dispatcher.until(lambda: task.progress is not None)
        async with wrapper_service(stack, running) as service:
            status = await service.GetStatus(wrapper_pb2.GetStatusRequest())
            listed = await service.ListRunningTasks(wrapper_pb2.ListRunningTasksRequest())
            lines = [
                line
                async for page in service.StreamLogs(wrapper_pb2.StreamLogsRequest(task_id=task.task_id))
                for line in page.lines
            ]
            spoken = [line async for page in service.StreamLogs(wrapper_pb2.StreamLogsRequest()) for line in page.lines]
        await stack.dispatcher.cancel(task)
        await stack.dispatcher.all_end()
    assert (status.worker_id, list(status.queues), status.running_tasks) == (
        running.worker_id,
        ["default", "other"],
        1,
    )
    assert status.phase == wrapper_pb2.WORKER_PHASE_SERVING
    assert [(row.task_id, row.attempt, row.job, row.progress.done) for row in listed.tasks] == [
        (task.task_id, 1, "waits", 1)
    ]
    assert [(line.level, line.text) for line in lines] == [("info", "begun cursor=7.0")]
    assert ("stdout", "said aloud") in [(line.level, line.text) for line in spoken]


async def test_workers_may_not_ask_and_nobody_without_a_token(stack: Stack) -> None:
    async with running_wrapper(stack) as running:
        for token in (stack.worker_token.read_text().strip(), None):
            async with aio_channel(running.address, token=token, actor_name="test") as channel:
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await WrapperServiceStub(channel).GetStatus(wrapper_pb2.GetStatusRequest())
                assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_drained_worker_takes_nothing_until_it_is_undone(stack: Stack) -> None:
    job = stack.python_job(WAITS_FOR_FILE, inputs=[reads("a", trigger=True)], outputs=[emits("b")])
    async with running_wrapper(stack) as running, wrapper_service(stack, running) as service:
        drained = await service.Drain(wrapper_pb2.DrainRequest())
        await stack.dispatcher.until(lambda: not stack.dispatcher.watchers)
        task, *_ = await stack.dispatcher.add_tasks(job, [at(1)])
        assert drained.phase == wrapper_pb2.WORKER_PHASE_DRAINING
        assert task.state == "queued"
        await service.Drain(wrapper_pb2.DrainRequest(undo=True))
        await stack.dispatcher.all_end()
        assert task.state == "succeeded"


async def test_sigterm_lets_work_in_hand_end(stack: Stack) -> None:
    job = stack.python_job(WAITS_FOR_FILE, inputs=[reads("a", trigger=True)], outputs=[emits("b")])
    async with running_wrapper(stack, lease_seconds="1") as running:
        task, *_ = await stack.dispatcher.add_tasks(job, [at(1)])
        await stack.dispatcher.until(lambda: bool(stack.dispatcher.heartbeats))  # it is in the wrapper's hands
        assert await running.stop() == 0
    assert (task.state, task.attempt) == ("succeeded", 1)


async def test_sigterm_hands_back_what_does_not_end(stack: Stack) -> None:
    """A source never ends, other work may not in time: they are queued again at once, and charged with nothing."""
    source = stack.python_job(IDLE_SOURCE, source=True, outputs=[writes("numbers")])
    endless = stack.python_job(WAITS, inputs=[reads("a", trigger=True)], outputs=[emits("b")])
    async with running_wrapper(stack, drain_seconds="0.5", lease_seconds="60") as running:
        run = await stack.dispatcher.add_task(source)
        task, *_ = await stack.dispatcher.add_tasks(endless, [at(1)])
        await stack.dispatcher.until(
            lambda: source.job_version_id in stack.dispatcher.states and task.state == "running"
        )
        assert await running.stop() == 0
    assert [(one.state, one.returned, one.failures) for one in (run, task)] == [("queued", 1, [])] * 2


@pytest.mark.parametrize("sandbox", ["bubblewrap", "plain"])
async def test_operators_processes_die_with_a_wrapper_that_is_killed(stack: Stack, sandbox: str) -> None:
    job = stack.python_job(WAITS, inputs=[reads("a", trigger=True)], outputs=[emits("b")])
    async with running_wrapper(stack, lease_seconds="1", sandbox=sandbox) as running:
        task, *_ = await stack.dispatcher.add_tasks(job, [at(1)])
        await stack.dispatcher.until(lambda: task.progress is not None)
        children = list(_descendants(running.process.pid))
        assert children
        await running.kill()
        await asyncio.gather(*[_gone(child) for child in children])


def _descendants(pid: int) -> Iterator[int]:
    for thread in Path(f"/proc/{pid}/task").iterdir():
        for child in (thread / "children").read_text().split():
            yield int(child)
            yield from _descendants(int(child))


async def _gone(pid: int) -> None:
    """Waits, by its descriptor, until a process of somebody else's has ended."""
    with suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(descriptor, ended.set)
        try:
            async with asyncio.timeout(5):
                await ended.wait()
        finally:
            asyncio.get_running_loop().remove_reader(descriptor)
            os.close(descriptor)


async def test_the_work_dir_is_wiped_at_start_and_nothing_else_of_it(stack: Stack) -> None:
    work_dir = stack.root / "wrapper"
    for name in ("outputs", "bundles", "mine"):
        (work_dir / name).mkdir(parents=True)
        (work_dir / name / "left").write_text("over")
        (work_dir / name / "left").chmod(0o400)
    async with running_wrapper(stack):
        assert not (work_dir / "outputs" / "left").exists()
        assert not (work_dir / "bundles" / "left").exists()
    assert (work_dir / "mine" / "left").read_text() == "over"


async def test_two_workers_do_not_share_a_work_dir(stack: Stack) -> None:
    async with running_wrapper(stack):
        with pytest.raises(AssertionError, match="in use by another worker"):
            async with running_wrapper(stack):
                pass


async def test_nothing_is_left_in_the_work_dir_after_work(stack: Stack) -> None:
    table = "import pyarrow as pa\ndef main(task):\n    return pa.table({'number': [task.scope.first]})\n"
    job = stack.python_job(table, inputs=[reads("a", trigger=True)], outputs=[writes("b")])
    async with running_wrapper(stack):
        await stack.dispatcher.add_tasks(job, [at(1), at(2)])
        await stack.dispatcher.all_end()
        assert list((stack.root / "wrapper" / "outputs").iterdir()) == []


async def test_settings_that_cannot_be_used_are_all_told(tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TRACE_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "wrapper.main"),
        stderr=asyncio.subprocess.PIPE,
        env={**environment, "TRACE_CAPACITY": "many"},
        cwd=tmp_path,
    )
    _, said = await process.communicate()
    assert process.returncode == 2
    for name in (b"TRACE_DISPATCHER_ADDRESS", b"TRACE_WORKER_TOKEN_FILE", b"TRACE_CAPACITY: 'many'"):
        assert name in said


async def test_a_process_without_work_is_let_go_and_a_new_one_does_the_next_task(stack: Stack) -> None:
    tells = "import os, pyarrow as pa\ndef main(task):\n    return pa.table({'number': [task.scope.first]})\n"
    job = stack.python_job(tells, inputs=[reads("a", trigger=True)], outputs=[writes("b")])
    async with running_wrapper(stack, idle_process_seconds="0.1") as running:
        await stack.dispatcher.add_tasks(job, [at(1)])
        await stack.dispatcher.all_end()
        await asyncio.gather(*[_gone(pid) for pid in _descendants(running.process.pid)])
        task, *_ = await stack.dispatcher.add_tasks(job, [at(2)])
        await stack.dispatcher.all_end()
    assert (task.state, task.attempt) == ("succeeded", 1)
