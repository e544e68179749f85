"""Code that does not stop when its task is cancelled: asked by SIGTERM, then ended, with all that it has started. Shut
in and not, because a sandbox is a process between the worker and the code."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernel.ids import new_id
from tests.wrapper.stack import RunningWrapper, Stack, at, emits, reads, running_wrapper, wrapper_service
from traceapi.wrapper.v1.wrapper_service_pb2 import StreamLogsRequest

SANDBOXES = [pytest.param("bubblewrap", marks=pytest.mark.needs_namespaces), "plain"]

# The child has the mark among its arguments, by which it is found from outside of the sandbox.
STARTS_A_CHILD = '''
import os, signal, subprocess, sys, time

DEAF = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(3600)
"""

def main(task):
    child = subprocess.Popen([sys.executable, "-c", DEAF, {mark!r}], stdout=subprocess.PIPE)
    child.stdout.readline()
    {at_sigterm}
    task.progress(1, 2, "steps")
    time.sleep(3600)
'''
OBEYS = "pass"
HEARS_AND_GOES_ON = "signal.signal(signal.SIGTERM, lambda *_: print('SIGTERM was heard', flush=True))"


def _with(mark: str) -> Iterator[int]:
    """Processes of this machine with the mark in their arguments."""
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and mark.encode() in (folder / "cmdline").read_bytes().split(b"\0"):
                yield int(folder.name)
        except OSError:  # it has just ended
            continue


async def _canceled(stack: Stack, sandbox: str, at_sigterm: str) -> str:
    """Cancels a task that does not stop. What it wrote, once its two processes are gone."""
    mark = new_id()
    code = STARTS_A_CHILD.format(mark=mark, at_sigterm=at_sigterm)
    job = stack.python_job(code, inputs=[reads("a", trigger=True)], outputs=[emits("b")])
    settings = {"sandbox": sandbox, "lease_seconds": "6", "cancel_grace_seconds": "0.2"}
    async with running_wrapper(stack, **settings) as running:
        task, *_ = await stack.dispatcher.add_tasks(job, [at(1)])
        await stack.dispatcher.until(lambda: task.progress is not None)
        (child,) = _with(mark)
        parent = _parent(child)
        await stack.dispatcher.cancel(task)
        await stack.dispatcher.all_end()
        assert task.state == "canceled"
        await _until_gone(child, parent)
        return await _written(stack, running)


def _parent(pid: int) -> int:
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(status["PPid"])


async def _until_gone(*pids: int) -> None:
    async with asyncio.timeout(10):
        while any(map(_runs, pids)):  # noqa: ASYNC110 - nobody signals the end of a process that is not a child
            await asyncio.sleep(0.01)


def _runs(pid: int) -> bool:
    """Whether there is such a process, and not only its status to be waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


async def _written(stack: Stack, running: RunningWrapper) -> str:
    async with wrapper_service(stack, running) as service:
        parts = [part async for part in service.StreamLogs(StreamLogsRequest(tail=100))]
    return "".join(line.text for part in parts for line in part.lines)


@pytest.mark.parametrize("sandbox", SANDBOXES)
async def test_code_that_obeys_sigterm_leaves_no_child_that_does_not(stack: Stack, sandbox: str) -> None:
    await _canceled(stack, sandbox, OBEYS)


@pytest.mark.parametrize("sandbox", SANDBOXES)
async def test_code_hears_sigterm_before_it_is_ended_with_its_child(stack: Stack, sandbox: str) -> None:
    assert "SIGTERM was heard" in await _canceled(stack, sandbox, HEARS_AND_GOES_ON)
