-- What a deploy writes: for each table one statement for a page of rows, whose columns come as arrays.

-- name: insert_job_versions
insert into job_version (job_version_id, dag, job, kind, operator, ordered, late_scopes, fingerprint, canon_version)
select job_version_id, dag, job, kind::job_kind, operator, ordered, late_scopes::late_scopes, fingerprint, canon_version
from unnest(
    %(job_version_id)s::uuid[], %(dag)s::text[], %(job)s::text[], %(kind)s::text[], %(operator)s::text[],
    %(ordered)s::boolean[], %(late_scopes)s::text[], %(fingerprint)s::bytea[], %(canon_version)s::smallint[]
) as r (job_version_id, dag, job, kind, operator, ordered, late_scopes, fingerprint, canon_version);

-- name: insert_run_states
-- Releases and claims look at jobs of active and staged DAG versions alone, and tasks come with subscriptions: before, it means nothing.
insert into job_version_run (job_version_id, run_state, actor)
select job_version_id, 'running', actor
from unnest(%(job_version_id)s::uuid[], %(actor)s::text[]) as r (job_version_id, actor);

-- name: insert_dataset_versions
insert into dataset_version (
    dataset_version_id, dataset_id, fingerprint, spec, virtual_sql, cursor_type, stored, schema_digest, schema,
    column_order
)
select dataset_version_id, dataset_id, fingerprint, spec, virtual_sql, cursor_type, stored, schema_digest, schema,
    column_order
from unnest(
    %(dataset_version_id)s::uuid[], %(dataset_id)s::text[], %(fingerprint)s::bytea[], %(spec)s::bytea[],
    %(virtual_sql)s::text[], %(cursor_type)s::smallint[], %(stored)s::boolean[], %(schema_digest)s::bytea[],
    %(schema)s::jsonb[], %(column_order)s::jsonb[]
) as r (dataset_version_id, dataset_id, fingerprint, spec, virtual_sql, cursor_type, stored, schema_digest, schema, column_order);

-- name: insert_heads
insert into dataset_head (dataset_version_id)
select dataset_version_id from unnest(%(dataset_version_id)s::uuid[]) as r (dataset_version_id);

-- name: insert_job_outputs
insert into job_output (job_version_id, dataset_version_id)
select job_version_id, dataset_version_id
from unnest(%(job_version_id)s::uuid[], %(dataset_version_id)s::uuid[]) as r (job_version_id, dataset_version_id);

-- name: insert_dependencies
insert into virtual_dependency (dataset_version_id, dependency_id)
select dataset_version_id, dependency_id
from unnest(%(dataset_version_id)s::uuid[], %(dependency_id)s::text[]) as r (dataset_version_id, dependency_id);

-- name: insert_served
insert into dag_version_dataset (dag_version_id, dataset_id, dataset_version_id)
select dag_version_id, dataset_id, dataset_version_id
from unnest(%(dag_version_id)s::uuid[], %(dataset_id)s::text[], %(dataset_version_id)s::uuid[])
    as r (dag_version_id, dataset_id, dataset_version_id);

-- name: insert_settings
insert into dag_version_job (
    dag_version_id, job_version_id, details, max_attempts, max_lost_leases, timeout, max_concurrency, queue, retry_backoff,
    max_retry_backoff, max_run_tasks
)
select dag_version_id, job_version_id, details, max_attempts, max_lost_leases, timeout, max_concurrency, queue,
    retry_backoff, max_retry_backoff, max_run_tasks
from unnest(
    %(dag_version_id)s::uuid[], %(job_version_id)s::uuid[], %(details)s::bytea[], %(max_attempts)s::int[],
    %(max_lost_leases)s::int[], %(timeout)s::interval[], %(max_concurrency)s::int[], %(queue)s::text[],
    %(retry_backoff)s::interval[], %(max_retry_backoff)s::interval[], %(max_run_tasks)s::int[]
) as r (
    dag_version_id, job_version_id, details, max_attempts, max_lost_leases, timeout, max_concurrency, queue, retry_backoff,
    max_retry_backoff, max_run_tasks
);

-- name: insert_bindings
insert into input_binding (
    dag_version_id, job_version_id, dataset_id, dataset_version_id, trigger, wait, lookback, indirect
)
select dag_version_id, job_version_id, dataset_id, dataset_version_id, trigger, wait, lookback, indirect
from unnest(
    %(dag_version_id)s::uuid[], %(job_version_id)s::uuid[], %(dataset_id)s::text[], %(dataset_version_id)s::uuid[],
    %(trigger)s::boolean[], %(wait)s::boolean[], %(lookback)s::bigint[], %(indirect)s::boolean[]
) as r (dag_version_id, job_version_id, dataset_id, dataset_version_id, trigger, wait, lookback, indirect);

-- name: register_datasets
-- In one order, so that two DAGs that claim the same ones never wait for each other in a circle; what is taken is left as it is.
insert into dataset (dataset_id, folded_id, dag)
select dataset_id, folded_id, dag
from unnest(%(dataset_id)s::text[], %(folded_id)s::text[], %(dag)s::text[]) as r (dataset_id, folded_id, dag)
order by folded_id collate "C"
on conflict do nothing;
