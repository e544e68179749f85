-- Statements of re-runs: new tasks for scopes that were done before. The caller owns the DAGs, so that no event is accepted meanwhile, no
-- version moves, and nobody else runs the same scope again.

-- name: jobs_called
-- Jobs of active versions by name. Primary keys.
select j.job_version_id::text, j.dag, j.job
from dag d
join dag_version_job s on s.dag_version_id = d.active_version_id
join job_version j using (job_version_id)
where j.job = %(job)s and (%(dag)s::text is null or d.dag = %(dag)s) and d.removed_at is null
order by j.dag;

-- name: dags_around
-- Whose jobs these are, and who owns what triggers them: their acceptance makes tasks of them. Primary keys.
select dag from job_version where job_version_id = any(%(job_version_ids)s::uuid[])
union
select d.dag
from dag g
join input_binding b on b.dag_version_id = g.active_version_id and b.trigger
join dataset d using (dataset_id)
where b.job_version_id = any(%(job_version_ids)s::uuid[]);

-- name: lock_subscriptions
-- Before what decides is read, where tasks are made of it: a replay in between would not see the new revisions.
select 1
from subscription s
where s.job_version_id = any(%(job_version_ids)s::uuid[])
order by s.job_version_id, s.input_version_id, s.from_number
for no key update of s;

-- name: rerun_jobs
-- What decides whether job versions can be run again.
select j.job_version_id::text, j.dag, j.job, j.kind::text, j.ordered,
    exists (select 1 from dag_version_job s where s.dag_version_id = d.active_version_id and s.job_version_id = j.job_version_id)
        and d.removed_at is null as active,
    exists (select 1 from replaying s where s.job_version_id = j.job_version_id) as catching_up,
    coalesce((
        select array_agg(v.spec order by v.dataset_id) from job_output o join dataset_version v using (dataset_version_id)
        where o.job_version_id = j.job_version_id and v.stored
    ), '{}') as output_specs
from job_version j
join dag d using (dag)
where j.job_version_id = any(%(job_version_ids)s::uuid[])
order by j.dag, j.job;

-- name: trigger_cursors
-- The datasets that trigger a job, with what their scopes are. Primary keys.
select b.dataset_id, v.cursor_type
from dag d
join input_binding b on b.dag_version_id = d.active_version_id and b.trigger
join dataset_version v using (dataset_version_id)
where b.job_version_id = %(job_version_id)s
order by b.dataset_id;

-- name: count_scopes
-- How many tasks a backfill would make. Index event_scope.
select count(*)
from rerunnable r
where r.job_version_id = %(job_version_id)s and r.scope_kind <> 3 and r.scope_first >= %(first)s and r.scope_first <= %(last)s
    and r.scope_last <= %(last)s;

-- name: page_of_scopes
-- The next events of what triggers a job, in scope order; which of them it is run for again is judged where its tasks are made. Index
-- event_scope, from the last page on.
select b.job_version_id::text, e.event_id::text, e.scope_first
from dag d
join input_binding b on b.dag_version_id = d.active_version_id and b.trigger
cross join lateral (
    select event_id, scope_first
    from event
    where dataset_version_id = b.dataset_version_id and scope_kind <> 3 and scope_first <= %(last)s and scope_last <= %(last)s
        and (scope_first, event_id) > (%(after_first)s, %(after_id)s::uuid)
    order by scope_first, event_id
    limit %(limit)s
) e
where b.job_version_id = %(job_version_id)s
order by e.scope_first, e.event_id
limit %(limit)s;

-- name: jobs_of_tasks
-- Of which job versions a filter finds ended tasks.
select distinct t.job_version_id::text
from any_task t
join job_version j using (job_version_id)
where t.state in ('succeeded', 'dead', 'canceled', 'skipped')
    and (%(task_ids)s::uuid[] is null or t.task_id = any(%(task_ids)s::uuid[]))
    and (%(dag)s::text is null or j.dag = %(dag)s)
    and (%(job)s::text is null or j.job = %(job)s)
    and (%(states)s::task_state[] is null or t.state = any(%(states)s::task_state[]))
    and (%(first)s::bytea is null or (t.scope_first <= %(last)s and t.scope_last >= %(first)s))
    and (%(task_ids)s::uuid[] is not null or t.event_id is not null and exists (
        select 1 from dag d join dag_version_job s on s.dag_version_id = d.active_version_id
        where d.dag = j.dag and s.job_version_id = j.job_version_id
    ));

-- name: count_ended
-- Of a page of ended tasks of a filter: how many a re-run would make, the page's last task, and its size. A task of an event that has later
-- ones counts with the last, but where tasks are named. Primary keys, from the last page on, as of page_of_ended.
with page as materialized (
    select t.job_version_id, t.event_id, t.task_id, t.revision
    from any_task t
    where t.state in ('succeeded', 'dead', 'canceled', 'skipped')
        and (%(task_ids)s::uuid[] is null or t.task_id = any(%(task_ids)s::uuid[]))
        and t.task_id > coalesce(%(after)s::uuid, '00000000-0000-0000-0000-000000000000')
        and t.job_version_id = any(array(
            select job_version_id
            from job_version
            where (%(dag)s::text is null or dag = %(dag)s) and (%(job)s::text is null or job = %(job)s)
        ))
        and (%(states)s::task_state[] is null or t.state = any(%(states)s::task_state[]))
        and (%(first)s::bytea is null or (t.scope_first <= %(last)s and t.scope_last >= %(first)s))
    order by t.task_id
    limit %(limit)s
)
select count(distinct (p.job_version_id, p.event_id)) filter (where r.event_id is not null and (%(task_ids)s::uuid[] is not null or not exists (
        select 1 from any_task n
        where n.job_version_id = p.job_version_id and n.event_id = p.event_id and n.revision > p.revision
    ))) as tasks, (array_agg(p.task_id order by p.task_id desc))[1]::text as last_task_id, count(*) as size
from page p
left join rerunnable r on r.job_version_id = p.job_version_id and r.event_id = p.event_id;

-- name: page_of_ended
-- The next ended tasks of a filter, in the order of their ids, and which of them are the last of their event, of active versions; none that
-- was made since the first page, for that may be what a page has made. Which are run again is judged where the tasks are made. Primary
-- keys, from the last page on: a join, or a range of ids, would be taken for so few rows that all are read and sorted.
with page as materialized (
    select t.job_version_id, t.event_id, t.task_id, t.revision
    from any_task t
    where t.state in ('succeeded', 'dead', 'canceled', 'skipped')
        and (%(task_ids)s::uuid[] is null or t.task_id = any(%(task_ids)s::uuid[]))
        and t.task_id > coalesce(%(after)s::uuid, '00000000-0000-0000-0000-000000000000')
        and (t.task_id < %(before)s::uuid) is true
        and t.job_version_id = any(array(
            select job_version_id
            from job_version
            where (%(dag)s::text is null or dag = %(dag)s) and (%(job)s::text is null or job = %(job)s)
        ))
        and (%(states)s::task_state[] is null or t.state = any(%(states)s::task_state[]))
        and (%(first)s::bytea is null or (t.scope_first <= %(last)s and t.scope_last >= %(first)s))
    order by t.task_id
    limit %(limit)s
)
select p.job_version_id::text, p.event_id::text, p.task_id::text,
    p.event_id is not null and (%(task_ids)s::uuid[] is not null or exists (
        select 1
        from dag d
        join dag_version_job s on s.dag_version_id = d.active_version_id
        where s.job_version_id = p.job_version_id
    ) and not exists (
        select 1 from any_task n
        where n.job_version_id = p.job_version_id and n.event_id = p.event_id and n.revision > p.revision
    )) as last_one
from page p
order by p.task_id;

-- name: next_task_id
-- Above the ids of all tasks that there are, and below those that this transaction makes from now on.
select uuidv7()::text;

-- name: make_reruns
-- A new task for each event, at the next revision of its scope for its job version; and SKIP: what is dead of it goes from dead to
-- skipped, on record. Primary keys of event and rerun_scope, index task_cause.
with asked as (
    select r.job_version_id, r.event_id, r.scope_kind, r.scope_first, r.scope_last, r.revision
    from (
        select distinct job_version_id, event_id
        from unnest(%(job_version_ids)s::uuid[], %(event_ids)s::uuid[]) as k (job_version_id, event_id)
    ) k
    join rerunnable r using (job_version_id, event_id)
), dead as (
    select t.task_id
    from task t
    join asked a using (job_version_id, event_id)
    where t.state = 'dead'
    order by t.task_id
    for no key update of t
), passed as (
    update task t
    set state = 'skipped', reason = %(reason)s, finished_at = clock_timestamp()
    from dead d
    where t.task_id = d.task_id and t.state = 'dead'
), counted as (
    insert into rerun_scope (job_version_id, scope_kind, scope_first, scope_last, reruns)
    select distinct job_version_id, scope_kind, scope_first, scope_last, 1
    from asked
    order by job_version_id, scope_first, scope_last, scope_kind
    on conflict (job_version_id, scope_first, scope_last, scope_kind) do update set reruns = rerun_scope.reruns + 1
    returning job_version_id, scope_kind, scope_first, scope_last, reruns
)
insert into task (task_id, job_version_id, event_id, origin, scope_kind, scope_first, scope_last, revision)
select uuidv7(), a.job_version_id, a.event_id, 'backfill', a.scope_kind, a.scope_first, a.scope_last, a.revision + c.reruns
from asked a
join counted c using (job_version_id, scope_kind, scope_first, scope_last)
order by a.scope_first, a.event_id;

-- name: mark_rerun
-- From now on acceptance looks for the re-runs of their scopes. Primary key.
update job_version
set rerun = true
where job_version_id = any(%(job_version_ids)s::uuid[]) and not rerun;

-- name: answered_page
select request_digest, task_count, next_page_token
from rerun_page
where request_id = %(request_id)s and page_token = %(page_token)s;

-- name: request_digest_of
-- What the request was that has answered pages; of all of them the same.
select request_digest from rerun_page where request_id = %(request_id)s limit 1;

-- name: answer_page
insert into rerun_page (request_id, page_token, request_digest, task_count, next_page_token, actor)
values (%(request_id)s, %(page_token)s, %(request_digest)s, %(task_count)s, %(next_page_token)s, %(actor)s);

-- name: remove_old_pages
-- A few at each page that is answered: nobody repeats a call for so long. Index rerun_page_age.
delete from rerun_page
where (request_id, page_token) in (
    select request_id, page_token
    from rerun_page
    where answered_at < clock_timestamp() - %(kept)s::interval
    order by answered_at
    limit %(limit)s
    for update skip locked
);

-- name: followers
-- Jobs that follow what is run again, as far down as events go, with the options of what they store. Index subscription_open.
with recursive fed as (
    select o.dataset_version_id
    from job_output o
    where o.job_version_id = any(%(job_version_ids)s::uuid[])
    union
    select o.dataset_version_id
    from fed f
    join subscription s on s.input_version_id = f.dataset_version_id and s.to_number is null
    join job_version j on j.job_version_id = s.job_version_id and not j.ordered
    join job_output o on o.job_version_id = j.job_version_id
)
select j.dag, j.job, array_agg(v.spec order by v.dataset_id) as output_specs
from fed f
join job_output o using (dataset_version_id)
join job_version j using (job_version_id)
join dataset_version v using (dataset_version_id)
where v.stored
group by j.job_version_id, j.dag, j.job
order by j.dag, j.job;

-- name: readers
-- What reads the outputs of jobs, as far down as events go: an ordered job takes nothing up that is late, and hands on nothing. Virtual ones
-- have made nothing: whoever queries them reads what is new.
with recursive fed as (
    select o.dataset_version_id
    from job_output o
    where o.job_version_id = any(%(job_version_ids)s::uuid[])
    union
    select o.dataset_version_id
    from fed f
    join subscription s on s.input_version_id = f.dataset_version_id and s.to_number is null
    join job_version j on j.job_version_id = s.job_version_id and not j.ordered
    join job_output o on o.job_version_id = j.job_version_id
)
select j.dag, j.job, case
        when not bool_or(b.trigger) then 'reads_only'
        when not j.ordered then 'follows'
        when j.late_scopes = 'refuse' then 'refuses_late'
        else 'skips_late'
    end as effect
from fed f
join input_binding b using (dataset_version_id)
join scheduled_job s on s.dag_version_id = b.dag_version_id and s.job_version_id = b.job_version_id
join job_version j on j.job_version_id = b.job_version_id
where j.kind <> 'virtual'
group by j.job_version_id, j.dag, j.job, j.ordered, j.late_scopes
order by j.dag, j.job;
