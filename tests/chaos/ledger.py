"""The ledger: every run that was truly made, a JSON line each: seed, commit, outcome, and what it went through."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.chaos.plan import Kind
from tests.chaos.run import Result

LEDGER = Path(__file__).with_name("ledger.jsonl")
_WATCHED = ("dispatcher", "wrapper", "kernel", "sdk", "gen", "tests/chaos")
_OF_CHANGES = ("switches", "rollbacks", "builds aborted", "faults that hit a change", "dataset versions collected")


@dataclass(frozen=True, slots=True)
class Entry:
    """A run. `commit` ends in `+` where the tree had changes that were not committed; `wakeups` is the way that they
    went."""

    seed: int
    wakeups: str
    commit: str
    outcome: str
    seconds: float
    tasks: int
    faults: Mapping[str, int]
    """How often each kind hit work in flight."""
    crashes: Sequence[str]
    """The crash points at which a program died."""
    broken: Sequence[str] = ()
    """The invariants that did not hold."""
    note: str = ""
    changes: Mapping[str, int] = field(default_factory=dict)
    """What became of the pipeline meanwhile; empty of runs from before it changed in any."""


def commit() -> str:
    """What is being run."""
    head = _git("rev-parse", "--short=12", "HEAD")
    changed = _git(
        "status", "--porcelain", "--untracked-files=no", "--", *_WATCHED, ":(exclude)tests/chaos/ledger.jsonl"
    )
    return f"{head}+" if changed else head


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()


def entry(result: Result, at: str) -> Entry:
    faults: dict[str, int] = {}
    for fault in result.injected:
        if fault.in_flight:
            faults[fault.kind.value] = faults.get(fault.kind.value, 0) + 1
    return Entry(
        result.seed,
        result.wakeups,
        at,
        result.outcome,
        round(result.seconds, 1),
        int(result.rarities["tasks"]),
        faults,
        [fault.detail for fault in result.injected if fault.kind is Kind.CRASH],
        sorted({violation.invariant for violation in result.violations}),
        changes={name: int(result.rarities[name]) for name in _OF_CHANGES},
    )


def add(path: Path, one: Entry) -> None:
    """Appends a line."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(one)) + "\n")


def read(path: Path) -> list[Entry]:
    return [Entry(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
