"""The checker: every invariant by its name, and what of the evidence breaks it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from tests.chaos import (
    of_ends,
    of_events,
    of_files,
    of_followers,
    of_leases,
    of_order,
    of_readers,
    of_reruns,
    of_rollbacks,
    of_switches,
)
from tests.chaos.evidence import Evidence

INVARIANTS: Mapping[str, Callable[[Evidence], Iterable[str]]] = {
    "S1": of_events.acknowledged_events_are_there,
    "S2": of_events.every_consumer_has_one_task,
    "S3": of_events.no_task_without_its_event,
    "S4": of_events.one_event_for_each_key,
    "S5": of_events.events_come_from_living_attempts,
    "S6": of_leases.one_success_by_the_last_attempt,
    "S7": of_leases.no_stale_lease_is_heard,
    "S8": of_leases.attempts_are_counted_up,
    "S9": of_leases.leases_do_not_overlap,
    "S10": of_leases.transitions_are_legal,
    "S11": of_events.an_emit_is_all_or_nothing,
    "S12": of_switches.one_pointer_and_numbers_without_gaps,
    "S13": of_switches.a_switch_is_one_transaction,
    "S14": of_readers.nobody_saw_a_mixture,
    "S15": of_readers.no_session_goes_back,
    "S16": of_rollbacks.what_was_taken_back_stays_so,
    "S17": of_switches.a_build_changes_nothing_that_is_active,
    "S20": of_events.files_are_as_they_were_accepted,
    "S21": of_files.files_never_change,
    "S22": of_files.nothing_needed_is_collected,
    "S23": of_ends.attempts_have_a_limit,
    "S24": of_ends.what_was_cancelled_never_succeeds,
    "S25": of_leases.calls_take_effect_once,
    "S26": of_reruns.what_is_run_again_is_run_once,
    "F1": of_followers.readers_follow_what_is_served,
    "O1": of_order.streams_keep_their_order,
    "W1": of_order.what_is_complete_stays_so,
    "W2": of_order.no_cutover_takes_completeness_back,
    "L1": of_ends.everything_comes_to_an_end,
    "L2": of_ends.ended_leases_are_noticed,
    "L3": of_ends.lost_wakeups_are_sent_again,
    "L4": of_files.what_nobody_needs_goes,
}


@dataclass(frozen=True, slots=True)
class Violation:
    """An invariant that does not hold, and where."""

    invariant: str
    what: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.what}"


def check(evidence: Evidence) -> list[Violation]:
    """Everything that breaks an invariant, in their order; empty is what is wanted."""
    return [Violation(name, what) for name, broken in INVARIANTS.items() for what in broken(evidence)]
