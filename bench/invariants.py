"""The checker of `make chaos` over what the benches left in the database: speed that lies does not count."""

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from bench.settings import Settings
from bench.stack import Stack
from bench.table import Measure

_NAME = "invariants that the runs before have broken"


def measure(stack: Stack, settings: Settings) -> Sequence[Measure]:
    """What the database alone shows: the benches keep no history of calls, and leave some tasks open."""
    try:
        collecting, checker = import_module("tests.chaos.collect"), import_module("tests.chaos.checker")
    except ModuleNotFoundError:
        return [Measure(_NAME, float("nan"), "", "<= 0", note="not measured: there is no checker", counts=False)]
    evidence: Any = collecting.collect(stack.conninfo(), None, None, collecting.Bounds())
    evidence.drained = False
    broken = [str(violation) for violation in checker.check(evidence)]
    note = "; ".join(broken[:3])
    return [
        Measure("tasks whose history was checked", len(evidence.tasks), "tasks"),
        Measure(_NAME, len(broken), "", "<= 0", note=note),
    ]
