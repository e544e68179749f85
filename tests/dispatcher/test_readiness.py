"""When a staged version may take over: what it lacks, from how far its jobs and its datasets are."""

import pytest

from dispatcher.deploy.progress import StagedJobRow, StagedWatermarkRow
from dispatcher.deploy.readiness import Lack, lack


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


def mark(key: bytes | None, former: bytes = b"5", *, cursor_type: int = 1, former_type: int = 1) -> StagedWatermarkRow:
    return StagedWatermarkRow("s.sums", cursor_type, former_type, key, former)


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
        (mark(b"5"), ""),
        (mark(b"6"), ""),
        (mark(b"4"), "the watermark of s.sums would go back"),
        (mark(None), "the watermark of s.sums would go back"),
        (mark(b"9", cursor_type=3), TYPED),
    ],
)
def test_no_watermark_goes_back(watermark: StagedWatermarkRow, words: str) -> None:
    assert lack([job()], [watermark]).words() == words


def test_releases_are_held_only_where_that_lets_it_catch_up() -> None:
    assert lack([job(open_=True)], [mark(b"4")]).chases
    assert not lack([job()], [mark(b"4")]).chases, "it has nothing to do: its source ends earlier"
    assert not lack([job(unfinished=True, open_=True)], [mark(b"4")]).chases
    assert not lack([job(open_=True)], [mark(b"5")]).chases
    assert not lack([job(open_=True), job("blocks", kind="source", open_=True)], [mark(b"4")]).chases
    assert not Lack((), (), ("s.sums",), ("s.others",), working=True).chases
