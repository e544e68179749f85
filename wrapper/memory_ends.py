"""By what one sees that an operator's process ended for want of memory. A process cannot always say so itself."""

import signal
from pathlib import Path

_VMSTAT = Path("/proc/vmstat")
_LAST_BYTES = 1000
# What is written last by Python and by C++ where an allocation fails and nobody handles it.
_LAST_WORDS = ("MemoryError", "std::bad_alloc")


def kernel_memory_kills() -> int:
    """How many processes the kernel has killed for want of memory since boot, of the machine or of a control group.

    0 where the kernel does not count. It does not say which ones, so a process that was killed while the number grew is
    taken for one of them.
    """
    try:
        lines = _VMSTAT.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def want_of_memory(signal_number: int, kernel_kills: int, tail: str) -> str:
    """In what way a crashed process wanted memory; empty where nothing says that it did.

    `signal_number` ended it, 0 for none; `kernel_kills` is by how much the kernel's count grew while it ran; `tail` is
    the end of what it wrote to standard error.
    """
    if signal_number == signal.SIGKILL and kernel_kills > 0:
        return "by the kernel, which had no memory left"
    end = tail[-_LAST_BYTES:]
    return "for want of memory" if any(words in end for words in _LAST_WORDS) else ""
