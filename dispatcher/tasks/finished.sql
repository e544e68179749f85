-- Statements of finished tasks: how they leave the hot tables, how long they stay, and how a call finds them that comes late.

-- name: keep_alone
-- One replica at a time moves and drops: two would halve nothing but each other's pace. What makes it safe are the rows' locks.
select pg_try_advisory_xact_lock(%(key)s);

-- name: pick_finished
-- Tasks that ended long enough ago, the oldest first, all of one day (UTC): so they go into one partition. `after` keeps what the last
-- pick has left behind in the index out of this one. Locked, and none that anybody has locked. Index task_finished.
with oldest as (
    select min(finished_at) as at
    from task
    where state in ('succeeded', 'canceled', 'skipped') and finished_at >= %(after)s
)
select t.task_id::text, t.finished_at, (t.finished_at at time zone 'UTC')::date as day
from task t
where t.state in ('succeeded', 'canceled', 'skipped') and t.finished_at >= (select at from oldest)
    and t.finished_at < (select date_trunc('day', at, 'UTC') + interval '1 day' from oldest)
    and t.finished_at <= clock_timestamp() - %(age)s::interval
order by t.finished_at
limit %(limit)s
for update of t skip locked;

-- name: add_day
select add_finished_day(%(day)s);

-- name: move_attempts
-- So many attempts of picked tasks; nobody else writes them any more. Primary key of attempt.
with moved as (
    delete from attempt
    where ctid = any(array(
        select ctid from attempt where task_id = any(%(task_ids)s::uuid[]) order by task_id, attempt limit %(limit)s
    ))
    returning task_id, attempt, worker_id, claim_request_id, lease_token_digest, started_at, ended_at, outcome, task_state, error_class,
        message, traceback, usage
)
insert into finished_attempt (
    task_id, attempt, worker_id, claim_request_id, lease_token_digest, started_at, ended_at, outcome, task_state, error_class, message,
    traceback, usage, finished_at
)
select m.task_id, m.attempt, m.worker_id, m.claim_request_id, m.lease_token_digest, m.started_at, m.ended_at, m.outcome, m.task_state,
    m.error_class, m.message, m.traceback, m.usage, p.finished_at
from moved m
join unnest(%(task_ids)s::uuid[], %(finished_at)s::timestamptz[]) as p (task_id, finished_at) using (task_id);

-- name: move_tasks
-- Picked tasks, but not those that have attempts left: these follow in a later round. Counted as they go. Primary keys.
with moved as (
    delete from task t
    where t.task_id = any(%(task_ids)s::uuid[]) and t.state in ('succeeded', 'canceled', 'skipped')
        and not exists (select 1 from attempt a where a.task_id = t.task_id)
    returning t.task_id, t.job_version_id, t.event_id, t.origin, t.state, t.stream_key, t.scope_kind, t.scope_first, t.scope_last,
        t.revision, t.attempt, t.failed_attempts, t.lost_leases, t.run_epoch, t.started_at, t.accepted_events, t.refused_attempt,
        t.run_emitted, t.nondeterministic, t.cancel_reason, t.pins, t.reason, t.created_at, t.finished_at
), kept as (
    insert into finished_task (
        task_id, job_version_id, event_id, origin, state, stream_key, scope_kind, scope_first, scope_last, revision, attempt,
        failed_attempts, lost_leases, run_epoch, started_at, accepted_events, refused_attempt, run_emitted, nondeterministic,
        cancel_reason, pins, reason, created_at, finished_at
    )
    select task_id, job_version_id, event_id, origin, state, stream_key, scope_kind, scope_first, scope_last, revision, attempt,
        failed_attempts, lost_leases, run_epoch, started_at, accepted_events, refused_attempt, run_emitted, nondeterministic,
        cancel_reason, pins, reason, created_at, finished_at
    from moved
), counted as (
    insert into finished_count (job_version_id, origin, state, tasks, accepted_events)
    select job_version_id, origin, state, count(*), sum(accepted_events)
    from moved
    group by job_version_id, origin, state
    order by job_version_id, origin, state
    on conflict (job_version_id, origin, state)
    do update set tasks = finished_count.tasks + excluded.tasks,
        accepted_events = finished_count.accepted_events + excluded.accepted_events
)
select count(*) from moved;

-- name: trim_attempts
-- Of sources' runs that go on, so many attempts that ended longer ago than finished tasks are kept: such a run may never end, and so never
-- moves. The lowest numbers ended first. Index task_of_source, primary key of attempt.
delete from attempt
where ctid = any(array(
    select a.ctid
    from task t
    cross join lateral (
        select b.ctid, b.ended_at from attempt b where b.task_id = t.task_id order by b.attempt limit %(limit)s
    ) a
    where t.event_id is null and t.state in ('queued', 'released', 'running', 'backoff')
        and a.ended_at < clock_timestamp() - make_interval(days => %(days)s::int)
    limit %(limit)s
));

-- name: limit_lock_wait
-- For the rest of the transaction: what it waits for, others wait for behind it.
select set_config('lock_timeout', %(wait)s, true);

-- name: add_days_ahead
-- Today's and tomorrow's, so that midnight makes no table.
select add_finished_day((clock_timestamp() at time zone 'UTC')::date + ahead) from generate_series(0, 1) as d (ahead);

-- name: oldest_day_to_drop
-- The first day whose last task ended longer ago than is kept.
select day
from finished_day
where day < (clock_timestamp() at time zone 'UTC')::date - %(days)s::int
order by day
limit 1;

-- name: drop_day
select drop_finished_day(%(day)s);

-- name: finished_tasks
-- As `read_tasks` has them, for a call that names a task which was moved. It can hold no lease. Primary keys of the partitions.
select t.task_id::text, t.state::text, t.job_version_id::text, t.event_id::text, t.origin::text, t.stream_key, t.revision,
    t.attempt, t.failed_attempts, t.lost_leases, null::text as claim_request_id, null::bytea as lease_token_digest,
    false as lease_lives, null::bigint as stream_epoch, t.run_epoch, null::text as worker_id, t.accepted_events, t.refused_attempt,
    t.run_emitted, r.run_state::text, r.epoch as job_epoch, t.reason, t.cancel_reason,
    t.created_at < r.changed_at as before_change
from finished_task t
join job_version_run r using (job_version_id)
where t.task_id = any(%(task_ids)s::uuid[])
order by t.task_id;

-- name: finished_attempts
-- As `ended_attempts` has them. Primary keys of the partitions.
select a.task_id::text, a.attempt, a.lease_token_digest, a.outcome::text, a.task_state::text as state
from finished_attempt a
join unnest(%(task_ids)s::uuid[], %(attempts)s::bigint[]) as r (task_id, attempt)
    on a.task_id = r.task_id and a.attempt = r.attempt;
