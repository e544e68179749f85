-- Statements of tasks, leases and attempts. Lock order everywhere: streams, then tasks, each by their key.

-- name: job_versions_of
-- Which job version a task belongs to never changes, so this needs no lock. Primary key.
select task_id::text, job_version_id::text, stream_key
from task
where task_id = any(%(task_ids)s::uuid[]);

-- name: ensure_streams
-- A stream's row exists before it is locked.
insert into ordered_stream (job_version_id, stream_key)
select job_version_id, stream_key
from unnest(%(job_version_ids)s::uuid[], %(stream_keys)s::text[]) as s (job_version_id, stream_key)
order by job_version_id, stream_key
on conflict do nothing;

-- name: lock_streams
-- Primary key; locked in its order, so that two batches never wait for each other.
select o.job_version_id::text, o.stream_key, o.epoch, o.claim_request_id::text, o.lease_token_digest, o.lease_until,
    o.cancel_reason, clock_timestamp() as now
from ordered_stream o
join unnest(%(job_version_ids)s::uuid[], %(stream_keys)s::text[]) as s (job_version_id, stream_key)
    on o.job_version_id = s.job_version_id and o.stream_key = s.stream_key
order by o.job_version_id, o.stream_key
for no key update of o;

-- name: lock_tasks
-- The row that is judged is the row that is locked (MECHANICS 1). Primary key, in its order.
select t.task_id::text, t.state::text, t.job_version_id::text, t.event_id::text, t.origin::text, t.stream_key, t.revision,
    t.attempt, t.failed_attempts, t.lost_leases, t.claim_request_id::text, t.lease_token_digest,
    coalesce(t.lease_until > clock_timestamp(), false) as lease_lives, t.stream_epoch, t.run_epoch, t.worker_id,
    t.accepted_events, t.refused_attempt, t.run_emitted, r.run_state::text, r.epoch as job_epoch, t.reason, t.cancel_reason,
    t.created_at < r.changed_at as before_change
from task t
join job_version_run r using (job_version_id)
where t.task_id = any(%(task_ids)s::uuid[])
order by t.task_id
for no key update of t;

-- name: read_tasks
-- The same without a lock, for calls that change nothing.
select t.task_id::text, t.state::text, t.job_version_id::text, t.event_id::text, t.origin::text, t.stream_key, t.revision,
    t.attempt, t.failed_attempts, t.lost_leases, t.claim_request_id::text, t.lease_token_digest,
    coalesce(t.lease_until > clock_timestamp(), false) as lease_lives, t.stream_epoch, t.run_epoch, t.worker_id,
    t.accepted_events, t.refused_attempt, t.run_emitted, r.run_state::text, r.epoch as job_epoch, t.reason, t.cancel_reason,
    t.created_at < r.changed_at as before_change
from task t
join job_version_run r using (job_version_id)
where t.task_id = any(%(task_ids)s::uuid[])
order by t.task_id;

-- name: advance_streams
-- A stream is at the last scope of it that was done. Never back: what comes before it is late.
update ordered_stream o
set position = e.position
from (
    select t.job_version_id, t.stream_key, max(t.scope_first) as position
    from task t
    where t.task_id = any(%(task_ids)s::uuid[]) and t.stream_key is not null
    group by t.job_version_id, t.stream_key
) e
where o.job_version_id = e.job_version_id and o.stream_key = e.stream_key and o.position < e.position;

-- name: run_members
-- The tasks of a run that is out. Index task_leased, which has all that run, or task_open.
select task_id::text
from task
where job_version_id = %(job_version_id)s and stream_key = %(stream_key)s and state = 'running'
    and stream_epoch = %(epoch)s
order by scope_first, revision, task_id;

-- name: operator_states
-- State by stream; sources have the stream ''.
select o.job_version_id::text, o.stream_key, o.data, o.version
from operator_state o
join unnest(%(job_version_ids)s::uuid[], %(stream_keys)s::text[]) as s (job_version_id, stream_key)
    on o.job_version_id = s.job_version_id and o.stream_key = s.stream_key;

-- name: retry_policies
-- Retry settings of what may run.
select s.job_version_id::text, s.max_attempts, s.max_lost_leases, s.retry_backoff, s.max_retry_backoff
from scheduled_job s
where s.job_version_id = any(%(job_version_ids)s::uuid[]);

-- name: failures_of_class
-- How often tasks have failed with a class, of the failures that their rows count: those before a person's retry, or before a source got
-- on, are not among the last so many. A failure of which another task of the run was to blame left its task queued. Primary key of attempt.
select f.task_id::text, count(*)::int
from unnest(%(task_ids)s::uuid[], %(error_classes)s::text[], %(counts)s::int[]) as f (task_id, error_class, counted)
cross join lateral (
    select a.error_class::text
    from attempt a
    where a.task_id = f.task_id and a.outcome = 'failed' and a.task_state = 'backoff'
    order by a.attempt desc
    limit f.counted
) as c (error_class)
where c.error_class = f.error_class
group by f.task_id;

-- name: record_ends
-- SUCCEED, FAIL, FAIL_FINALLY, YIELD, RETURN, LOSE_LEASE, LOSE_LEASE_FINALLY, CONFIRM_CANCEL: running to what was decided on the locked
-- row; and the attempt that has ended, as the row knew it until now. With it what the emits before it added, as record_emits would; null
-- where there were none. Primary key: the state comes as a value, or a plan that is kept could read all that run, by their own index.
with ended as (
    update task t
    set state = e.state::task_state, claim_request_id = null, lease_token_digest = null, lease_until = null,
        stream_epoch = null, worker_id = null, progress = null,
        failed_attempts = t.failed_attempts + e.failed, lost_leases = t.lost_leases + e.lost,
        retry_at = case when e.state = 'backoff' then clock_timestamp() + e.wait end,
        finished_at = case when e.state in ('succeeded', 'dead', 'canceled') then clock_timestamp() end,
        reason = e.reason, cancel_reason = case when e.state = 'canceled' then t.cancel_reason end,
        accepted_events = t.accepted_events + coalesce(e.accepted, 0), nondeterministic = t.nondeterministic or e.differs,
        run_emitted = t.run_emitted or (e.accepted is not null and t.stream_epoch is not null)
    from unnest(
        %(task_ids)s::uuid[], %(states)s::text[], %(failed)s::int[], %(lost)s::int[], %(waits)s::interval[],
        %(reasons)s::text[], %(outcomes)s::text[], %(error_classes)s::text[], %(messages)s::text[], %(tracebacks)s::text[],
        %(usages)s::bytea[], %(accepted)s::int[], %(differs)s::boolean[]
    ) as e (task_id, state, failed, lost, wait, reason, outcome, error_class, message, traceback, usage, accepted, differs)
    where t.task_id = e.task_id and t.state = %(running)s::task_state
    returning t.task_id, t.attempt, old.worker_id, old.claim_request_id, old.lease_token_digest, t.started_at, e.outcome, t.state, e.error_class,
        e.message, e.traceback, e.usage
)
insert into attempt (
    task_id, attempt, worker_id, claim_request_id, lease_token_digest, started_at, outcome, task_state, error_class, message, traceback,
    usage
)
select task_id, attempt, worker_id, claim_request_id, lease_token_digest, started_at, outcome::attempt_outcome, state,
    error_class::error_class, message, traceback, usage
from ended;

-- name: ended_attempts
-- The first answer of a repeated Complete. Primary key of attempt.
select a.task_id::text, a.attempt, a.lease_token_digest, a.outcome::text, a.task_state::text as state
from attempt a
join unnest(%(task_ids)s::uuid[], %(attempts)s::bigint[]) as r (task_id, attempt)
    on a.task_id = r.task_id and a.attempt = r.attempt;

-- name: free_streams
-- A stream whose run has no running task left is free for the next claim.
update ordered_stream o
set claim_request_id = null, lease_token_digest = null, lease_until = null, worker_id = null
from unnest(%(job_version_ids)s::uuid[], %(stream_keys)s::text[]) as s (job_version_id, stream_key)
where o.job_version_id = s.job_version_id and o.stream_key = s.stream_key and o.lease_until is not null
    and not exists (
        select 1 from task t
        where t.job_version_id = o.job_version_id and t.stream_key = o.stream_key and t.state = 'running'
    );

-- name: extend_leases
-- Heartbeat of tasks of their own: one statement for all of a worker's. Guarded on the locked row. Of sources' runs, which may never end by
-- themselves, also whether a person paused them.
update task t
set lease_until = clock_timestamp() + %(lease)s::interval, progress = coalesce(h.progress, t.progress)
from (
    select k.task_id, k.progress
    from unnest(
        %(task_ids)s::uuid[], %(attempts)s::bigint[], %(token_digests)s::bytea[], %(progresses)s::bytea[]
    ) as k (task_id, attempt, token_digest, progress)
    join task held using (task_id)
    join job_version_run r using (job_version_id)
    where held.state = 'running' and held.attempt = k.attempt and held.lease_token_digest = k.token_digest
        and held.stream_epoch is null and held.lease_until > clock_timestamp() and held.cancel_reason is null
        and r.run_state in ('running', 'staged') and r.epoch = held.run_epoch
    order by held.task_id
    for no key update of held
) h
where t.task_id = h.task_id
returning t.task_id::text, t.attempt, t.lease_token_digest, t.lease_until, t.origin = 'source_run' and exists (
    select 1
    from job_version j
    join pause p on p.dag = j.dag and p.job in ('', j.job)
    where j.job_version_id = t.job_version_id
) as paused;

-- name: extend_streams
-- Heartbeat of runs: the stream's one lease carries all of its tasks.
update ordered_stream o
set lease_until = clock_timestamp() + %(lease)s::interval
from (
    select k.job_version_id, k.stream_key
    from unnest(
        %(job_version_ids)s::uuid[], %(stream_keys)s::text[], %(epochs)s::bigint[], %(token_digests)s::bytea[]
    ) as k (job_version_id, stream_key, epoch, token_digest)
    join ordered_stream held using (job_version_id, stream_key)
    join job_version_run r using (job_version_id)
    where held.epoch = k.epoch and held.lease_token_digest = k.token_digest and held.lease_until > clock_timestamp()
        and held.cancel_reason is null
        and r.run_state in ('running', 'staged') and r.epoch = held.run_epoch
    order by held.job_version_id, held.stream_key
    for no key update of held
) h
where o.job_version_id = h.job_version_id and o.stream_key = h.stream_key
returning o.job_version_id::text, o.stream_key, o.epoch, o.lease_token_digest, o.lease_until;

-- name: note_progress
-- How far tasks of runs are whose streams were extended, and so are locked. Guarded on the locked row. Primary key.
update task t
set progress = h.progress
from (
    select k.task_id, k.progress
    from unnest(
        %(task_ids)s::uuid[], %(attempts)s::bigint[], %(token_digests)s::bytea[], %(progresses)s::bytea[]
    ) as k (task_id, attempt, token_digest, progress)
    join task held using (task_id)
    where held.state = 'running' and held.attempt = k.attempt and held.lease_token_digest = k.token_digest
        and held.stream_epoch is not null
    order by held.task_id
    for no key update of held
) h
where t.task_id = h.task_id;

-- name: standing
-- Why a heartbeat did not extend: cancelled, or lost.
select t.task_id::text, t.state::text, t.attempt, t.lease_token_digest, t.run_epoch, t.reason, r.run_state::text,
    r.epoch as job_epoch, coalesce(t.cancel_reason, case when o.epoch = t.stream_epoch then o.cancel_reason end) as cancel_reason
from task t
join job_version_run r using (job_version_id)
left join ordered_stream o using (job_version_id, stream_key)
where t.task_id = any(%(task_ids)s::uuid[]);

-- name: expired_tasks
-- Tasks of their own whose lease has run out; other replicas skip what this one has. Index task_leased.
select task_id::text
from task
where state = 'running' and lease_until < clock_timestamp()
order by task_id
limit %(limit)s
for no key update skip locked;

-- name: expired_streams
-- Streams whose lease has run out. Index ordered_stream_leased.
select job_version_id::text, stream_key, epoch, claim_request_id::text, lease_token_digest, lease_until, cancel_reason,
    clock_timestamp() as now
from ordered_stream
where lease_until < clock_timestamp()
order by job_version_id, stream_key
limit %(limit)s
for no key update skip locked;

-- name: end_backoffs
-- BACKOFF_ENDS: backoff to queued. Index task_backoff.
with over as (
    select task_id from task
    where state = 'backoff' and retry_at <= clock_timestamp()
    order by task_id
    limit %(limit)s
    for no key update skip locked
)
update task
set state = 'queued', retry_at = null
where task_id = any(array(select task_id from over))
returning task_id::text;

-- name: fan_outs
-- As many consumers as an event of the task's job has at most, those that followed a pointer twice; what an emit costs in rows depends on it.
select t.task_id::text, coalesce(max(c.consumers), 0)::int
from task t
left join job_output o using (job_version_id)
left join lateral (
    select count(*) + count(s.instead_of_version_id) as consumers
    from subscription s
    where s.input_version_id = o.dataset_version_id and s.to_number is null
) c on true
where t.task_id = any(%(task_ids)s::uuid[])
group by t.task_id;
