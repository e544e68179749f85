-- Statements of deployments.

-- name: own_dags
-- Subscription changes hold the DAGs' locks exclusively: acceptance of their events waits until the commit (MECHANICS 3).
select pg_advisory_xact_lock(%(class)s, key)
from (select distinct hashtext(dag) as key from unnest(%(dags)s::text[]) as d (dag) order by 1) k;

-- name: active_version
select v.dag_version_id::text, v.dag, v.version, v.state::text, v.deploy_number, v.actor, v.created_at, v.active_at, v.spec,
    v.spec_digest
from dag d
join dag_version v on v.dag_version_id = d.active_version_id
where d.dag = %(dag)s and d.removed_at is null;

-- name: staged_version
select v.dag_version_id::text, v.dag, v.version, v.state::text, v.deploy_number, v.actor, v.created_at, v.active_at, v.spec,
    v.spec_digest
from dag d
join dag_version v on v.dag_version_id = d.staged_version_id
where d.dag = %(dag)s;

-- name: get_version
-- Of a removed DAG, what it served last is the removed one. Primary keys.
select v.dag_version_id::text, v.dag, v.version,
    case when d.removed_at is not null and d.active_version_id = v.dag_version_id then 'removed' else v.state::text end as state,
    v.deploy_number, v.actor, v.created_at, v.active_at, v.spec, v.spec_digest
from dag_version v
join dag d using (dag)
where v.dag_version_id = %(dag_version_id)s;

-- name: list_versions
-- Newest first, without those that are only being written down; or the one alone that is being built. Unique index of (dag, version).
select v.dag_version_id::text, v.dag, v.version,
    case when d.removed_at is not null and d.active_version_id = v.dag_version_id then 'removed' else v.state::text end as state,
    v.deploy_number, v.actor, v.created_at, v.active_at, v.spec, v.spec_digest
from dag_version v
join dag d using (dag)
where v.dag = %(dag)s and (v.state <> 'building' or v.staged_at is not null) and (%(before)s::bigint is null or v.version < %(before)s)
    and (not %(being_built)s or v.dag_version_id = d.staged_version_id)
order by v.version desc
limit %(limit)s;

-- name: list_dags
select d.dag, v.version, v.active_at,
    (select count(*) from dag_version_job s where s.dag_version_id = v.dag_version_id) as job_count,
    exists (select 1 from pause p where p.dag = d.dag) as paused
from dag d
join dag_version v on v.dag_version_id = d.active_version_id
where d.removed_at is null and (%(dag)s::text is null or d.dag = %(dag)s) and (%(after)s::text is null or d.dag > %(after)s)
order by d.dag
limit %(limit)s;

-- name: deployed_jobs
select j.job, j.job_version_id::text, j.kind::text, r.run_state::text,
    exists (select 1 from pause p where p.dag = j.dag and p.job in ('', j.job)) as paused
from dag_version_job s
join job_version j using (job_version_id)
join job_version_run r using (job_version_id)
where s.dag_version_id = %(dag_version_id)s
order by j.job;

-- name: source_events
-- Events accepted in datasets of the DAG's sources, from the producers' own counts, and from what is counted of those that were moved.
-- Reads the hot table once.
select coalesce(sum(c.accepted_events), 0)::bigint
from (
    select job_version_id, accepted_events from task where origin = 'source_run'
    union all
    select job_version_id, accepted_events from finished_count where origin = 'source_run'
) c
join job_version j using (job_version_id)
where j.dag = %(dag)s and j.kind = 'source';

-- name: unfinished
-- Whether anything is left to do: a task that is not final, or a replay. Indexes task_queued, task_open, subscription_replaying.
select exists (
    select 1
    from dag_version_job s
    where s.dag_version_id = %(dag_version_id)s and (
        exists (select 1 from task t where t.job_version_id = s.job_version_id and t.state = 'queued')
        or exists (
            select 1 from task t
            where t.job_version_id = s.job_version_id and t.state in ('released', 'running', 'backoff')
        )
        or exists (select 1 from replaying u where u.job_version_id = s.job_version_id)
    )
);

-- name: goes_on_level
-- Whether a source of the version goes on, and nothing else is left but what it brings: no replay, and no task of one or of a re-run. Indexes
-- task_of_source, task_queued, task_open, subscription_replaying.
select exists (
    select 1
    from dag_version_job s
    join job_version j using (job_version_id)
    join task t on t.job_version_id = j.job_version_id and t.event_id is null and t.state = 'running'
    where s.dag_version_id = %(dag_version_id)s and j.kind = 'source'
) and not exists (
    select 1
    from dag_version_job s
    where s.dag_version_id = %(dag_version_id)s and (
        exists (
            select 1 from task t
            where t.job_version_id = s.job_version_id and t.origin in ('replay', 'backfill') and t.state = 'queued'
        )
        or exists (
            select 1 from task t
            where t.job_version_id = s.job_version_id and t.origin in ('replay', 'backfill')
                and t.state in ('released', 'running', 'backoff')
        )
        or exists (select 1 from replaying u where u.job_version_id = s.job_version_id)
    )
);

-- name: insert_dag
insert into dag (dag, actor) values (%(dag)s, %(actor)s) on conflict do nothing;

-- name: own_dag
-- Everything that is written of a DAG's versions is written under its row: of two deploys each sees what the other has committed.
-- Acceptance and readers do not wait for it. Primary key.
select dag from dag where dag = %(dag)s for no key update;

-- name: begin_version
-- Under the DAG's row, so that two versions never get one number. Unique index of (dag, version).
insert into dag_version (dag_version_id, dag, version, spec, spec_digest, state, actor, plan_id)
select %(dag_version_id)s, %(dag)s, coalesce(max(version), 0) + 1, %(spec)s, %(spec_digest)s, 'building', %(actor)s, %(plan_id)s::uuid
from dag_version
where dag = %(dag)s;

-- name: still_building
-- And nothing else is staged. Primary keys.
select exists (
    select 1
    from dag_version v
    join dag d using (dag)
    where v.dag_version_id = %(dag_version_id)s and v.state = 'building' and v.staged_at is null and d.staged_version_id is null
);

-- name: stored_jobs
-- Job versions that are there already, each with what it writes, and whether the collector has begun to take it. Unique index of
-- (dag, job, fingerprint).
select j.job, j.job_version_id::text,
    coalesce((
        select jsonb_object_agg(v.dataset_id, v.dataset_version_id)
        from job_output o join dataset_version v using (dataset_version_id)
        where o.job_version_id = j.job_version_id
    ), '{}') as outputs,
    coalesce((
        select jsonb_object_agg(v.dataset_id, v.column_order)
        from job_output o join dataset_version v using (dataset_version_id)
        where o.job_version_id = j.job_version_id and v.column_order is not null
    ), '{}') as column_orders,
    exists (
        select 1
        from job_output o join dataset_version v using (dataset_version_id)
        where o.job_version_id = j.job_version_id and v.condemned_at is not null
    ) as condemned
from unnest(%(jobs)s::text[], %(keys)s::bytea[]) as k (job, key)
join job_version j on j.dag = %(dag)s and j.job = k.job and j.fingerprint = k.key;

-- name: moved_datasets
-- Which datasets are not served by these versions now. Primary keys.
select k.dataset_id
from unnest(%(dataset_ids)s::text[], %(version_ids)s::uuid[]) as k (dataset_id, version_id)
left join pointer p using (dataset_id)
where p.dataset_version_id is distinct from k.version_id
order by k.dataset_id;

-- name: dataset_owners
-- Unique index of folded_id.
select dataset_id, folded_id, dag from dataset where folded_id = any(%(folded_ids)s::text[]);

-- name: next_deploy_number
update deploy_counter set deploy_number = deploy_number + 1 returning deploy_number;

-- name: ended_rows
-- What ending the jobs changes that one DAG version has and another lacks (all, where there is no other): a row for each, and one for each of
-- its triggers; and the datasets that only a version claimed that was never active. Primary keys.
select (
    select count(distinct s.job_version_id) + count(b.dataset_id)
    from dag_version_job s
    left join input_binding b on b.dag_version_id = s.dag_version_id and b.job_version_id = s.job_version_id and b.trigger
    where s.dag_version_id = %(of)s and not exists (
        select 1 from dag_version_job o where o.dag_version_id = %(but)s::uuid and o.job_version_id = s.job_version_id
    )
) + (
    select count(*)
    from dag_version_dataset s
    join dag_version n using (dag_version_id)
    join dataset d on d.dataset_id = s.dataset_id and d.dag = n.dag
    where n.dag_version_id = %(of)s and n.active_at is null and not exists (
        select 1
        from dag_version_dataset o
        join dag_version v using (dag_version_id)
        where o.dataset_id = s.dataset_id and v.dag = n.dag and v.active_at is not null
    )
);

-- name: activate_version
update dag_version
set state = 'active', deploy_number = %(deploy_number)s, active_at = clock_timestamp()
where dag_version_id = %(dag_version_id)s;

-- name: activate_dag
-- The row that moves all pointers of the DAG.
update dag set active_version_id = %(dag_version_id)s, removed_at = null where dag = %(dag)s;

-- name: end_activation
-- What was active until now stays in the history of the pointers. Primary key.
update activation set to_deploy = %(deploy_number)s where dag = %(dag)s and to_deploy is null;

-- name: record_activation
insert into activation (dag, from_deploy, dag_version_id) values (%(dag)s, %(deploy_number)s, %(dag_version_id)s);

-- name: leftover
-- A version that was begun before the active one went active, and was never staged: it can never follow on what it was begun on.
select v.dag_version_id::text
from dag d
join dag_version a on a.dag_version_id = d.active_version_id
join dag_version v on v.dag = d.dag and v.state = 'building' and v.staged_at is null and v.created_at < a.active_at
where d.dag = %(dag)s
order by v.version
limit 1;

-- name: remove_bindings
-- Primary key, by its first column.
delete from input_binding
where ctid = any(array(select ctid from input_binding where dag_version_id = %(dag_version_id)s limit %(limit)s));

-- name: remove_settings
-- Primary key, by its first column.
delete from dag_version_job
where ctid = any(array(select ctid from dag_version_job where dag_version_id = %(dag_version_id)s limit %(limit)s));

-- name: remove_served
-- Primary key, by its first column.
delete from dag_version_dataset
where ctid = any(array(select ctid from dag_version_dataset where dag_version_id = %(dag_version_id)s limit %(limit)s));

-- name: remove_version
delete from dag_version where dag_version_id = %(dag_version_id)s and state = 'building';

-- name: pause
-- A DAG as a whole is the job ''. Repeated, it changes nothing.
insert into pause (dag, job, actor)
select %(dag)s, job, %(actor)s from unnest(%(jobs)s::text[]) as p (job)
on conflict do nothing;

-- name: resume
-- Where no job is named, the DAG as a whole and every job of it.
delete from pause where dag = %(dag)s and (%(jobs)s::text[] is null or job = any(%(jobs)s::text[]));
