-- What staging, cutting over, rolling back and aborting change: one row per job version and subscription, none per task (MECHANICS 6). All
-- of it under the DAG's row and the exclusive locks of the DAGs whose events are concerned.

-- name: standing
-- Primary key.
select dag, case when removed_at is null then active_version_id end::text as active_version_id, staged_version_id::text,
    case when removed_at is not null then active_version_id end::text as removed_version_id, ending
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
    instead_of_version_id = coalesce(excluded.instead_of_version_id, subscription.instead_of_version_id);

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
set staged_at = now.at, barrier_at = now.at, base_version_id = %(base)s, hold = %(hold)s, barriers_by_itself = 0
from (select clock_timestamp() as at) now
where dag_version_id = %(dag_version_id)s;

-- name: stage_dag
update dag set staged_version_id = %(dag_version_id)s, releases_held_until = null, releases_held_by = '{}' where dag = %(dag)s;

-- name: set_state
update dag_version set state = %(state)s::deployment_state where dag_version_id = %(dag_version_id)s;

-- name: hold_cutover
-- The caller owns the DAG. No row where it waits for a person anyway. Primary key.
update dag_version set hold = true where dag_version_id = %(dag_version_id)s and not hold;

-- name: waits_for_person
-- Primary key.
select hold from dag_version where dag_version_id = %(dag_version_id)s;

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
