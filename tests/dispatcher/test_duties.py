"""Background duties: whatever one of them meets, it is tried again, and the others go on."""

import asyncio

import psycopg
import pytest

from dispatcher import duties
from dispatcher.duties import Duty, run_duties


@pytest.mark.parametrize("failure", [psycopg.OperationalError("the server has gone"), ZeroDivisionError("a defect")])
async def test_a_duty_that_fails_is_tried_again_and_hinders_no_other(
    monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    monkeypatch.setattr(duties, "FULL_RETRY", 0.0)
    rounds = {"faulty": 0, "sound": 0}
    enough = asyncio.Event()

    async def faulty() -> int:
        rounds["faulty"] += 1
        if rounds["faulty"] == 3:
            enough.set()
            await asyncio.Event().wait()
        raise failure

    async def sound() -> int:
        rounds["sound"] += 1
        return 0

    async def forever() -> None:
        await asyncio.Event().wait()

    running = asyncio.create_task(run_duties([Duty("faulty", faulty, forever), Duty("sound", sound, forever)]))
    async with asyncio.timeout(10):
        await enough.wait()
    assert not running.done()
    assert rounds == {"faulty": 3, "sound": 1}
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


@pytest.mark.parametrize("instead", [None, psycopg.OperationalError("it was under way")])
async def test_a_duty_whose_round_loses_its_cancellation_ends_all_the_same(instead: Exception | None) -> None:
    begun = asyncio.Event()

    async def loses_it() -> int:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if instead is not None:
                raise instead from None
        return 0

    async def forever() -> None:
        await asyncio.Event().wait()

    running = asyncio.create_task(run_duties([Duty("loses-it", loses_it, forever)]))
    async with asyncio.timeout(10):
        await begun.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
