-- How a condemned version goes: pages of rows, each statement at most so many, and at last the version itself. `version_id` is a dataset
-- version's; what is of its jobs goes with it, since nothing else of them is left. Large tables are read in the order of an index: else each
-- page would look again at all that those before it have left dead.

-- name: next_condemned
-- The oldest first. Index dataset_version_condemned.
select dataset_version_id::text, dataset_id, dag, condemned_by
from dataset_version
join dataset using (dataset_id)
where condemned_at is not null
order by condemned_at, dataset_version_id
offset %(skip)s
limit 1;

-- name: take_alone
-- Nobody else removes of it in this transaction's time; answers nothing where somebody does. Primary key.
select dataset_version_id
from dataset_version
where dataset_version_id = %(version_id)s and condemned_at is not null
for update skip locked;

-- name: file_page
-- Artifacts that are left of it. Index artifact_scope, by its first column.
select artifact_id::text, object_key, size_bytes
from artifact
where dataset_version_id = %(version_id)s
order by scope_first, scope_last
limit %(limit)s;

-- name: remove_artifacts
-- Once their files are gone.
delete from artifact where artifact_id = any(%(artifact_ids)s::uuid[]) and dataset_version_id = %(version_id)s;

-- name: remove_events
-- Index event_scope.
delete from event
where ctid = any(array(
    select ctid from event where dataset_version_id = %(version_id)s order by scope_first, event_id limit %(limit)s
));

-- name: remove_publications
-- Unique index of (dataset_version_id, number).
delete from publication
where ctid = any(array(
    select ctid from publication where dataset_version_id = %(version_id)s order by number limit %(limit)s
));

-- name: remove_served
-- With a mark on the DAG versions that lose it: no rollback restores them. Two rows each. Index dag_version_dataset_of.
with removed as (
    delete from dag_version_dataset
    where ctid = any(array(
        select ctid from dag_version_dataset where dataset_version_id = %(version_id)s limit %(limit)s::int / 2
    ))
    returning dag_version_id
), marked as (
    update dag_version g
    set collected_at = clock_timestamp()
    from removed r
    where g.dag_version_id = r.dag_version_id and g.collected_at is null
)
select 2 * count(*) from removed;

-- name: remove_readings
-- What DAG versions of long ago read of it. Index input_binding_of.
delete from input_binding
where ctid = any(array(select ctid from input_binding where dataset_version_id = %(version_id)s limit %(limit)s));

-- name: forget_building
-- Of what DAG versions of long ago were built. Index input_binding_built.
update input_binding
set built_version_id = null
where ctid = any(array(select ctid from input_binding where built_version_id = %(version_id)s limit %(limit)s));

-- name: forget_places
-- Whose place other versions took, for readers that have made up for it. Index subscription_instead.
update subscription
set instead_of_version_id = null
where ctid = any(array(select ctid from subscription where instead_of_version_id = %(version_id)s limit %(limit)s));

-- name: remove_consumers
-- Index subscription_of.
delete from subscription
where ctid = any(array(select ctid from subscription where input_version_id = %(version_id)s limit %(limit)s));

-- name: remove_pins
-- All have expired: an expired one is never renewed.
delete from pin_dataset
where ctid = any(array(select ctid from pin_dataset where dataset_version_id = %(version_id)s limit %(limit)s));

-- name: remove_dependencies
-- Primary key, by its first column.
delete from virtual_dependency
where ctid = any(array(select ctid from virtual_dependency where dataset_version_id = %(version_id)s limit %(limit)s));

-- name: remove_watermark
delete from watermark where dataset_version_id = %(version_id)s;

-- name: pick_tasks
-- Tasks of its jobs. Indexes task_cause, task_of_source.
with job as materialized (
    select job_version_id from job_output where dataset_version_id = %(version_id)s
)
select t.task_id::text
from job j
cross join lateral (
    (
        select task_id from task where job_version_id = j.job_version_id and event_id is not null order by event_id limit %(limit)s
    )
    union all
    (select task_id from task where job_version_id = j.job_version_id and event_id is null)
) t
limit %(limit)s;

-- name: remove_attempts
-- So many of picked tasks. Primary key.
delete from attempt
where ctid = any(array(
    select ctid from attempt where task_id = any(%(task_ids)s::uuid[]) order by task_id, attempt limit %(limit)s
));

-- name: remove_tasks
-- Picked ones that have no attempts left; others follow in a later page. Primary keys.
delete from task t
where t.task_id = any(%(task_ids)s::uuid[]) and not exists (select 1 from attempt a where a.task_id = t.task_id);

-- name: pick_finished
-- The same of those that were moved, with the time that says where they are. Indexes finished_task_cause, finished_task_of_source.
with job as materialized (
    select job_version_id from job_output where dataset_version_id = %(version_id)s
)
select t.task_id::text, t.finished_at
from job j
cross join lateral (
    (
        select task_id, finished_at
        from finished_task
        where job_version_id = j.job_version_id and event_id is not null
        order by event_id
        limit %(limit)s
    )
    union all
    (select task_id, finished_at from finished_task where job_version_id = j.job_version_id and event_id is null)
) t
limit %(limit)s;

-- name: remove_finished_attempts
-- Primary keys of the partitions.
with picked as materialized (
    select a.task_id, a.attempt, a.finished_at
    from unnest(%(task_ids)s::uuid[], %(finished_at)s::timestamptz[]) as p (task_id, finished_at)
    cross join lateral (
        select task_id, attempt, finished_at from finished_attempt where task_id = p.task_id and finished_at = p.finished_at offset 0
    ) a
    limit %(limit)s
)
delete from finished_attempt
where task_id = any(%(task_ids)s::uuid[]) and finished_at = any(%(finished_at)s::timestamptz[])
    and (task_id, attempt) in (select task_id, attempt from picked);

-- name: remove_finished
-- Primary keys of the partitions.
delete from finished_task t
where t.task_id = any(%(task_ids)s::uuid[]) and t.finished_at = any(%(finished_at)s::timestamptz[]) and not exists (
    select 1 from finished_attempt a where a.task_id = t.task_id and a.finished_at = t.finished_at
);

-- name: remove_counts
-- Primary key, by its first column.
delete from finished_count
where ctid = any(array(
    select c.ctid
    from job_output o join finished_count c using (job_version_id)
    where o.dataset_version_id = %(version_id)s
    limit %(limit)s
));

-- name: remove_states
-- Primary key, by its first column.
delete from operator_state
where ctid = any(array(
    select s.ctid
    from job_output o join operator_state s using (job_version_id)
    where o.dataset_version_id = %(version_id)s
    limit %(limit)s
));

-- name: remove_reruns
-- Primary key, by its first column.
delete from rerun_scope
where ctid = any(array(
    select s.ctid
    from job_output o join rerun_scope s using (job_version_id)
    where o.dataset_version_id = %(version_id)s
    limit %(limit)s
));

-- name: remove_streams
-- Primary key, by its first column.
delete from ordered_stream
where ctid = any(array(
    select s.ctid
    from job_output o join ordered_stream s using (job_version_id)
    where o.dataset_version_id = %(version_id)s
    limit %(limit)s
));

-- name: remove_bindings
-- What its jobs read. No index leads with the job version: by the settings of the same DAG versions. Index dag_version_job_of.
delete from input_binding
where ctid = any(array(
    select b.ctid
    from job_output o
    join dag_version_job s using (job_version_id)
    join input_binding b on b.dag_version_id = s.dag_version_id and b.job_version_id = s.job_version_id
    where o.dataset_version_id = %(version_id)s
    limit %(limit)s
));

-- name: remove_settings
-- After the bindings, which are found by them. Index dag_version_job_of.
delete from dag_version_job
where ctid = any(array(
    select s.ctid
    from job_output o join dag_version_job s using (job_version_id)
    where o.dataset_version_id = %(version_id)s
    limit %(limit)s
));

-- name: remove_subscriptions
-- What its jobs were caused by. Primary key, by its first column.
delete from subscription
where ctid = any(array(
    select u.ctid
    from job_output o join subscription u using (job_version_id)
    where o.dataset_version_id = %(version_id)s
    limit %(limit)s
));

-- name: remove_outputs
-- The job versions that write it and nothing else any more go; three rows each. Index job_output_by_version.
delete from job_output
where ctid = any(array(select ctid from job_output where dataset_version_id = %(version_id)s limit %(limit)s))
returning job_version_id::text;

-- name: remove_run_states
delete from job_version_run r
where r.job_version_id = any(%(job_version_ids)s::uuid[])
    and not exists (select 1 from job_output o where o.job_version_id = r.job_version_id);

-- name: remove_jobs
delete from job_version j
where j.job_version_id = any(%(job_version_ids)s::uuid[])
    and not exists (select 1 from job_output o where o.job_version_id = j.job_version_id);

-- name: remove_head
delete from dataset_head where dataset_version_id = %(version_id)s;

-- name: free_dataset
-- Once a DAG was removed and nothing of its dataset is left, others may produce one of this name.
delete from dataset d
using dag g
where d.dataset_id = %(dataset_id)s and g.dag = d.dag and g.removed_at is not null
    and not exists (select 1 from dataset_version v where v.dataset_id = d.dataset_id);

-- name: remove_version
-- The last of it.
delete from dataset_version where dataset_version_id = %(version_id)s and condemned_at is not null;
