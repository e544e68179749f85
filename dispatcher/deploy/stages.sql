-- What staging, cutting over, rolling back and aborting change: one row per job version and subscription, none per task (MECHANICS 6). All
-- of it under the DAG's row and the exclusive locks of the DAGs whose events are concerned.

-- name: standing
-- Primary key.
select dag, case when removed_at is null then active_version_id end::text as active_version_id, staged_version_id::text,
    case when removed_at is not null then active_version_id end::text as removed_version_id
from dag
where dag = %(dag)s
for no key update;

-- name: staged_dags
-- Where a build is under way. As many rows as there are DAGs.
select d.dag, v.dag_version_id::text, v.state::text, v.hold, v.actor
from dag d
join dag_version v on v.dag_version_id = d.staged_version_id
order by d.dag;

-- name: input_dags
-- The other DAGs whose datasets the active version reads, the one that is being built, and another one. Primary keys.
select distinct d.dag
from dag g
join input_binding b on b.dag_version_id in (g.active_version_id, g.staged_version_id, %(other)s::uuid)
join dataset d using (dataset_id)
where g.dag = %(dag)s and d.dag <> g.dag
order by d.dag;

-- name: switched_rows
-- What going from one DAG version to the other, or back, changes: a row for each job that only one has, and one for each of its triggers; for
-- each input of another DAG's job that would read another version a row, and two more where it triggers; and one for each of their builds,
-- whose barrier is another one then. Index input_binding_readers.
select count(distinct (s.dag_version_id, s.job_version_id)) + count(b.dataset_id) as own_rows, (
    select coalesce(sum(case when i.trigger then 3 else 1 end), 0) + count(distinct r.staged_version_id)
    from dag_version_dataset n
    join dag_version_dataset o on o.dag_version_id = %(but)s and o.dataset_id = n.dataset_id
        and o.dataset_version_id <> n.dataset_version_id
    join input_binding i on i.dataset_id = n.dataset_id
    join dag r on i.dag_version_id in (r.active_version_id, r.staged_version_id)
    join dataset d on d.dataset_id = n.dataset_id and d.dag <> r.dag
    where n.dag_version_id = %(of)s
)::bigint as reader_rows
from dag_version_job s
left join input_binding b on b.dag_version_id = s.dag_version_id and b.job_version_id = s.job_version_id and b.trigger
where s.dag_version_id in (%(of)s, %(but)s) and not exists (
    select 1
    from dag_version_job o
    where o.dag_version_id in (%(of)s, %(but)s) and o.dag_version_id <> s.dag_version_id and o.job_version_id = s.job_version_id
);

-- name: own_jobs
-- A job that runs and that one DAG version has and another lacks.
select 1
from job_version
where kind <> 'virtual' and job_version_id in (
    select job_version_id from dag_version_job where dag_version_id = %(of)s
    except
    select job_version_id from dag_version_job where dag_version_id = %(but)s
)
limit 1;

-- name: start_jobs
-- The job versions that one DAG version has and another lacks may run from now on. Their epoch stays: who was fenced stays so.
update job_version_run
set run_state = %(run_state)s::run_state, actor = %(actor)s, changed_at = clock_timestamp()
where run_state <> %(run_state)s::run_state and job_version_id in (
    select job_version_id from dag_version_job where dag_version_id = %(of)s
    except
    select job_version_id from dag_version_job where dag_version_id = %(but)s
);

-- name: stop_jobs
-- Those may not run any more: a new epoch fences whoever holds a lease of them.
update job_version_run
set run_state = %(run_state)s::run_state, epoch = epoch + 1, actor = %(actor)s, changed_at = clock_timestamp()
where job_version_id in (
    select job_version_id from dag_version_job where dag_version_id = %(of)s
    except
    select job_version_id from dag_version_job where dag_version_id = %(but)s
);

-- name: open_subscriptions
-- Under the exclusive lock the heads cannot move: at or below is replay's, above it routing's. What an earlier interval had is not owed
-- again; where nothing came since, the earlier interval goes on.
insert into subscription (job_version_id, input_version_id, from_number, replayed, instead_of_version_id)
select b.job_version_id, b.dataset_version_id, h.number, h.number = coalesce(earlier.number, 0), former.input_version_id
from (
    select job_version_id from dag_version_job where dag_version_id = %(of)s
    except
    select job_version_id from dag_version_job where dag_version_id = %(but)s
) j
join input_binding b on b.dag_version_id = %(of)s and b.job_version_id = j.job_version_id and b.trigger
join dataset_head h using (dataset_version_id)
cross join lateral (
    select max(s.to_number) as number
    from subscription s
    where s.job_version_id = b.job_version_id and s.input_version_id = b.dataset_version_id
) earlier
left join lateral (
    -- A dataset of another DAG, of which it read another version when it last ran.
    select s.input_version_id
    from subscription s
    join dataset_version v on v.dataset_version_id = s.input_version_id and v.dataset_id = b.dataset_id
    where s.job_version_id = b.job_version_id and s.input_version_id <> b.dataset_version_id
    order by s.opened_at desc, v.created_at desc
    limit 1
) former on true
order by b.job_version_id, b.dataset_version_id
on conflict (job_version_id, input_version_id, from_number) do update set to_number = null, opened_at = clock_timestamp(),
    instead_of_version_id = coalesce(subscription.instead_of_version_id, excluded.instead_of_version_id);

-- name: close_subscriptions
-- Up to the heads as they are under the exclusive lock. Index subscription_open, primary key.
update subscription s
set to_number = h.number
from dataset_head h
where s.to_number is null and h.dataset_version_id = s.input_version_id and s.job_version_id in (
    select job_version_id from dag_version_job where dag_version_id = %(of)s
    except
    select job_version_id from dag_version_job where dag_version_id = %(but)s
);

-- name: start_sources
-- A source has one run for ever; one that was part of a version before has it already. Index dag_version_job_of.
insert into task (task_id, job_version_id, origin, scope_first, scope_last)
select uuidv7(), j.job_version_id, 'source_run', '', ''
from dag_version_job s
join job_version j using (job_version_id)
where s.dag_version_id = %(of)s and j.kind = 'source' and not exists (
    select 1
    from dag_version_job o
    join dag_version v using (dag_version_id)
    where o.job_version_id = j.job_version_id and o.dag_version_id <> s.dag_version_id
        and (v.active_at is not null or v.staged_at is not null)
);

-- name: stage_version
update dag_version
set staged_at = now.at, barrier_at = now.at, base_version_id = %(base)s, hold = %(hold)s
from (select clock_timestamp() as at) now
where dag_version_id = %(dag_version_id)s;

-- name: stage_dag
update dag set staged_version_id = %(dag_version_id)s, releases_held_until = null where dag = %(dag)s;

-- name: set_state
update dag_version set state = %(state)s::deployment_state where dag_version_id = %(dag_version_id)s;

-- name: hold_cutover
update dag_version set hold = true where dag_version_id = %(dag_version_id)s;

-- name: note_held
-- Only what is still being built: it may have been given up since it was looked at. Primary keys.
update dag_version v
set state = 'held'
from dag d
where v.dag_version_id = %(dag_version_id)s and v.state = 'building' and d.dag = v.dag and d.staged_version_id = v.dag_version_id;

-- name: lock_watermarks
-- A duty moves those of stateless jobs without the DAG's lock: it waits here. In the order in which it takes them.
select w.dataset_version_id
from dag d
join dag_version_dataset s on s.dag_version_id = d.active_version_id
join watermark w using (dataset_version_id)
where d.dag = %(dag)s
order by w.dataset_version_id
for share of w;

-- name: hold_releases
-- Of jobs that the staged version lacks, so that the new ones catch up; not again before as much time has passed without.
update dag
set releases_held_until = clock_timestamp() + %(longest)s::interval
where dag = %(dag)s and (releases_held_until is null or releases_held_until < clock_timestamp() - %(longest)s::interval);

-- name: hold_for_cutover
-- The same because a person asked for the cutover, however long ago they were held last; only of what is being built. Primary keys.
update dag d
set releases_held_until = clock_timestamp() + %(longest)s::interval
from dag_version v
where v.dag_version_id = %(dag_version_id)s and d.dag = v.dag and d.staged_version_id = v.dag_version_id;

-- name: end_hold
-- The cutover did not come of it. As with every hold that has ended, the next one comes later.
update dag d
set releases_held_until = clock_timestamp()
from dag_version v
where v.dag_version_id = %(dag_version_id)s and d.dag = v.dag and d.staged_version_id = v.dag_version_id;

-- name: staged_jobs
-- How far the jobs are that a staged version has and the active one lacks. What is caused by events from before the barrier is either
-- replayed, or was made before it; what comes of that is replayed too. Once the barrier is known to be passed no task is read for it. Else no
-- more than `most` of a kind of tasks of a job; where there are as many and none of them tells, it counts as unfinished until `before_barrier`
-- has read them all. Indexes subscription_replaying, task_queued, task_open, task_dead, dag_version_job_of.
with staged as (
    select v.dag_version_id, coalesce(v.barrier_at, v.staged_at) as barrier_at, v.barrier_passed_at is null as awaited, v.barrier_retaken,
        d.active_version_id
    from dag_version v
    join dag d using (dag)
    where v.dag_version_id = %(dag_version_id)s
)
select j.job, j.job_version_id::text, j.kind::text,
    exists (select 1 from replaying u where u.job_version_id = j.job_version_id) as replaying,
    v.awaited and (q.early or o.early) as unfinished, a.any as open, (
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
        where w.early and (v.barrier_retaken or exists (
            -- Else there are none, and not all that are queued need to be read for it.
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
-- Where a cutover would put another version of a dataset in the place of one that has a watermark.
select n.dataset_id, nv.cursor_type, ov.cursor_type as former_cursor_type, nw.cursor_key, ow.cursor_key as former_key
from dag_version v
join dag d using (dag)
join dag_version_dataset n on n.dag_version_id = v.dag_version_id
join dag_version_dataset o on o.dag_version_id = d.active_version_id and o.dataset_id = n.dataset_id
join dataset_version nv on nv.dataset_version_id = n.dataset_version_id
join dataset_version ov on ov.dataset_version_id = o.dataset_version_id
join watermark ow on ow.dataset_version_id = o.dataset_version_id
left join watermark nw on nw.dataset_version_id = n.dataset_version_id
where v.dag_version_id = %(dag_version_id)s and n.dataset_version_id <> o.dataset_version_id and nv.virtual_sql is null
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
        join job_version_run r on r.job_version_id = s.job_version_id and r.changed_at > v.active_at - interval '10 s'
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

-- name: free_datasets
-- What a version claimed that never became active is free again: nothing of it was ever served. Index dag_version_dataset by its first column.
delete from dataset d
where d.dag = %(dag)s
    and exists (
        select 1 from dag_version_dataset s where s.dag_version_id = %(dag_version_id)s and s.dataset_id = d.dataset_id
    )
    and not exists (
        select 1
        from dag_version_dataset s
        join dag_version v using (dag_version_id)
        where s.dataset_id = d.dataset_id and v.dag = d.dag and v.active_at is not null
    );

-- name: previous_version
-- The version that was active before the active one. Primary key of activation, backwards.
select a.dag_version_id::text
from activation a
where a.dag = %(dag)s and a.dag_version_id <> %(active)s
order by a.from_deploy desc
limit 1;

-- name: collected
-- Whether something that a DAG version served is gone, or going. Primary key, dag_version_dataset by its first column.
select exists (select 1 from collected_dag_version where dag_version_id = %(dag_version_id)s);

-- name: version_by_number
-- Unique index of (dag, version).
select v.dag_version_id::text, v.dag, v.version, v.state::text, v.deploy_number, v.actor, v.created_at, v.active_at, v.spec,
    v.spec_digest
from dag_version v
where v.dag = %(dag)s and v.version = %(version)s;

-- name: follow_pointers
-- Jobs of other DAGs that read a dataset of this one follow its pointer: their subscription to the former version ends here and one to the
-- served version begins, which owes no scope that the former one brought already. The caller holds the DAG's lock exclusively. Index
-- input_binding_readers.
with moved as (
    select b.job_version_id, b.dataset_version_id as former_id, p.dataset_version_id as served_id
    from dataset d
    join pointer p using (dataset_id)
    join input_binding b on b.dataset_id = d.dataset_id and b.dataset_version_id <> p.dataset_version_id and b.trigger
    join scheduled_job s on s.dag_version_id = b.dag_version_id and s.job_version_id = b.job_version_id
    where d.dag = %(dag)s and s.dag <> d.dag
), closed as (
    update subscription s
    set to_number = h.number
    from moved m
    join dataset_head h on h.dataset_version_id = m.former_id
    where s.job_version_id = m.job_version_id and s.input_version_id = m.former_id and s.to_number is null
)
insert into subscription (job_version_id, input_version_id, from_number, replayed, instead_of_version_id)
select m.job_version_id, m.served_id, h.number, h.number = coalesce(earlier.number, 0), m.former_id
from moved m
join dataset_head h on h.dataset_version_id = m.served_id
cross join lateral (
    select max(e.to_number) as number
    from subscription e
    where e.job_version_id = m.job_version_id and e.input_version_id = m.served_id
) earlier
order by m.job_version_id, m.served_id
on conflict (job_version_id, input_version_id, from_number) do update set to_number = null, opened_at = clock_timestamp(),
    instead_of_version_id = coalesce(subscription.instead_of_version_id, excluded.instead_of_version_id);

-- name: reopen_barriers
-- Builds of other DAGs that read a dataset whose pointer has moved are owed what they follow to: what was passed is so no more. Before they are
-- bound to it. Index input_binding_readers.
update dag_version v
set barrier_at = clock_timestamp(), barrier_passed_at = null, barrier_retaken = false
from dag r
where v.dag_version_id = r.staged_version_id and r.dag <> %(dag)s and exists (
    select 1
    from dataset d
    join pointer p using (dataset_id)
    join input_binding b on b.dataset_id = d.dataset_id and b.dag_version_id = r.staged_version_id
        and b.dataset_version_id <> p.dataset_version_id
    where d.dag = %(dag)s
);

-- name: bind_readers
-- What jobs of other DAGs read from now on, in their active versions and in those that are being built. What they were built on stays known.
update input_binding b
set dataset_version_id = p.dataset_version_id, built_version_id = coalesce(b.built_version_id, b.dataset_version_id)
from dataset d
join pointer p using (dataset_id)
cross join dag r
where d.dag = %(dag)s and r.dag <> d.dag and b.dataset_id = d.dataset_id
    and b.dag_version_id in (r.active_version_id, r.staged_version_id) and b.dataset_version_id <> p.dataset_version_id;

-- name: bind_version
-- A DAG version that comes back reads what other DAGs serve now.
update input_binding b
set dataset_version_id = p.dataset_version_id, built_version_id = coalesce(b.built_version_id, b.dataset_version_id)
from dataset d
join pointer p using (dataset_id)
where b.dag_version_id = %(dag_version_id)s and d.dataset_id = b.dataset_id and d.dag <> %(dag)s
    and b.dataset_version_id <> p.dataset_version_id;

-- name: lost_readers
-- DAGs of others that read a dataset which the version that would be active does not serve. Index input_binding_readers.
select distinct s.dag, d.dataset_id
from dataset d
join input_binding b using (dataset_id)
join scheduled_job s on s.dag_version_id = b.dag_version_id and s.job_version_id = b.job_version_id
where d.dag = %(dag)s and s.dag <> d.dag and not exists (
    select 1 from dag_version_dataset v where v.dag_version_id = %(dag_version_id)s and v.dataset_id = d.dataset_id
)
order by s.dag, d.dataset_id;

-- name: readers
-- DAGs of others that read datasets of this one. Index input_binding_readers.
select distinct s.dag, d.dataset_id
from dataset d
join input_binding b using (dataset_id)
join scheduled_job s on s.dag_version_id = b.dag_version_id and s.job_version_id = b.job_version_id
where d.dag = %(dag)s and s.dag <> d.dag
order by s.dag, d.dataset_id;
