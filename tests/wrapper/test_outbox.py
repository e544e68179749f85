"""What goes to the dispatcher in batches: together, in order, again until it goes through, and none for another's
fault."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from kernel.errors import TraceError
from traceapi.types.v1 import errors_pb2 as errors
from traceapi.types.v1.task_pb2 import Progress
from wrapper import outbox as outbox_module
from wrapper.outbox import Outbox


class Receiver:
    """The other side: answers each item with its number, fails as it is told to."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.failures: list[int] = []
        self.poison: set[int] = set()

    async def send(self, items: Sequence[Progress]) -> Sequence[str]:
        self.batches.append([item.done for item in items])
        if self.failures:
            raise TraceError(self.failures.pop(0), "as it was told")
        if self.poison & {item.done for item in items}:
            raise TraceError(errors.ERROR_REASON_INVALID_REQUEST, "poison")
        return [f"accepted {item.done}" for item in items]


@asynccontextmanager
async def _running(receiver: Receiver) -> AsyncIterator[Outbox[Progress, str]]:
    outbox: Outbox[Progress, str] = Outbox(receiver.send, lambda item, error: f"refused {item.done}: {error}")
    task = asyncio.create_task(outbox.run())
    try:
        yield outbox
    finally:
        task.cancel()
        await asyncio.wait([task])


def _items(*numbers: int) -> list[Progress]:
    return [Progress(done=number) for number in numbers]


async def test_entries_that_come_together_travel_together_and_in_order() -> None:
    receiver = Receiver()
    async with _running(receiver) as outbox:
        answers = await asyncio.gather(*[outbox.put(_items(n, n + 100), lambda: True) for n in range(5)])
    assert answers == [[f"accepted {n}", f"accepted {n + 100}"] for n in range(5)]
    assert receiver.batches == [[0, 100, 1, 101, 2, 102, 3, 103, 4, 104]]


@pytest.mark.parametrize(
    "reason",
    [errors.ERROR_REASON_UNAVAILABLE, errors.ERROR_REASON_OUTCOME_UNKNOWN, errors.ERROR_REASON_OVERLOADED],
)
async def test_a_failed_call_is_repeated_as_it_was(reason: int) -> None:
    receiver = Receiver()
    receiver.failures = [reason, reason]
    async with _running(receiver) as outbox:
        assert await outbox.put(_items(1, 2), lambda: True) == ["accepted 1", "accepted 2"]
    assert receiver.batches == [[1, 2]] * 3


async def test_what_is_lost_meanwhile_is_not_sent_again() -> None:
    receiver = Receiver()
    receiver.failures = [errors.ERROR_REASON_UNAVAILABLE]
    async with _running(receiver) as outbox:
        lost, kept = await asyncio.gather(
            outbox.put(_items(1), lambda: not receiver.batches), outbox.put(_items(2), lambda: True)
        )
    assert (lost, kept) == (None, ["accepted 2"])
    assert receiver.batches == [[1, 2], [2]]


async def test_one_poisoned_item_is_refused_and_holds_nobody_up() -> None:
    receiver = Receiver()
    receiver.poison = {3}
    async with _running(receiver) as outbox:
        answers = await asyncio.gather(*[outbox.put(_items(n), lambda: True) for n in range(8)])
    assert answers[3] == ["refused 3: poison"]
    assert [answer for n, answer in enumerate(answers) if n != 3] == [[f"accepted {n}"] for n in range(8) if n != 3]


async def test_a_call_has_at_most_a_thousand_items() -> None:
    receiver = Receiver()
    async with _running(receiver) as outbox:
        await asyncio.gather(*[outbox.put(_items(*range(400)), lambda: True) for _ in range(5)])
    assert [len(batch) for batch in receiver.batches] == [800, 800, 400]


async def test_an_entry_waits_for_company_only_while_a_call_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "_LINGER_SECONDS", 0.05)
    sent: list[list[int]] = []
    answer = asyncio.Event()

    async def send(items: Sequence[Progress]) -> Sequence[str]:
        sent.append([item.done for item in items])
        await answer.wait()
        return ["accepted"] * len(items)

    outbox: Outbox[Progress, str] = Outbox(send, lambda _item, error: str(error))
    running = asyncio.create_task(outbox.run())
    puts = [asyncio.create_task(outbox.put(_items(1), lambda: True))]
    for _ in range(5):
        await asyncio.sleep(0)
    assert sent == [[1]]
    puts.append(asyncio.create_task(outbox.put(_items(2), lambda: True)))
    for _ in range(5):
        await asyncio.sleep(0)
    puts.append(asyncio.create_task(outbox.put(_items(3), lambda: True)))
    answer.set()
    async with asyncio.timeout(10):
        await asyncio.gather(*puts)
    assert sent == [[1], [2, 3]]
    running.cancel()
    await asyncio.wait([running])
