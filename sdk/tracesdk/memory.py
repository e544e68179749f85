"""The limit on the memory of an operator's process: set before the operator's code is loaded, which cannot raise it.

RLIMIT_DATA counts what the process allocates for itself, and makes an allocation beyond it fail: a MemoryError in
Python, an error of their own in Arrow and DuckDB. RLIMIT_AS would count reserved addresses too, which they take a lot
of. Each process that the code starts has the limit anew; files that are mapped and files in /tmp do not count.
"""

import resource
import traceback
from pathlib import Path

# What the process takes for its own work beside the operator's code: threads of gRPC, buffers of messages.
_OWN_BYTES = 64 << 20
# Beyond the limit, so that a failure can be told when nothing is left.
_TELLING_BYTES = 32 << 20


def limit_memory(memory_bytes: int) -> None:
    """From now on the process may allocate so much in addition to what it has; 0 for no limit."""
    if not memory_bytes:
        return
    _, highest = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = _allocated_bytes() + _OWN_BYTES + memory_bytes
    hard = wanted + _TELLING_BYTES if highest == resource.RLIM_INFINITY else min(wanted + _TELLING_BYTES, highest)
    resource.setrlimit(resource.RLIMIT_DATA, (min(wanted, hard), hard))


def make_room(error: MemoryError) -> None:
    """After the limit was met: frees what the code that raised was working on, and opens the reserve to tell of it."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        traceback.clear_frames(one.__traceback__)
        one = one.__cause__ or one.__context__


def _allocated_bytes() -> int:
    """What RLIMIT_DATA counts of this process now."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) * 1024
    return 0
