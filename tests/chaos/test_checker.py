"""The checker is tested on histories that are bad on purpose: each invariant lets the good one pass, and catches its
own."""

import dataclasses
from collections.abc import Callable

import pytest

from tests.chaos import test_checker_of_changes
from tests.chaos.checker import INVARIANTS, check
from tests.chaos.evidence import (
    Artifact,
    Emitted,
    Evidence,
    StreamChange,
    Subscription,
    TaskChange,
    WatermarkChange,
    Write,
    Written,
)
from tests.chaos.histories import FIRST, HOPS, NUMBERS, SECOND, SOURCE, good, replaced

Bad = Callable[[Evidence], object]


def _acknowledged_event_lost(e: Evidence) -> None:
    e.events = [event for event in e.events if event.event_id != "event 3"]


def _task_missing(e: Evidence) -> None:
    e.subscriptions.append(Subscription("another job", NUMBERS, 0, None, True))


def _task_doubled(e: Evidence) -> None:
    e.tasks.append(dataclasses.replace(e.tasks[1], task_id="twin"))


def _task_without_event(e: Evidence) -> None:
    replaced(e.tasks, lambda t: t.task_id == SECOND, event_id="nothing")


def _key_taken_twice(e: Evidence) -> None:
    e.events.append(dataclasses.replace(e.events[2], event_id="event 4"))


def _key_answered_twice(e: Evidence) -> None:
    key = e.events[2].key
    e.writes.append(Write("emit", FIRST, 2, b"token 2", 7.9, 8.0, "ok", events=(Emitted(key, "event 1"),)))


def _accepted_from_a_former_attempt(e: Evidence) -> None:
    replaced(e.events, lambda v: v.event_id == "event 3", attempt=1)


def _accepted_after_its_lease(e: Evidence) -> None:
    replaced(e.task_changes, lambda c: c.seq == 16, lease_until=7.5)


def _accepted_between_attempts(e: Evidence) -> None:
    replaced(e.written, lambda w: w.seq == 18, seq=14)


def _accepted_in_a_former_epoch(e: Evidence) -> None:
    """A run's task lives by its stream, which has moved on."""
    replaced(e.tasks, lambda t: t.task_id == FIRST, stream_key="")
    replaced(e.task_changes, lambda c: c.seq == 16, lease_until=None, stream_epoch=1)
    e.stream_changes.append(StreamChange(17, "hop", "", 2, b"", 20.0, 7.0, 6.9))


def _succeeded_twice(e: Evidence) -> None:
    replaced(e.attempts, lambda a: (a.task_id, a.attempt) == (FIRST, 1), outcome="succeeded")


def _attempted_after_success(e: Evidence) -> None:
    replaced(e.attempts, lambda a: (a.task_id, a.attempt) == (FIRST, 1), outcome="succeeded")
    replaced(e.attempts, lambda a: (a.task_id, a.attempt) == (FIRST, 2), outcome="lease_lost")


def _succeeded_without_an_attempt(e: Evidence) -> None:
    replaced(e.attempts, lambda a: a.task_id == SOURCE, outcome="failed")


def _stale_emit_heard(e: Evidence) -> None:
    replaced(e.writes, lambda w: w.reason == "STALE_LEASE", verdict="ok", events=())


def _stale_beat_heard(e: Evidence) -> None:
    e.writes.append(Write("beat", FIRST, 1, b"token 1", 5.5, 5.6, "ok", "CONTINUE"))


def _other_token_heard(e: Evidence) -> None:
    replaced(e.writes, lambda w: w.kind == "beat", token_digest=b"forged")


def _end_acknowledged_and_not_done(e: Evidence) -> None:
    e.attempts = [a for a in e.attempts if a.task_id != SOURCE]


def _stale_end_heard(e: Evidence) -> None:
    e.writes.append(Write("end", FIRST, 1, b"token 1", 6.0, 6.1, "ok", "succeeded", "success"))


def _end_on_record_as_another(e: Evidence) -> None:
    replaced(e.attempts, lambda a: a.task_id == SOURCE, outcome="lease_lost")


def _attempt_skipped(e: Evidence) -> None:
    e.attempts = [a for a in e.attempts if (a.task_id, a.attempt) != (FIRST, 1)]


def _token_used_again(e: Evidence) -> None:
    replaced(e.attempts, lambda a: (a.task_id, a.attempt) == (FIRST, 1), token_digest=b"token 2")


def _leased_while_held(e: Evidence) -> None:
    """It was never taken back."""
    e.task_changes = [c for c in e.task_changes if c.seq not in (13, 15)]


def _taken_back_too_early(e: Evidence) -> None:
    replaced(e.task_changes, lambda c: c.seq == 11, lease_until=5.5)


def _extended_after_its_end(e: Evidence) -> None:
    (held,) = [change for change in e.task_changes if change.seq == 11]
    e.task_changes.append(dataclasses.replace(held, seq=12, before="running", lease_until=6.0, at=4.6, began=4.5))


def _stream_leased_while_held(e: Evidence) -> None:
    e.stream_changes = [
        StreamChange(30, "ranges", "", 1, b"", 20.0, 9.0, 8.9),
        StreamChange(31, "ranges", "", 2, b"", 30.0, 15.0, 14.9),
    ]


def _stream_extended_after_its_end(e: Evidence) -> None:
    e.stream_changes = [
        StreamChange(30, "ranges", "", 1, b"", 10.0, 9.0, 8.9),
        StreamChange(31, "ranges", "", 1, b"", 30.0, 15.0, 14.9),
    ]


def _left_a_final_state(e: Evidence) -> None:
    last = e.task_changes[-1]
    e.task_changes.append(dataclasses.replace(last, seq=30, before="succeeded", state="queued"))


def _attempt_burnt(e: Evidence) -> None:
    replaced(e.task_changes, lambda c: c.seq == 15, attempt=2)


def _change_unseen(e: Evidence) -> None:
    e.task_changes = [c for c in e.task_changes if c.seq != 9]


def _published_elsewhere(e: Evidence) -> None:
    replaced(e.written, lambda w: w.id == "publication 2", txid=21)


def _task_made_elsewhere(e: Evidence) -> None:
    replaced(e.task_changes, lambda c: c.seq == 7, txid=11)


def _file_committed_later(e: Evidence) -> None:
    replaced(e.written, lambda w: w.kind == "artifact", seq=19)


def _succeeded_with_a_refused_emit(e: Evidence) -> None:
    e.writes.append(Write("emit", FIRST, 2, b"token 2", 7.0, 7.1, "refused", "SCOPE_MISMATCH"))


def _succeeded_with_events_missing(e: Evidence) -> None:
    replaced(e.writes, lambda w: w.task_id == SOURCE and w.kind == "end", emitted=3)


def _file_lost(e: Evidence) -> None:
    replaced(e.artifacts, lambda a: a.artifact_id == "file", found=False)


def _file_changed(e: Evidence) -> None:
    replaced(e.artifacts, lambda a: a.artifact_id == "file", found_sha256=b"other")


def _file_unknown(e: Evidence) -> None:
    e.artifacts = [Artifact("another file", "data/other", "publication 1", b"sha", True, b"sha")]


def _ordered(e: Evidence) -> None:
    """Both tasks are of one stream, the cancelled one before the other."""
    replaced(e.tasks, lambda t: t.task_id == FIRST, stream_key="", scope_first=b"2")
    replaced(e.tasks, lambda t: t.task_id == SECOND, stream_key="", scope_first=b"1")


def _succeeded_out_of_order(e: Evidence) -> None:
    _ordered(e)
    replaced(e.task_changes, lambda c: c.seq == 17, seq=21)


def _said_to_be_complete_too_early(e: Evidence) -> None:
    replaced(e.watermark_changes, lambda c: c.cursor_key == b"2", seq=5)


def _watermark_went_back(e: Evidence) -> None:
    e.watermark_changes.append(WatermarkChange(26, NUMBERS, b"1"))


def _failed_too_often(e: Evidence) -> None:
    replaced(e.tasks, lambda t: t.task_id == FIRST, failed_attempts=4)


def _dead_without_a_reason(e: Evidence) -> None:
    replaced(e.tasks, lambda t: t.task_id == SECOND, state="dead", reason="")


def _cancelled_and_succeeded(e: Evidence) -> None:
    replaced(e.tasks, lambda t: t.task_id == SECOND, state="succeeded")
    replaced(e.attempts, lambda a: a.task_id == SECOND, outcome="succeeded")


def _cancelled_and_still_there(e: Evidence) -> None:
    replaced(e.tasks, lambda t: t.task_id == SECOND, state="queued")


def _claim_made_two_attempts(e: Evidence) -> None:
    replaced(e.task_changes, lambda c: c.seq == 16, request_id="claim 1")


def _end_written_twice(e: Evidence) -> None:
    e.written.append(Written(24, "attempt", FIRST, 8.9, 31))


def _accepted_emit_refused_later(e: Evidence) -> None:
    """In time, and for what it brought."""
    (first,) = [w for w in e.writes if w.kind == "emit" and w.task_id == SOURCE]
    late = dataclasses.replace(first, began=3.0, ended=3.1, verdict="refused", reason="STATE_CONFLICT")
    e.writes.append(late)


def _never_ends(e: Evidence) -> None:
    replaced(e.tasks, lambda t: t.task_id == SECOND, state="backoff")


def _nobody_notices_the_lease(e: Evidence) -> None:
    replaced(e.tasks, lambda t: t.task_id == SECOND, state="running", lease_until=90.0)


def _the_lease_is_noticed_late(e: Evidence) -> None:
    """While others are at work all the time."""
    replaced(e.task_changes, lambda c: c.seq == 13, at=30.0)
    job = e.tasks[0].job_version_id
    e.task_changes += [
        TaskChange(100 + second, f"other {second}", "", "queued", 0, b"", "", None, None, float(second), 0.0, 1, job)
        for second in range(4, 30)
    ]


def _nobody_sends_the_wakeup_again(e: Evidence) -> None:
    replaced(e.tasks, lambda t: t.task_id == SECOND, state="released", released_at=80.0)


BAD: list[tuple[str, Bad]] = [
    ("S1", _acknowledged_event_lost),
    ("S2", _task_missing),
    ("S2", _task_doubled),
    ("S3", _task_without_event),
    ("S4", _key_taken_twice),
    ("S4", _key_answered_twice),
    ("S5", _accepted_from_a_former_attempt),
    ("S5", _accepted_after_its_lease),
    ("S5", _accepted_between_attempts),
    ("S5", _accepted_in_a_former_epoch),
    ("S6", _succeeded_twice),
    ("S6", _attempted_after_success),
    ("S6", _succeeded_without_an_attempt),
    ("S7", _stale_emit_heard),
    ("S7", _stale_beat_heard),
    ("S7", _other_token_heard),
    ("S7", _end_acknowledged_and_not_done),
    ("S7", _stale_end_heard),
    ("S7", _end_on_record_as_another),
    ("S8", _attempt_skipped),
    ("S8", _token_used_again),
    ("S9", _leased_while_held),
    ("S9", _taken_back_too_early),
    ("S9", _extended_after_its_end),
    ("S9", _stream_leased_while_held),
    ("S9", _stream_extended_after_its_end),
    ("S10", _left_a_final_state),
    ("S10", _attempt_burnt),
    ("S10", _change_unseen),
    ("S11", _published_elsewhere),
    ("S11", _task_made_elsewhere),
    ("S11", _file_committed_later),
    ("S11", _succeeded_with_a_refused_emit),
    ("S11", _succeeded_with_events_missing),
    ("S20", _file_lost),
    ("S20", _file_changed),
    ("S20", _file_unknown),
    ("S23", _failed_too_often),
    ("S23", _dead_without_a_reason),
    ("S24", _cancelled_and_succeeded),
    ("S24", _cancelled_and_still_there),
    ("S25", _claim_made_two_attempts),
    ("S25", _end_written_twice),
    ("S25", _accepted_emit_refused_later),
    ("O1", _succeeded_out_of_order),
    ("W1", _said_to_be_complete_too_early),
    ("W1", _watermark_went_back),
    ("L1", _never_ends),
    ("L2", _nobody_notices_the_lease),
    ("L2", _the_lease_is_noticed_late),
    ("L3", _nobody_sends_the_wakeup_again),
]


def test_a_good_history_breaks_nothing() -> None:
    assert check(good()) == []


@pytest.mark.parametrize(("invariant", "spoil"), BAD, ids=lambda item: getattr(item, "__name__", item))
def test_a_bad_history_is_caught_by_its_invariant(invariant: str, spoil: Bad) -> None:
    evidence = good()
    spoil(evidence)
    assert list(INVARIANTS[invariant](evidence)), f"{invariant} says nothing of it"


def test_every_invariant_has_a_bad_history() -> None:
    assert {name for name, _ in (*BAD, *test_checker_of_changes.BAD)} == set(INVARIANTS)


def test_a_stream_that_keeps_its_order_breaks_nothing() -> None:
    evidence = good()
    _ordered(evidence)
    assert list(INVARIANTS["O1"](evidence)) == []


def test_a_lease_that_nobody_was_there_to_notice_is_not_late() -> None:
    evidence = good()
    replaced(evidence.task_changes, lambda c: c.seq == 11, lease_until=8.5)
    replaced(evidence.task_changes, lambda c: c.seq == 13, at=30.0)
    assert list(INVARIANTS["L2"](evidence)) == []


def test_what_came_before_a_subscription_is_owed_once_its_replay_is_done() -> None:
    evidence = good()
    evidence.subscriptions.append(Subscription("later job", HOPS, 5, None, replayed=False))
    assert check(evidence) == []
    replaced(evidence.subscriptions, lambda s: s.job_version_id == "later job", replayed=True)
    assert [violation.invariant for violation in check(evidence)] == ["S2"]


def test_what_was_run_again_has_a_task_for_each_time() -> None:
    evidence = good()
    first = next(task for task in evidence.tasks if task.task_id == FIRST)
    again = dataclasses.replace(first, task_id="again", revision=1, reruns=1, state="queued", attempt=0, lost_leases=0)
    evidence.tasks.append(again)
    assert "S2" not in {violation.invariant for violation in check(evidence)}
    for wrong in (dataclasses.replace(again, revision=0), dataclasses.replace(again, reruns=0)):
        evidence.tasks[-1] = wrong
        assert "S2" in {violation.invariant for violation in check(evidence)}


def test_a_call_that_is_refused_as_a_whole_says_nothing_of_its_emits() -> None:
    """A program that is started again may have the port that another one had, and ask for other credentials."""
    evidence = good()
    evidence.writes.append(Write("emit", FIRST, 2, b"token 2", 7.0, 7.1, "refused"))
    assert check(evidence) == []


def test_a_call_that_nobody_answered_is_no_violation_whatever_became_of_it() -> None:
    evidence = good()
    for number, write in enumerate(evidence.writes):
        evidence.writes[number] = dataclasses.replace(write, verdict="unknown", ended=float("inf"))
    assert check(evidence) == []
