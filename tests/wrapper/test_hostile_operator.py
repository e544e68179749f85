"""Operators' code that talks to its wrapper by hand, and says what it should not."""

import json
from typing import Any

from tests.wrapper.fake_state import FakeTask
from tests.wrapper.stack import Stack, at, emits, reads, running_wrapper, writes
from traceapi.types.v1 import task_pb2

WAITS = """
import time
def main(task):
    task.progress(1, 2, "steps")
    for _ in range(600):
        if task.canceled:
            return
        time.sleep(0.1)
"""

PRELUDE = """
import io, json, os, struct
import grpc, pyarrow as pa
from traceapi.operator.v1 import operator_service_pb2 as op
from traceapi.operator.v1.operator_service_pb2_grpc import OperatorServiceStub
from traceapi.types.v1.scope_pb2 import CursorValue, Scope
from traceapi.types.v1.task_pb2 import TaskFailure

stub = OperatorServiceStub(grpc.insecure_channel("unix:" + os.environ["TRACE_OPERATOR_SOCKET"]))

def said(call):
    try:
        return str(call())
    except grpc.RpcError as error:
        return f"{error.code().name}: {error.details()}"

def stream(table, **options):
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema, **options) as writer:
        writer.write_table(table)
    return sink.getvalue()

def write(task_id, content, first=1, dataset="b"):
    header = op.OutputHeader(task_id=task_id, dataset_id=dataset, scope=Scope(cursor=CursorValue(int64_value=first)))
    parts = [op.WriteOutputRequest(header=header)]
    parts += [op.WriteOutputRequest(arrow_ipc=content[at:at + 1000000]) for at in range(0, len(content), 1000000)]
    return said(lambda: stub.WriteOutput(iter(parts)))

def main(task):
    raise RuntimeError("FOUND " + json.dumps(probe(task)))
"""

STEALS = """
def probe(task):
    other = task.config["other"]
    scope = Scope(cursor=CursorValue(int64_value=1))
    return {
        "read": said(lambda: list(stub.ReadInput(op.ReadInputRequest(task_id=other, dataset_id="a")))),
        "write": write(other, stream(pa.table({"number": [1]}))),
        "emit": [said(lambda: stub.Emit(op.EmitRequest(emits=[op.UnitEmit(unit_id=unit)])))
                 for unit in range(4) if unit != task._unit.unit_id],
        "emit for": said(lambda: stub.Emit(op.EmitRequest(emits=[op.UnitEmit(
            unit_id=task._unit.unit_id, events=[op.OperatorEvent(dataset_id="b", scope=scope, task_id=other)])]))),
        "finish": [said(lambda: stub.FinishWork(op.FinishWorkRequest(units=[op.FinishedUnit(
            unit_id=unit, succeeded=op.UnitSucceeded())]))) for unit in range(20) if unit != task._unit.unit_id],
        "log": said(lambda: stub.WriteLog(op.WriteLogRequest(lines=[op.OperatorLogLine(task_id=other, text="x")]))),
        "second stream": said(lambda: list(stub.ReceiveWork(iter([op.ReceiveWorkRequest(credits=5)])))),
        "protocol": said(lambda: stub.Attach(op.AttachRequest(sdk="x", protocol=2))),
    }
"""

BREAKS = """
def probe(task):
    own, table = task.task_id, pa.table({"number": pa.array([1] * 1000, pa.int64())})
    good = stream(table)
    return {
        "compressed": write(own, stream(table, options=pa.ipc.IpcWriteOptions(compression="zstd"))),
        "dictionary": write(own, stream(pa.table({"number": pa.array(["a", "b"]).dictionary_encode()}))),
        "garbage": write(own, os.urandom(10000)),
        "cut": write(own, good[: len(good) - 500]),
        "huge metadata": write(own, struct.pack("<Ii", 0xFFFFFFFF, 1 << 30) + bytes(100)),
        "offsets": write(own, broken_offsets()),
        "no header": said(lambda: stub.WriteOutput(iter([op.WriteOutputRequest(arrow_ipc=b"x")]))),
        "nothing": said(lambda: stub.WriteOutput(iter([]))),
        "outside": write(own, stream(pa.table({"number": [1, 2]}))),
        "foreign": write(own, good, dataset="c"),
        "twice": write(own, stream(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["number", "number"]))),
        "type": write(own, stream(pa.table({"number": [1], "x": pa.array([1.5], pa.float16())}))),
    }

def broken_offsets():
    # A string whose offsets point far outside of its data.
    content = stream(pa.table({"number": [1], "word": ["x" * 777]}))
    before, found, after = content.rpartition(struct.pack("<ii", 0, 777))
    assert found
    return before + struct.pack("<ii", 0, 1 << 30) + after
"""

CLAIMS = """
def probe(task):
    failure = TaskFailure(error_class=task.config["class"], message="of my own making")
    unit = op.FinishedUnit(unit_id=task._unit.unit_id, failed=failure)
    said(lambda: stub.FinishWork(op.FinishWorkRequest(units=[unit])))
"""


async def _probed(stack: Stack, code: str, **config: str | float) -> tuple[FakeTask, dict[str, Any]]:
    job = stack.python_job(PRELUDE + code, inputs=[reads("a", trigger=True)], outputs=[writes("b")])
    job.config.update(config)
    task, *_ = await stack.dispatcher.add_tasks(job, [at(1)])
    task.max_attempts = 1
    await stack.dispatcher.until(lambda: task.state != "queued" and bool(task.failures))
    message = task.failures[0].message
    assert "FOUND" in message or "class" in config, task.failures[0]
    found = json.loads(message.partition("FOUND ")[2]) if "FOUND" in message else {}
    return task, found


async def test_a_process_can_name_its_own_tasks_and_units_only(stack: Stack) -> None:
    waiting = stack.python_job(WAITS, inputs=[reads("a", trigger=True)], outputs=[writes("b")])
    async with running_wrapper(stack, lease_seconds="1", drain_seconds="0") as running:
        other, *_ = await stack.dispatcher.add_tasks(waiting, [at(1)])
        await stack.dispatcher.until(lambda: other.progress is not None)
        _, found = await _probed(stack, STEALS, other=other.task_id)
        assert other.state == "running"
        await running.stop()
    for name in ("read", "write"):
        assert found[name].startswith("NOT_FOUND: this process has no task"), found
    assert all(answer.startswith("NOT_FOUND: this process has no unit") for answer in found["emit"])
    assert "ERROR_REASON_INVALID_REQUEST" in found["emit for"]
    assert found["second stream"].startswith("INVALID_ARGUMENT")
    assert found["protocol"].startswith("FAILED_PRECONDITION")
    assert stack.dispatcher.events == {}


async def test_what_is_no_acceptable_output_is_refused_with_the_reason(stack: Stack) -> None:
    async with running_wrapper(stack):
        _, found = await _probed(stack, BREAKS)
        assert list((stack.root / "wrapper" / "outputs").iterdir()) == []
    expected = {
        "compressed": "INVALID_ARGUMENT: b: not an acceptable Arrow IPC stream: compressed",
        "dictionary": "FAILED_PRECONDITION: b: column 'number' has the Arrow type dictionary",
        "garbage": "INVALID_ARGUMENT: b: not an acceptable Arrow IPC stream: a message does not begin",
        "cut": "INVALID_ARGUMENT: b: not an acceptable Arrow IPC stream: the stream ends inside",
        "huge metadata": "INVALID_ARGUMENT: b: not an acceptable Arrow IPC stream: a message's metadata have",
        "offsets": "INVALID_ARGUMENT: b: not an acceptable Arrow IPC stream: ",
        "no header": "INVALID_ARGUMENT: an output begins",
        "nothing": "INVALID_ARGUMENT: an output begins",
        "outside": "INVALID_ARGUMENT: b: 1 rows have a number outside of the stated scope 1",
        "foreign": "FAILED_PRECONDITION: c is no output",
        "twice": "FAILED_PRECONDITION: b: two columns are named",
        "type": "FAILED_PRECONDITION: b: column 'x' has the Arrow type halffloat",
    }
    assert {name: found[name][: len(text)] for name, text in expected.items()} == expected


async def test_a_failure_that_would_not_count_is_not_the_operators_to_claim(stack: Stack) -> None:
    async with running_wrapper(stack):
        task, _ = await _probed(stack, CLAIMS, **{"class": task_pb2.ERROR_CLASS_LOST_LEASE})
    assert task.failures[0].error_class == task_pb2.ERROR_CLASS_USER
    assert task.failures[0].message == "of my own making"


async def test_a_flood_of_output_is_kept_in_bounds(stack: Stack) -> None:
    code = """
import sys
def main(task):
    for _ in range(200):
        sys.stdout.write("x" * 1_000_000)
    print("the end", file=sys.stderr)
    task.emit("b")
"""
    job = stack.python_job(code, inputs=[reads("a", trigger=True)], outputs=[emits("b")])
    async with running_wrapper(stack, log_lines="100"):
        task, *_ = await stack.dispatcher.add_tasks(job, [at(1)])
        await stack.dispatcher.all_end()
    assert task.state == "succeeded"
