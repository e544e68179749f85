"""Tasks that take as long as a halt of releases, or longer, starve no build: it takes over though what is active has
something in work at all times, and no watermark goes back.

Time is simulated: it goes on by making older everything that the database has noted.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from dispatcher.deploy.advancing import advance
from tests.dispatcher.builders import Source
from tests.dispatcher.changing import CHANGED, Fleet, InWork, deploy, state, watch
from tests.dispatcher.in_process import InProcess
from tests.dispatcher.switches.builds import older

STEP = 10
"""Seconds between two events."""
SERVED = """
select coalesce(min(w.cursor_key), '')
from pointer p left join watermark w using (dataset_version_id)
where p.dataset_id in ('copies', 'echoes')
"""
WORKING = """
select count(*)
from task t join job_version_run r using (job_version_id)
where t.state = 'running' and r.run_state = 'staged'
"""


@dataclass(slots=True)
class SlowFleet:
    """With a place for every task. `takes` says for how many seconds one is in work, by the state of its job version
    and its number."""

    dispatcher: InProcess
    takes: Callable[[str, int], int]
    now: int = 0
    _in_work: dict[int, list[InWork]] = field(default_factory=lambda: defaultdict(list))

    async def step(self) -> None:
        """Time goes on; what is done by then ends, and what may go begins."""
        await older(self.dispatcher, STEP)
        self.now += STEP
        fleet = Fleet(self.dispatcher)
        for task in [task for at in sorted(self._in_work) if at <= self.now for task in self._in_work.pop(at)]:
            await fleet.end([task])
        while await self.dispatcher.replay():
            pass
        await self.dispatcher.derive()
        await advance(self.dispatcher.pool, lambda: None)
        for task in await fleet.begin():
            number = task.scope.cursor.int64_value
            self._in_work[self.now + self.takes(task.run_state, number)].append(task)


def _between_30_and_60(run_state: str, number: int) -> int:
    return 30 + 10 * (number % 4)


@pytest.mark.parametrize(
    "takes",
    [
        # This one gets there by halts of 30 s too; the others need longer ones.
        pytest.param(_between_30_and_60, id="both between 30 s and 60 s"),
        pytest.param(lambda run_state, number: 45 if run_state == "running" else 60, id="the new one 60 s"),
        pytest.param(
            lambda run_state, number: 10 if run_state == "running" else 60, id="the new one six times as long"
        ),
    ],
)
async def test_a_build_takes_over_though_tasks_are_long_in_work_at_all_times(
    dispatcher: InProcess, source: Source, takes: Callable[[str, int], int]
) -> None:
    fleet = SlowFleet(dispatcher, takes)
    blocks = iter(range(1, 1_000))
    for _ in range(12):
        await source.publish([next(blocks)])
        await fleet.step()
    building = await deploy(dispatcher, CHANGED)
    complete = await dispatcher.value(SERVED)
    for _ in range(120):
        await source.publish([next(blocks)])
        await fleet.step()
        before, complete = complete, await dispatcher.value(SERVED)
        assert before <= complete, "a watermark went back"
        if state((await watch(dispatcher, building)).deployment) == "active":
            return
        assert await dispatcher.value(WORKING), "it has something in work at every look"
    raise AssertionError(f"in {fleet.now} s it has not taken over")
