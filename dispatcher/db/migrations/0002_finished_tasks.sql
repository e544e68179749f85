-- Finished tasks leave the hot tables for ones that are partitioned by the day of their end (UTC), so that old days are dropped, not
-- deleted. What of a task only a worker's lease needs does not go along: a finished task has none.

create table finished_task (
    task_id uuid not null,
    job_version_id uuid not null,
    event_id uuid,
    origin task_origin not null,
    state task_state not null check (state in ('succeeded', 'canceled', 'skipped')),
    stream_key text,
    scope_kind smallint,
    scope_first bytea not null,
    scope_last bytea not null,
    revision bigint not null,
    attempt int not null,
    failed_attempts int not null,
    lost_leases int not null,
    run_epoch bigint,
    started_at timestamptz,
    accepted_events int not null,
    refused_attempt int,
    run_emitted boolean not null,
    nondeterministic boolean not null,
    cancel_reason text,
    pins jsonb,
    reason text not null,
    created_at timestamptz not null,
    finished_at timestamptz not null,
    primary key (task_id, finished_at)
) partition by range (finished_at);
create index finished_task_cause on finished_task (job_version_id, event_id) where event_id is not null;

-- By the end of its task, so that both go on one day.
create table finished_attempt (
    task_id uuid not null,
    attempt int not null,
    worker_id text not null,
    claim_request_id uuid not null,
    lease_token_digest bytea not null,
    started_at timestamptz not null,
    ended_at timestamptz not null,
    outcome attempt_outcome not null,
    task_state task_state not null,
    error_class error_class,
    message text not null,
    traceback text not null,
    usage bytea,
    finished_at timestamptz not null,
    primary key (task_id, attempt, finished_at)
) partition by range (finished_at);

-- What outlives the rows: how many tasks were moved, and how many events they had made. Counted in the transaction that moves them.
create table finished_count (
    job_version_id uuid not null,
    origin task_origin not null,
    state task_state not null,
    tasks bigint not null,
    accepted_events bigint not null,
    primary key (job_version_id, origin, state)
) with (fillfactor = 50);

-- For who pages through history. `finished` says which table a row is in: a condition on it leaves the other one out. What keeps the
-- delivery going reads `task` and `attempt` alone.
create view any_task as
select task_id, job_version_id, event_id, origin, state, stream_key, scope_kind, scope_first, scope_last, revision, attempt,
    failed_attempts, lost_leases, claim_request_id, lease_token_digest, lease_until, stream_epoch, run_epoch, worker_id, started_at,
    released_at, retry_at, accepted_events, refused_attempt, run_emitted, nondeterministic, cancel_reason, pins, progress, reason,
    created_at, finished_at, false as finished
from task
union all
select task_id, job_version_id, event_id, origin, state, stream_key, scope_kind, scope_first, scope_last, revision, attempt,
    failed_attempts, lost_leases, null::uuid, null::bytea, null::timestamptz, null::bigint, run_epoch, null::text, started_at,
    null::timestamptz, null::timestamptz, accepted_events, refused_attempt, run_emitted, nondeterministic, cancel_reason, pins, null::bytea,
    reason, created_at, finished_at, true
from finished_task;

create view any_attempt as
select task_id, attempt, worker_id, claim_request_id, lease_token_digest, started_at, ended_at, outcome, task_state, error_class,
    message, traceback, usage
from attempt
union all
select task_id, attempt, worker_id, claim_request_id, lease_token_digest, started_at, ended_at, outcome, task_state, error_class,
    message, traceback, usage
from finished_attempt;

-- Makes the partitions of a day, where they are not there. Attaching takes a lock that hinders neither readers nor writers.
create function add_finished_day(day date) returns void language plpgsql as $$
declare
    parent text;
    part text;
begin
    foreach parent in array array['finished_task', 'finished_attempt'] loop
        part := format('%s_%s', parent, to_char(day, 'YYYYMMDD'));
        if to_regclass(part) is null then
            execute format('create table %I (like %I including all)', part, parent);
            execute format(
                'alter table %I attach partition %I for values from (%L) to (%L)', parent, part,
                day::timestamp at time zone 'UTC', (day + 1)::timestamp at time zone 'UTC'
            );
        end if;
    end loop;
end $$;

-- The days that have partitions.
create view finished_day as
select distinct to_date(right(c.relname, 8), 'YYYYMMDD') as day
from pg_inherits i
join pg_class c on c.oid = i.inhrelid
where i.inhparent in ('finished_task'::regclass, 'finished_attempt'::regclass);

-- Drops the partitions of a day. It needs a lock that excludes readers of history, for a moment: the caller limits the wait for it.
create function drop_finished_day(day date) returns void language plpgsql as $$
begin
    execute format('drop table if exists %I', 'finished_task_' || to_char(day, 'YYYYMMDD'));
    execute format('drop table if exists %I', 'finished_attempt_' || to_char(day, 'YYYYMMDD'));
end $$;

-- What has ended and is to be moved, the oldest first.
create index task_finished on task (finished_at) where state in ('succeeded', 'canceled', 'skipped');

-- Each task leaves some five dead rows here. Vacuum comes for few of them, whatever the server's own settings, and is not held back; and it
-- gives no room back to the disk: for that it would lock the table, and the next tasks need the room again.
alter table task set (
    autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_limit = 2000, autovacuum_analyze_scale_factor = 0.05,
    vacuum_truncate = false
);
alter table attempt set (
    autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_limit = 2000, autovacuum_analyze_scale_factor = 0.05,
    vacuum_truncate = false
);
