"""What users test with: `run_task` and `run_ordered`, and through them the rules of writing and emitting."""

from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from traceapi.operator.v1.operator_service_pb2 import OperatorEvent, UnitEmit
from tracesdk import InvalidOutput, OperatorError, OrderedOperator, Run, Scope, Task
from tracesdk import unit as unit_module
from tracesdk.testing import job_details, run_ordered, run_task, task_of
from tracesdk.testing.record import Record

_BLOCKS = pa.table({"number": [1, 2, 3], "gas": [10, 20, 30]})


def test_a_returned_table_is_written_and_emitted_about_the_tasks_scope() -> None:
    def double(task: Task) -> pa.Table:
        task.log.info(f"from {task.scope}")
        blocks = task.read("eth.blocks")
        return pa.Table.from_arrays([pc.multiply(blocks["gas"], 2)], ["gas"])

    result = run_task(double, inputs={"eth.blocks": _BLOCKS}, scope=Scope.between(1, 3))
    assert result.outputs["output"]["gas"].to_pylist() == [20, 40, 60]
    assert [str(event.scope) for event in result.events] == ["1..3"]
    assert result.log == ["from 1..3"]


def test_batches_and_single_batches_may_be_returned_too() -> None:
    inputs = {"in": _BLOCKS}
    streamed = run_task(lambda task: task.read_batches("in", ["gas"]), inputs=inputs, scope=Scope.at(1))
    assert streamed.outputs["output"].equals(_BLOCKS.select(["gas"]))
    single = run_task(lambda task: task.read("in").to_batches()[0], inputs=inputs, scope=Scope.at(1))
    assert single.outputs["output"].equals(_BLOCKS)


def test_a_task_may_write_and_emit_as_it_likes() -> None:
    moment = datetime(2020, 1, 1, tzinfo=UTC)

    def split(task: Task) -> None:
        for number in range(int(task.config["parts"])):
            file = task.write("parts", _BLOCKS.slice(number, 1), Scope.at(number))
            task.emit("parts", output=file, event_time=moment)
        task.emit("done", Scope.partition("all"))

    result = run_task(
        split,
        scope=Scope.at(9),
        inputs={},
        outputs={"parts": {"number": "int64", "gas": "int32"}, "done": None},
        config={"parts": 3},
    )
    assert [(event.dataset, str(event.scope)) for event in result.events] == [
        ("parts", "0"),
        ("parts", "1"),
        ("parts", "2"),
        ("done", "all"),
    ]
    assert {event.event_time for event in result.events} == {moment, None}
    assert result.outputs["parts"]["gas"].to_pylist() == [10, 20, 30]


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda task: task.emit("output"), "needs the file"),
        (lambda task: task.emit("elsewhere"), "no output 'elsewhere'; it has notes, output"),
        (lambda task: task.write("notes", _BLOCKS), "keeps events only"),
        (lambda task: task.emit("notes", output=task.write("output", _BLOCKS)), "a file of 'output'"),
        (lambda task: task.emit("notes", Scope.at(True)), "is no cursor"),
        (lambda task: task.emit("notes", Scope.at(2**63)), "does not fit"),
        (lambda task: task.emit("notes", Scope.at(datetime(2020, 1, 1))), "no time zone"),  # noqa: DTZ001
        (lambda task: task.emit("notes", Scope.at("e\u0301")), "NFC"),
        (lambda task: [1, 2], "returned list"),
    ],
)
def test_what_cannot_be_published_is_an_invalid_output(function: object, said: str) -> None:
    with pytest.raises(InvalidOutput, match=said):
        run_task(function, scope=Scope.at(1), outputs={"output": {}, "notes": None})  # type: ignore[arg-type]


def test_a_returned_table_needs_one_output_with_files() -> None:
    with pytest.raises(InvalidOutput, match=r"has a, b: use task\.write"):
        run_task(lambda _task: _BLOCKS, scope=Scope.at(1), outputs={"a": {}, "b": {}})


def test_an_input_that_the_test_does_not_give_is_named() -> None:
    with pytest.raises(OperatorError, match=r"no input 'eth\.blocks'; it gives other"):
        run_task(lambda task: task.read("eth.blocks"), scope=Scope.at(1), inputs={"other": _BLOCKS})


def test_rows_go_in_messages_of_a_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unit_module, "_BATCH_BYTES", 1000)
    wide = pa.table({"text": ["x" * 300] * 20})
    result = run_task(lambda _task: wide, scope=Scope.at(1))
    assert max(batch.nbytes for batch in result.outputs["output"].to_batches()) <= 1000
    assert result.outputs["output"].equals(wide)


class Sum(OrderedOperator):
    """Adds up cursors; publishes after each third one."""

    def process(self, run: Run) -> None:
        total = int(run.state or b"0")
        for at, task in enumerate(run.tasks, start=1):
            total += int(str(task.scope.first))
            task.emit("sums")
            run.set_state(str(total).encode())
            if at % 3 == 0:
                run.checkpoint(task)


def test_a_run_publishes_by_checkpoints() -> None:
    job = job_details(outputs={"sums": None}, ordered=True, max_events_per_emit=3)
    result = run_ordered(Sum, [task_of(Scope.at(number)) for number in range(8)], job=job, state=b"100")
    assert [(len(emit.events), emit.covered_tasks, emit.state) for emit in result.emits] == [
        (3, 3, b"103"),
        (3, 6, b"115"),
        (2, 0, b"128"),
    ]
    assert result.state == b"128"


def test_a_run_without_checkpoints_may_hold_one_emit_only() -> None:
    def emit(task: Task) -> None:
        for number in range(3):
            task.emit("sums", Scope.at(number))

    job = job_details(outputs={"sums": None}, ordered=True, max_events_per_emit=2)
    with pytest.raises(InvalidOutput, match=r"run\.checkpoint"):
        run_ordered(emit, [task_of(Scope.at(1))], job=job)


def test_a_function_of_an_ordered_job_is_cut_where_an_emit_is_full() -> None:
    job = job_details(outputs={"sums": None}, ordered=True, max_events_per_emit=2)
    tasks = [task_of(Scope.at(number)) for number in range(5)]
    result = run_ordered(lambda task: task.emit("sums"), tasks, job=job)
    assert [(len(emit.events), emit.covered_tasks) for emit in result.emits] == [(2, 2), (2, 4), (1, 0)]
    with pytest.raises(InvalidOutput, match="not by emit"):
        run_ordered(lambda task: task.emit("sums", now=True), tasks, job=job)


def test_more_events_of_a_task_than_an_emit_carries_go_in_parts_that_are_all_accepted() -> None:
    def emit(task: Task) -> None:
        for number in range(25):
            task.emit("notes", Scope.at(number))

    job = job_details(outputs={"notes": None}, max_events_per_emit=10)
    assert len(run_task(emit, scope=Scope.at(1), job=job).events) == 25
    too_many = UnitEmit(events=[OperatorEvent(dataset_id="notes", task_id=str(at)) for at in range(11)])
    assert Record(10).accept(too_many).HasField("error"), "the double holds emits to the limit, as the dispatcher does"
