"""`tracectl queue`: what it asks for, and what it shows."""

from tests.ctl.canned import Canned
from tests.ctl.conftest import Run
from traceapi.control.v1 import queue_service_pb2 as api


def test_a_queue_is_shown_with_what_each_class_has(run: Run, canned: Canned) -> None:
    result = run("queue", "ls")
    assert result.exit_code == 0, result.stderr
    said = " ".join(result.stdout.split())
    assert "no limit share 60 share 30 share 10: 5 running, 2" in said
    assert "1,000,000" in said
    assert "9 more" in said


def test_only_what_is_named_is_set(run: Run, canned: Canned) -> None:
    result = run("queue", "set", "default", "--window", "64", "--backfill", "5")
    assert result.exit_code == 0, result.stderr
    asked = canned.asked(api.SetQueueRequest)
    assert asked == api.SetQueueRequest(queue="default", window_size=64, backfill_share=5)
    assert "64" in result.stdout
    assert "user:tester" in result.stdout


def test_a_window_is_taken_away_by_nought(run: Run, canned: Canned) -> None:
    assert run("queue", "set", "default", "--window", "0").exit_code == 0
    assert canned.asked(api.SetQueueRequest).HasField("window_size")


def test_setting_nothing_says_what_there_is_to_set(run: Run, canned: Canned) -> None:
    result = run("queue", "set", "default")
    assert result.exit_code == 2
    assert "--window" in result.stderr
