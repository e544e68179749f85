-- Statements of the registry, of pins, and of what readers find.

-- name: known_datasets
-- All datasets with the declaration that is served, for checking documents.
select d.dataset_id, d.dag, v.dataset_version_id::text, v.spec, v.schema, v.column_order,
    coalesce(v.virtual_sql, '') as virtual_sql, v.fingerprint,
    coalesce((
        select array_agg(u.dependency_id order by u.dependency_id)
        from virtual_dependency u where u.dataset_version_id = v.dataset_version_id
    ), '{}') as dependencies
from dataset d
join pointer p using (dataset_id)
join dataset_version v using (dataset_version_id)
order by d.dataset_id;

-- name: list_datasets
-- By id, with what the served version holds.
select d.dataset_id, d.dag, v.dataset_version_id::text, v.spec, coalesce(v.virtual_sql, '') as virtual_sql, v.cursor_type,
    v.schema, v.column_order, v.created_at, h.number, w.cursor_key as watermark,
    coalesce((
        select array_agg(distinct j.job order by j.job)
        from job_output o join job_version j using (job_version_id)
        where o.dataset_version_id = v.dataset_version_id
    ), '{}') as producer_jobs
from dataset d
join pointer p using (dataset_id)
join dataset_version v using (dataset_version_id)
join dataset_head h using (dataset_version_id)
left join watermark w using (dataset_version_id)
where (%(dataset_id)s::text is null or d.dataset_id = %(dataset_id)s)
    and (%(dag)s::text is null or d.dag = %(dag)s)
    and (%(after)s::text is null or d.dataset_id > %(after)s)
order by d.dataset_id
limit %(limit)s;

-- name: version_totals
-- What dataset versions hold, for people; one statement for a page of them. Indexes event_key, artifact_scope.
select v.version_id::text as dataset_version_id,
    (select count(*) from event e where e.dataset_version_id = v.version_id) as event_count,
    coalesce(a.artifact_count, 0) as artifact_count, coalesce(a.row_count, 0) as row_count,
    coalesce(a.size_bytes, 0) as size_bytes
from unnest(%(version_ids)s::uuid[]) as v (version_id)
left join lateral (
    select count(*) as artifact_count, sum(row_count)::bigint as row_count, sum(size_bytes)::bigint as size_bytes
    from artifact
    where dataset_version_id = v.version_id and removed_publication_id is null
) a on true;

-- name: list_versions
-- A dataset's versions that were ever served, newest first. Indexes dataset_version_of, dag_version_dataset_of.
select v.dataset_version_id::text, v.dataset_id, v.cursor_type, v.schema, v.column_order, v.created_at,
    h.number, w.cursor_key as watermark
from dataset_version v
join dataset_head h using (dataset_version_id)
left join watermark w using (dataset_version_id)
where v.dataset_id = %(dataset_id)s
    and v.condemned_at is null
    and exists (
        select 1 from dag_version_dataset s join dag_version g using (dag_version_id)
        where s.dataset_version_id = v.dataset_version_id and g.active_at is not null
    )
    and (%(before)s::uuid is null or v.dataset_version_id < %(before)s)
order by v.dataset_version_id desc
limit %(limit)s;

-- name: pin_now
-- Pointers, heads and watermarks of datasets, by folded names, with all that virtual ones are made of, in one statement: one moment.
-- Unique index of folded_id, primary keys. Planned once, since its plan takes ten times as long as its work; the fences (offset 0) keep a plan
-- that was made for small tables from going through all of them.
with recursive named as (
    select d.dataset_id, v.dataset_version_id, v.spec, coalesce(v.virtual_sql, '') as virtual_sql, v.cursor_type, v.schema,
        v.column_order, d.dag, 0 as depth
    from dataset d
    cross join lateral (select dataset_version_id from pointer where dataset_id = d.dataset_id offset 0) p
    join dataset_version v using (dataset_version_id)
    where d.folded_id = any(%(folded_ids)s::text[])
    union
    select d.dataset_id, v.dataset_version_id, v.spec, coalesce(v.virtual_sql, ''), v.cursor_type, v.schema,
        v.column_order, d.dag, n.depth + 1
    from named n
    join virtual_dependency u on u.dataset_version_id = n.dataset_version_id
    join dataset d on d.dataset_id = u.dependency_id
    cross join lateral (select dataset_version_id from pointer where dataset_id = d.dataset_id offset 0) p
    join dataset_version v on v.dataset_version_id = p.dataset_version_id
    where n.depth < 100
)
select distinct on (n.dataset_id) n.dataset_id, n.dag, n.dataset_version_id::text, n.spec, n.virtual_sql, n.cursor_type,
    n.schema, n.column_order, h.number,
    (select cursor_key from watermark w where w.dataset_version_id = n.dataset_version_id) as watermark,
    (select deploy_number from deploy_counter)
from named n
cross join lateral (select number from dataset_head where dataset_version_id = n.dataset_version_id offset 0) h
order by n.dataset_id, n.depth;

-- name: pinned
-- The same for versions and numbers that are known; what was collected, or is being collected, has no row. The watermark is that of now.
select v.dataset_id, d.dag, v.dataset_version_id::text, v.spec, coalesce(v.virtual_sql, '') as virtual_sql, v.cursor_type,
    v.schema, v.column_order, k.number,
    (select cursor_key from watermark w where w.dataset_version_id = v.dataset_version_id) as watermark, 0::bigint as deploy_number
from unnest(%(version_ids)s::uuid[], %(numbers)s::bigint[]) as k (dataset_version_id, number)
join dataset_version v using (dataset_version_id)
join dataset d using (dataset_id)
where v.condemned_at is null
order by v.dataset_id;

-- name: served_at
-- Which versions were served at a deploy number, with their heads now, and with all that virtual ones are made of.
with recursive named as (
    select h.dataset_id, h.dataset_version_id, 0 as depth
    from pointer_history h
    where h.dataset_id = any(%(dataset_ids)s::text[]) and h.from_deploy <= %(deploy_number)s
        and (h.to_deploy is null or h.to_deploy > %(deploy_number)s)
    union
    select h.dataset_id, h.dataset_version_id, n.depth + 1
    from named n
    join virtual_dependency u on u.dataset_version_id = n.dataset_version_id
    join pointer_history h on h.dataset_id = u.dependency_id and h.from_deploy <= %(deploy_number)s
        and (h.to_deploy is null or h.to_deploy > %(deploy_number)s)
    where n.depth < 100
)
select distinct n.dataset_id, n.dataset_version_id::text, h.number
from named n
join dataset_head h using (dataset_version_id);

-- name: latest_deploy
-- The number of the last deploy, cutover or rollback. One row.
select deploy_number from deploy_counter;

-- name: spelled
-- Datasets by the folded forms of names. Unique index.
select dataset_id, folded_id
from dataset
where folded_id = any(%(folded_ids)s::text[]);

-- name: inactive_dag
-- A DAG that was deployed and of which nothing is active, with when it was removed, and whether it is being built; not one whose first
-- version was only begun to be written. Primary key, and the unique index of (dag, version).
select removed_at, staged_version_id is not null
from dag
where dag = %(dag)s and (removed_at is not null or active_version_id is null)
    and exists (select 1 from dag_version v where v.dag = dag.dag and v.staged_at is not null);

-- name: dags_like
-- Names of about the same length as one that is not there, and that may have been meant. For people; reads a small table.
select dag
from dag
where active_version_id is not null and removed_at is null
order by abs(length(dag) - length(%(name)s)), dag
limit 500;

-- name: jobs_like
-- The same for jobs, of one DAG or of all. Unique index of (dag, job, fingerprint).
select job
from job_version
where %(dag)s::text is null or dag = %(dag)s
group by job
order by abs(length(job) - length(%(name)s)), job
limit 500;

-- name: datasets_like
-- The same for datasets that are served.
select dataset_id
from pointer
order by abs(length(dataset_id) - length(%(name)s)), dataset_id
limit 500;

-- name: insert_pin
insert into pin (pin_id, deploy_number, actor, expires_at)
values (%(pin_id)s, %(deploy_number)s, %(actor)s, clock_timestamp() + %(lease)s::interval)
returning expires_at;

-- name: insert_pin_datasets
-- Shares the versions' rows with other pins, not with the collector: it waits, and finds the pin; or is waited for, and what it condemned
-- is left out here. Primary key, in its order.
with there as materialized (
    select dataset_version_id
    from dataset_version
    where dataset_version_id = any(%(version_ids)s::uuid[]) and condemned_at is null
    order by dataset_version_id
    for key share
)
insert into pin_dataset (pin_id, dataset_id, dataset_version_id, number)
select %(pin_id)s, dataset_id, dataset_version_id, number
from unnest(%(dataset_ids)s::text[], %(version_ids)s::uuid[], %(numbers)s::bigint[])
    as p (dataset_id, dataset_version_id, number)
join there using (dataset_version_id)
returning dataset_version_id;

-- name: renew_pin
-- Guarded by the pin's own lease: an expired one may have been collected under.
update pin
set expires_at = clock_timestamp() + %(lease)s::interval
where pin_id = %(pin_id)s and expires_at > clock_timestamp()
returning expires_at;

-- name: release_pin
delete from pin where pin_id = %(pin_id)s;

-- name: release_expired_pins
-- A reader that died holds nothing for longer than its lease. Index pin_expiry.
with expired as (
    select pin_id from pin where expires_at < clock_timestamp() order by pin_id limit %(limit)s for update skip locked
)
delete from pin
where pin_id in (select pin_id from expired);

-- name: visible_artifacts
-- Files of a dataset version at a publication number whose scope meets the bounds, in pages by scope. Index artifact_scope.
select a.artifact_id::text, v.dataset_id, a.dataset_version_id::text, v.cursor_type, a.object_key, a.producer_task_id::text,
    a.scope_kind, a.scope_first, a.scope_last, a.revision, a.row_count, a.size_bytes, a.sha256, a.schema_digest,
    p.number as publication_number, a.accepted_at
from artifact a
join dataset_version v using (dataset_version_id)
join publication p on p.publication_id = a.publication_id and p.dataset_version_id = a.dataset_version_id
left join publication r on r.publication_id = a.removed_publication_id and r.dataset_version_id = a.dataset_version_id
where a.dataset_version_id = %(version_id)s
    and p.number <= %(number)s and (r.number is null or r.number > %(number)s)
    and a.scope_last >= %(lower)s and a.scope_first <= %(upper)s
    and (a.scope_first, a.artifact_id) > (%(after_first)s::bytea, %(after_id)s::uuid)
order by a.scope_first, a.artifact_id
limit %(limit)s;

-- name: visible_events
-- Scopes of a dataset version without files, the same way. Index event_scope.
select e.event_id::text, v.dataset_id, e.dataset_version_id::text, v.cursor_type, e.scope_kind, e.scope_first, e.scope_last,
    e.revision, e.producer_task_id::text, e.producer_attempt, e.artifact_id::text, p.number as publication_number,
    e.manifest, e.event_time,
    e.origin::text as event_origin, e.accepted_at
from event e
join dataset_version v using (dataset_version_id)
join publication p using (publication_id, dataset_version_id)
where e.dataset_version_id = %(version_id)s and p.number <= %(number)s
    and e.scope_last >= %(lower)s and e.scope_first <= %(upper)s
    and (e.scope_first, e.event_id) > (%(after_first)s::bytea, %(after_id)s::uuid)
order by e.scope_first, e.event_id
limit %(limit)s;

-- name: task_reads
-- How a claimed task reads one of its inputs: the binding, the pin that its first claim fixed, and its scope. The version is the pin's: the
-- binding may follow the pointer of another DAG's dataset to another version while the task runs.
select t.task_id::text, b.dataset_id, v.dataset_version_id::text, b.lookback, v.cursor_type, v.stored, t.scope_kind,
    t.scope_first, t.scope_last, p.number, v.schema, v.column_order
from unnest(%(task_ids)s::uuid[], %(dataset_ids)s::text[]) with ordinality as k (task_id, dataset_id, position)
join task t on t.task_id = k.task_id
join scheduled_job s on s.job_version_id = t.job_version_id
join input_binding b
    on b.dag_version_id = s.dag_version_id and b.job_version_id = t.job_version_id and b.dataset_id = k.dataset_id
left join lateral (
    select (pin ->> 'version')::uuid as dataset_version_id, (pin ->> 'number')::bigint as number
    from jsonb_array_elements(t.pins) pin
    where pin ->> 'dataset_id' = b.dataset_id
) p on true
join dataset_version v on v.dataset_version_id = coalesce(p.dataset_version_id, b.dataset_version_id)
order by k.position;

-- name: lineage
-- Which job makes what from what, among served versions. Outdated is also what passed scopes by that it had of another version.
select b.dataset_id as from_dataset_id, v.dataset_id as to_dataset_id, j.dag, j.job,
    p.dataset_version_id <> coalesce(b.built_version_id, b.dataset_version_id) or passed.scopes > 0 as outdated,
    passed.scopes as passed_scope_count
from dag d
join input_binding b on b.dag_version_id = d.active_version_id and not b.indirect
join job_version j using (job_version_id)
join job_output o using (job_version_id)
join dataset_version v on v.dataset_version_id = o.dataset_version_id
join pointer p on p.dataset_id = b.dataset_id
cross join lateral (
    select coalesce(sum(u.passed_count), 0)::bigint as scopes
    from subscription u
    join dataset_version i on i.dataset_version_id = u.input_version_id
    where u.job_version_id = b.job_version_id and i.dataset_id = b.dataset_id
) passed
union all
select u.dependency_id, v.dataset_id, d.dag, coalesce((
    select min(j.job) from job_output o join job_version j using (job_version_id)
    where o.dataset_version_id = v.dataset_version_id
), ''), false, 0
from virtual_dependency u
join dataset_version v using (dataset_version_id)
join dataset d using (dataset_id)
join pointer p on p.dataset_version_id = v.dataset_version_id
order by 1, 2, 3, 4;

-- name: record_bundle
insert into bundle (digest, size_bytes, actor)
values (%(digest)s, %(size_bytes)s, %(actor)s)
on conflict do nothing;

-- name: known_bundles
select digest from bundle where digest = any(%(digests)s::text[]);
