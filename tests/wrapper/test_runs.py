"""Ordered runs: one unit with many tasks, one state; and sources, which resume from theirs."""

import time

from kernel.errors import item_error
from kernel.ids import new_id
from tests.wrapper.stack import Stack, at, emits, reads, running_wrapper, wrapper_service, writes
from traceapi.types.v1 import errors_pb2, task_pb2
from traceapi.types.v1.job_pb2 import JobDetails
from traceapi.types.v1.scope_pb2 import CURSOR_TYPE_INT64
from traceapi.wrapper.v1.wrapper_service_pb2 import GetStatusRequest
from wrapper.endings import Failed, ending_of_refusal

SUMS = """
from tracesdk.operators import OrderedOperator

class main(OrderedOperator):
    def process(self, run):
        total = int(run.state or b"0")
        for task in run.tasks:
            total += task.scope.first
            if task.scope.first % 100 == 0:
                task.emit("sums", type(task.scope).at(total))
        run.set_state(str(total).encode())
"""


async def test_a_run_hands_on_its_state_and_emits_for_the_tasks_that_say_so(stack: Stack) -> None:
    job = stack.python_job(
        SUMS,
        ordered=True,
        trigger_cursor_type=CURSOR_TYPE_INT64,
        inputs=[reads("a", trigger=True)],
        outputs=[emits("sums")],
    )
    async with running_wrapper(stack):
        tasks = await stack.dispatcher.add_tasks(job, [at(number) for number in range(1, 1201)])
        await stack.dispatcher.all_end()
    assert {task.state for task in tasks} == {"succeeded"}
    assert stack.dispatcher.states[job.job_version_id].data == str(sum(range(1, 1201))).encode()
    assert stack.dispatcher.states[job.job_version_id].version == 3
    found = [(one.producer, one.event.scope.cursor.int64_value) for one in stack.dispatcher.events_of("sums")]
    assert found == [(tasks[n - 1].task_id, sum(range(1, n + 1))) for n in range(100, 1201, 100)]


STUMBLES = """
def main(task):
    if task.scope.first == 5 and task.attempt == 1:
        raise ValueError("five")
    task.emit("b")
"""


async def test_what_a_run_did_before_it_failed_has_succeeded(stack: Stack) -> None:
    job = stack.python_job(STUMBLES, ordered=True, inputs=[reads("a", trigger=True)], outputs=[emits("b")])
    async with running_wrapper(stack):
        tasks = await stack.dispatcher.add_tasks(job, [at(number) for number in range(1, 9)])
        await stack.dispatcher.all_end()
    assert {task.state for task in tasks} == {"succeeded"}
    assert [task.attempt for task in tasks] == [1, 1, 1, 1, 2, 2, 2, 2]
    # The first of what is left bears the failure, with its traceback.
    assert [len(task.failures) for task in tasks] == [0, 0, 0, 0, 1, 0, 0, 0]
    assert "ValueError: five" in tasks[4].failures[0].traceback
    assert len(stack.dispatcher.events_of("b")) == 8


async def test_tasks_that_were_emitted_by_an_earlier_holder_only_complete(stack: Stack) -> None:
    job = stack.python_job(STUMBLES, ordered=True, inputs=[reads("a", trigger=True)], outputs=[emits("b")])
    stack.dispatcher.paused = True
    tasks = await stack.dispatcher.add_tasks(job, [at(number) for number in (1, 2, 3)])
    tasks[0].run_emitted = True
    async with running_wrapper(stack):
        stack.dispatcher.paused = False
        await stack.dispatcher.notify()
        await stack.dispatcher.all_end()
    assert [one.producer for one in stack.dispatcher.events_of("b")] == [tasks[1].task_id, tasks[2].task_id]


SOURCE = """
import os
from tracesdk.operators import Source
from tracesdk.scopes import Scope
from tracesdk.source import SourceEvent
import pyarrow as pa

class main(Source):
    def run(self, source):
        first = int(source.state or b"0")
        for start in range(first, 50, 10):
            rows = pa.table({"number": pa.array(range(start, start + 10), pa.int64())})
            output = source.write("numbers", rows, Scope.between(start, start + 9))
            events = [SourceEvent("numbers", Scope.at(n), output) for n in range(start, start + 10)]
            source.emit_batch(events, str(start + 10).encode(), {"numbers": start + 9})
            if source.attempt == 1 and start == 20:
                os.kill(os.getpid(), 9)
"""


async def test_a_source_resumes_from_its_last_accepted_state(stack: Stack) -> None:
    job = stack.python_job(SOURCE, source=True, outputs=[writes("numbers")])
    async with running_wrapper(stack):
        run = await stack.dispatcher.add_task(job)
        await stack.dispatcher.all_end()
    assert (run.state, run.attempt) == ("succeeded", 2)
    assert [failure.error_class for failure in run.failures] == [task_pb2.ERROR_CLASS_CRASH]
    events = stack.dispatcher.events_of("numbers")
    assert [one.event.scope.cursor.int64_value for one in events] == list(range(50))
    assert [one.attempt for one in events] == [1] * 30 + [2] * 20
    assert stack.dispatcher.watermarks["numbers"].int64_value == 49
    files = {one.artifact.key: one.artifact for one in events if one.artifact is not None}
    assert [row["number"] for key in files for row in stack.table(key)] == list(range(50))


async def test_ordered_runs_pass_at_three_thousand_tasks_a_second(stack: Stack) -> None:
    job = stack.python_job(SUMS, ordered=True, inputs=[reads("a", trigger=True)], outputs=[emits("sums")])
    warm_up, count = 500, 12_000
    async with running_wrapper(stack) as running:
        await stack.dispatcher.add_tasks(job, [at(number) for number in range(warm_up)])
        await stack.dispatcher.all_end()
        calls = sum(stack.dispatcher.calls.values())
        tasks = await stack.dispatcher.add_tasks(job, [at(number) for number in range(warm_up, warm_up + count)])
        started = time.monotonic()
        await stack.dispatcher.all_end()
        took = time.monotonic() - started
        calls = sum(stack.dispatcher.calls.values()) - calls
        async with wrapper_service(stack, running) as service:
            status = await service.GetStatus(GetStatusRequest())
    assert {task.state for task in tasks} == {"succeeded"}
    assert calls < 6 * count / 500, f"{calls} calls for {count} tasks: a call is to carry a run"
    assert status.succeeded_attempts == warm_up + count
    assert count / took > 1000, f"{count / took:.0f} tasks/s"


TELLS_HOW_FAR_IT_IS = """
from tracesdk.operators import OrderedOperator

class main(OrderedOperator):
    def process(self, run):
        run.tasks[-1].progress(1, 2, "steps")
        while not run.canceled:
            pass
"""


async def test_a_beat_of_a_run_names_the_task_that_told_how_far_it_is(stack: Stack) -> None:
    job = stack.python_job(
        TELLS_HOW_FAR_IT_IS, ordered=True, inputs=[reads("a", trigger=True)], outputs=[emits("sums")]
    )
    async with running_wrapper(stack, lease_seconds="1", drain_seconds="0"):
        tasks = await stack.dispatcher.add_tasks(job, [at(number) for number in (1, 2, 3)])
        await stack.dispatcher.until(lambda: any(task.progress is not None for task in tasks))
    assert [task.progress for task in tasks] == [None, None, task_pb2.Progress(done=1, total=2, unit="steps")]


TELLS_ITS_LIMIT = """
from tracesdk.operators import OrderedOperator

class main(OrderedOperator):
    def process(self, run):
        run.tasks[-1].emit("limits", type(run.tasks[0].scope).at(self.job.max_events_per_emit))
"""


async def test_what_is_claimed_after_a_setting_changed_runs_by_the_new_one(stack: Stack) -> None:
    """The job version is the same, and so a process that knows it is there already."""
    job = stack.python_job(TELLS_ITS_LIMIT, ordered=True, inputs=[reads("a", trigger=True)], outputs=[emits("limits")])
    async with running_wrapper(stack):
        await stack.dispatcher.add_tasks(job, [at(1)])
        await stack.dispatcher.all_end()
        changed = JobDetails()
        changed.CopyFrom(job)
        changed.details_id, changed.max_events_per_emit = new_id(), 7
        stack.dispatcher.add_job(changed)
        await stack.dispatcher.add_tasks(changed, [at(2)])
        await stack.dispatcher.all_end()
    assert [one.event.scope.cursor.int64_value for one in stack.dispatcher.events_of("limits")] == [7, 1000]


async def test_a_task_that_found_no_room_in_its_claim_is_claimed_again_at_once(stack: Stack) -> None:
    """No second wake-up comes for it."""
    stack.dispatcher.overloaded_claims = 3
    job = stack.python_job(STUMBLES, inputs=[reads("a", trigger=True)], outputs=[emits("b")])
    async with running_wrapper(stack):
        tasks = await stack.dispatcher.add_tasks(job, [at(1), at(2)])
        await stack.dispatcher.all_end()
    assert [(task.state, task.attempt) for task in tasks] == [("succeeded", 1)] * 2
    assert stack.dispatcher.overloaded_claims == 0


BREAKS_ITS_LIMIT = """
from tracesdk.operators import OrderedOperator

class main(OrderedOperator):
    def process(self, run):
        for number in range(self.job.max_events_per_emit + 1):
            run.tasks[-1].emit("b", type(run.tasks[0].scope).at(number))
"""


async def test_a_run_that_emits_more_than_its_limit_is_at_fault(stack: Stack) -> None:
    job = stack.python_job(
        BREAKS_ITS_LIMIT,
        ordered=True,
        max_events_per_emit=5,
        inputs=[reads("a", trigger=True)],
        outputs=[emits("b")],
    )
    async with running_wrapper(stack):
        task, *_ = await stack.dispatcher.add_tasks(job, [at(1)])
        await stack.dispatcher.all_end()
    assert task.state == "dead"
    assert task.failures[-1].error_class == task_pb2.ERROR_CLASS_INVALID_OUTPUT
    assert "6 events without a checkpoint; at most 5 can be published as one" in task.failures[-1].message


def test_an_emit_that_met_new_consumers_fails_in_passing() -> None:
    ending = ending_of_refusal(item_error(errors_pb2.ERROR_REASON_TOO_MANY_ROWS, "20 consumers now"))
    assert isinstance(ending, Failed)
    assert ending.failure.error_class == task_pb2.ERROR_CLASS_TRANSIENT
