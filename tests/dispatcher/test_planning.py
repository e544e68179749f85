"""Tasks and time of a plan, from what was counted: values only."""

import math

import pytest

from dispatcher.deploy.comparison import BuiltJob, changes, differences
from dispatcher.deploy.deployable import Deployable
from dispatcher.deploy.estimates import Estimate, History, Room, estimate, parallelism, total
from dispatcher.deploy.planning import Events, Outline, Tasks, count_tasks, outline
from tests.dispatcher.comparing import base_of, built, deployable
from tests.dispatcher.dag.test_fingerprint import CHAIN
from traceapi.types.v1.dag_pb2 import DagSpec

ACTIVE = deployable(CHAIN)
COUNTS = {"blocks@1": 1000, "ranges@1": 10, "sums@1": 7, "checks@1": 10}


def planned(
    after: Deployable, before: Deployable | None = ACTIVE, reusing: dict[str, BuiltJob] | None = None
) -> Outline:
    base = base_of(before) if before else {}
    spec = DagSpec.FromString(before.spec) if before else DagSpec()
    found = differences(after, spec, base)
    return outline(after, base, reusing or {}, changes(after, base, reusing or {}, found))


def edited(old: str, new: str) -> Deployable:
    assert old in CHAIN
    return deployable(CHAIN.replace(old, new, 1))


def test_what_stays_has_its_events_and_what_is_rebuilt_as_many_as_before() -> None:
    counted = count_tasks(planned(edited("size: 100", "size: 200")), Events(COUNTS))
    assert counted == {
        "blocks": Tasks(),
        "ranges": Tasks(1000),
        "sums": Tasks(10, estimated=True),
        "total": Tasks(),
        "checks": Tasks(10, estimated=True),
    }


def test_a_source_counts_its_run_and_what_only_runs_otherwise_counts_nothing() -> None:
    counted = count_tasks(
        planned(edited("cursor: {column: number, type: int64}", "sort: [hash], cursor: {column: number, type: int64}")),
        Events(COUNTS),
    )
    assert counted["blocks"] == Tasks(1)
    assert counted["ranges"] == Tasks(1000, estimated=True)
    assert not any(tasks.count for tasks in count_tasks(planned(ACTIVE), Events(COUNTS)).values())


def test_of_a_first_version_a_dataset_has_an_event_for_each_task_and_a_source_none_yet() -> None:
    counted = count_tasks(planned(ACTIVE, before=None), Events())
    assert {name: tasks.count for name, tasks in counted.items()} == {
        "blocks": 1, "ranges": 0, "sums": 0, "total": 0, "checks": 0,
    }  # fmt: skip


def test_a_reused_job_counts_what_it_missed_and_what_it_left() -> None:
    after = edited("size: 100", "size: 200")
    of = planned(after, reusing=built(after, "ranges", "sums", open_tasks=3))
    assert set(of.intervals) == {("ranges@0", "blocks@1"), ("sums@0", "ranges@0")}
    assert of.changed_datasets == ["checks", "ranges", "sums", "total"]
    missed = {("ranges@0", "blocks@1"): 40, ("sums@0", "ranges@0"): 0}
    counted = count_tasks(of, Events(COUNTS | {"ranges@0": 6, "sums@0": 5}, missed))
    assert counted["ranges"] == Tasks(43)
    assert counted["sums"] == Tasks(3 + 4, estimated=True)  # it had 6 of the 10 that there will be


def test_what_a_rollback_would_bring_back_is_all_but_the_shared() -> None:
    of = planned(edited("a: 1", "a: 2"))
    assert [job.job for job in of.replaced] == ["checks"]
    assert of.changed_datasets == ["checks"]


@pytest.mark.parametrize(
    ("limit", "room", "expected"),
    [
        (None, None, 1),
        (4, None, 4),
        (4, Room("q", 10, None), 4),
        (40, Room("q", 10, None), 10),
        (None, Room("q", 10, 3), 3),
        (None, Room("q", None, 0), 1),
    ],
)
def test_the_least_limit_says_how_many_run_at_once(limit: int | None, room: Room | None, expected: int) -> None:
    assert parallelism(limit, room) == expected


def test_an_estimate_is_the_mean_for_all_shared_by_those_at_once() -> None:
    history = History("job", samples=100, mean=2.0, deviation=0.5)
    found = estimate(400, history, at_once=4)
    assert found is not None
    assert found.seconds == 200.0
    assert found.error == pytest.approx(1.2816 * 0.5 * math.sqrt(400 + 400**2 / 100) / 4)
    few = estimate(2, history, at_once=100)
    assert few is not None
    assert few.seconds == 2.0


def test_where_there_is_no_history_there_is_no_estimate() -> None:
    assert estimate(10, None, 1) is None
    assert total([None, None]) is None
    assert total([None, Estimate(3.0, 3.0), Estimate(4.0, 4.0)]) == Estimate(7.0, 5.0)


def test_one_sample_says_little() -> None:
    found = estimate(1, History("job", samples=1, mean=2.0, deviation=None), 1)
    assert found is not None
    assert found.error > found.seconds
