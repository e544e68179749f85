"""The checker of `make chaos` over what the benches left in a database: speed that lies does not count."""

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from bench.life import BUILT_IN, live
from bench.settings import Settings
from bench.stack import Stack
from bench.table import Measure

_LIMIT_SECONDS = 180.0


def measure(stack: Stack, settings: Settings) -> Sequence[Measure]:
    """After everything else that the stack was used for."""
    return broken(stack, settings, "")


def broken(stack: Stack, settings: Settings, of: str) -> Sequence[Measure]:
    """What the database shows. A last round of tasks is written down change by change, by the checker's own triggers:
    of these it also judges who held what when. The benches keep no history of calls, and leave some tasks open.

    `of` says whose database it is, at the head of each row's name.
    """
    name = f"{of}invariants that the runs before have broken"
    try:
        collecting, checker = import_module("tests.chaos.collect"), import_module("tests.chaos.checker")
    except ModuleNotFoundError:
        return [Measure(name, float("nan"), "", "<= 0", note="not measured: there is no checker", counts=False)]
    collecting.install_audit(stack.conninfo())
    with stack.database() as database:
        live(stack, database, "audited", BUILT_IN, settings.scaled(10_000, 1_000), _LIMIT_SECONDS)
    evidence: Any = collecting.collect(stack.conninfo(), None, None, collecting.Bounds())
    evidence.drained = False
    violations = [str(violation) for violation in checker.check(evidence)]
    return [
        Measure(f"{of}tasks whose rows were checked", len(evidence.tasks), "tasks"),
        Measure(f"{of}changes of tasks that were checked", len(evidence.task_changes), "changes"),
        Measure(name, len(violations), "", "<= 0", note="; ".join(violations[:3])),
    ]
