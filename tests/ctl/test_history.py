"""`tracectl dag history` and `versions`: what was done, by whom, and what there is."""

from google.protobuf import json_format
from google.protobuf.timestamp_pb2 import Timestamp

from tests.ctl.canned import Canned, task_id
from tests.ctl.conftest import Run
from traceapi.control.v1 import change_pb2 as api


def test_a_history_shows_who_did_what_by_which_plan(run: Run, canned: Canned) -> None:
    canned.changes = [
        api.DagChange(
            time=Timestamp(seconds=1_700_000_000),
            action=api.AUDIT_ACTION_ROLL_BACK,
            actor="user:alice",
            outcome=api.AUDIT_OUTCOME_DONE,
            from_version=3,
            to_version=2,
            plan_id=task_id(7),
            note="deploy number 9",
        ),
        api.DagChange(
            time=Timestamp(seconds=1_700_000_000),
            action=api.AUDIT_ACTION_CUT_OVER,
            actor="user:bob",
            outcome=api.AUDIT_OUTCOME_REFUSED,
            reason="NOT_CAUGHT_UP",
            note="version 4 of ethereum cannot take over yet",
        ),
        api.DagChange(method="DagService.PauseDag", actor="user:carol", outcome=api.AUDIT_OUTCOME_DONE, task_count=2),
    ]
    shown = run("dag", "history", "ethereum")
    assert shown.exit_code == 0, shown.stderr
    words = " ".join(shown.stdout.split())
    for part in ("2023-11-14 22:13:20", "rollback", "user:alice", task_id(7), "deploy number 9"):
        assert part in words
    for part in ("cutover", "user:bob", "refused: NOT_CAUGHT_UP", "DagService.PauseDag", "user:carol", "2 tasks"):
        assert part in words


def test_a_history_comes_in_pages_and_says_that_there_is_more(run: Run, canned: Canned) -> None:
    canned.changes = [api.DagChange(audit_id=number, method="DagService.PauseDag") for number in range(2500)]
    cut = run("dag", "history", "ethereum", "--limit", "3", "--output", "json")
    answer = json_format.Parse(cut.stdout, api.ListDagChangesResponse())
    assert [change.audit_id for change in answer.changes] == [0, 1, 2]
    assert "there are more changes" in run("dag", "history", "ethereum", "--limit", "3").stderr
    whole = json_format.Parse(run("dag", "history", "ethereum", "-o", "json").stdout, api.ListDagChangesResponse())
    assert len(whole.changes) == 2500


def test_versions_are_listed(run: Run, canned: Canned) -> None:
    shown = run("dag", "versions", "ethereum")
    assert shown.exit_code == 0, shown.stderr
    assert "aborted" in shown.stdout
