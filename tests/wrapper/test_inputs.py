"""What a task reads: rows within its scope, from files that are what was committed."""

from collections.abc import Sequence

from tests.wrapper.fake_state import FakeTask
from tests.wrapper.stack import Stack, at, between, emits, reads, running_wrapper, writes
from traceapi.types.v1 import task_pb2
from traceapi.types.v1.dag_pb2 import STORAGE_NONE
from traceapi.types.v1.job_pb2 import JobInput

# Writes rows of its own scope to `numbers`, so that later tasks have something to read.
FILLS = """
import pyarrow as pa
def main(task):
    numbers = range(task.scope.first, task.scope.last + 1)
    columns = {"number": pa.array(numbers, pa.int64()), "word": [f"w{n}" for n in numbers]}
    task.write_and_emit(task.job.output("numbers"), pa.table(columns))
"""

TELLS = """
import json
def main(task):
    dataset = task.config["dataset"]
    rows = task.read(dataset, task.config.get("columns")).to_pylist()
    raise RuntimeError("FOUND " + json.dumps(rows, default=str))
"""


async def _filled(stack: Stack, *ranges: tuple[int, int]) -> None:
    job = stack.python_job(FILLS, inputs=[reads("a", trigger=True)], outputs=[writes("numbers", sort=["number"])])
    await stack.dispatcher.add_tasks(job, [between(*one) for one in ranges])
    await stack.dispatcher.all_end()


async def _told(stack: Stack, dataset: JobInput, first: int, last: int, columns: Sequence[str] = ()) -> FakeTask:
    job = stack.python_job(TELLS, inputs=[reads("a", trigger=True), dataset], outputs=[emits("b")])
    job.config.update({"dataset": dataset.dataset_id, "columns": list(columns)})
    task, *_ = await stack.dispatcher.add_tasks(job, [between(first, last)])
    task.max_attempts = 1
    await stack.dispatcher.all_end()
    return task


def _found(task: FakeTask) -> str:
    assert task.failures[0].message.startswith("RuntimeError: FOUND "), task.failures[0]
    return task.failures[0].message.removeprefix("RuntimeError: FOUND ")


async def test_rows_of_files_that_reach_beyond_the_scope_are_cut_to_it(stack: Stack) -> None:
    async with running_wrapper(stack):
        await _filled(stack, (1, 10), (11, 20), (21, 30))
        task = await _told(stack, reads("numbers"), 9, 12)
    assert _found(task) == str([{"number": number, "word": f"w{number}"} for number in (9, 10, 11, 12)]).replace(
        "'", '"'
    )


async def test_a_lookback_reads_cursors_before_the_scope(stack: Stack) -> None:
    async with running_wrapper(stack):
        await _filled(stack, (1, 10), (11, 20))
        task = await _told(stack, reads("numbers", lookback=2), 12, 12, columns=["number"])
    assert _found(task) == '[{"number": 10}, {"number": 11}, {"number": 12}]'


async def test_columns_come_in_the_order_in_which_they_were_asked_for(stack: Stack) -> None:
    async with running_wrapper(stack):
        await _filled(stack, (1, 3))
        task = await _told(stack, reads("numbers"), 2, 2, columns=["word", "number"])
    assert _found(task) == '[{"word": "w2", "number": 2}]'


async def test_a_scope_without_files_has_the_declared_columns_and_no_rows(stack: Stack) -> None:
    async with running_wrapper(stack):
        task = await _told(
            stack, reads("numbers", schema={"number": "int64", "word": "string"}), 1, 9, columns=["word"]
        )
    assert _found(task) == "[]"


async def test_a_dataset_of_events_only_is_a_relation_of_its_scopes(stack: Stack) -> None:
    emitter = "def main(task):\n    task.emit('marks')\n"
    async with running_wrapper(stack):
        job = stack.python_job(emitter, inputs=[reads("a", trigger=True)], outputs=[emits("marks")])
        await stack.dispatcher.add_tasks(job, [at(3), at(1), at(2), at(9)])
        await stack.dispatcher.all_end()
        task = await _told(stack, reads("marks", storage=STORAGE_NONE), 1, 3, columns=["first", "unit_count"])
    assert _found(task) == (
        '[{"first": 1, "unit_count": 1}, {"first": 2, "unit_count": 1}, {"first": 3, "unit_count": 1}]'
    )


async def test_a_file_that_was_changed_is_not_read(stack: Stack) -> None:
    async with running_wrapper(stack):
        await _filled(stack, (1, 3))
        (artifact,) = {one.artifact.key: one.artifact for one in stack.dispatcher.events_of("numbers") if one.artifact}
        path = stack.store.local_path(artifact)
        assert path is not None
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.chmod(0o644)
        path.write_bytes(content)
        task = await _told(stack, reads("numbers"), 1, 3)
    assert "ARTIFACT_LOST" in task.failures[0].message
    assert task.failures[0].error_class == task_pb2.ERROR_CLASS_TRANSIENT


async def test_only_inputs_of_the_job_can_be_read(stack: Stack) -> None:
    async with running_wrapper(stack):
        await _filled(stack, (1, 3))
        job = stack.python_job(TELLS, inputs=[reads("a", trigger=True)], outputs=[emits("b")])
        job.config.update({"dataset": "numbers"})
        other, *_ = await stack.dispatcher.add_tasks(job, [between(1, 3)])
        other.max_attempts = 1
        hidden = await _told(stack, reads("numbers", indirect=True), 1, 3)
    assert "DATASET_NOT_READ" in other.failures[0].message
    assert "DATASET_NOT_READ" in hidden.failures[0].message


async def test_columns_are_read_in_the_order_of_the_dataset_version(stack: Stack) -> None:
    """And a file says in which order it has them, for a dataset of which nobody declared any."""
    schema = {"number": "int64", "word": "string"}
    orders = ["number", "word"], ["word", "number"]
    found = []
    async with running_wrapper(stack):
        await _filled(stack, (1, 3))
        for order in orders:
            read = reads("numbers", schema=schema, column_order=order)
            found.append(_found(await _told(stack, read, 2, 2)))
    assert found == ['[{"number": 2, "word": "w2"}]', '[{"word": "w2", "number": 2}]']
    (artifact,) = {
        one.artifact.key: one.artifact for one in stack.dispatcher.events_of("numbers") if one.artifact
    }.values()
    assert list(artifact.column_order) == ["number", "word"]
