"""What the process of a cell may take of the machine, and what it keeps of that."""

import ctypes
import resource

from queryd.engine.messages import CellLimits

# Of mallopt(3). The columns of a batch are smaller; what is much larger goes back to the kernel as ever.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _KEPT_BYTES = -1, -3, 4 << 20


def limit(limits: CellLimits) -> None:
    """RLIMIT_DATA makes a failed allocation a clean error of the engine; RLIMIT_AS crashes it."""
    keep_memory()
    resource.setrlimit(resource.RLIMIT_DATA, (limits.memory_bytes, limits.memory_bytes))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limits.scratch_bytes, limits.scratch_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def keep_memory() -> None:
    """The engine allocates the columns of each batch and frees them after it. What went back to the kernel each time,
    as the C library has it, would be faulted in again for the next one: a quarter of the CPU of a large answer."""
    libc = ctypes.CDLL(None)
    for option in (_MMAP_THRESHOLD, _TRIM_THRESHOLD):
        libc.mallopt(option, _KEPT_BYTES)
