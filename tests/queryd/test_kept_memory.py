"""A cell keeps the memory of its batches for the next ones."""

import subprocess
import sys

_ROUNDS, _COLUMNS, _COLUMN_BYTES = 20, 8, 300_000
_FAULTS = f"""
import ctypes, resource
from queryd.engine.limiting import keep_memory

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]

def batch():
    columns = [libc.malloc({_COLUMN_BYTES}) for _ in range({_COLUMNS})]
    for column in columns:
        ctypes.memset(column, 1, {_COLUMN_BYTES})
    for column in columns:
        libc.free(column)

keep_memory()
batch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({_ROUNDS}):
    batch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_pages_of_a_batch_are_not_faulted_in_again_for_the_next_one() -> None:
    done = subprocess.run([sys.executable, "-c", _FAULTS], capture_output=True, text=True, timeout=60, check=True)
    pages = _ROUNDS * _COLUMNS * _COLUMN_BYTES // 4096
    assert int(done.stdout) < pages / 10
