"""What a change promises, counted: tasks in work when their version goes, deaths at every crash point, and rows after a
rollback. The tests assert the same of the same code; here are the figures."""

import asyncio
import uuid
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import psycopg
from psycopg import sql

from bench.settings import Settings
from bench.stack import Stack
from bench.table import Measure
from ctl.connection import connect
from dispatcher.db.migrate import migrate
from dispatcher.db.pool import PoolConfig, open_pool
from tests.acceptance.taking_back import take_back
from tests.crashing.deaths import POINTS, Death, Seen, died, taken
from tests.crashing.step import Moment, Step
from tests.dispatcher.in_flight import InFlight, switch_in_flight
from tests.dispatcher.in_process import in_process_dispatcher

_IN_FLIGHT = 200


def in_flight(stack: Stack, _: Settings) -> Sequence[Measure]:
    """A cutover and a rollback over tasks in work."""
    found = asyncio.run(_switched(_new_database(stack), stack.home.root / "in-flight"))
    return [
        measure
        for switch, answers in found.gone.items()
        for measure in (
            Measure(f"tasks in work at a {switch}, of the version that went", answers.ends.total(), "tasks", ">= 200"),
            Measure(f"of these, emitted or completed after the {switch}", answers.accepted, "accepted", "<= 0"),
            Measure(
                f"of a shared job's as many, cancelled by the {switch}", found.shared[switch].cancelled, "tasks", "<= 0"
            ),
        )
    ]


async def _switched(database: str, home: Path) -> InFlight:
    async with open_pool(PoolConfig(database)) as pool, in_process_dispatcher(pool, home) as dispatcher:
        return await switch_in_flight(dispatcher, _IN_FLIGHT)


def crashes(stack: Stack, settings: Settings) -> Sequence[Measure]:
    """A death by SIGKILL at each crash point."""
    points = sorted(POINTS)[:: settings.scaled(1, 8)]
    deaths = asyncio.run(_deaths(stack, points))
    moments = Counter(death.moment for death in deaths.values())
    between = [point for point, death in deaths.items() if death.moment is Moment.BETWEEN]
    stuck = [point for point, death in deaths.items() if not death.resumed]
    dangling = sum(death.dangling for death in deaths.values())
    return [
        Measure("kill -9, one at each crash point", len(deaths), "deaths", f">= {len(points)}"),
        Measure("found as before the step", moments[Moment.BEFORE], "deaths"),
        Measure("found as after the step", moments[Moment.AFTER], "deaths"),
        Measure("found as neither before nor after", len(between), "deaths", "<= 0", note=", ".join(between)),
        Measure("not made good by the same call again or a duty", len(stuck), "deaths", "<= 0", note=", ".join(stuck)),
        Measure("rows or files that point to nothing", dangling, "rows", "<= 0"),
    ]


async def _deaths(stack: Stack, points: Sequence[str]) -> dict[str, Death]:
    undisturbed: dict[Step, Seen] = {}
    found: dict[str, Death] = {}
    for point in points:
        step = POINTS[point].step
        folder = stack.home.root / "deaths" / point
        if step not in undisturbed:
            undisturbed[step] = await taken(point, _new_database(stack), folder / "undisturbed" / "artifacts")
        found[point] = await died(point, _new_database(stack), folder / "killed" / "artifacts", undisturbed[step])
    return found


def taken_back(stack: Stack, settings: Settings) -> Sequence[Measure]:
    """A rollback under traffic, and what the restored version ends with."""
    with connect(stack.home.root) as connection:
        found = take_back(connection, stack.home.root / "taken-back", settings.scaled(3_000, 2_000))
    note = "" if found.under_traffic else "its source had ended before"
    return [
        Measure("lag of the restored version at a rollback", found.lag, "events", ">= 1", note=note),
        Measure("lag in the end", found.left, "events", "<= 0"),
        Measure("rows of the version that was never replaced", found.rows, "rows", ">= 1"),
        Measure(
            "rows that differ after a rollback and its catch-up",
            found.differing,
            "rows",
            "<= 0",
            note="SHA-256 of the sorted rows: " + " and ".join(digest[:12] for digest in found.digests),
        ),
    ]


def _new_database(stack: Stack) -> str:
    """A migrated one of its own, on the stack's server."""
    name = f"proof_{uuid.uuid4().hex}"
    with psycopg.connect(stack.conninfo("postgres"), autocommit=True) as connection:
        connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
    migrate(stack.conninfo(name))
    return stack.conninfo(name)
