"""Bugs that somebody might have made in changes of pipelines and in the collector; otherwise as in `bugs`."""

from collections.abc import Mapping

from tests.chaos import wrong, wrong_changes
from tests.chaos.planting import Bug, Function, Sql

BUGS: Mapping[str, Bug] = {
    "switched-in-two": Bug(
        "a switch stops the old jobs in one transaction, and moves the pointers in another",
        [Function("dispatcher.deploy.store:activate", wrong_changes.committed_before)],
        "a_change_takes_over",
        "S13",
    ),
    "barrier-unchecked": Bug(
        "a build takes over before it has caught up",
        [Function("dispatcher.deploy.cutover:find_lack", wrong_changes.lacks_nothing)],
        "a_change_is_not_built_yet",
        "W2",
    ),
    "unfenced": Bug(
        "who works for a version that was taken back is not fenced",
        [
            Function("dispatcher.tasks.leases:attempt_fence", wrong_changes.not_fenced),
            Function("dispatcher.tasks.heartbeat:attempt_fence", wrong_changes.not_fenced),
        ],
        "a_zombie_of_what_was_rolled_back",
        "S16",
    ),
    "epoch-kept": Bug(
        "who worked for a version before it was taken back may go on once it is restored",
        [Sql("dispatcher.deploy.stages", "stop_jobs", "epoch = epoch + 1, ", "")],
        "a_zombie_of_what_was_restored",
        "S16",
    ),
    "missed-forgotten": Bug(
        "what a version missed while it was not active is never made up for",
        [
            Sql(
                "dispatcher.deploy.stages",
                "open_subscriptions",
                "h.number, h.number = coalesce(earlier.number, 0), former",
                "h.number, h.number = coalesce(earlier.number, 0) or coalesce(earlier.number, 0) > 0, former",
            )
        ],
        "a_rollback_after_more_has_come",
        "S2",
    ),
    "reader-left-behind": Bug(
        "a switch moves the pointers, and who reads them from another DAG stays where it was",
        [Function("dispatcher.deploy.following:follow_pointers", wrong.does_nothing)],
        "a_reader_follows_a_cutover",
        "F1",
    ),
    "followed-from-now-on": Bug(
        "who follows a pointer is owed nothing of what the version had before",
        [
            Sql(
                "dispatcher.deploy.following",
                "follow_pointers",
                "h.number, h.number = coalesce(earlier.number, 0), m.former_id",
                "h.number, true, m.former_id",
            )
        ],
        "a_pointer_brings_a_scope_that_its_reader_has_not_had",
        "S2",
    ),
    "backfill-repeated": Bug(
        "a backfill that arrives once more is run once more",
        [Function("dispatcher.deploy.rerun_rows:answered_page", wrong.does_nothing)],
        "a_backfill_is_asked_for_twice",
        "S26",
        schema="alter table rerun_page drop constraint rerun_page_pkey",
    ),
    "pins-ignored": Bug(
        "the collector takes what a pin holds",
        [Sql("dispatcher.collecting.store", "judged", "where p.expires_at > clock_timestamp()", "where false")],
        "what_is_pinned_is_given_up",
        "S22",
    ),
    "window-ignored": Bug(
        "the collector takes what a rollback may restore",
        [Function("dispatcher.collecting.condemning:rollback_window", wrong_changes.empty)],
        "what_a_rollback_may_restore_is_given_up",
        "S22",
    ),
    "names-ignored": Bug(
        "the collector takes files for orphans that are part of a version",
        [Sql("dispatcher.collecting.store", "key_facts", "a.object_key is not null as named", "false as named")],
        "the_store_is_looked_through",
        "S20",
    ),
}
