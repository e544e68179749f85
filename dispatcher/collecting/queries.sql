-- Statements of the collector: what is reachable, what is condemned, and how it goes. `version_id` is a dataset version's.

-- name: uses
-- Every DAG version that was ever active, with the end of the last time. For what a person asks for; reads small tables.
select u.dag, u.dag_version_id::text, u.from_deploy, u.until, u.removed
from dag_version_use u;

-- name: now
select clock_timestamp();

-- name: candidates
-- Versions that no DAG version names which is active, on its way or in the rollback window, and those that are condemned; by id.
-- Indexes dataset_version_pkey, dag_version_dataset_of, input_binding_of, input_binding_built, job_output_by_version.
with kept as materialized (
    select dag_version_id
    from dag_version
    where state in ('held', 'active')
        or (state = 'building' and (staged_at is not null or created_at > clock_timestamp() - %(settling)s::interval))
    union
    select unnest(%(window)s::uuid[])
)
select v.dataset_version_id::text
from dataset_version v
where (%(after)s::uuid is null or v.dataset_version_id > %(after)s)
    and (
        v.condemned_at is not null
        or not exists (
            select 1 from dag_version_dataset s join kept k using (dag_version_id) where s.dataset_version_id = v.dataset_version_id
        ) and not exists (
            select 1 from input_binding b join kept k using (dag_version_id) where b.dataset_version_id = v.dataset_version_id
        ) and not exists (
            select 1 from input_binding b join kept k using (dag_version_id) where b.built_version_id = v.dataset_version_id
        )
    )
    and (%(dag)s::text is null or exists (
        select 1 from job_output o join job_version j using (job_version_id)
        where o.dataset_version_id = v.dataset_version_id and j.dag = %(dag)s
    ))
order by v.dataset_version_id
limit %(limit)s;

-- name: outputs
-- The groups that versions belong to: what is written together, whole. Indexes job_output_by_version, job_output_pkey.
with recursive member (dataset_version_id) as (
    select unnest(%(version_ids)s::uuid[])
    union
    select o.dataset_version_id
    from member m
    join job_output p on p.dataset_version_id = m.dataset_version_id
    join job_output o on o.job_version_id = p.job_version_id
)
select j.dag, o.job_version_id::text, o.dataset_version_id::text
from member m
join job_output o using (dataset_version_id)
join job_version j using (job_version_id)
order by o.dataset_version_id, o.job_version_id;

-- name: judged
-- What holds each version now, the first reason that there is, and since when no DAG version has served it. Tasks hold what they read and
-- what caused them while their job may run: that reads the hot table once. A deploy that is being written may take up anything of its DAG
-- that it does not name yet. Indexes of `candidates`, subscription_of; pins and DAG versions are few.
with kept as materialized (
    select dag_version_id, 'served' as hold
    from dag_version
    where state in ('held', 'active')
        or (state = 'building' and (staged_at is not null or created_at > clock_timestamp() - %(settling)s::interval))
    union all
    select unnest(%(window)s::uuid[]), 'rollback'
), pinned as materialized (
    select distinct d.dataset_version_id
    from pin_dataset d
    join pin p using (pin_id)
    where p.expires_at > clock_timestamp()
), asked as materialized (
    select v.dataset_version_id, v.dataset_id, v.created_at, v.condemned_at
    from dataset_version v
    where v.dataset_version_id = any(%(version_ids)s::uuid[])
), reading as materialized (
    select distinct p.version
    from task t
    join job_version_run r using (job_version_id)
    cross join lateral jsonb_to_recordset(t.pins) as p (version uuid)
    where t.state in ('queued', 'released', 'running', 'backoff', 'dead') and t.pins is not null
        and r.run_state in ('running', 'staged')
        and t.job_version_id in (select b.job_version_id from input_binding b join asked a using (dataset_id))
), named as materialized (
    select a.dataset_version_id, min(k.hold) filter (where k.hold = 'served') as served, min(k.hold) as hold
    from asked a
    cross join lateral (
        select s.dag_version_id from dag_version_dataset s where s.dataset_version_id = a.dataset_version_id
        union all
        select b.dag_version_id from input_binding b where b.dataset_version_id = a.dataset_version_id
        union all
        -- What a reader's results are flagged with until its own next deploy.
        select b.dag_version_id from input_binding b where b.built_version_id = a.dataset_version_id
    ) n
    join kept k on k.dag_version_id = n.dag_version_id
    group by a.dataset_version_id
), left_at as materialized (
    select s.dataset_version_id, max(coalesce(u.until, g.created_at)) as at
    from asked a
    join dag_version_dataset s using (dataset_version_id)
    join dag_version g using (dag_version_id)
    left join dag_version_use u using (dag_version_id)
    group by s.dataset_version_id
)
select a.dataset_version_id::text, a.dataset_id, greatest(a.created_at, l.at) as unused_since, a.condemned_at,
    case
        when n.hold is not null then coalesce(n.served, n.hold)
        when exists (
            select 1
            from job_output o
            join job_version j using (job_version_id)
            join dag_version g on g.dag = j.dag and g.state = 'building' and g.staged_at is null
                and g.created_at > clock_timestamp() - %(settling)s::interval
            where o.dataset_version_id = a.dataset_version_id
        ) then 'deploying'
        when a.dataset_version_id in (select dataset_version_id from pinned) then 'pinned'
        when a.dataset_version_id in (select version from reading) or exists (
            select 1
            from subscription u
            join job_version_run r using (job_version_id)
            where u.input_version_id = a.dataset_version_id and r.run_state in ('running', 'staged') and case
                -- What a closed interval still owes is not replayed, unless another one is open.
                when u.to_number is null then true
                -- Only where it may run: else this would be asked before. And not `exists`, which may be answered for all jobs at once.
                when r.run_state in ('running', 'staged') then (
                    select true
                    from task t
                    cross join lateral (
                        select from event where event_id = t.event_id and dataset_version_id = a.dataset_version_id offset 0
                    ) e
                    where t.job_version_id = u.job_version_id and t.state in ('queued', 'released', 'running', 'backoff', 'dead')
                    limit 1
                )
            end
        ) or exists (
            -- It took this one's place for a reader, and does not say again what this one had said.
            select 1
            from replaying u
            join job_version_run r using (job_version_id)
            where u.instead_of_version_id = a.dataset_version_id and r.run_state in ('running', 'staged')
        ) then 'read'
        when greatest(a.created_at, l.at) > clock_timestamp() - %(settling)s::interval then 'recent'
    end as hold
from asked a
left join named n using (dataset_version_id)
left join left_at l using (dataset_version_id)
order by a.dataset_version_id;

-- name: abandoned_build
-- A DAG version that was begun so long ago that no deploy is at it any more.
select dag_version_id::text
from dag_version
where dag = %(dag)s and state = 'building' and staged_at is null and created_at <= clock_timestamp() - %(settling)s::interval
limit 1;

-- name: sizes
-- What versions hold, replaced files included. Index artifact_scope.
select h.dataset_version_id::text, a.file_count, a.row_count, a.size_bytes, h.event_count
from dataset_head h
cross join lateral (
    select count(*) as file_count, coalesce(sum(row_count), 0)::bigint as row_count,
        coalesce(sum(size_bytes), 0)::bigint as size_bytes
    from artifact
    where dataset_version_id = h.dataset_version_id
) a
where h.dataset_version_id = any(%(version_ids)s::uuid[]);

-- name: own_readers
-- The DAGs that write or read versions, in the order of their names: what they are made of does not change until the end of the
-- transaction. A deploy or a rollback of each holds the same row. Indexes job_output_by_version, input_binding_of, input_binding_built.
select d.dag
from dag d
where d.dag in (
    select j.dag
    from job_output o
    join job_version j using (job_version_id)
    where o.dataset_version_id = any(%(version_ids)s::uuid[])
    union
    select g.dag
    from input_binding b
    join dag_version g using (dag_version_id)
    where b.dataset_version_id = any(%(version_ids)s::uuid[]) or b.built_version_id = any(%(version_ids)s::uuid[])
)
order by d.dag
for no key update;

-- name: lock_versions
-- Against whoever is about to name them: a reference to a version shares its row, by its foreign key. What is named before is seen by who
-- judges after this; what comes later waits, and finds them condemned. Primary key, in its order.
select dataset_version_id::text
from dataset_version
where dataset_version_id = any(%(version_ids)s::uuid[])
order by dataset_version_id
for update;

-- name: lock_pins
-- A pin that is just being renewed is waited for: it is judged by what it becomes.
select p.pin_id
from pin p
where p.pin_id in (select d.pin_id from pin_dataset d where d.dataset_version_id = any(%(version_ids)s::uuid[]))
order by p.pin_id
for share of p;

-- name: condemn
-- The caller holds the rows' locks and has judged them. From here on they only go.
update dataset_version
set condemned_at = clock_timestamp(), condemned_by = %(actor)s
where dataset_version_id = any(%(version_ids)s::uuid[]) and condemned_at is null
returning dataset_version_id::text, dataset_id;

-- name: part_from_inputs
-- Job versions that were built on what goes, step by step, each in the DAG of what it reads: what they had is of events that are gone, and
-- would come once more with what takes their place. No deploy finds them by their fingerprint any more; it builds them anew. Of versions that
-- may still be rolled back to there is none: those hold what they read. Indexes input_binding_of, job_output_pkey.
with recursive built (job_version_id) as (
    select b.job_version_id
    from input_binding b
    join job_version j using (job_version_id)
    join dataset d on d.dataset_id = b.dataset_id and d.dag = j.dag
    where b.dataset_version_id = any(%(version_ids)s::uuid[])
    union
    select b.job_version_id
    from built
    join job_output o using (job_version_id)
    join input_binding b on b.dataset_version_id = o.dataset_version_id
    join job_version j on j.job_version_id = b.job_version_id
    join dataset d on d.dataset_id = b.dataset_id and d.dag = j.dag
)
update job_version
set fingerprint = sha256(fingerprint || job_version_id::text::bytea)
where job_version_id in (select job_version_id from built) and not exists (
    select 1
    from dag_version_job s
    join dag g on s.dag_version_id in (g.active_version_id, g.staged_version_id)
    where s.job_version_id = job_version.job_version_id and g.removed_at is null
) and not exists (
    -- It goes itself, and is in the way of its like until it is gone.
    select 1
    from job_output o
    join dataset_version v using (dataset_version_id)
    where o.job_version_id = job_version.job_version_id and v.condemned_at is not null
);

-- name: retire_jobs
-- Nothing of theirs may run again, whatever they were; a new epoch fences what still does.
update job_version_run
set run_state = 'retired', epoch = epoch + 1, actor = %(actor)s, changed_at = clock_timestamp()
where job_version_id = any(%(job_version_ids)s::uuid[]) and run_state <> 'retired';

-- name: condemned_count
select count(*)::int from dataset_version where condemned_at is not null;

-- name: known_versions
select dataset_version_id::text, condemned_at is not null as condemned
from dataset_version
where dataset_version_id = any(%(version_ids)s::uuid[]);

-- name: key_facts
-- Whether an artifact names a key, and whether the attempt that the key is of runs: in one snapshot, or an emit could commit between the two
-- looks. Unique index of object_key, primary keys.
select k.key, a.object_key is not null as named, coalesce(t.state = 'running' and t.attempt = k.attempt, false) as running,
    coalesce(v.dataset_id, '') as dataset_id, clock_timestamp() as now
from unnest(%(keys)s::text[], %(version_ids)s::uuid[], %(task_ids)s::uuid[], %(attempts)s::int[])
    as k (key, version_id, task_id, attempt)
left join artifact a on a.object_key = k.key
left join task t on t.task_id = k.task_id
left join dataset_version v on v.dataset_version_id = k.version_id;

-- name: begin_sweep
-- One dispatcher of all, once in so long.
update orphan_sweep
set begun_at = clock_timestamp()
where begun_at <= clock_timestamp() - %(every)s::interval
returning begun_at;
