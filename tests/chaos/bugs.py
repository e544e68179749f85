"""Bugs that somebody might have made, each with what finds it.

They are planted by tests only (`planting`). The scenario is the shortest way to where a bug shows; chaos comes to many
of them too, in more time: `python -m tests.chaos --bug NAME`.
"""

from collections.abc import Mapping

from tests.chaos import bugs_of_changes, wrong
from tests.chaos.planting import Bug, Function, Sql

_TASKS = "dispatcher.tasks.store"
_CLAIMS = "dispatcher.tasks.claim_rows"
_EVENTS = "dispatcher.events.store"
_REPLAYS = "dispatcher.events.replay_rows"
_RELEASE = "dispatcher.wakeups.release"
_HELD_BY = "dispatcher.tasks.leases:LockedTask.held_by"

BUGS: Mapping[str, Bug] = {
    # Whose word counts.
    "attempt-dropped": Bug(
        "a lease is judged without its attempt",
        [Function(_HELD_BY, wrong.held_by_token)],
        "a_lease_of_two_attempts",
        "S5",
    ),
    "token-dropped": Bug(
        "a lease is judged without its token",
        [Function(_HELD_BY, wrong.held_by_attempt)],
        "a_forged_token",
        "S7",
    ),
    "state-only": Bug(
        "an end is guarded by the task's state only",
        [Function(_HELD_BY, wrong.held_by_anybody)],
        "a_zombie_ends",
        "S7",
    ),
    "clock-behind": Bug(
        "leases are judged by a worker's clock, which is behind",
        [Sql(_TASKS, "lock_tasks", "> clock_timestamp()", "> clock_timestamp() - interval '1 hour'")],
        "a_lease_has_ended",
        "S5",
    ),
    "clock-ahead": Bug(
        "leases are taken back by a dispatcher's clock, which is ahead",
        [Sql(_TASKS, "expired_tasks", "< clock_timestamp()", "< clock_timestamp() + interval '1 hour'")],
        "leases_are_looked_at",
        "S9",
    ),
    "expiry-unlocked": Bug(
        "what has expired is found without a lock, and taken back from whoever has it by then",
        [Sql(_TASKS, "expired_tasks", "for no key update skip locked", "")],
        "two_replicas_take_back",
        "S9",
    ),
    "tasks-unlocked": Bug(
        "FOR UPDATE is lost: a lease is judged on a row that may change before the write",
        [Sql(_TASKS, "lock_tasks", "for no key update of t", "")],
        "a_takeover_within_an_emit",
        "S5",
    ),
    "stale-beats": Bug(
        "a heartbeat needs neither attempt nor token",
        [
            Sql(
                _TASKS, "extend_leases", "held.attempt = k.attempt and held.lease_token_digest = k.token_digest", "true"
            ),
            Sql(
                _TASKS,
                "extend_leases",
                "select k.task_id, k.progress\n",
                "select k.task_id, k.progress, k.attempt, k.token_digest\n",
            ),
            Sql(
                _TASKS,
                "extend_leases",
                "t.attempt, t.lease_token_digest, t.lease_until",
                "h.attempt::int, h.token_digest, t.lease_until",
            ),
        ],
        "a_zombie_beats",
        "S7",
    ),
    "beats-revive": Bug(
        "a heartbeat extends a lease that has ended",
        [Sql(_TASKS, "extend_leases", "and held.lease_until > clock_timestamp() ", "")],
        "a_lease_has_ended",
        "S9",
    ),
    "epoch-unjudged": Bug(
        "a run's writes are accepted whatever became of its stream",
        [Function("dispatcher.tasks.leases:_stream_refusal", wrong.never_refused)],
        "a_streams_lease_has_ended",
        "S5",
    ),
    "second-holder": Bug(
        "a stream is handed out while somebody has it",
        [
            Function("dispatcher.tasks.leases:LockedStream.leased", wrong.never),
            Sql(_CLAIMS, "run_candidates", "('released', 'running', 'backoff', 'dead')", "('released')"),
        ],
        "a_second_worker_asks_for_the_stream",
        "S9",
    ),
    # How often, and how it ends.
    "attempt-uncounted": Bug(
        "a claim does not count the attempt",
        [Sql(_CLAIMS, "mark_claimed", "attempt = t.attempt + 1", "attempt = greatest(t.attempt, 1)")],
        "a_zombie_ends",
        "S10",
    ),
    "late-claim": Bug(
        "a claim that arrives once more, late, makes another attempt",
        [Function(f"{_CLAIMS}:spent_claims", wrong.finds_nothing)],
        "a_claim_arrives_late_once_more",
        "S25",
    ),
    "endless-retries": Bug(
        "failures are retried without a limit",
        [Function("dispatcher.tasks.ending:after_failure", wrong.without_a_limit)],
        "a_task_fails_again_and_again",
        "S23",
    ),
    "cancel-succeeds": Bug(
        "a task that was cancelled while it ran ends as a success",
        [
            Function("dispatcher.tasks.leases:_cancellation", wrong.finds_no_reason),
            Function("dispatcher.tasks.ending:AttemptEnder._end", wrong.as_if_not_cancelled),
        ],
        "a_running_task_is_cancelled",
        "S24",
    ),
    "success-retried": Bug(
        "a retry takes what has succeeded, too",
        [
            Sql("dispatcher.tasks.changes", "dead_tasks", "t.state = 'dead'", "t.state in ('dead', 'succeeded')"),
            Sql("dispatcher.tasks.changes", "retry", "state = 'dead'", "state in ('dead', 'succeeded')"),
        ],
        "a_success_is_retried",
        "S10",
    ),
    # What is published.
    "ack-before-commit": Bug(
        "calls are answered before their transaction is committed",
        [wrong.CommitsWithTheNext()],
        "sessions_end_after_the_answer",
        "S1",
    ),
    "no-key": Bug(
        "events have no key: an emit that is repeated makes them again",
        [Sql(_EVENTS, "existing_events", "k.scope_kind and e.revision", "k.scope_kind and false and e.revision")],
        "an_emit_is_repeated",
        "S4",
        schema="drop index event_key",
    ),
    "late-emit": Bug(
        "an emit that was accepted is refused when it arrives once more, late",
        [Function("dispatcher.events.verdicts:_repeats_late", wrong.never_refused)],
        "an_emit_arrives_late_once_more",
        "S25",
    ),
    "two-transactions": Bug(
        "an emit is written in one transaction and published in another",
        [Function("dispatcher.events.accept:Acceptance.accept", wrong.committed_at_once)],
        "an_emit_is_repeated",
        "S11",
    ),
    "consumer-forgotten": Bug(
        "of several events in one emit only the first has its tasks",
        [Sql(_EVENTS, "insert_events", "order by a.position", "order by a.position limit 1")],
        "an_emit_is_repeated",
        "S2",
    ),
    "subscribed-meanwhile": Bug(
        "acceptance does not hold the lock that keeps consumers from changing",
        [Function(f"{_EVENTS}:share_dags", wrong.does_nothing)],
        "a_consumer_is_deployed_within_an_emit",
        "S2",
    ),
    "replayed-and-routed": Bug(
        "a replay goes beyond where routing began",
        [Sql(_REPLAYS, "replay_events", "and p.number <= %(from_number)s", "")],
        "a_consumer_is_deployed_later",
        "S2",
        schema="drop index task_cause",
    ),
    "events-uncounted": Bug(
        "a success does not wait for the events that it states",
        [Function("dispatcher.tasks.ending:_success_refusal", wrong.never_refused)],
        "a_success_without_its_events",
        "S11",
    ),
    "refusal-forgotten": Bug(
        "an emit that was refused does not refuse the success of its attempt",
        [Function(f"{_EVENTS}:record_refusals", wrong.does_nothing)],
        "a_success_after_a_refused_emit",
        "S11",
    ),
    "file-unseen": Bug(
        "files are accepted unseen",
        [Function("dispatcher.events.verify:ArtifactVerifier.verify", wrong.takes_them_as_they_are)],
        "a_file_that_is_not_there",
        "S20",
    ),
    # In what order, and when.
    "order-reversed": Bug(
        "the next task of a stream is its last",
        [
            Sql(
                _CLAIMS,
                "run_candidates",
                "order by scope_first, task_id\n            limit",
                "order by scope_first desc, task_id\n            limit",
            )
        ],
        "a_stream_is_worked_off",
        "O1",
    ),
    "head-passed": Bug(
        "what waits for its retry does not hold its stream",
        [Sql(_CLAIMS, "run_candidates", "'running', 'backoff', 'dead'", "'running', 'dead'")],
        "the_head_of_a_stream_fails",
        "O1",
    ),
    "watermark-early": Bug(
        "a watermark passes what is still running",
        [
            Sql(
                _EVENTS,
                "derived_watermarks",
                "t.state in ('released', 'running', 'backoff', 'dead')",
                "t.state in ('released', 'backoff', 'dead')",
            )
        ],
        "watermarks_move_while_a_task_runs",
        "W1",
    ),
    "wakeups-unsent": Bug(
        "a wake-up that nobody answered is not sent again",
        [Sql(_RELEASE, "release_again", "where t.state = 'released'", "where false and t.state = 'released'")],
        "a_wakeup_is_lost",
        "L3",
    ),
    "streams-unexpired": Bug(
        "only tasks of their own are taken back, runs are not",
        [Sql(_TASKS, "expired_streams", "where lease_until", "where false and lease_until")],
        "the_holder_of_a_stream_dies",
        "L2",
    ),
    **bugs_of_changes.BUGS,
}
