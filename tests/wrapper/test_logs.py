"""The kept log lines: bounded, followed by number, told when some were missed."""

import asyncio

from wrapper.logs import OperatorLogs


async def _read(logs: OperatorLogs, **wanted: object) -> list[str]:
    wanted = {"task_id": "", "tail": 1000, "follow": False, **wanted}
    return [line.text async for lines in logs.read(**wanted) for line in lines.lines]  # type: ignore[arg-type]


async def test_the_newest_lines_are_kept_and_chosen_by_task() -> None:
    logs = OperatorLogs(4)
    for number in range(6):
        logs.add("job", "info", f"line {number}", task_id="even" if number % 2 == 0 else "odd")
    assert await _read(logs) == ["line 2", "line 3", "line 4", "line 5"]
    assert await _read(logs, task_id="odd") == ["line 3", "line 5"]
    assert await _read(logs, tail=1) == ["line 5"]


async def test_a_reader_that_follows_hears_new_lines_and_how_many_it_missed() -> None:
    logs = OperatorLogs(3)
    logs.add("job", "info", "before")
    following = logs.read(task_id="", tail=10, follow=True)
    assert [line.text for line in (await anext(following)).lines] == ["before"]
    waiting = asyncio.ensure_future(anext(following))
    await asyncio.sleep(0)
    assert not waiting.done()
    for number in range(10):
        logs.add("job", "info", f"line {number}")
    heard = await waiting
    assert [line.text for line in heard.lines] == ["line 7", "line 8", "line 9"]
    assert heard.lost == 7


async def test_a_line_that_is_too_long_is_cut() -> None:
    logs = OperatorLogs(3)
    logs.add("job", "info", "é" * 100_000)
    (text,) = await _read(logs)
    assert len(text.encode()) <= 8192
