"""The changes of a run, as a plan: what a person does to the pipeline while it works, in which order."""

import dataclasses
import random
from dataclasses import dataclass
from enum import Enum

from tests.chaos.workload import Shape

BUILDS = 3
"""Shapes of a run beside the first; a step goes to one of them or back to the first."""


class StepKind(Enum):
    """What a person does in one go."""

    DEPLOY = "deploy"
    """It takes over by itself."""
    HOLD = "deploy, and cut over by hand"
    ABORT = "deploy, and abort"
    INTERRUPT = "deploy, and roll back meanwhile"
    TUNE = "deploy what only runs otherwise"
    ROLLBACK = "roll back"
    ROLLBACK_TO = "roll back to the first version"
    COLLECT = "collect"
    BACKFILL = "run again what was done"


BUILDING = (StepKind.DEPLOY, StepKind.HOLD, StepKind.ABORT, StepKind.INTERRUPT)
"""Those that build something beside what runs."""
_ANY = (
    StepKind.DEPLOY,
    StepKind.DEPLOY,
    StepKind.HOLD,
    StepKind.ABORT,
    StepKind.INTERRUPT,
    StepKind.TUNE,
    StepKind.ROLLBACK,
    StepKind.ROLLBACK_TO,
    StepKind.COLLECT,
)
_FREE = 2
_OTHER_SIZE = {10: 25, 25: 50, 50: 10}
"""All of them divide the numbers of a run: a last range that is not full stays open, and what ends in one is complete
up to less than what does not, so it never takes over by itself."""
_FIRST = Shape()
_BEGIN, _END = 0.08, 0.6


@dataclass(frozen=True, slots=True)
class Step:
    """It begins when the one before is done and the share `at` of the tasks has ended. `shape` is what is deployed,
    where something is built."""

    kind: StepKind
    at: float
    shape: Shape = _FIRST


def steps_of(rng: random.Random) -> tuple[Step, ...]:
    """In each run something is cut over, rolled back, run again, and collected at the end."""
    shapes = [_FIRST]
    for letter in "BCD"[:BUILDS]:
        shapes.append(_changed(rng.choice(shapes), letter, rng))
    first = (rng.choice((StepKind.DEPLOY, StepKind.HOLD)), StepKind.ROLLBACK)
    kinds = [*first, StepKind.BACKFILL, *(rng.choice(_ANY) for _ in range(_FREE))]
    moments = sorted(rng.uniform(_BEGIN, _END) for _ in kinds)
    current, steps = shapes[0], []
    for kind, at in zip(kinds, moments, strict=True):
        shape = rng.choice([shape for shape in shapes if shape != current])
        if kind in (StepKind.DEPLOY, StepKind.HOLD):
            current = shape
        steps.append(Step(kind, at, shape))
    return (*steps, Step(StepKind.COLLECT, 1.0))


def _changed(shape: Shape, letter: str, rng: random.Random) -> Shape:
    """Mostly near the end of the chain, since a change builds all that follows it."""
    match rng.choice(("tagged", "tagged", "tagged", "ranges", "ranges", "ranges", "skip", "hop")):
        case "tagged":
            return dataclasses.replace(shape, letter=letter)
        case "ranges":
            return dataclasses.replace(shape, size=_OTHER_SIZE[shape.size], letter=letter)
        case "skip":
            return dataclasses.replace(shape, skip=1 - shape.skip, letter=letter)
        case _:
            return dataclasses.replace(shape, hop=1 - shape.hop, letter=letter)
