"""What an operator's code may allocate: the attempt that wants more fails with the reason, and nothing else does."""

import signal
from pathlib import Path

import pytest

from tests.wrapper.fake_state import FakeTask
from tests.wrapper.stack import Stack, at, emits, reads, running_wrapper, writes
from traceapi.types.v1 import task_pb2
from traceapi.types.v1.dag_pb2 import STORAGE_NONE
from traceapi.types.v1.scope_pb2 import CURSOR_TYPE_INT64
from wrapper.memory_ends import kernel_memory_kills, want_of_memory

MIB = 1 << 20
LIMIT = 100 * MIB

# The first task wants what it may not have, in several ways; the others are modest.
AT_ONCE = "bytearray(400 << 20)"
BIT_BY_BIT = "[bytes(1000) for _ in range(1_000_000)]"
ARROW = "__import__('pyarrow').nulls(100_000_000, __import__('pyarrow').int64())"
KEPT = "[KEPT.append(bytes(1000)) for _ in range(1_000_000)]"

CODE = """
KEPT = []
def main(task):
    if task.scope.first == 1:
        {wanted}
    else:
        bytearray(50 << 20)
    task.emit("b")
"""


async def _ended(stack: Stack, code: str, **fields: object) -> list[FakeTask]:
    """Two tasks of a job of that code, once they have ended for good."""
    job = stack.python_job(code, inputs=[reads("a", trigger=True)], outputs=[emits("b")], **fields)
    tasks = await stack.dispatcher.add_tasks(job, [at(1), at(2)])
    for task in tasks:
        task.max_attempts = 1
    await stack.dispatcher.all_end()
    return list(tasks)


@pytest.mark.parametrize("wanted", [AT_ONCE, BIT_BY_BIT, ARROW, KEPT], ids=["at once", "bit by bit", "arrow", "kept"])
@pytest.mark.parametrize("sandbox", ["bubblewrap", "plain"])
async def test_an_attempt_that_wants_more_fails_with_the_reason(stack: Stack, wanted: str, sandbox: str) -> None:
    async with running_wrapper(stack, sandbox=sandbox):
        greedy, modest = await _ended(stack, CODE.format(wanted=wanted), memory_bytes=LIMIT)
    assert greedy.state == "dead"
    assert [failure.error_class for failure in greedy.failures] == [task_pb2.ERROR_CLASS_OUT_OF_MEMORY]
    assert f"the {LIMIT:,} bytes that the code may use" in greedy.failures[0].message
    assert "code_under_test.py" in greedy.failures[0].traceback
    assert (modest.state, modest.failures) == ("succeeded", [])


async def test_the_workers_own_limit_holds_where_a_job_states_none(stack: Stack) -> None:
    code = CODE.format(wanted=AT_ONCE)
    async with running_wrapper(stack, operator_memory_bytes=str(LIMIT)):
        greedy, modest = await _ended(stack, code)
        assert [failure.error_class for failure in greedy.failures] == [task_pb2.ERROR_CLASS_OUT_OF_MEMORY]
        assert modest.state == "succeeded"
        generous = await _ended(stack, code, memory_bytes=600 * MIB)
        assert [task.state for task in generous] == ["succeeded", "succeeded"]


async def test_without_any_limit_there_is_none(stack: Stack) -> None:
    async with running_wrapper(stack):
        tasks = await _ended(stack, CODE.format(wanted=AT_ONCE))
    assert [task.state for task in tasks] == ["succeeded", "succeeded"]


async def test_the_code_cannot_raise_its_limit(stack: Stack) -> None:
    code = """
import resource
_, hard = resource.getrlimit(resource.RLIMIT_DATA)
def main(task):
    assert hard != resource.RLIM_INFINITY
    if task.scope.first == 1:
        resource.setrlimit(resource.RLIMIT_DATA, (hard * 2, hard * 2))
    else:
        resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
        bytearray(400 << 20)
"""
    async with running_wrapper(stack):
        raises, takes = await _ended(stack, code, memory_bytes=LIMIT)
    assert "not allowed to raise maximum limit" in raises.failures[0].message
    assert takes.failures[0].error_class == task_pb2.ERROR_CLASS_OUT_OF_MEMORY


async def test_code_that_cannot_be_loaded_within_its_memory_says_so(stack: Stack) -> None:
    async with running_wrapper(stack):
        tasks = await _ended(stack, "kept = bytearray(400 << 20)\ndef main(task): ...", memory_bytes=LIMIT)
    for task in tasks:
        assert task.failures[0].error_class == task_pb2.ERROR_CLASS_OUT_OF_MEMORY
        assert f"the {LIMIT:,} bytes" in task.failures[0].message


async def test_a_process_that_dies_for_want_of_memory_is_told_from_a_crash(stack: Stack) -> None:
    dies = "__import__('os').execv(__import__('sys').executable, ['python', '-c', 'bytearray(1 << 40)'])"
    async with running_wrapper(stack):
        dead, _ = await _ended(stack, CODE.format(wanted=dies), memory_bytes=LIMIT)
    assert dead.failures[0].error_class == task_pb2.ERROR_CLASS_OUT_OF_MEMORY
    assert f"for want of memory; its code may use {LIMIT:,} bytes" in dead.failures[0].message


async def test_a_built_in_operator_has_the_same_limit(stack: Stack) -> None:
    job = stack.job(
        operator="sql",
        trigger_cursor_type=CURSOR_TYPE_INT64,
        inputs=[reads("zones", trigger=True, storage=STORAGE_NONE)],
        outputs=[writes("b")],
        memory_bytes=LIMIT,
    )
    job.config.update({"sql": "select 1::bigint as number, length(repeat('x', 2000000000)) as n"})
    async with running_wrapper(stack):
        task, *_ = await stack.dispatcher.add_tasks(job, [at(1)])
        task.max_attempts = 1
        await stack.dispatcher.all_end()
    assert [failure.error_class for failure in task.failures] == [task_pb2.ERROR_CLASS_OUT_OF_MEMORY], task.failures


@pytest.mark.parametrize(
    ("number", "kills", "tail", "said"),
    [
        (signal.SIGABRT, 0, "terminate called after ...\n  what():  std::bad_alloc\n", "for want of memory"),
        (0, 0, "Traceback (most recent call last):\n  ...\nMemoryError\n", "for want of memory"),
        (0, 0, "MemoryError\n" + "later lines\n" * 100, ""),
        (signal.SIGKILL, 1, "", "by the kernel, which had no memory left"),
        (signal.SIGKILL, 0, "", ""),
        (signal.SIGSEGV, 1, "", ""),
    ],
)
def test_what_ended_a_process_tells_whether_it_wanted_memory(number: int, kills: int, tail: str, said: str) -> None:
    assert want_of_memory(number, kills, tail) == said


def test_the_kernels_count_is_read_where_it_counts() -> None:
    text = Path("/proc/vmstat").read_text()
    assert kernel_memory_kills() == int((text.partition("\noom_kill ")[2] or "0").split()[0])
