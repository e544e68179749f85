-- Statements of claims: what a stream has next, what an attempt is given, and what becomes of the rows. They are locked by `lock_streams` and
-- `lock_tasks` before.

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

-- name: input_heads
-- What read-only inputs are at now, for the pins of a first claim.
select b.job_version_id::text, b.dataset_id, b.dataset_version_id::text, h.number
from scheduled_job s
join input_binding b using (dag_version_id, job_version_id)
join dataset_head h using (dataset_version_id)
where s.job_version_id = any(%(job_version_ids)s::uuid[])
order by b.job_version_id, b.dataset_id;

-- name: lease_stream
-- A new holder is a new epoch: whatever the former one still sends is stale.
update ordered_stream o
set epoch = o.epoch + 1, run_epoch = r.epoch, cancel_reason = null, worker_id = %(worker_id)s, claim_request_id = %(request_id)s,
    lease_token_digest = %(token_digest)s, lease_until = clock_timestamp() + %(lease)s::interval
from job_version_run r
where r.job_version_id = o.job_version_id and o.job_version_id = %(job_version_id)s and o.stream_key = %(stream_key)s
returning o.epoch;

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

-- name: job_details
-- What workers need to know of job versions. Primary key.
select s.job_version_id::text, s.details
from dag_version_job s
join unnest(%(dag_version_ids)s::uuid[], %(job_version_ids)s::uuid[]) as k (dag_version_id, job_version_id)
    using (dag_version_id, job_version_id);

-- name: spent_claims
-- Of tasks that were attempted before, those of which this very claim made an attempt that has ended. Primary key of attempt.
select distinct task_id::text
from attempt
where task_id = any(%(task_ids)s::uuid[]) and claim_request_id = %(request_id)s;
