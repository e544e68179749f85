"""A step that a program can die in."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from tests.dispatcher.builders import Source, start_source
from tests.dispatcher.changing import PIPELINE, Fleet
from tests.dispatcher.in_process import InProcess


class Moment(Enum):
    """What is found is as before the step, or as after it; `BETWEEN` is neither, and never to be found."""

    BEFORE = "before"
    AFTER = "after"
    BETWEEN = "between"


@dataclass(frozen=True, slots=True)
class Scene:
    """Where a step is taken. `home` is the folder of the artifacts; files of the programs may lie beside it."""

    dispatcher: InProcess
    home: Path


Arguments = list[str]


@dataclass(frozen=True, slots=True)
class Step:
    """`arrange` answers the arguments of `act`, which a dying process takes first, and after it another one: as a call
    is repeated by its caller, and a duty done by any dispatcher.

    Where a step is of several transactions, nobody reads what those before its last one wrote: `unseen` are tables of
    which that is so, `added_to` those of which it is so of new rows only, and where `parted`, rows that name one of the
    arguments are such rows.
    """

    arrange: Callable[[Scene], Awaitable[Arguments]]
    act: Callable[[Scene, Arguments], Awaitable[None]]
    unseen: frozenset[str] = frozenset()
    added_to: frozenset[str] = frozenset()
    parted: bool = False
    left_behind: frozenset[str] = frozenset()
    """Tables in which a step that was tried twice may leave rows of the first try, which nothing but a later step of
    the kind clears away."""
    numbering: frozenset[str] = frozenset()
    """Tables that name the version by its number, which is the next one where the first try took one."""


@dataclass(frozen=True, slots=True)
class Place:
    """A crash point: the step that comes by, what is to be found after a death there, and at which hit it dies."""

    step: Step
    moment: Moment
    hit: int = 1


def places(step: Step, *, before: Sequence[str] = (), after: Sequence[str] = (), hit: int = 1) -> dict[str, Place]:
    """The crash points of a step, by what is to be found after a death there."""
    found = {Moment.BEFORE: before, Moment.AFTER: after}
    return {point: Place(step, moment, hit) for moment, points in found.items() for point in points}


async def started(scene: Scene) -> Source:
    """The pipeline with three blocks, and everything that follows from them."""
    await scene.dispatcher.deploy(PIPELINE)
    source = await start_source(scene.dispatcher)
    await source.publish([1, 2, 3])
    await Fleet(scene.dispatcher).work()
    return source
