import time, os
from tests.wrapper.stack import *
import pytest_asyncio
from tests.wrapper.conftest import stack
EMIT = "def main(task):\n    task.emit('b')\n"
TABLE = """
import pyarrow as pa
def main(task):
    return pa.table({"number": [task.scope.first]})
"""
async def test_rate(stack):
    for code, out in ((EMIT, emits("b")), (TABLE, writes("b"))):
        job = stack.python_job(code, inputs=[reads("a", trigger=True)], outputs=[out])
        async with running_wrapper(stack) as running:
            await stack.dispatcher.add_tasks(job, [at(1)])
            await stack.dispatcher.all_end()
            n = 2000
            t = time.monotonic()
            await stack.dispatcher.add_tasks(job, [at(i) for i in range(2, n + 2)])
            await stack.dispatcher.all_end()
            print("RATE", n / (time.monotonic() - t), dict(stack.dispatcher.calls))
            print(open(f"/proc/{running.process.pid}/status").read().split("VmRSS:")[1].split("\n")[0])
