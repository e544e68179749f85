"""Resident memory of a running stack's programs, sampled while they work."""

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
INTERVAL = 1.0


def tree(pid: int) -> list[int]:
    """The process and all that came from it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue  # it has just ended
            children.setdefault(parent, []).append(int(entry.name))
    found, frontier = [pid], [pid]
    while frontier:
        frontier = [child for parent in frontier for child in children.get(parent, [])]
        found += frontier
    return found


def resident_bytes(pid: int) -> int:
    """Private memory: pages that several processes of Postgres share count once, in none of them."""
    try:
        statm = Path(f"/proc/{pid}/statm").read_text().split()
    except OSError:
        return 0
    return max(0, int(statm[1]) - int(statm[2])) * PAGE_BYTES


@dataclass(slots=True)
class MemorySampler:
    """Samples by program until stopped. The programs are given by name and pid; their children count with them."""

    pids: Mapping[str, int]
    interval: float = INTERVAL
    samples: dict[str, list[int]] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> "MemorySampler":
        self._thread = threading.Thread(target=self._run, name="memory", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self.interval):
            for name, pid in self.pids.items():
                self.samples.setdefault(name, []).append(sum(resident_bytes(member) for member in tree(pid)))

    def growth(self, name: str) -> float:
        """Median of the last quarter over the median of the second: what grows with the work shows here."""
        found = self.samples[name]
        quarter = max(1, len(found) // 4)
        return median(found[-quarter:]) / max(1, median(found[quarter : 2 * quarter] or found))

    def peak_mib(self, name: str) -> float:
        return max(self.samples[name]) / 2**20
