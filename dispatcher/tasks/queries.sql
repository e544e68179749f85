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

-- name: run_candidates
-- The head of an ordered stream: its next tasks in scope order. `ready` are those that the watermarks of the inputs cover, and which a
-- replay that goes on cannot precede any more; `late` are those that come before what was done already, and those that were done already,
-- of another version of their dataset or in a lower revision. A stream keeps its order across classes. It is locked by this transaction, so
-- nobody else takes them. Indexes task_queued, once for each origin, and task_open; where a scope comes again, event_scope and task_cause.
with gate as (
    select count(*) > 0 as gated, count(*) = count(w.cursor_key) as moved, min(w.cursor_key) as covered
    from scheduled_job s
    join input_binding b using (dag_version_id, job_version_id)
    join dataset_version v using (dataset_version_id)
    left join watermark w using (dataset_version_id)
    where s.job_version_id = %(job_version_id)s and (b.trigger or b.wait) and v.cursor_type <> 0
), replay as (
    select min(coalesce(replay_key, ''::bytea)) as frontier
    from replaying
    where job_version_id = %(job_version_id)s
)
select t.task_id::text, t.state::text, t.origin::text, t.scope_first, t.revision, t.failed_attempts, t.lost_leases,
    t.scope_first < stream.position or again.replaces is true as late, again.replaces is not null as repeats,
    coalesce(not gate.gated or (gate.moved and t.scope_last <= gate.covered), false)
        and (replay.frontier is null or t.scope_first < replay.frontier) as ready
from gate
cross join replay
cross join (
    select position from ordered_stream where job_version_id = %(job_version_id)s and stream_key = %(stream_key)s
) stream
cross join lateral (
    (
        select q.*
        from unnest(enum_range(null::task_origin)) as k (origin)
        cross join lateral (
            select task_id, event_id, state, origin, failed_attempts, lost_leases, scope_first, scope_last, revision
            from task
            where job_version_id = %(job_version_id)s and origin = k.origin and state = 'queued' and stream_key = %(stream_key)s
            order by scope_first, task_id
            limit %(limit)s
        ) q
    )
    union all
    (
        select task_id, event_id, state, origin, failed_attempts, lost_leases, scope_first, scope_last, revision
        from task
        where job_version_id = %(job_version_id)s and state in ('released', 'running', 'backoff', 'dead')
            and stream_key = %(stream_key)s
        order by scope_first, task_id
        limit %(limit)s
    )
) t
left join lateral (
    -- Other events of this scope that were done, of any version of the dataset.
    select bool_or(n.dataset_version_id <> e.dataset_version_id or n.revision < e.revision) as replaces
    from event e
    join dataset_version v on v.dataset_version_id = e.dataset_version_id
    join subscription u on u.job_version_id = %(job_version_id)s
    join dataset_version w on w.dataset_version_id = u.input_version_id and w.dataset_id = v.dataset_id
    join event n on n.dataset_version_id = w.dataset_version_id and n.scope_first = e.scope_first and n.scope_last = e.scope_last
        and n.scope_kind = e.scope_kind and n.event_id <> e.event_id
    join any_task m on m.job_version_id = %(job_version_id)s and m.event_id = n.event_id and m.state = 'succeeded'
    where t.scope_first = stream.position and e.event_id = t.event_id
) again on true
order by t.scope_first, t.revision, t.task_id
limit %(limit)s;

-- name: job_settings
-- How job versions run now: by the settings of their DAG version, what people paused, and how many consumers an event has at most: those
-- that followed a pointer count twice.
select s.job_version_id::text, s.dag_version_id::text, s.max_run_tasks, j.late_scopes::text,
    exists (select 1 from pause p where p.dag = j.dag and p.job in ('', j.job)) as paused,
    (
        select coalesce(max(c.consumers), 0)
        from job_output o
        cross join lateral (
            select count(*) + count(u.instead_of_version_id) as consumers
            from subscription u
            where u.input_version_id = o.dataset_version_id and u.to_number is null
        ) c
        where o.job_version_id = s.job_version_id
    )::int as consumers
from scheduled_job s
join job_version j using (job_version_id)
where s.job_version_id = any(%(job_version_ids)s::uuid[]);

-- name: followed_tasks
-- Tasks that come of a replay of events of another DAG's dataset version that took the place of another one, with the dataset: a version
-- that is restored catches up, and what follows of it is replayed all the way down. From the tasks upwards, as far as replays go. Primary
-- keys.
with recursive cause as (
    select t.task_id, t.job_version_id, t.event_id
    from any_task t
    where t.task_id = any(%(task_ids)s::uuid[]) and t.origin = 'replay'
    union
    select c.task_id, p.job_version_id, p.event_id
    from cause c
    join event e on e.event_id = c.event_id
    join any_task p on p.task_id = e.producer_task_id and p.origin = 'replay'
)
select c.task_id::text, min(d.dataset_id)
from cause c
join event e on e.event_id = c.event_id
join job_version j on j.job_version_id = c.job_version_id
join dataset_version v on v.dataset_version_id = e.dataset_version_id
join dataset d on d.dataset_id = v.dataset_id and d.dag <> j.dag
where exists (
    select 1
    from subscription u
    where u.job_version_id = c.job_version_id and u.input_version_id = e.dataset_version_id and u.instead_of_version_id is not null
)
group by c.task_id;

-- name: count_passed
-- At the newest interval of each input. Primary keys.
update subscription s
set passed_count = s.passed_count + p.tasks
from (
    select t.job_version_id, e.dataset_version_id, count(*) as tasks
    from task t
    join event e using (event_id)
    where t.task_id = any(%(task_ids)s::uuid[])
    group by t.job_version_id, e.dataset_version_id
) p
where s.job_version_id = p.job_version_id and s.input_version_id = p.dataset_version_id and s.from_number = (
    select max(u.from_number)
    from subscription u
    where u.job_version_id = p.job_version_id and u.input_version_id = p.dataset_version_id
);

-- name: pass_late
-- REFUSE_LATE, SKIP_LATE: queued or released to dead or skipped, on record; the caller holds the stream's lock.
update task
set state = %(state)s::task_state, released_at = null, reason = %(reason)s, finished_at = clock_timestamp()
where task_id = any(%(task_ids)s::uuid[]) and state in ('queued', 'released');

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

-- name: mark_claimed
-- CLAIM: queued or released to running; the caller holds the locks and has judged the rows.
update task t
set state = 'running', attempt = t.attempt + 1, claim_request_id = %(request_id)s,
    lease_token_digest = %(token_digest)s, worker_id = %(worker_id)s, started_at = clock_timestamp(),
    lease_until = case when c.stream_epoch is null then clock_timestamp() + %(lease)s::interval end,
    stream_epoch = c.stream_epoch, run_epoch = r.epoch, released_at = null, progress = null,
    pins = coalesce(t.pins, p.pins)
from unnest(%(task_ids)s::uuid[], %(stream_epochs)s::bigint[]) as c (task_id, stream_epoch),
    job_version_run r
    left join unnest(%(job_version_ids)s::uuid[], %(pins)s::jsonb[]) as p (job_version_id, pins) using (job_version_id)
where t.task_id = c.task_id and r.job_version_id = t.job_version_id and t.state in ('queued', 'released');

-- name: lease_stream
-- A new holder is a new epoch: whatever the former one still sends is stale.
update ordered_stream o
set epoch = o.epoch + 1, run_epoch = r.epoch, cancel_reason = null, worker_id = %(worker_id)s, claim_request_id = %(request_id)s,
    lease_token_digest = %(token_digest)s, lease_until = clock_timestamp() + %(lease)s::interval
from job_version_run r
where r.job_version_id = o.job_version_id and o.job_version_id = %(job_version_id)s and o.stream_key = %(stream_key)s
returning o.epoch;

-- name: input_heads
-- What read-only inputs are at now, for the pins of a first claim.
select b.job_version_id::text, b.dataset_id, b.dataset_version_id::text, h.number
from scheduled_job s
join input_binding b using (dag_version_id, job_version_id)
join dataset_head h using (dataset_version_id)
where s.job_version_id = any(%(job_version_ids)s::uuid[])
order by b.job_version_id, b.dataset_id;

-- name: claimed
-- What a claim answers, also a repeated one. Primary keys.
select t.task_id::text, t.attempt, t.job_version_id::text, t.stream_key, t.stream_epoch, t.claim_request_id::text,
    coalesce(t.lease_until, o.lease_until) as lease_until, t.scope_kind, t.scope_first, t.scope_last, t.revision, t.pins::text,
    t.accepted_events, t.run_emitted, t.origin::text, e.event_id::text, v.dataset_id,
    e.dataset_version_id::text, v.cursor_type, e.producer_task_id::text, e.producer_attempt, e.artifact_id::text,
    p.number as publication_number, e.manifest, e.event_time,
    e.origin::text as event_origin, e.accepted_at
from task t
left join ordered_stream o on o.job_version_id = t.job_version_id and o.stream_key = t.stream_key
left join event e using (event_id)
left join dataset_version v using (dataset_version_id)
left join publication p using (publication_id, dataset_version_id)
where t.task_id = any(%(task_ids)s::uuid[])
order by t.scope_first, t.revision, t.task_id;

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

-- name: job_details
-- What workers need to know of job versions. Primary key.
select s.job_version_id::text, s.details
from dag_version_job s
join unnest(%(dag_version_ids)s::uuid[], %(job_version_ids)s::uuid[]) as k (dag_version_id, job_version_id)
    using (dag_version_id, job_version_id);

-- name: retry_policies
-- Retry settings of what may run.
select s.job_version_id::text, s.max_attempts, s.max_lost_leases, s.retry_backoff, s.max_retry_backoff
from scheduled_job s
where s.job_version_id = any(%(job_version_ids)s::uuid[]);

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

-- name: spent_claims
-- Of tasks that were attempted before, those of which this very claim made an attempt that has ended. Primary key of attempt.
select distinct task_id::text
from attempt
where task_id = any(%(task_ids)s::uuid[]) and claim_request_id = %(request_id)s;

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
-- Heartbeat of tasks of their own: one statement for all of a worker's. Guarded on the locked row.
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
returning t.task_id::text, t.attempt, t.lease_token_digest, t.lease_until;

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
