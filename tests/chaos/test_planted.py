"""Each planted bug is caught. And without a bug no scenario breaks anything: what is caught is the bug."""

from pathlib import Path

import pytest

from tests.chaos.bugs import BUGS
from tests.chaos.checker import INVARIANTS, check
from tests.chaos.planting import planted
from tests.chaos.scenarios import LATER, SCENARIOS
from tests.chaos.stage import open_stage

_PAGE = Path(__file__).resolve().parents[2] / "docs" / "proof.md"
_NOT_THE_END = frozenset({"L1", "L2", "L3"})
"""Not to be asked of a scenario, which leaves things as they are."""


async def _broken(database: str, home: Path, scenario: str, schema: str = "") -> dict[str, str]:
    """The invariants that do not hold after the scenario, each with what breaks it."""
    async with open_stage(database, home, schema) as stage:
        await SCENARIOS[scenario](stage)
        evidence = stage.evidence(drained=scenario in LATER)
    return {
        violation.invariant: violation.what
        for violation in check(evidence)
        if violation.invariant not in _NOT_THE_END - {LATER.get(scenario)}
    }


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_without_a_bug_nothing_is_broken(database: str, tmp_path: Path, scenario: str) -> None:
    assert await _broken(database, tmp_path, scenario) == {}


@pytest.mark.parametrize("name", BUGS)
async def test_a_planted_bug_is_caught(database: str, tmp_path: Path, name: str) -> None:
    bug = BUGS[name]
    with planted(bug.patches):
        broken = await _broken(database, tmp_path, bug.scenario, bug.schema)
    assert bug.invariant in broken, f"{bug.what}: what is broken is {broken or 'nothing'}"


def test_every_scenario_has_a_bug_and_every_bug_an_invariant() -> None:
    assert {bug.scenario for bug in BUGS.values()} == set(SCENARIOS)
    assert {bug.invariant for bug in BUGS.values()} <= set(INVARIANTS)


def test_the_documentation_has_every_bug_and_every_invariant() -> None:
    page = _PAGE.read_text(encoding="utf-8")
    assert [n for n, bug in BUGS.items() if f"| `{n}` | {bug.what} | {bug.invariant} |" not in page] == []
    assert [name for name in INVARIANTS if f"| {name} | " not in page] == []
