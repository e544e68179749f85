-- How far a version is: what it has yet to do before it may take over, and what it is behind by once it is active.

-- name: staged_jobs
-- How far the jobs are that a staged version has and the active one lacks. What is caused by events from before the barrier is either
-- replayed, or was made before it; what comes of that is replayed too. Once the barrier is known to be passed no task is read for it. Else no
-- more than `most` of a kind of tasks of a job; where there are as many and none of them tells, it counts as unfinished until `before_barrier`
-- has read them all. Of none, where `most` is 0, because acceptance waits meanwhile: then whatever is in work does. Indexes
-- subscription_replaying, task_queued, task_open, task_dead, dag_version_job_of.
with staged as (
    select v.dag_version_id, coalesce(v.barrier_at, v.staged_at) as barrier_at, v.barrier_passed_at is null as awaited,
        coalesce(v.barrier_at > v.staged_at, false) as moved, d.active_version_id
    from dag_version v
    join dag d using (dag)
    where v.dag_version_id = %(dag_version_id)s
)
select j.job, j.job_version_id::text, j.kind::text,
    exists (select 1 from replaying u where u.job_version_id = j.job_version_id) as replaying,
    v.awaited and a.any and (q.early or o.early) as unfinished, a.any as open, (
        select task_id::text from task
        where job_version_id = j.job_version_id and state = 'dead'
        order by task_id
        limit 1
    ) as dead_task_id
from staged v
join dag_version_job s using (dag_version_id)
join job_version j using (job_version_id)
cross join lateral (
    select exists (
        select 1 from (
            select from task
            where job_version_id = j.job_version_id and origin = 'replay' and state = 'queued'
            order by scope_first, task_id  -- the index, whatever the statistics say: where there is none, all would be read
            limit 1
        ) t
    ) or exists (
        select 1
        from unnest('{live,backfill}'::task_origin[]) as k (origin)
        cross join lateral (
            select bool_or(t.created_at < v.barrier_at) or count(*) = %(most)s as early
            from (
                select created_at from task
                where job_version_id = j.job_version_id and origin = k.origin and state = 'queued' and v.awaited
                order by scope_first, task_id
                limit %(most)s
            ) t
        ) w
        where w.early and (v.moved or exists (
            -- Else there are none from before the staging, and not all that are queued need to be read for it.
            select 1
            from dag_version_job p
            join dag_version e using (dag_version_id)
            where p.job_version_id = j.job_version_id and p.dag_version_id <> v.dag_version_id and e.staged_at is not null
        ))
    ) as early
) q
cross join lateral (
    select count(*) = %(most)s
        or coalesce(bool_or(t.origin = 'replay' or (t.origin <> 'source_run' and t.created_at < v.barrier_at)), false) as early
    from (
        select origin, created_at from task
        where job_version_id = j.job_version_id and state in ('released', 'running', 'backoff', 'dead') and v.awaited
        order by scope_first, task_id
        limit %(most)s
    ) t
) o
cross join lateral (
    select exists (
        select 1 from (
            select from task
            where job_version_id = j.job_version_id and state = 'queued'
            order by origin, scope_first, task_id
            limit 1
        ) t
    ) or exists (
        select 1 from (
            select from task
            where job_version_id = j.job_version_id and state in ('released', 'running', 'backoff', 'dead')
            order by scope_first, task_id
            limit 1
        ) t
    ) as any
) a
where not exists (
    select 1 from dag_version_job a where a.dag_version_id = v.active_version_id and a.job_version_id = j.job_version_id
)
order by j.job;

-- name: staged_watermarks
-- Where a cutover would put another version of a dataset in the place of one that has a watermark. Of what a source brings that only the staged
-- version has, and that goes on, also where that one has none, but events. Indexes task_of_source, primary keys, publication by version.
with recursive fed (job_version_id) as (
    select j.job_version_id
    from dag_version v
    join dag d using (dag)
    join dag_version_job s using (dag_version_id)
    join job_version j using (job_version_id)
    where v.dag_version_id = %(dag_version_id)s and j.kind = 'source' and not exists (
        select 1 from dag_version_job a where a.dag_version_id = d.active_version_id and a.job_version_id = j.job_version_id
    ) and exists (
        select 1 from task t
        where t.job_version_id = j.job_version_id and t.event_id is null
            and t.state in ('queued', 'released', 'running', 'backoff', 'dead')
    )
    union
    select b.job_version_id
    from fed
    join job_output o using (job_version_id)
    join input_binding b on b.dag_version_id = %(dag_version_id)s and b.dataset_version_id = o.dataset_version_id
)
select n.dataset_id, nv.cursor_type, ov.cursor_type as former_cursor_type, nw.cursor_key, ow.cursor_key as former_key,
    f.reading is not null as reading
from dag_version v
join dag d using (dag)
join dag_version_dataset n on n.dag_version_id = v.dag_version_id
join dag_version_dataset o on o.dag_version_id = d.active_version_id and o.dataset_id = n.dataset_id
join dataset_version nv on nv.dataset_version_id = n.dataset_version_id
join dataset_version ov on ov.dataset_version_id = o.dataset_version_id
left join watermark ow on ow.dataset_version_id = o.dataset_version_id
left join watermark nw on nw.dataset_version_id = n.dataset_version_id
left join lateral (
    select true as reading from job_output w join fed using (job_version_id) where w.dataset_version_id = n.dataset_version_id limit 1
) f on true
where v.dag_version_id = %(dag_version_id)s and n.dataset_version_id <> o.dataset_version_id and nv.virtual_sql is null and (
    ow.dataset_version_id is not null or (f.reading and exists (
        select 1 from publication p where p.dataset_version_id = o.dataset_version_id and p.event_count > 0
    ))
)
order by n.dataset_id;

-- name: owed_events
-- Events of the inputs of an active DAG version's jobs that have no task yet, and tasks that were made of such events and are not done; and what
-- waits since the version was replaced, as far as it is among the first `most` that wait: of a million tasks no more are read. Indexes
-- subscription_replaying, task_queued, task_open.
select (
    select coalesce(sum(p.event_count), 0)
    from dag_version v
    join dag_version_job s using (dag_version_id)
    join replaying u using (job_version_id)
    join publication p on p.dataset_version_id = u.input_version_id and p.number <= u.from_number and p.number > coalesce((
        select max(e.to_number)
        from subscription e
        where e.job_version_id = u.job_version_id and e.input_version_id = u.input_version_id and e.from_number < u.from_number
    ), 0)
    where v.dag_version_id = %(dag_version_id)s and v.state = 'active'
) + (
    select coalesce(sum(queued.tasks + open.tasks), 0)
    from dag_version v
    join dag_version_job s using (dag_version_id)
    cross join lateral (
        select count(*) as tasks
        from task t
        where t.job_version_id = s.job_version_id and t.origin = 'replay' and t.state = 'queued'
    ) queued
    cross join lateral (
        select count(*) as tasks
        from task t
        where t.job_version_id = s.job_version_id and t.origin = 'replay' and t.state in ('released', 'running', 'backoff')
    ) open
    where v.dag_version_id = %(dag_version_id)s and v.state = 'active'
) + (
    select count(*) filter (where w.early)
    from (
        select t.created_at < r.changed_at as early
        from dag_version v
        join dag_version_job s using (dag_version_id)
        join job_version_run r using (job_version_id)
        join lateral (
            select a.dag_version_id from activation a where a.dag = v.dag and a.from_deploy < v.deploy_number order by a.from_deploy desc limit 1
        ) former on not exists (  -- what both have went on all the time
            select 1 from dag_version_job o where o.dag_version_id = former.dag_version_id and o.job_version_id = s.job_version_id
        )
        cross join unnest('{live,backfill}'::task_origin[]) as k (origin)
        cross join lateral (
            (
                select created_at from task
                where job_version_id = s.job_version_id and origin = k.origin and state = 'queued'
                order by scope_first, task_id
                limit %(most)s
            )
            union all
            (
                select created_at from task
                where job_version_id = s.job_version_id and origin = k.origin and state in ('released', 'running', 'backoff')
                order by scope_first, task_id
                limit %(most)s
            )
        ) t
        where v.dag_version_id = %(dag_version_id)s and v.state = 'active'
        limit %(most)s
    ) w
);
