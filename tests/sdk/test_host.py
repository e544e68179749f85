"""Real host processes against a real socket: functions, failures, ordered runs, sources, cancellation, the end."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
from google.protobuf.message import Message

from tests.sdk.conftest import Bundle
from traceapi.types.v1.errors_pb2 import ErrorReason, ItemError
from traceapi.types.v1.task_pb2 import ErrorClass
from tracesdk import Scope, ScopeKind
from tracesdk.host import EXIT_USAGE, EXIT_WRAPPER_GONE
from tracesdk.testing import OperatorHarness, job_details, operator_task

Seen = Callable[[Message], None]
_BLOCKS = pa.table({"number": pa.array(range(100, 300)), "gas": pa.array(range(200))})


def test_a_function_reads_its_scope_and_its_table_is_written_cast_and_emitted(bundle: Bundle, contract: Seen) -> None:
    code = """
        import checks_of_path as own
        from tracesdk import Task

        def total(task: Task):
            blocks = task.read("eth.blocks", ["gas", "number"])
            assert blocks.column_names == ["gas", "number"]
            task.log.info("read", rows=blocks.num_rows, at=task.scope.first)
            task.progress(blocks.num_rows, 10, "rows", "reading")
            return blocks.select(["number"]).append_column("twice", [own.twice(blocks["gas"])])
    """
    paths = bundle(code)
    other = Path(paths["./operators"], "checks_of_path.py")
    other.write_text("import pyarrow.compute as pc\n\ndef twice(column):\n    return pc.multiply(column, 2)\n")
    job = job_details(
        inputs=["eth.blocks"],
        outputs={"eth.checked": {"number": "int64", "twice": "decimal(38,0)"}},
        entrypoint="checks:total",
        cursor="number",
    )
    with OperatorHarness(job, inputs={"eth.blocks": _BLOCKS}, local_paths=paths, seen=contract) as harness:
        unit = harness.add_unit(operator_task(Scope.between(110, 119)))
        host = harness.start_host()
        finished = harness.wait_finished(unit)
        assert finished.WhichOneof("outcome") == "succeeded", finished
        assert (finished.usage.rows_read, finished.usage.rows_written) == (10, 10)
        assert finished.usage.peak_memory_bytes > 2**20
        table = harness.record.table("eth.checked")
        assert table.schema.field("twice").type == pa.decimal128(38, 0)
        assert table["number"].to_pylist() == list(range(110, 120))
        assert [int(value.as_py()) for value in table["twice"]] == list(range(20, 40, 2))
        (scope,) = harness.record.scopes("eth.checked")
        assert (scope.kind, scope.first, scope.last) == (ScopeKind.RANGE, 110, 119)
        (line,) = harness.record.lines
        assert (line.text, line.level, line.fields["rows"]) == ("read", "info", 10)
        (report,) = harness.record.progress.values()
        assert (report.progress.done, report.progress.total, report.progress.unit) == (10, 10, "rows")
        harness.end_work()
        assert host.wait(20) == 0


def test_a_failing_function_tells_its_own_frames_and_emits_only_what_was_for_now(
    bundle: Bundle, contract: Seen
) -> None:
    code = """
        from tracesdk import Scope

        def check(block):
            raise ValueError(f"block {block} has no parent")

        def links(task):
            task.emit("eth.notes")
            task.emit("eth.notes", Scope.at(8), now=True)
            check(task.scope.first)
    """
    job = job_details(outputs={"eth.notes": None}, entrypoint="checks:links")
    with OperatorHarness(job, local_paths=bundle(code), seen=contract) as harness:
        unit = harness.add_unit(operator_task(Scope.at(7)))
        harness.start_host()
        failure = harness.wait_finished(unit).failed
        assert failure.error_class == ErrorClass.ERROR_CLASS_USER
        assert failure.message == "ValueError: block 7 has no parent"
        assert 'File "checks.py", line 10, in links' in failure.traceback
        assert 'raise ValueError(f"block {block} has no parent")' in failure.traceback
        assert "tracesdk" not in failure.traceback
        assert [scope.first for scope in harness.record.scopes("eth.notes")] == [8]


def test_code_that_cannot_be_imported_fails_every_task_with_the_reason(bundle: Bundle, contract: Seen) -> None:
    job = job_details(outputs={"out": None}, entrypoint="checks:links")
    with OperatorHarness(job, local_paths=bundle("import nowhere_to_be_found\n"), seen=contract) as harness:
        units = [harness.add_unit(operator_task(Scope.at(number))) for number in range(3)]
        harness.start_host()
        failures = [harness.wait_finished(unit).failed for unit in units]
        assert {failure.message for failure in failures} == {
            "ModuleNotFoundError: No module named 'nowhere_to_be_found'"
        }
        assert len({failure.traceback for failure in failures}) == 1
        assert 'File "checks.py", line 1' in failures[0].traceback


def test_a_wrong_column_is_an_invalid_output(bundle: Bundle, contract: Seen) -> None:
    code = """
        import pyarrow as pa

        def f(task):
            return pa.table({"number": ["not a number"]})
    """
    job = job_details(outputs={"out": {"number": "int64"}}, entrypoint="checks:f")
    with OperatorHarness(job, local_paths=bundle(code), seen=contract) as harness:
        unit = harness.add_unit(operator_task(Scope.at(1)))
        harness.start_host()
        failure = harness.wait_finished(unit).failed
        assert failure.error_class == ErrorClass.ERROR_CLASS_INVALID_OUTPUT
        for word in ("'out'", "'number'", "string", "int64"):
            assert word in failure.message


def test_a_table_of_many_chunks_arrives_whole(bundle: Bundle, contract: Seen) -> None:
    code = """
        def copy(task):
            return task.read_batches("in")
    """
    rows = pa.table({"text": ["x" * 1000 + str(number) for number in range(20_000)]})
    job = job_details(inputs=["in"], outputs={"out": {"text": "string"}}, entrypoint="checks:copy")
    with OperatorHarness(job, inputs={"in": rows}, local_paths=bundle(code), seen=contract) as harness:
        unit = harness.add_unit(operator_task(Scope.at(1)))
        harness.start_host()
        assert harness.wait_finished(unit).WhichOneof("outcome") == "succeeded"
        assert harness.record.table("out").equals(rows)


def test_a_refused_read_and_a_refused_emit_fail_the_task_as_they_should(bundle: Bundle, contract: Seen) -> None:
    code = """
        def f(task):
            if task.scope.first == 1:
                task.read("not.an.input")
            task.emit("out", now=True)
    """
    job = job_details(outputs={"out": None}, entrypoint="checks:f")
    with OperatorHarness(job, local_paths=bundle(code), seen=contract) as harness:
        harness.record.refuse = lambda _emit: ItemError(
            reason=ErrorReason.ERROR_REASON_SCOPE_OVERLAP, message="it overlaps"
        )
        units = [harness.add_unit(operator_task(Scope.at(number))) for number in (1, 2)]
        harness.start_host()
        read, emit = (harness.wait_finished(unit).failed for unit in units)
        assert "not.an.input" in read.message
        assert emit.error_class == ErrorClass.ERROR_CLASS_INVALID_OUTPUT
        assert emit.message.endswith("SCOPE_OVERLAP: it overlaps")


def test_an_ordered_run_carries_its_state_and_leaves_out_what_was_emitted(bundle: Bundle, contract: Seen) -> None:
    code = """
        from tracesdk import OrderedOperator

        class Count(OrderedOperator):
            def process(self, run):
                count = int(run.state or b"0")
                for task in run.tasks:
                    count += 1
                    task.emit("counts")
                    run.set_watermark("counts", task.scope.first)
                run.set_state(str(count).encode())
    """
    job = job_details(outputs={"counts": None}, entrypoint="checks:Count", ordered=True)
    tasks = [operator_task(Scope.at(number)) for number in range(10)]
    tasks[0].already_emitted = True
    with OperatorHarness(job, local_paths=bundle(code), seen=contract) as harness:
        unit = harness.add_unit(*tasks, state=b"40")
        harness.start_host()
        finished = harness.wait_finished(unit)
        assert finished.emit.state == b"49"
        assert [event.task_id for event in finished.emit.events] == [task.task_id for task in tasks[1:]]
        assert harness.record.watermarks == {"counts": 9}
        for task in tasks:
            task.already_emitted = True
        again = harness.wait_finished(harness.add_unit(*tasks, state=b"49"))
        assert again.WhichOneof("outcome") == "succeeded"
        assert not again.HasField("emit")


def test_a_function_of_an_ordered_job_keeps_what_came_before_a_failure(bundle: Bundle, contract: Seen) -> None:
    code = """
        def f(task):
            task.emit("out")
            if task.scope.first == 5:
                raise ValueError("five")
    """
    job = job_details(outputs={"out": None}, entrypoint="checks:f", ordered=True, max_events_per_emit=2)
    with OperatorHarness(job, local_paths=bundle(code), seen=contract) as harness:
        unit = harness.add_unit(*[operator_task(Scope.at(number)) for number in range(8)])
        harness.start_host()
        assert harness.wait_finished(unit).failed.message == "ValueError: five"
        assert [scope.first for scope in harness.record.scopes("out")] == [0, 1, 2, 3, 4]
        assert [emit.covered_tasks for emit in harness.record.emits] == [2, 4, 5]


_COUNTING_SOURCE = """
    import os
    from tracesdk import Scope, Source, SourceEvent

    class Count(Source):
        def run(self, source):
            at = int(source.state or b"0")
            while at < 100:
                scopes = [Scope.at(number) for number in range(at, at + 10)]
                at += 10
                source.emit_batch([SourceEvent("out", scope) for scope in scopes], str(at).encode(), {"out": at - 1})
                if at == 50 and source.attempt == 1:
                    source.wait(3600)
"""


def test_a_killed_source_goes_on_from_its_last_accepted_emit(bundle: Bundle, contract: Seen) -> None:
    job = job_details(outputs={"out": None}, entrypoint="checks:Count", source=True, max_events_per_emit=4)
    with OperatorHarness(job, local_paths=bundle(_COUNTING_SOURCE), seen=contract) as harness:
        first = operator_task()
        harness.add_unit(first)
        host = harness.start_host()
        harness.wait_for(lambda: harness.record.state == b"50")
        host.send_signal(signal.SIGKILL)
        assert host.wait(20) == -signal.SIGKILL
        again = operator_task(task_id=first.task_id, attempt=2)
        unit = harness.add_unit(again, state=harness.record.state)
        harness.start_host()
        assert harness.wait_finished(unit).WhichOneof("outcome") == "succeeded"
        assert [scope.first for scope in harness.record.scopes("out")] == list(range(100))
        assert harness.record.watermarks == {"out": 99}
        assert max(len(emit.events) for emit in harness.record.emits) == 4
        assert {len(emit.events) for emit in harness.record.emits if emit.HasField("state")} == {2}


def test_a_waiting_source_is_told_to_stop_and_ends_as_canceled(bundle: Bundle, contract: Seen) -> None:
    job = job_details(outputs={"out": None}, entrypoint="checks:Count", source=True)
    with OperatorHarness(job, local_paths=bundle(_COUNTING_SOURCE), seen=contract) as harness:
        unit = harness.add_unit(operator_task())
        host = harness.start_host()
        harness.wait_for(lambda: harness.record.state == b"50")
        harness.cancel(unit)
        assert harness.wait_finished(unit).WhichOneof("outcome") == "canceled"
        assert harness.record.state == b"50"
        harness.end_work()
        assert host.wait(20) == 0


def test_cancellation_reaches_a_task_that_works_and_one_that_waits(bundle: Bundle, contract: Seen) -> None:
    code = """
        def f(task):
            task.log.info("started")
            while not task.canceled:
                pass
            task.write("out", task.read("in"))
    """
    job = job_details(inputs=["in"], outputs={"out": {}}, entrypoint="checks:f")
    with OperatorHarness(job, inputs={"in": _BLOCKS}, local_paths=bundle(code), seen=contract) as harness:
        works, waits = (harness.add_unit(operator_task(Scope.at(number))) for number in (1, 2))
        harness.start_host()
        harness.wait_for(lambda: bool(harness.record.lines))
        harness.cancel(waits)
        harness.cancel(works)
        assert harness.wait_finished(works).WhichOneof("outcome") == "canceled"
        assert harness.wait_finished(waits).WhichOneof("outcome") == "canceled"
        assert len(harness.record.lines) == 1
        assert harness.record.outputs == {}


def test_ten_thousand_small_tasks_go_in_few_messages(bundle: Bundle) -> None:
    code = """
        def f(task):
            task.emit("out")
    """
    messages: list[Message] = []
    job = job_details(outputs={"out": None}, entrypoint="checks:f")
    paths = bundle(code)
    with OperatorHarness(job, local_paths=paths, seen=messages.append) as harness:
        units = [harness.add_unit(operator_task(Scope.at(number))) for number in range(10_000)]
        harness.start_host()
        harness.wait_finished(units[-1])
        assert len(harness.record.events) == 10_000
        assert len(messages) < 2_500


def test_the_process_leaves_at_once_when_the_wrapper_is_gone(bundle: Bundle) -> None:
    code = """
        def f(task):
            task.log.info("started")
            while True:
                pass
    """
    job = job_details(outputs={"out": None}, entrypoint="checks:f")
    with OperatorHarness(job, local_paths=bundle(code)) as harness:
        harness.add_unit(operator_task(Scope.at(1)))
        host = harness.start_host()
        harness.wait_for(lambda: bool(harness.record.lines))
        harness.stop_serving()
        assert host.wait(20) == EXIT_WRAPPER_GONE


def test_the_process_leaves_also_when_nobody_reads_any_more_what_it_prints(bundle: Bundle) -> None:
    job = job_details(outputs={"out": None}, entrypoint="checks:f")
    reader, writer = os.pipe()  # as to a wrapper that is killed: the reader ends with it
    with OperatorHarness(job, local_paths=bundle("def f(task): pass")) as harness:
        host = harness.start_host(output=writer)
        os.close(writer)
        harness.wait_finished(harness.add_unit(operator_task(Scope.at(1))))
        os.close(reader)
        harness.stop_serving()
        assert host.wait(20) == EXIT_WRAPPER_GONE


def test_a_host_without_a_socket_says_what_is_missing() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "tracesdk.host"], capture_output=True, env={}, timeout=60, check=False
    )
    assert ended.returncode == EXIT_USAGE
    assert b"TRACE_OPERATOR_SOCKET" in ended.stderr
