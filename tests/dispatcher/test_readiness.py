"""When a staged version may take over: what it lacks, from how far its jobs and its datasets are."""

import pytest

from dispatcher.deploy.progress import StagedJobRow, StagedWatermarkRow
from dispatcher.deploy.readiness import Lack, Waiver, lack
from kernel.scopes import cursor_key
from tests.dispatcher.builders import int64


def job(
    name: str = "sums",
    *,
    kind: str = "operator",
    replaying: bool = False,
    unfinished: bool = False,
    open_: bool = False,
    dead: str | None = None,
) -> StagedJobRow:
    return StagedJobRow(name, f"{name}-version", kind, replaying, unfinished, open_, dead)


FIVE = cursor_key(int64(5))


def mark(
    number: int | None,
    former: bytes | None = FIVE,
    *,
    cursor_type: int = 1,
    former_type: int = 1,
    reading: bool = False,
) -> StagedWatermarkRow:
    key = None if number is None else cursor_key(int64(number))
    return StagedWatermarkRow("s.sums", cursor_type, former_type, key, former, reading)


@pytest.mark.parametrize(
    ("jobs", "words"),
    [
        ([job(replaying=True)], "sums still to catch up"),
        ([job(unfinished=True, open_=True)], "sums still to catch up"),
        ([job(open_=True)], ""),
        ([job(kind="virtual"), job("means")], ""),
        ([job(dead="t1")], "task t1 of sums is dead: retry or skip it"),
        (
            [job(dead="t1"), job("means", replaying=True)],
            "task t1 of sums is dead: retry or skip it; means still to catch up",
        ),
        ([job("blocks", kind="source", open_=True), job(open_=True)], ""),
        ([job("blocks", kind="source"), job(open_=True)], "sums still to catch up"),
        ([job(str(number), replaying=True) for number in range(5)], "0, 1, 2 and 2 more still to catch up"),
    ],
)
def test_what_jobs_have_yet_to_do(jobs: list[StagedJobRow], words: str) -> None:
    found = lack(jobs, [])
    assert found.words() == words
    assert found.nothing is not bool(words)


TYPED = (
    "the cursors of s.sums have another type, which nobody can compare: when it has what you need, cut over with"
    " --cursors-may-differ"
)


@pytest.mark.parametrize(
    ("watermark", "words"),
    [
        (mark(5), ""),
        (mark(6), ""),
        (mark(4), "the watermark of s.sums would go back"),
        (mark(None), "the watermark of s.sums would go back"),
        (mark(9, cursor_type=3), TYPED),
    ],
)
def test_no_watermark_goes_back(watermark: StagedWatermarkRow, words: str) -> None:
    assert lack([job()], [watermark]).words() == words


def test_releases_are_halted_only_where_that_lets_it_catch_up() -> None:
    assert lack([job(open_=True)], [mark(4)]).chases
    assert not lack([job()], [mark(4)]).chases, "it has nothing to do: its source ends earlier"
    assert not lack([job(unfinished=True, open_=True)], [mark(4)]).chases
    assert not lack([job(open_=True)], [mark(5)]).chases
    assert not lack([job(open_=True), job("blocks", kind="source", open_=True)], [mark(4)]).chases
    assert not Lack((), (), ("s.sums",), ("s.others",), working=True).chases


UNDERWAY = (
    "a source of it goes on, and nobody can compare how far it is (s.sums is at {}, what is active at {}): when it has"
    " what you need, cut over with --watermarks-may-go-back"
)


@pytest.mark.parametrize(
    ("watermark", "words"),
    [
        pytest.param(mark(6, cursor_type=2, former_type=1, reading=True), None, id="another type"),
        pytest.param(mark(1, None, reading=True), ("1", "no watermark"), id="none is served"),
        pytest.param(mark(None, None, reading=True), ("no watermark", "no watermark"), id="and none is there"),
    ],
)
def test_what_a_source_of_the_build_goes_on_to_bring_is_for_a_person_to_judge(
    watermark: StagedWatermarkRow, words: tuple[str, str] | None
) -> None:
    lacking = lack([job("blocks", kind="source", open_=True)], [watermark])
    assert lacking.needs_person
    assert not lacking.but(Waiver(cursors=True)).allows(Waiver(cursors=True))
    assert lacking.allows(Waiver(watermarks=True))
    if words is not None:
        assert lacking.words() == UNDERWAY.format(*words)
