"""The invariants of changes, on histories that are bad on purpose."""

import dataclasses
from collections.abc import Callable

import pytest

from tests.chaos.checker import INVARIANTS, check
from tests.chaos.evidence import Event, EventKey, Evidence, Subscription, Task, WatermarkChange, Write, Written
from tests.chaos.evidence_of_changes import (
    Activated,
    Condemned,
    DagMove,
    Deleted,
    PinChange,
    Rerun,
    RunChange,
    Said,
    Seen,
)
from tests.chaos.histories import NUMBERS, replaced
from tests.chaos.histories_of_changes import (
    DAG,
    FIRST_VERSION,
    NEW,
    NEW_JOB,
    OLD,
    OLD_JOB,
    READERS_JOB,
    SECOND_VERSION,
    ZOMBIE,
    changed,
)

Bad = Callable[[Evidence], object]


def _two_pointers(e: Evidence) -> None:
    e.changes.pointers.append(("hops", NEW))


def _pointer_of_another_version(e: Evidence) -> None:
    e.changes.pointers = [("hops", NEW), ("numbers", NUMBERS)]


def _history_with_a_gap(e: Evidence) -> None:
    replaced(e.changes.activations, lambda a: a.from_deploy == 2, to_deploy=4)


def _deploy_number_left_out(e: Evidence) -> None:
    replaced(e.changes.activated, lambda a: a.deploy_number == 3, deploy_number=4)


def _publication_left_out(e: Evidence) -> None:
    replaced(e.changes.heads, lambda h: h.version_id == OLD, number=3, last=3, count=2)


def _recorded_later(e: Evidence) -> None:
    replaced(e.changes.activated, lambda a: a.deploy_number == 2, txid=1051)


def _jobs_stopped_later(e: Evidence) -> None:
    replaced(e.changes.runs, lambda r: r.seq == 150, seq=160, txid=1051)


def _jobs_never_started_again(e: Evidence) -> None:
    e.changes.runs = [run for run in e.changes.runs if run.seq != 156]


def _two_switches_at_once(e: Evidence) -> None:
    e.changes.activated.append(Activated(155, DAG, FIRST_VERSION, 4, 15.0, 1050))


def _started_after_the_rollback(e: Evidence) -> None:
    replaced(e.task_changes, lambda c: c.seq == 131, seq=170, began=17.0)


def _accepted_after_the_rollback(e: Evidence) -> None:
    replaced(e.written, lambda w: w.seq == 140, seq=170)


def _accepted_once_it_is_restored(e: Evidence) -> None:
    """Who was fenced stays so, though its job version may run again."""
    e.changes.runs.append(RunChange(170, NEW_JOB, "running", 2, 17.0, 1070))
    replaced(e.written, lambda w: w.seq == 140, seq=175)


def _succeeded_after_the_rollback(e: Evidence) -> None:
    e.written.append(Written(170, "attempt", ZOMBIE, 17.0, 1070, "", ZOMBIE, 1, "succeeded"))


def _told_to_go_on_after_the_rollback(e: Evidence) -> None:
    e.written = [row for row in e.written if row.kind != "attempt" or row.id != ZOMBIE]
    e.writes.append(Write("beat", ZOMBIE, 1, b"token n", 15.8, 15.9, "ok", "CONTINUE"))


def _bad_version_still_served(e: Evidence) -> None:
    e.changes.pointers = [("hops", NEW), ("numbers", NUMBERS)]


def _bad_version_still_read(e: Evidence) -> None:
    replaced(e.changes.reads, lambda r: r.began == 15.7, versions={"numbers": NUMBERS, "hops": NEW})


def _active_and_nobody_said_so(e: Evidence) -> None:
    e.changes.said = [entry for entry in e.changes.said if entry.txid != 1050]


def _build_stops_what_is_active(e: Evidence) -> None:
    e.changes.runs.append(RunChange(123, OLD_JOB, "superseded", 2, 12.0, 1020))


def _build_writes_into_what_is_active(e: Evidence) -> None:
    replaced(e.written, lambda w: w.seq == 140, version_id=OLD)


def _build_becomes_active_by_being_staged(e: Evidence) -> None:
    e.changes.moves.append(DagMove(124, DAG, SECOND_VERSION, "", 12.0, 1021))
    e.changes.moves.append(DagMove(125, DAG, FIRST_VERSION, SECOND_VERSION, 12.0, 1022))
    e.changes.said.append(Said(126, "DagService.CutOverDag", 1022))


def _saw_a_mixture(e: Evidence) -> None:
    replaced(e.changes.reads, lambda r: r.deploy_number == 2, versions={"numbers": NUMBERS, "hops": OLD})


def _rows_of_another_version(e: Evidence) -> None:
    replaced(e.changes.reads, lambda r: r.deploy_number == 2, tags={NEW: frozenset({"A", "B"})})


def _saw_what_was_not_made_yet(e: Evidence) -> None:
    replaced(e.changes.reads, lambda r: r.deploy_number == 2, began=14.2, ended=14.3)


def _saw_what_had_been_replaced(e: Evidence) -> None:
    replaced(e.changes.reads, lambda r: r.deploy_number == 2, began=15.62, ended=15.65)


def _session_went_back(e: Evidence) -> None:
    replaced(e.changes.reads, lambda r: r.deploy_number == 3, deploy_number=1)


def _build_never_takes_over(e: Evidence) -> None:
    e.changes.moves.append(DagMove(190, DAG, FIRST_VERSION, SECOND_VERSION, 19.0, 1090))


def _events_never_made_up_for(e: Evidence) -> None:
    e.subscriptions.append(Subscription("hop", NUMBERS, 9, None, replayed=False, scheduled=True))


def _complete_up_to_less(e: Evidence) -> None:
    e.watermark_changes.append(WatermarkChange(149, OLD, b"2"))


def _file_seen_otherwise(e: Evidence) -> None:
    e.changes.files.append(Seen("listed:data/file", "8"))


def _file_seen_other_than_accepted(e: Evidence) -> None:
    e.changes.files = [Seen("data/file", "other")]


def _given_up_while_it_is_served(e: Evidence) -> None:
    e.changes.condemned.append(Condemned(182, OLD, 18.0))


def _given_up_while_it_is_built(e: Evidence) -> None:
    replaced(e.changes.condemned, lambda c: c.version_id == NEW, seq=123, at=12.5)


def _given_up_in_the_window(e: Evidence) -> None:
    e.bounds = dataclasses.replace(e.bounds, rollback_versions=1)


def _given_up_while_it_is_pinned(e: Evidence) -> None:
    replaced(e.changes.pins, lambda p: p.seq == 154, until=18.5)


def _file_of_a_version_deleted(e: Evidence) -> None:
    e.changes.deleted.append(Deleted("data/file", 19.0, 10.0))


def _file_deleted_too_early(e: Evidence) -> None:
    replaced(e.changes.deleted, lambda d: d.key == "data/old/orphan", age=1.0)


def _file_deleted_before_its_version_was_given_up(e: Evidence) -> None:
    replaced(e.changes.deleted, lambda d: NEW in d.key, at=17.9, age=1.0)


def _pin_did_not_hold(e: Evidence) -> None:
    replaced(e.changes.reads, lambda r: r.deploy_number == 2, lost=("a file",))


def _orphan_stays(e: Evidence) -> None:
    e.changes.stored["data/old/orphan"] = 60.0


def _version_stays(e: Evidence) -> None:
    e.changes.left = 1


def _pin_stays(e: Evidence) -> None:
    e.changes.pins.append(PinChange(160, "another pin", 17.0))


def _reader_left_behind(e: Evidence) -> None:
    e.changes.listened = [item for item in e.changes.listened if item.txid != 1050]


def _reader_follows_later(e: Evidence) -> None:
    replaced(e.changes.listened, lambda i: i.seq == 153, seq=175, txid=1075)
    replaced(e.changes.listened, lambda i: i.seq == 152, seq=174, txid=1075)


def _reader_hears_both(e: Evidence) -> None:
    e.changes.listened = [item for item in e.changes.listened if item.seq != 156]


def _run_again_twice(e: Evidence) -> None:
    e.changes.said.append(Said(170, "SourceService.BackfillJob", 1070))


def _run_again_and_nothing_made(e: Evidence) -> None:
    replaced(e.changes.said, lambda s: s.seq == 165, txid=1071)


def _run_again_with_two_answers(e: Evidence) -> None:
    e.changes.reruns.append(Rerun("request", 3))


BAD: list[tuple[str, Bad]] = [
    ("S12", _two_pointers),
    ("S12", _pointer_of_another_version),
    ("S12", _history_with_a_gap),
    ("S12", _deploy_number_left_out),
    ("S12", _publication_left_out),
    ("S13", _recorded_later),
    ("S13", _jobs_stopped_later),
    ("S13", _jobs_never_started_again),
    ("S13", _two_switches_at_once),
    ("S14", _saw_a_mixture),
    ("S14", _rows_of_another_version),
    ("S14", _saw_what_was_not_made_yet),
    ("S14", _saw_what_had_been_replaced),
    ("S15", _session_went_back),
    ("S16", _started_after_the_rollback),
    ("S16", _accepted_after_the_rollback),
    ("S16", _accepted_once_it_is_restored),
    ("S16", _succeeded_after_the_rollback),
    ("S16", _told_to_go_on_after_the_rollback),
    ("S16", _bad_version_still_served),
    ("S16", _bad_version_still_read),
    ("S17", _active_and_nobody_said_so),
    ("S17", _build_stops_what_is_active),
    ("S17", _build_writes_into_what_is_active),
    ("S17", _build_becomes_active_by_being_staged),
    ("S26", _run_again_twice),
    ("S26", _run_again_and_nothing_made),
    ("S26", _run_again_with_two_answers),
    ("F1", _reader_left_behind),
    ("F1", _reader_follows_later),
    ("F1", _reader_hears_both),
    ("L1", _build_never_takes_over),
    ("L1", _events_never_made_up_for),
    ("W2", _complete_up_to_less),
    ("S21", _file_seen_otherwise),
    ("S21", _file_seen_other_than_accepted),
    ("S22", _given_up_while_it_is_served),
    ("S22", _given_up_while_it_is_built),
    ("S22", _given_up_in_the_window),
    ("S22", _given_up_while_it_is_pinned),
    ("S22", _file_of_a_version_deleted),
    ("S22", _file_deleted_too_early),
    ("S22", _file_deleted_before_its_version_was_given_up),
    ("S22", _pin_did_not_hold),
    ("L4", _orphan_stays),
    ("L4", _version_stays),
    ("L4", _pin_stays),
]


def test_a_good_history_of_changes_breaks_nothing() -> None:
    assert check(changed()) == []


@pytest.mark.parametrize(("invariant", "spoil"), BAD, ids=lambda item: getattr(item, "__name__", item))
def test_a_bad_history_of_changes_is_caught_by_its_invariant(invariant: str, spoil: Bad) -> None:
    evidence = changed()
    spoil(evidence)
    assert list(INVARIANTS[invariant](evidence)), f"{invariant} says nothing of it"


def test_a_claim_that_was_judged_before_the_switch_may_be_written_after_it() -> None:
    evidence = changed()
    late = next(change for change in evidence.task_changes if change.seq == 131)
    evidence.task_changes.remove(late)
    evidence.task_changes.append(dataclasses.replace(late, seq=159, began=15.45))
    evidence.written = [row for row in evidence.written if row.seq != 140]
    assert list(INVARIANTS["S16"](evidence)) == []


def test_what_is_accepted_before_acceptance_waits_for_a_switch_came_before_it() -> None:
    """A switch writes down first which jobs it stops."""
    evidence = changed()
    replaced(evidence.written, lambda row: row.seq == 140, seq=157)
    assert list(INVARIANTS["S16"](evidence)) == []
    replaced(evidence.written, lambda row: row.seq == 157, seq=159)
    assert len(list(INVARIANTS["S16"](evidence))) == 1


@pytest.mark.parametrize(("revision", "broken"), [(0, 0), (1, 1)])
def test_a_reader_is_owed_what_it_has_not_had_at_that_revision(revision: int, broken: int) -> None:
    """The pointer has moved to a version in which the scope was run again."""
    evidence = Evidence()
    evidence.events = [_about("event 1", "v1", 0), _about("event 2", "v2", revision)]
    task = Task("task", READERS_JOB, "event 1", None, "succeeded", 1, 0, 0, 3, 10, None, None, "")
    evidence.tasks = [dataclasses.replace(task, place=b"0|1|1")]
    evidence.subscriptions = [
        Subscription(READERS_JOB, "v1", 0, 1, replayed=True, foreign=True),
        Subscription(READERS_JOB, "v2", 1, None, replayed=True, foreign=True),
    ]
    assert len(list(INVARIANTS["S2"](evidence))) == broken


@pytest.mark.parametrize(("revision", "broken"), [(0, 1), (1, 0)])
def test_what_was_complete_gets_events_of_what_was_run_again_only(revision: int, broken: int) -> None:
    evidence = Evidence()
    evidence.events = [_about("event 1", "v1", 0), _about("event 2", "v1", revision)]
    evidence.written = [Written(1, "event", "event 1", 1.0, 1), Written(9, "event", "event 2", 2.0, 2)]
    evidence.watermark_changes = [WatermarkChange(5, "v1", b"1")]
    assert len(list(INVARIANTS["W1"](evidence))) == broken


def _about(event_id: str, version: str, revision: int) -> Event:
    """Of one scope, each by a task of its own."""
    key = EventKey("numbers", f"task of {event_id}", b"0|1|1|%d" % revision)
    return Event(event_id, key, b"1", 1, version, "", "publication", 1)
