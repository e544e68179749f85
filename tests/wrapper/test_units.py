"""A unit's life: claimed, done by a real operator process, published, completed; and every way in which it ends
otherwise."""

from google.protobuf.duration_pb2 import Duration

from kernel.errors import item_error
from tests.wrapper.stack import Stack, at, between, emits, reads, running_wrapper, writes
from traceapi.types.v1 import errors_pb2 as errors
from traceapi.types.v1 import task_pb2

TABLE = """
import pyarrow as pa
def main(task):
    number = task.scope.first
    return pa.table({"number": pa.array([number, number], pa.int64()), "word": ["b", "a"]})
"""


async def test_rows_become_a_file_an_event_and_a_success(stack: Stack) -> None:
    job = stack.python_job(TABLE, inputs=[reads("a", trigger=True)], outputs=[writes("b", sort=["word"])])
    async with running_wrapper(stack):
        task, *_ = await stack.dispatcher.add_tasks(job, [at(7)])
        await stack.dispatcher.all_end()
    assert (task.state, task.attempt, task.failures) == ("succeeded", 1, [])
    (accepted,) = stack.dispatcher.events_of("b")
    assert accepted.artifact is not None
    version = job.outputs[0].dataset_version_id
    assert accepted.artifact.key == f"data/{version}/{task.task_id}-1-0.parquet"
    assert stack.table(accepted.artifact.key) == [{"number": 7, "word": "a"}, {"number": 7, "word": "b"}]
    stored = stack.store.stat(accepted.artifact.key, digest=True)
    assert stored is not None
    assert stored.sha256 == accepted.artifact.sha256
    assert stored.size_bytes == accepted.artifact.size_bytes
    assert dict(accepted.artifact.schema) == {"number": "int64", "word": "string"}
    assert task.usage is not None
    assert task.usage.rows_written == 2


RAISES = """
def main(task):
    raise ValueError(f"attempt {task.attempt} of {task.scope.first} is not to succeed")
"""


async def test_code_that_raises_is_retried_and_then_dead_with_its_traceback(stack: Stack) -> None:
    job = stack.python_job(RAISES, inputs=[reads("a", trigger=True)], outputs=[writes("b")])
    async with running_wrapper(stack):
        task, *_ = await stack.dispatcher.add_tasks(job, [at(7)])
        await stack.dispatcher.all_end()
    assert (task.state, task.attempt) == ("dead", 3)
    assert [failure.error_class for failure in task.failures] == [task_pb2.ERROR_CLASS_USER] * 3
    assert "attempt 3 of 7 is not to succeed" in task.failures[-1].message
    assert 'code_under_test.py", line 3, in main' in task.failures[-1].traceback
    assert stack.dispatcher.events == {}


CRASHES = """
import os, sys, pyarrow as pa
def main(task):
    if task.attempt == 1:
        print("the last words", file=sys.stderr, flush=True)
        os.kill(os.getpid(), 11)
    return pa.table({"number": [task.scope.first]})
"""


async def test_a_crash_fails_with_the_end_of_stderr_and_a_new_process_does_the_next_attempt(stack: Stack) -> None:
    job = stack.python_job(CRASHES, inputs=[reads("a", trigger=True)], outputs=[writes("b")])
    async with running_wrapper(stack):
        task, *_ = await stack.dispatcher.add_tasks(job, [at(7)])
        await stack.dispatcher.all_end()
    (failure,) = task.failures
    assert failure.error_class == task_pb2.ERROR_CLASS_CRASH
    assert "the last words" in failure.traceback
    assert (task.state, task.attempt) == ("succeeded", 2)


HANGS = """
import time, pyarrow as pa
def main(task):
    if task.scope.first == 1 and task.attempt == 1:
        time.sleep(3600)
    return pa.table({"number": [task.scope.first]})
"""


async def test_a_timeout_ends_the_process_and_only_its_own_task_pays(stack: Stack) -> None:
    job = stack.python_job(HANGS, timeout=Duration(seconds=1), inputs=[reads("a", trigger=True)], outputs=[writes("b")])
    async with running_wrapper(stack):
        hanging, innocent = await stack.dispatcher.add_tasks(job, [at(1), at(2)])
        await stack.dispatcher.all_end()
    assert [failure.error_class for failure in hanging.failures] == [task_pb2.ERROR_CLASS_TIMEOUT]
    assert (hanging.state, hanging.attempt) == ("succeeded", 2)
    # It waited in the same process, which was ended under it: given to the next one within the same attempt.
    assert (innocent.state, innocent.attempt, innocent.failures) == ("succeeded", 1, [])


WAITS = """
def main(task):
    task.progress(1, 2, "steps")
    while not task.canceled:
        pass
    task.emit("b", now=True)
"""


BUSY = """
import time
def main(task):
    while not task.canceled:
        time.sleep(0.01)
    task.check_canceled()
"""


async def test_a_task_that_is_cancelled_before_its_turn_ends_without_the_one_that_has_it(stack: Stack) -> None:
    """Both are in the one process' hands; the first goes on."""
    job = stack.python_job(BUSY, inputs=[reads("a", trigger=True)], outputs=[emits("b")])
    async with running_wrapper(stack, lease_seconds="1", cancel_grace_seconds="60"):
        first, second = await stack.dispatcher.add_tasks(job, [at(1), at(2)])
        await stack.dispatcher.until(lambda: second.state == "running")
        await stack.dispatcher.cancel(second)
        await stack.dispatcher.until(lambda: second.state == "canceled")
        assert (first.state, first.attempt) == ("running", 1)
        await stack.dispatcher.cancel(first)
        await stack.dispatcher.all_end()
    assert (first.state, first.failures) == ("canceled", [])


async def test_a_cancelled_task_is_told_and_ends_as_canceled(stack: Stack) -> None:
    job = stack.python_job(WAITS, inputs=[reads("a", trigger=True)], outputs=[emits("b")])
    async with running_wrapper(stack, lease_seconds="1"):
        task, *_ = await stack.dispatcher.add_tasks(job, [at(1)])
        await stack.dispatcher.until(lambda: task.progress is not None)
        await stack.dispatcher.cancel(task)
        await stack.dispatcher.all_end()
    assert (task.state, task.failures) == ("canceled", [])
    assert stack.dispatcher.events == {}


async def test_nothing_is_reported_of_a_lost_lease(stack: Stack) -> None:
    job = stack.python_job(WAITS, inputs=[reads("a", trigger=True)], outputs=[emits("b")])
    async with running_wrapper(stack, lease_seconds="1"):
        task, *_ = await stack.dispatcher.add_tasks(job, [at(1)])
        await stack.dispatcher.until(lambda: task.progress is not None)
        stack.dispatcher.lose_lease(task)
        beats = len(stack.dispatcher.heartbeats)
        await stack.dispatcher.until(lambda: len(stack.dispatcher.heartbeats) > beats)
    assert stack.dispatcher.calls["CompleteTasks"] + stack.dispatcher.calls["SettleTasks"] == 0
    assert stack.dispatcher.calls["EmitEvents"] == 0


async def test_a_column_that_is_not_declared_makes_the_task_dead_at_once(stack: Stack) -> None:
    output = writes("b", schema={"number": "int64", "word": "int32"})
    job = stack.python_job(TABLE, inputs=[reads("a", trigger=True)], outputs=[output])
    async with running_wrapper(stack):
        task, *_ = await stack.dispatcher.add_tasks(job, [at(7)])
        await stack.dispatcher.all_end()
    assert (task.state, task.attempt) == ("dead", 1)
    assert task.failures[0].error_class == task_pb2.ERROR_CLASS_INVALID_OUTPUT
    assert "word" in task.failures[0].message


async def test_a_refused_emit_fails_the_attempt_with_its_reason(stack: Stack) -> None:
    job = stack.python_job(TABLE, inputs=[reads("a", trigger=True)], outputs=[writes("b")])
    stack.dispatcher.refuse_events = lambda _item: item_error(errors.ERROR_REASON_SCOPE_OVERLAP, "it overlaps")
    async with running_wrapper(stack):
        task, *_ = await stack.dispatcher.add_tasks(job, [at(7)])
        await stack.dispatcher.all_end()
    assert (task.state, task.attempt) == ("dead", 1)
    assert task.failures[0].error_class == task_pb2.ERROR_CLASS_INVALID_OUTPUT
    assert task.failures[0].message == "SCOPE_OVERLAP: it overlaps"


MANY = """
def main(task):
    for number in range(task.scope.first, task.scope.last + 1):
        task.emit("b", type(task.scope).at(number))
"""


async def test_more_events_than_one_emit_may_have_are_split(stack: Stack) -> None:
    job = stack.python_job(MANY, max_events_per_emit=10, inputs=[reads("a", trigger=True)], outputs=[emits("b")])
    async with running_wrapper(stack):
        task, *_ = await stack.dispatcher.add_tasks(job, [between(1, 95)])
        await stack.dispatcher.all_end()
    assert (task.state, task.accepted) == ("succeeded", 95)


async def test_parts_of_a_tasks_events_are_under_way_together(stack: Stack) -> None:
    job = stack.python_job(MANY, max_events_per_emit=10, inputs=[reads("a", trigger=True)], outputs=[emits("b")])
    stack.dispatcher.emits_together = 8
    async with running_wrapper(stack):
        task, *_ = await stack.dispatcher.add_tasks(job, [between(1, 95)])
        await stack.dispatcher.all_end()
    assert (task.state, task.accepted) == ("succeeded", 95)


async def test_calls_that_fail_before_or_after_they_took_effect_are_repeated_and_burn_no_attempt(stack: Stack) -> None:
    job = stack.python_job(TABLE, inputs=[reads("a", trigger=True)], outputs=[writes("b")])
    for name in ("ClaimTasks", "SettleTasks", "Heartbeat", "ResolveInputs"):
        stack.dispatcher.faults[name].extend(["before", "after", "after"])
    async with running_wrapper(stack):
        task, *_ = await stack.dispatcher.add_tasks(job, [at(7)])
        await stack.dispatcher.all_end()
    assert (task.state, task.attempt, task.failures) == ("succeeded", 1, [])
    assert len({request.request_id for request in stack.dispatcher.claim_requests}) == 1
    assert len(stack.dispatcher.events_of("b")) == 1


async def test_a_stream_of_wakeups_that_breaks_is_opened_again(stack: Stack) -> None:
    job = stack.python_job(TABLE, inputs=[reads("a", trigger=True)], outputs=[writes("b")])
    async with running_wrapper(stack):
        stack.dispatcher.faults["Watch"].append("once")
        await stack.dispatcher.notify()
        task, *_ = await stack.dispatcher.add_tasks(job, [at(7)])
        await stack.dispatcher.all_end()
    assert task.state == "succeeded"
    assert stack.dispatcher.calls["WatchWakeups"] >= 2


async def test_a_stream_of_wakeups_that_broke_takes_no_credits_from_the_next_one(stack: Stack) -> None:
    """Credits that were granted on it reached nobody: a worker that counts them is never woken again."""
    job = stack.job(operator="noop", inputs=[reads("a", trigger=True)], outputs=[emits("b")])
    async with running_wrapper(stack, capacity="1"):
        await stack.dispatcher.add_task(job, at(0))
        await stack.dispatcher.all_end()  # so the call is not repeated below the worker: it has had an answer
        stack.dispatcher.faults["Watch"].append("once")
        await stack.dispatcher.notify()
        await stack.dispatcher.until(lambda: stack.dispatcher.calls["WatchWakeups"] == 2)
        await stack.dispatcher.add_tasks(job, [at(number) for number in range(1, 11)])
        await stack.dispatcher.all_end()
        await stack.dispatcher.until(lambda: list(stack.dispatcher.watchers.values()) == [2])


async def test_wakeups_that_arrive_together_are_claimed_together(stack: Stack) -> None:
    job = stack.python_job(TABLE, inputs=[reads("a", trigger=True)], outputs=[writes("b")])
    async with running_wrapper(stack, capacity="8"):
        tasks = await stack.dispatcher.add_tasks(job, [at(number) for number in range(10)])
        await stack.dispatcher.all_end()
    assert {task.state for task in tasks} == {"succeeded"}
    assert len(stack.dispatcher.claim_requests[0].task_ids) == 10


async def test_credits_for_which_the_window_has_become_too_small_are_taken_back(stack: Stack) -> None:
    """They grew while units were short; with nothing to do any more, the worker stands by with its least window."""
    job = stack.job(operator="noop", inputs=[reads("a", trigger=True)], outputs=[emits("b")])
    async with running_wrapper(stack, capacity="2"):
        await stack.dispatcher.add_tasks(job, [at(number) for number in range(500)])
        await stack.dispatcher.all_end()
        await stack.dispatcher.until(lambda: list(stack.dispatcher.watchers.values()) == [4])
    assert min(stack.dispatcher.grants) < 0


async def test_a_missing_bundle_fails_with_a_clear_reason(stack: Stack) -> None:
    job = stack.job(
        operator="python",
        entrypoint="a:b",
        bundles={"./x": "0" * 64},
        inputs=[reads("a", trigger=True)],
        outputs=[emits("b")],
    )
    async with running_wrapper(stack):
        task, *_ = await stack.dispatcher.add_tasks(job, [at(7)])
        await stack.dispatcher.all_end()
    assert task.failures[0].error_class == task_pb2.ERROR_CLASS_TRANSIENT
    assert "0000" in task.failures[0].message


TWO_CRASH = """
import os, pyarrow as pa
def main(task):
    if task.scope.first == 1 and task.attempt == 1:
        os.kill(os.getpid(), 9)
    return pa.table({"number": [task.scope.first]})
"""


async def test_a_unit_that_a_crashed_process_was_never_handed_does_not_pay_for_it(stack: Stack) -> None:
    job = stack.python_job(TWO_CRASH, inputs=[reads("a", trigger=True)], outputs=[writes("b")])
    async with running_wrapper(stack, capacity="1"):
        guilty, waiting = await stack.dispatcher.add_tasks(job, [at(1), at(2)])
        await stack.dispatcher.all_end()
    assert [failure.error_class for failure in guilty.failures] == [task_pb2.ERROR_CLASS_CRASH]
    assert (waiting.state, waiting.attempt, waiting.failures) == ("succeeded", 1, [])


DIES_AT_IMPORT = """
import os
os.kill(os.getpid(), 9)
"""


async def test_a_process_that_never_gets_to_work_fails_its_tasks_in_the_end(stack: Stack) -> None:
    job = stack.python_job(DIES_AT_IMPORT, inputs=[reads("a", trigger=True)], outputs=[emits("b")])
    async with running_wrapper(stack):
        task, *_ = await stack.dispatcher.add_tasks(job, [at(1)])
        task.max_attempts = 1
        await stack.dispatcher.all_end()
    assert [failure.error_class for failure in task.failures] == [task_pb2.ERROR_CLASS_CRASH]
    assert "SIGKILL" in task.failures[0].message


async def test_a_store_that_fails_is_a_failure_that_passes(stack: Stack) -> None:
    job = stack.python_job(TABLE, inputs=[reads("a", trigger=True)], outputs=[writes("b")])
    (stack.root / "artifacts" / "data").write_text("a file where a folder is to be")
    async with running_wrapper(stack):
        task, *_ = await stack.dispatcher.add_tasks(job, [at(1)])
        task.max_attempts = 1
        await stack.dispatcher.all_end()
    assert task.failures[0].error_class == task_pb2.ERROR_CLASS_TRANSIENT
    assert "the artifact store failed" in task.failures[0].message


async def test_a_fresh_task_does_not_wait_for_the_answer_to_a_claim_of_others(stack: Stack) -> None:
    job = stack.python_job(TABLE, inputs=[reads("a", trigger=True)], outputs=[writes("b")])
    async with running_wrapper(stack):
        (slow,) = stack.dispatcher.new_tasks(job, [at(1)])
        stack.dispatcher.slow.add(slow.task_id)
        await stack.dispatcher.notify()
        await stack.dispatcher.until(lambda: bool(stack.dispatcher.claim_requests))
        (fresh,) = await stack.dispatcher.add_tasks(job, [at(2)])
        await stack.dispatcher.until(lambda: fresh.state == "succeeded")
        assert slow.attempt == 0
        stack.dispatcher.slow.clear()
        await stack.dispatcher.all_end()
    assert (slow.state, slow.attempt, len(stack.dispatcher.claim_requests)) == ("succeeded", 1, 2)
