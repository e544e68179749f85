"""How the disk answers: differences between two runs mean little where this differs too."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

from bench.percentiles import percentile

_BLOCK = bytes(8192)
_SECONDS = 1.0
CALM_P99 = 2.0
"""Milliseconds. Latencies count only while the disk is below that: every hop waits for several flushes."""


@dataclass(frozen=True, slots=True)
class Fsync:
    """Of one block, one after the other, for a second. Times in milliseconds."""

    rate: float
    p99: float


def probe(folder: Path) -> Fsync:
    """Writes into a file of the folder, as Postgres writes its log."""
    path = folder / "fsync.probe"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    took: list[float] = []
    try:
        until = time.perf_counter() + _SECONDS
        while (started := time.perf_counter()) < until:
            os.pwrite(fd, _BLOCK, 0)
            os.fdatasync(fd)
            took.append((time.perf_counter() - started) * 1000)
    finally:
        os.close(fd)
        path.unlink()
    return Fsync(len(took) / _SECONDS, percentile(took, 99))


def calmed(folder: Path, limit_seconds: float) -> Fsync:
    """Probes until the disk is calm, or for so long; the last probe."""
    until = time.monotonic() + limit_seconds
    while (found := probe(folder)).p99 >= CALM_P99 and time.monotonic() < until:
        pass
    return found
