"""What a seed means: which faults, at whom, when, and how much of what is sent gets lost, doubled or replayed.

A plan is a value; the same seed gives the same plan. When a fault comes is a share of the run's progress, not a time,
so it falls into the same phase of the work on a fast machine and on a slow one.
"""

import random
from dataclasses import dataclass
from enum import Enum

from kernel.crash import POINTS
from tests.chaos.lossy import Losses
from tests.chaos.steps import BUILDING, Step, StepKind, steps_of

WRAPPERS = ("wrapper-1", "wrapper-2", "wrapper-3")
DISPATCHERS = ("dispatcher-1", "dispatcher-2")
SQS = "sqs"
PEOPLE = "people"
"""Who changes the pipeline, and who reads what it makes."""

_OF_WRAPPERS = ("claim.answered", "emit.", "end.", "heartbeat.answered", "artifact.", "object.")
OF_CHANGES = ("deploy.", "replay.", "cutover.", "abort.", "rollback.", "rerun.", "condemn.", "collect.", "sweep.")
_PLANNED = 6
_BOUND = 2
"""So many of them come while something is being built."""
_SCHEDULED = (0.06, 0.75)


class Kind(Enum):
    """Kinds of faults."""

    KILL_WRAPPER = "kill wrapper"
    KILL_DISPATCHER = "kill dispatcher"
    PAUSE_WRAPPER = "pause wrapper"
    PAUSE_DISPATCHER = "pause dispatcher"
    RESTART_POSTGRES = "restart postgres"
    END_SESSIONS = "end database sessions"
    CUT_WRAPPER = "cut wrapper's connections"
    CUT_DATABASE = "cut dispatcher's connections"
    CUT_SQS = "cut connections to SQS"
    LOSE_REPLIES = "lose replies to wrapper"
    CUT_PEOPLE = "cut people's connections"
    LOSE_ANSWERS = "lose answers to people"
    CRASH = "crash point"


_VICTIMS = {
    Kind.KILL_WRAPPER: WRAPPERS,
    Kind.PAUSE_WRAPPER: WRAPPERS,
    Kind.CUT_WRAPPER: WRAPPERS,
    Kind.LOSE_REPLIES: WRAPPERS,
    Kind.KILL_DISPATCHER: DISPATCHERS,
    Kind.PAUSE_DISPATCHER: DISPATCHERS,
    Kind.CUT_DATABASE: DISPATCHERS,
    Kind.RESTART_POSTGRES: ("postgres",),
    Kind.END_SESSIONS: ("postgres",),
    Kind.CUT_SQS: (SQS,),
    Kind.CUT_PEOPLE: (PEOPLE,),
    Kind.LOSE_ANSWERS: (PEOPLE,),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """It comes to the first of `victims` that has work in hand, once the share `at` of the tasks has ended; a pause or
    an outage lasts `seconds`. Where it is bound to a step, it comes while that builds."""

    kind: Kind
    victims: tuple[str, ...]
    at: float
    seconds: float
    step: int | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """A run. `wakeups` is the way that wake-ups go, `stream` or `sqs`; `crashes` is by process: the points that its
    first start is armed with."""

    seed: int
    wakeups: str
    faults: tuple[Fault, ...]
    crashes: dict[str, str]
    losses: Losses
    replayed: float
    """The share of workers' calls that are sent again, later."""
    cancels: tuple[float, ...]
    """When a person cancels a task."""
    steps: tuple[Step, ...]
    """What becomes of the pipeline meanwhile."""
    rollback_versions: int
    """So many former versions are kept from the collector."""


def plan_of(seed: int, lease_seconds: float) -> Plan:
    """The plan of a seed."""
    rng = random.Random(seed)
    wakeups = rng.choice(("stream", SQS))
    kinds = rng.sample([kind for kind in _VICTIMS if kind is not Kind.CUT_SQS or wakeups == SQS], _PLANNED)
    moments = sorted(rng.uniform(*_SCHEDULED) for _ in kinds)
    steps = steps_of(rng)
    builds = [index for index, step in enumerate(steps) if step.kind in BUILDING]
    bound = dict(zip(rng.sample(kinds, _BOUND), (builds[0], rng.choice(builds)), strict=True))
    faults = [
        Fault(
            kind,
            tuple(rng.sample(_VICTIMS[kind], len(_VICTIMS[kind]))),
            at,
            round(_duration(kind, rng, lease_seconds), 2),
            bound.get(kind),
        )
        for kind, at in zip(kinds, moments, strict=True)
    ]
    armed = {rng.choice(WRAPPERS): _wrapper_points(), rng.choice(DISPATCHERS): _dispatcher_points()}
    crashes = {process: f"{rng.choice(points)}:{rng.randint(2, 12)}" for process, points in armed.items()}
    changing = f"{rng.choice(_points_of_changes(steps))}:{rng.choice((1, 1, 2))}"
    for process in DISPATCHERS:  # whichever of them does it
        crashes[process] = ",".join(filter(None, (crashes.get(process), changing)))
    return Plan(
        seed,
        wakeups,
        tuple(faults),
        crashes,
        Losses(rng.choice((0.0, 0.1, 0.4)), rng.choice((0.05, 0.3)), 0.02),
        rng.choice((0.1, 0.3)),
        tuple(sorted(rng.uniform(0.1, 0.7) for _ in range(5))),
        steps,
        rng.choice((0, 1)),
    )


def _duration(kind: Kind, rng: random.Random, lease_seconds: float) -> float:
    if kind is Kind.PAUSE_WRAPPER:  # past the end of its leases: it comes back as a zombie
        return rng.uniform(1.5, 2.5) * lease_seconds
    return rng.uniform(0.1, 1.2) * lease_seconds


def _wrapper_points() -> list[str]:
    return [point for point in POINTS if point.startswith(_OF_WRAPPERS)]


def _dispatcher_points() -> list[str]:
    return [point for point in POINTS if not point.startswith((*_OF_WRAPPERS, *OF_CHANGES))]


def _points_of_changes(steps: tuple[Step, ...]) -> list[str]:
    """Those that the steps come by: every run cuts over, rolls back, and collects."""
    aborts = any(step.kind in (StepKind.ABORT, StepKind.INTERRUPT) for step in steps)
    return [point for point in POINTS if point.startswith(OF_CHANGES) and (aborts or not point.startswith("abort."))]
