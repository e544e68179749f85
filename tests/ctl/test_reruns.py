"""`backfill` and `task rerun`: counted first, made in pages, followed to their end."""

import json

import pytest

from ctl import rerun_watch
from tests.ctl.canned import DEAD_TASK, Canned, int64_range
from tests.ctl.conftest import Run
from traceapi.control.v1 import source_service_pb2, task_service_pb2
from traceapi.control.v1.rerun_pb2 import RerunEffect, RerunReader
from traceapi.types.v1 import task_pb2

BOUNDS = ["--from", "500000", "--to", "500499"]


def _count(job: str, state: str, count: int) -> task_service_pb2.JobTaskCount:
    return task_service_pb2.JobTaskCount(
        dag="ethereum", job=job, state=task_pb2.TaskState.Value(f"TASK_STATE_{state.upper()}"), count=count
    )


def test_a_backfill_is_counted_and_then_made_page_by_page(run: Run, canned: Canned) -> None:
    result = run("backfill", "checked", *BOUNDS, "--yes")
    assert (result.exit_code, result.stdout) == (0, "5 tasks are queued again\n")
    asked = [r for r in canned.requests if isinstance(r, source_service_pb2.BackfillJobRequest)]
    assert [(r.dry_run, r.page_token) for r in asked] == [(True, ""), (False, ""), (False, "2"), (False, "4")]
    assert {r.request_id for r in asked} == {asked[0].request_id}
    assert {(r.dag, r.job) for r in asked} == {("", "checked")}
    assert asked[0].range == int64_range(500_000, 500_499).range


def test_a_dry_run_says_what_becomes_of_the_readers(run: Run, canned: Canned) -> None:
    canned.readers = [
        RerunReader(dag="ethereum", job="sums", effect=RerunEffect.RERUN_EFFECT_FOLLOWS),
        RerunReader(dag="ethereum", job="ranges", effect=RerunEffect.RERUN_EFFECT_REFUSES_LATE),
        RerunReader(dag="alerts", job="watch", effect=RerunEffect.RERUN_EFFECT_READS_ONLY),
    ]
    result = run("backfill", "checked", *BOUNDS, "--dry-run")
    first, *lines = result.stdout.splitlines()
    assert (result.exit_code, first) == (0, "5 tasks would be run again")
    assert [line.split()[0] for line in lines] == ["ethereum/sums", "ethereum/ranges", "alerts/watch"]
    assert "DEAD" in lines[1]
    assert all(request.dry_run for request in canned.requests)


def test_it_is_not_begun_unasked(run: Run, canned: Canned) -> None:
    result = run("backfill", "checked", *BOUNDS)
    assert result.exit_code == 2
    assert "--yes" in result.stderr
    assert all(request.dry_run for request in canned.requests)


def test_nothing_to_run_again_is_said(run: Run, canned: Canned) -> None:
    canned.changeable = 0
    assert run("backfill", "checked", *BOUNDS, "--yes").stdout == "nothing to run again\n"
    assert run("task", "rerun", "--job", "checked", "--yes").stdout == "nothing to run again\n"


@pytest.mark.parametrize(("first", "last"), [("9", "1"), ("500000", "2024-05-01T00:00:00Z")])
def test_bounds_that_are_none_are_refused(run: Run, canned: Canned, first: str, last: str) -> None:
    result = run("backfill", "checked", "--from", first, "--to", last, "--yes")
    assert (result.exit_code, canned.requests) == (2, [])


def test_tasks_are_run_again_by_id_without_a_question(run: Run, canned: Canned) -> None:
    result = run("task", "rerun", DEAD_TASK, "--output", "json")
    assert json.loads(result.stdout) == {"taskCount": "5"}
    request = canned.asked(task_service_pb2.RerunTasksRequest)
    assert list(request.filter.task_ids) == [DEAD_TASK]


def test_an_empty_choice_is_not_every_task(run: Run, canned: Canned) -> None:
    result = run("task", "rerun", "--yes")
    assert (result.exit_code, canned.requests) == (2, [])
    assert "--all" not in result.stderr


def test_a_wait_ends_when_nothing_is_open_and_names_what_died(
    run: Run, canned: Canned, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What others run again in the same DAG is not waited for."""
    monkeypatch.setattr(rerun_watch, "_LOOK_SECONDS", 0)
    canned.readers = [RerunReader(dag="ethereum", job="sums", effect=RerunEffect.RERUN_EFFECT_FOLLOWS)]
    others = [_count("prices", "running", 3), _count("prices", "dead", 9)]
    before = [_count("checked", "succeeded", 7), _count("checked", "dead", 1)]
    canned.count_looks = [
        before,
        [*before, _count("checked", "queued", 5)],
        [_count("checked", "succeeded", 12), _count("sums", "running", 1), _count("checked", "dead", 1)],
        [_count("checked", "succeeded", 12), _count("sums", "succeeded", 4), _count("checked", "dead", 2), *others],
    ]
    result = run("backfill", "checked", *BOUNDS, "--yes", "--wait")
    assert (result.exit_code, result.stdout) == (1, "5 tasks have run again\n")
    assert "1 task of it is DEAD" in result.stderr
    assert canned.count_looks == []
    request = canned.asked(task_service_pb2.CountTasksRequest)
    assert (request.dag, request.origin) == ("ethereum", task_pb2.TASK_ORIGIN_BACKFILL)
