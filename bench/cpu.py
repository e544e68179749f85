"""CPU time of programs: of each process with all that came from it."""

import os
from collections.abc import Mapping
from pathlib import Path

from bench.memory import tree

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """Of a process and of those of its children that have ended and were waited for."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(int(ticks) for ticks in fields[11:15]) / _TICKS


def cpu_by_program(pids: Mapping[str, int]) -> dict[str, float]:
    """Seconds by name, each with all that it started; the operators of `wrapper` apart, as `operators`."""
    found: dict[str, float] = {}
    for name, pid in pids.items():
        children = sum(cpu_seconds(member) for member in tree(pid)[1:])
        found[name] = cpu_seconds(pid) + (0.0 if name == "wrapper" else children)
        if name == "wrapper":
            found["operators"] = children
    return found
