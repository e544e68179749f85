"""A death at a crash point: by SIGKILL, of a process of its own, in the middle of a step.

`python -m tests.crashing.deaths DATABASE ARTIFACTS POINT ARGUMENTS` takes the step and dies.
"""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from dispatcher.db.pool import PoolConfig, open_pool
from kernel.crash import arm
from tests.crashing import of_changes, of_work
from tests.crashing.picture import Picture, take
from tests.crashing.points import ROOT
from tests.crashing.step import Arguments, Moment, Scene, Step
from tests.dispatcher.changing import Fleet
from tests.dispatcher.in_process import DEADLINE, in_process_dispatcher

POINTS = of_changes.POINTS | of_work.POINTS

_BUSY = """
select count(*) from pg_stat_activity
where datname = current_database() and state <> 'idle' and pid <> pg_backend_pid()
"""
_NAMES_NO_FILE = """
select a.object_key from artifact a join dataset_version v using (dataset_version_id) where v.condemned_at is null
"""
_DANGLING = """
select
    (select count(*) from artifact a where not exists
        (select 1 from dataset_version v where v.dataset_version_id = a.dataset_version_id))
    + (select count(*) from event e where not exists
        (select 1 from dataset_version v where v.dataset_version_id = e.dataset_version_id))
    + (select count(*) from any_task t where not exists
        (select 1 from job_version j where j.job_version_id = t.job_version_id))
    + (select count(*) from job_version j where not exists
        (select 1 from job_output o where o.job_version_id = j.job_version_id))
"""


@dataclass(frozen=True, slots=True)
class Seen:
    """Of a step that was taken, or tried: what was there before it, after it, and in the end, when everything that
    followed was done. `dangling` are rows without what they point to, and files that are named and not there."""

    before: Picture
    after: Picture
    end: Picture
    dangling: int


@dataclass(frozen=True, slots=True)
class Death:
    """`moment` is what was found; `resumed` whether in the end everything was as if nobody had died."""

    moment: Moment
    resumed: bool
    dangling: int


async def taken(point: str, database: str, home: Path) -> Seen:
    """What the point's step does where nobody dies."""
    step = POINTS[point].step
    async with _scene(database, home) as scene:
        arguments = await step.arrange(scene)
        before = await take(scene.dispatcher)
        await step.act(scene, arguments)
        after = await take(scene.dispatcher)
        return await _to_the_end(scene, step, before, after)


async def died(point: str, database: str, home: Path, undisturbed: Seen) -> Death:
    """Kills the step at the point, and takes it again."""
    step = POINTS[point].step
    async with _scene(database, home) as scene:
        arguments = await step.arrange(scene)
        before = await take(scene.dispatcher)
        command = [sys.executable, "-m", "tests.crashing.deaths", database, str(home), point, json.dumps(arguments)]
        ended = await asyncio.to_thread(subprocess.run, command, cwd=ROOT, check=False)
        if ended.returncode != -signal.SIGKILL:
            raise RuntimeError(f"{point}: the step ended with {ended.returncode}, and passed no such point")
        async with asyncio.timeout(DEADLINE):
            while await scene.dispatcher.value(_BUSY):  # the server has yet to notice
                pass
        at_death = await take(scene.dispatcher)
        await step.act(scene, arguments)
        seen = await _to_the_end(scene, step, before, at_death)
    return Death(_moment(step, arguments, seen, undisturbed), seen.end.alike(undisturbed.end), seen.dangling)


def _moment(step: Step, arguments: Arguments, seen: Seen, undisturbed: Seen) -> Moment:
    ids = arguments if step.parted else ()
    elsewhere = step.unseen | step.added_to
    same = seen.after.without(elsewhere, ids) == seen.before.without(elsewhere, ids)
    if same and seen.after.keeps(seen.before, step.added_to):
        return Moment.BEFORE
    return Moment.AFTER if seen.after.alike(undisturbed.after) else Moment.BETWEEN


async def _to_the_end(scene: Scene, step: Step, before: Picture, after: Picture) -> Seen:
    """Everything that follows is done."""
    dangling = await _dangling(scene)
    await Fleet(scene.dispatcher).catch_up()
    end = (await take(scene.dispatcher)).without(step.left_behind).unnumbered(step.numbering)
    return Seen(before, after, end, dangling + await _dangling(scene))


async def _dangling(scene: Scene) -> int:
    there = {item.key for item in scene.dispatcher.store.list("")}
    named = {key for (key,) in await scene.dispatcher.rows(_NAMES_NO_FILE)}
    return len(named - there) + int(await scene.dispatcher.value(_DANGLING))


@asynccontextmanager
async def _scene(database: str, home: Path) -> AsyncIterator[Scene]:
    async with open_pool(PoolConfig(database)) as pool, in_process_dispatcher(pool, home) as dispatcher:
        yield Scene(dispatcher, home)


async def _die(database: str, home: Path, point: str, arguments: Arguments) -> None:
    place = POINTS[point]
    async with _scene(database, home) as scene:
        arm(f"{point}:{place.hit}")
        await place.step.act(scene, arguments)


if __name__ == "__main__":
    asyncio.run(_die(sys.argv[1], Path(sys.argv[2]), sys.argv[3], json.loads(sys.argv[4])))
