"""What a document without problems means: defaults, order, inputs behind virtual datasets, and the example."""
# ruff: noqa: S608 -- documents that hold SQL, not statements

import gzip
from pathlib import Path

from google.protobuf.duration_pb2 import Duration

from dispatcher.dag import JobKind, LocalPath, read_spec
from tests.dispatcher.dag.documents import BLOCKS, EXAMPLE, NOTHING_KNOWN, foreign, job_of, known, read
from traceapi.types.v1.dag_pb2 import OutputSpec, Storage, UpdateMode, Writers
from traceapi.types.v1.scope_pb2 import CursorType

ROOT = Path(__file__).parents[3]


def example() -> str:
    return (ROOT / EXAMPLE).read_text()


def test_example_has_no_problems_and_its_jobs_come_producers_first() -> None:
    reading = read(example())
    assert reading.resolved is not None
    names = [job.name for job in reading.resolved.jobs]
    assert sorted(names) == ["block_fees", "blocks", "checked", "gas_by_miner", "ranges", "transactions"]
    assert names.index("blocks") < names.index("ranges") < names.index("checked") < names.index("gas_by_miner")
    assert reading.local_paths == reading.resolved.local_paths or set(reading.local_paths) == {
        LocalPath("data/blocks.csv.gz", "blocks", file=True),
        LocalPath("data/transactions.csv.gz", "transactions", file=True),
        LocalPath("./operators", "checked", file=False),
    }


def test_local_paths_are_named_with_their_places() -> None:
    text = example()
    lines = text.splitlines()
    for local in read(text).local_paths:
        assert lines[local.line - 1][local.column - 1 :].strip("'\"").startswith(local.path)
        assert local.document_path.startswith(f"jobs.{local.job}.")


def test_local_paths_of_the_example_exist_and_hold_the_columns() -> None:
    reading = read(example())
    for path in reading.local_paths:
        found = (ROOT / EXAMPLE).parent / path.path
        assert found.is_file() if path.file else found.is_dir()
        if path.file:
            with gzip.open(found, "rt") as file:
                header = file.readline().strip().split(",")
            (output,) = job_of(reading, path.job).outputs
            assert set(output.spec.schema) <= set(header)


def test_defaults_are_filled_in() -> None:
    reading = read(
        BLOCKS.replace("jobs:", "defaults: {execution: {max_attempts: 7, timeout: 1m30s, retry_backoff: 90s}}\njobs:")
        + "  a:\n    operator: sql\n    config: {sql: select number from blocks}\n    inputs: {blocks: {}}\n"
        + "    outputs: {r: {}}\n    execution: {timeout: 5s, max_concurrency: 2}\n"
    )
    job = job_of(reading, "a")
    assert job.kind is JobKind.OPERATOR
    assert job.execution.timeout == Duration(seconds=5), "a job's own setting replaces the DAG's, parts and all"
    assert job.execution.max_attempts == 7
    assert job.execution.max_concurrency == 2
    assert job.execution.queue == "default"
    assert job.execution.retry_backoff == Duration(seconds=90)
    assert job.execution.max_retry_backoff == Duration(seconds=90), "the default limit gives way to what was stated"
    assert job.execution.max_run_tasks == 500
    assert not job.execution.HasField("memory_bytes")
    (output,) = job.outputs
    assert output.spec.storage == Storage.STORAGE_PARQUET
    assert output.spec.update == UpdateMode.UPDATE_MODE_REPLACE
    assert output.spec.writers == Writers.WRITERS_ONE
    assert (output.spec.cursor.column, output.spec.cursor.type) == ("number", CursorType.CURSOR_TYPE_INT64)
    assert dict(output.spec.schema) == {"number": "int64"}
    assert not output.declared_schema
    source = job_of(reading, "blocks")
    assert not source.execution.HasField("timeout"), "a source has no time limit, whatever the DAG's default says"


def test_aggregator_is_ordered_and_keeps_events_only() -> None:
    job = job_of(read(BLOCKS), "ranges")
    assert job.ordered
    assert job.trigger_cursor_type == CursorType.CURSOR_TYPE_INT64
    assert job.outputs[0].spec.storage == Storage.STORAGE_NONE
    assert job.outputs[0].spec.cursor.column == "number"
    assert [(item.dataset_id, item.trigger) for item in job.inputs] == [("blocks", True)]


def test_width_of_a_timestamp_range_is_told_in_seconds() -> None:
    text = (
        "dag: x\njobs:\n  s: {source: replay, config: {path: /data/s.csv, cursor: h},"
        " outputs: {s: {cursor: {column: h, type: timestamp}}}}\n"
        "  r: {operator: aggregator, inputs: {s: {}}, config: {size: 1h}, outputs: {r: {}}}\n"
    )
    reading = read(text)
    assert job_of(reading, "r").config.fields["size"].string_value == "3600s"
    assert reading.local_paths == (), "an absolute path is read in place"


def test_inputs_behind_virtual_datasets_are_listed_after_the_declared_ones() -> None:
    reading = read(
        BLOCKS
        + "  v: {virtual: {sql: from blocks}, outputs: {v: {}}}\n"
        + "  w: {virtual: {sql: from v}, outputs: {w: {}}}\n"
        + "  a: {operator: sql, config: {sql: from w}, inputs: {ranges: {}, w: {wait: true}}, outputs: {r: {}}}\n"
    )
    inputs = job_of(reading, "a").inputs
    assert [(item.dataset_id, item.trigger, item.wait, item.indirect) for item in inputs] == [
        ("ranges", True, False, False),
        ("w", False, True, False),
        ("blocks", False, True, True),
        ("v", False, True, True),
    ]
    assert inputs[1].virtual_sql == "from v"
    assert job_of(reading, "w").kind is JobKind.VIRTUAL
    assert [item.dataset_id for item in job_of(reading, "w").inputs] == ["v"]


def test_virtual_dataset_of_another_dag_brings_what_it_reads() -> None:
    stored = OutputSpec(storage=Storage.STORAGE_PARQUET, schema={"number": "int64"})
    stored.cursor.column, stored.cursor.type = "number", CursorType.CURSOR_TYPE_INT64
    theirs = known(
        foreign("stored", stored),
        foreign("virtual", OutputSpec(schema={"number": "int64"}), "from stored", ("stored",)),
    )
    text = (
        BLOCKS
        + "  a: {operator: sql, config: {sql: from virtual}, inputs: {ranges: {}, virtual: {}}, outputs: {r: {}}}\n"
    )
    inputs = job_of(read(text, theirs), "a").inputs
    assert [(item.dataset_id, item.indirect) for item in inputs] == [
        ("ranges", False),
        ("virtual", False),
        ("stored", True),
    ]


def test_message_reads_like_its_text_and_its_problems_have_no_place() -> None:
    reading = read(example())
    assert reading.spec is not None
    again = read_spec(reading.spec, NOTHING_KNOWN)
    assert again.resolved is not None
    assert again.resolved == reading.resolved
    del reading.spec.jobs["blocks"]
    problems = read_spec(reading.spec, NOTHING_KNOWN).problems
    assert {(item.line, item.column, item.file_name) for item in problems} == {(0, 0, "")}
    assert problems[0].path.startswith("jobs.")
    assert any(item.path == 'jobs.ranges.inputs."eth.blocks"' for item in problems)


def test_reading_changes_nothing_in_the_message() -> None:
    reading = read(example())
    assert reading.spec is not None
    before = reading.spec.SerializeToString(deterministic=True)
    read_spec(reading.spec, NOTHING_KNOWN)
    assert reading.spec.SerializeToString(deterministic=True) == before
