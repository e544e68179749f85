"""`task cancel|retry|skip` and `dag pause|resume`: chosen with care, counted first, carried out in pages."""

import io
import json

import pytest
from rich.console import Console

from ctl.render import console
from tests.ctl.canned import DEAD_TASK, Canned, int64_range, task_id
from tests.ctl.conftest import Run
from traceapi.control.v1 import dag_service_pb2, task_service_pb2
from traceapi.types.v1 import task_pb2

VERBS = {
    "cancel": ("cancelled", []),
    "retry": ("queued again", []),
    "skip": ("skipped", ["--reason", "known"]),
}


@pytest.mark.parametrize("verb", VERBS)
def test_tasks_by_id_are_changed_page_by_page(run: Run, canned: Canned, verb: str) -> None:
    done, options = VERBS[verb]
    result = run("task", verb, DEAD_TASK, *options)
    assert (result.exit_code, result.stdout) == (0, f"5 tasks {done}\n")
    assert [request.page_token for request in canned.requests if not request.dry_run] == ["", "2", "4"]
    assert canned.requests[0].filter.task_ids == [DEAD_TASK]


def test_on_a_terminal_a_bar_tells_how_many_are_done(run: Run, canned: Canned, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(console, "stderr", lambda: Console(file=screen, force_terminal=True, width=100))
    assert run("task", "retry", DEAD_TASK).exit_code == 0
    assert len([request for request in canned.requests if not request.dry_run]) == 3
    assert "5/5" in screen.getvalue()


@pytest.mark.parametrize("verb", VERBS)
def test_a_dry_run_only_counts(run: Run, canned: Canned, verb: str) -> None:
    done, options = VERBS[verb]
    result = run("task", verb, "--dag", "ethereum", "--dry-run", *options)
    assert (result.exit_code, result.stdout) == (0, f"5 tasks would be {done}\n")
    assert all(request.dry_run for request in canned.requests)


@pytest.mark.parametrize("verb", VERBS)
def test_an_empty_choice_is_not_every_task(run: Run, canned: Canned, verb: str) -> None:
    result = run("task", verb, *VERBS[verb][1])
    assert result.exit_code == 2
    assert "no task was chosen" in result.stderr
    assert canned.requests == []


def test_where_one_of_several_tasks_is_unknown_none_is_changed(run: Run, canned: Canned) -> None:
    canned.changeable = 1
    result = run("task", "retry", DEAD_TASK, task_id(999_999))
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"there is no task {task_id(999_999)}" in result.stderr
    assert canned.asked(task_service_pb2.RetryTasksRequest).dry_run


def test_what_a_filter_finds_is_not_changed_unasked(run: Run, canned: Canned) -> None:
    result = run("task", "cancel", "--job", "checked")
    assert result.exit_code == 2
    assert "--yes" in result.stderr
    assert all(request.dry_run for request in canned.requests)
    assert run("task", "cancel", "--job", "checked", "--yes").exit_code == 0


def test_the_filter_and_the_reason_are_handed_over(run: Run, canned: Canned) -> None:
    options = ["--dag", "ethereum", "--state", "queued", "--scope", "500000..500099", "--reason", "wrong", "--yes"]
    result = run("task", "cancel", *options, "--output", "json")
    assert json.loads(result.stdout) == {"taskCount": "5"}
    request = canned.asked(task_service_pb2.CancelTasksRequest)
    assert (request.filter.dag, request.reason) == ("ethereum", "wrong")
    assert list(request.filter.states) == [task_pb2.TASK_STATE_QUEUED]
    assert request.filter.scope == int64_range(500_000, 500_099)


def test_nothing_to_change_is_said(run: Run, canned: Canned) -> None:
    canned.changeable = 0
    assert run("task", "retry", "--all").stdout == "no task to retry\n"


def test_a_skip_needs_its_reason(run: Run, canned: Canned) -> None:
    result = run("task", "skip", DEAD_TASK)
    assert result.exit_code == 2
    assert "--reason" in result.stderr


def test_pause_and_resume_say_what_is_paused(run: Run, canned: Canned) -> None:
    assert run("dag", "pause", "ethereum", "checked").stdout == "ethereum: paused are checked\n"
    assert list(canned.asked(dag_service_pb2.PauseDagRequest).jobs) == ["checked"]
    assert run("dag", "resume", "ethereum").stdout == "ethereum: nothing is paused\n"
    assert list(canned.asked(dag_service_pb2.ResumeDagRequest).jobs) == []


def test_why_asks_for_a_task_or_for_a_dataset_at_a_scope(run: Run, canned: Canned) -> None:
    result = run("why", DEAD_TASK)
    assert result.exit_code == 0
    assert "it is DEAD: out of attempts" in result.stdout
    assert canned.asked(task_service_pb2.ExplainTaskRequest).task_id == DEAD_TASK
    run("why", "eth.blocks@500000..500099")
    subject = canned.asked(task_service_pb2.ExplainTaskRequest).dataset_scope
    assert (subject.dataset_id, subject.scope) == ("eth.blocks", int64_range(500_000, 500_099))
