"""The checker of `make chaos` over what the benches left in a database: speed that lies does not count."""

import tempfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from bench.life import BUILT_IN, live
from bench.settings import Settings
from bench.stack import Stack, running_stack
from bench.table import Measure

_LIMIT_SECONDS = 180.0


def measure(stack: Stack, settings: Settings) -> Sequence[Measure]:
    """Of everything that the stack was used for; and of tasks on a stack of their own, where every change of a row is
    written down from the first deploy on, so that it is also judged who held what when."""
    found = [*broken(stack, "")]
    with tempfile.TemporaryDirectory(prefix="watched-") as folder, running_stack(Path(folder)) as watched:
        try:
            import_module("tests.chaos.collect").install_audit(watched.conninfo())
        except ModuleNotFoundError:
            return found
        with watched.database() as database:
            live(watched, database, "watched", BUILT_IN, settings.scaled(10_000, 1_000), _LIMIT_SECONDS)
        return [*found, *broken(watched, "change by change: ")]


def broken(stack: Stack, of: str) -> Sequence[Measure]:
    """What the database shows. The benches keep no history of calls, and leave some tasks open. `of` says what was
    looked at, at the head of each row's name."""
    name = f"{of}invariants that the runs before have broken"
    try:
        collecting, checker = import_module("tests.chaos.collect"), import_module("tests.chaos.checker")
    except ModuleNotFoundError:
        return [Measure(name, float("nan"), "", "<= 0", note="not measured: there is no checker", counts=False)]
    evidence: Any = collecting.collect(stack.conninfo(), None, None, collecting.Bounds())
    evidence.drained = False
    violations = [str(violation) for violation in checker.check(evidence)]
    return [
        Measure(f"{of}tasks whose rows were checked", len(evidence.tasks), "tasks"),
        Measure(f"{of}changes of tasks that were checked", len(evidence.task_changes), "changes"),
        Measure(name, len(violations), "", "<= 0", note="; ".join(violations[:3])),
    ]
