-- What people ask about tasks.

-- name: get_tasks
-- Tasks by id, for people and for FetchTasks, moved ones too. Primary keys.
select t.task_id::text, j.dag, j.job, t.job_version_id::text, t.origin::text, t.event_id::text,
    v.dataset_id as trigger_dataset_id, v.cursor_type, t.scope_kind, t.scope_first, t.scope_last, t.revision, t.state::text,
    t.attempt, t.worker_id, t.created_at, t.finished_at, coalesce(t.lease_until, o.lease_until) as lease_until, t.retry_at,
    t.reason, t.accepted_events, t.failed_attempts, t.lost_leases, t.progress, t.nondeterministic, r.run_state::text,
    t.run_epoch, r.epoch as job_epoch,
    exists (select 1 from pause p where p.dag = j.dag and p.job in ('', j.job)) as paused, t.cancel_reason, t.pins::text
from any_task t
join job_version j using (job_version_id)
join job_version_run r using (job_version_id)
left join event e using (event_id)
left join dataset_version v using (dataset_version_id)
left join ordered_stream o
    on t.state = 'running' and o.job_version_id = t.job_version_id and o.stream_key = t.stream_key
where t.task_id = any(%(task_ids)s::uuid[]);

-- name: find_tasks
-- Newest first; uuid7 is in order of time. Primary keys, backwards, with filters; moved tasks only where a final state is asked for. What is
-- fenced is cancelled for as long as it is.
select t.task_id::text
from any_task t
join job_version j using (job_version_id)
where (%(finished)s or not t.finished) and (%(before)s::uuid is null or t.task_id < %(before)s)
    and (%(dag)s::text is null or j.dag = %(dag)s)
    and (%(job)s::text is null or j.job = %(job)s)
    and (%(states)s::task_state[] is null or case
        when t.state in ('queued', 'released', 'running', 'backoff') and exists (
            select 1 from job_version_run r
            where r.job_version_id = t.job_version_id and r.run_state in ('superseded', 'rolled_back', 'retired')
        ) then 'canceled' else t.state end = any(%(states)s::task_state[]))
    and (%(first)s::bytea is null or (t.scope_first <= %(last)s and t.scope_last >= %(first)s))
order by t.task_id desc
limit %(limit)s;

-- name: attempts_of
-- The last of a task's attempts, ended ones and the one that runs: a source's run may have any number, each with 64 KiB of traceback.
-- Primary keys.
select attempt, worker_id, started_at, ended_at, outcome, error_class, message, traceback, usage
from (
    select attempt, worker_id, started_at, ended_at, outcome::text, error_class::text, message, traceback, usage
    from any_attempt
    where task_id = %(task_id)s
    union all
    select attempt, worker_id, started_at, null, 'unspecified', null, '', '', null
    from task
    where task_id = %(task_id)s and state = 'running'
    order by attempt desc
    limit %(limit)s
) last
order by attempt;

-- name: unknown_names
-- Which of a filter's names nothing was ever deployed under. Unique index of (dag, job, fingerprint).
select %(dag)s::text is not null and not exists (select 1 from job_version where dag = %(dag)s) as dag,
    %(job)s::text is not null and not exists (
        select 1 from job_version where job = %(job)s and (%(dag)s::text is null or dag = %(dag)s)
    ) as job;

-- name: count_tasks
-- How many tasks are in each state, also those that are no longer kept; for people, not for the hot path. What is fenced is cancelled for
-- as long as it is. Reads the hot table once.
select j.dag, j.job, j.job_version_id::text,
    case when r.run_state in ('superseded', 'rolled_back', 'retired') and c.state in ('queued', 'released', 'running', 'backoff')
        then 'canceled' else c.state end::text as state,
    sum(c.tasks)::bigint as count
from (
    select job_version_id, state, count(*) as tasks
    from task
    where %(origin)s::task_origin is null or origin = %(origin)s
    group by job_version_id, state
    union all
    select job_version_id, state, tasks from finished_count where %(origin)s::task_origin is null or origin = %(origin)s
) c
join job_version j using (job_version_id)
join job_version_run r using (job_version_id)
where %(dag)s::text is null or j.dag = %(dag)s
group by 1, 2, 3, 4
order by 1, 2, 3, 4;
