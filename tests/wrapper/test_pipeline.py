"""The built-in operators in this wrapper: a file replayed, aggregated, computed on, within a real process each."""

from tests.wrapper.stack import Stack, emits, reads, running_wrapper, writes
from traceapi.types.v1.dag_pb2 import STORAGE_NONE
from traceapi.types.v1.scope_pb2 import CURSOR_TYPE_INT64


async def test_a_replayed_file_becomes_ranges_and_their_sums(stack: Stack) -> None:
    digest = stack.bundle({"numbers.csv": "number,weight\n" + "".join(f"{n},{n * 10}\n" for n in range(1000))})
    schema = {"number": "int64", "weight": "decimal(38,0)"}
    source = stack.job(
        job="numbers",
        source=True,
        operator="replay",
        bundles={"numbers.csv": digest},
        outputs=[writes("x.numbers", schema=schema)],
    )
    source.config.update({"path": "numbers.csv", "cursor": "number", "until": 999, "batch_rows": 300})
    ranges = stack.job(
        job="ranges",
        operator="aggregator",
        ordered=True,
        trigger_cursor_type=CURSOR_TYPE_INT64,
        inputs=[reads("x.numbers", trigger=True, schema=schema)],
        outputs=[emits("x.ranges")],
    )
    ranges.config.update({"size": 100})
    sums = stack.job(
        job="sums",
        operator="sql",
        trigger_cursor_type=CURSOR_TYPE_INT64,
        inputs=[reads("x.ranges", trigger=True, storage=STORAGE_NONE), reads("x.numbers", schema=schema)],
        outputs=[writes("x.sums")],
    )
    sums.config.update({"sql": 'select max(number) as number, sum(weight)::decimal(38,0) as weight from "x.numbers"'})
    async with running_wrapper(stack):
        await stack.dispatcher.add_task(source)
        await stack.dispatcher.all_end()
    failures = [failure for task in stack.dispatcher.tasks.values() for failure in task.failures]
    assert failures == []
    assert len(stack.dispatcher.events_of("x.numbers")) == 1000
    assert stack.dispatcher.watermarks["x.numbers"].int64_value == 999
    found = [one.event.scope.range for one in stack.dispatcher.events_of("x.ranges")]
    assert [(one.first.int64_value, one.last.int64_value) for one in found] == [
        (start, start + 99) for start in range(0, 1000, 100)
    ]
    rows = [
        row for one in stack.dispatcher.events_of("x.sums") if one.artifact for row in stack.table(one.artifact.key)
    ]
    assert rows == [
        {"number": start + 99, "weight": sum(10 * n for n in range(start, start + 100))}
        for start in range(0, 1000, 100)
    ]
