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
where d.dag = %(dag)s;

-- name: get_version
select v.dag_version_id::text, v.dag, v.version, v.state::text, v.deploy_number, v.actor, v.created_at, v.active_at, v.spec,
    v.spec_digest
from dag_version v
where v.dag_version_id = %(dag_version_id)s;

-- name: list_versions
select v.dag_version_id::text, v.dag, v.version, v.state::text, v.deploy_number, v.actor, v.created_at, v.active_at, v.spec,
    v.spec_digest
from dag_version v
where v.dag = %(dag)s and (%(before)s::bigint is null or v.version < %(before)s)
order by v.version desc
limit %(limit)s;

-- name: list_dags
select d.dag, v.version, v.active_at,
    (select count(*) from dag_version_job s where s.dag_version_id = v.dag_version_id) as job_count,
    exists (select 1 from pause p where p.dag = d.dag) as paused
from dag d
join dag_version v on v.dag_version_id = d.active_version_id
where (%(dag)s::text is null or d.dag = %(dag)s) and (%(after)s::text is null or d.dag > %(after)s)
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
-- Events accepted in datasets of the DAG's sources, from the producers' own counts. Index task_cause has no source runs, so the few
-- rows come by job version.
select coalesce(sum(t.accepted_events), 0)::bigint
from task t
join job_version j using (job_version_id)
where j.dag = %(dag)s and j.kind = 'source' and t.origin = 'source_run';

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
        or exists (select 1 from subscription u where u.job_version_id = s.job_version_id and not u.replayed)
    )
);

-- name: insert_dag
insert into dag (dag, actor) values (%(dag)s, %(actor)s);

-- name: next_deploy_number
update deploy_counter set deploy_number = deploy_number + 1 returning deploy_number;

-- name: insert_version
insert into dag_version (dag_version_id, dag, version, spec, spec_digest, state, deploy_number, actor, active_at)
values (%(dag_version_id)s, %(dag)s, %(version)s, %(spec)s, %(spec_digest)s, 'active', %(deploy_number)s, %(actor)s,
    clock_timestamp());

-- name: activate
update dag set active_version_id = %(dag_version_id)s where dag = %(dag)s;

-- name: insert_job_version
insert into job_version (job_version_id, dag, job, kind, operator, ordered, late_scopes, fingerprint, canon_version)
values (%(job_version_id)s, %(dag)s, %(job)s, %(kind)s::job_kind, %(operator)s, %(ordered)s, %(late_scopes)s::late_scopes,
    %(fingerprint)s, %(canon_version)s);

-- name: insert_run_state
insert into job_version_run (job_version_id, run_state, actor) values (%(job_version_id)s, 'running', %(actor)s);

-- name: insert_version_job
insert into dag_version_job (
    dag_version_id, job_version_id, details, max_attempts, max_lost_leases, timeout, max_concurrency, queue, retry_backoff,
    max_retry_backoff, max_run_tasks
)
values (%(dag_version_id)s, %(job_version_id)s, %(details)s, %(max_attempts)s, %(max_lost_leases)s, %(timeout)s,
    %(max_concurrency)s, %(queue)s, %(retry_backoff)s, %(max_retry_backoff)s, %(max_run_tasks)s);

-- name: insert_dataset
insert into dataset (dataset_id, folded_id, dag) values (%(dataset_id)s, %(folded_id)s, %(dag)s) on conflict do nothing;

-- name: dataset_owner
select dataset_id, dag from dataset where folded_id = %(folded_id)s;

-- name: insert_dataset_version
insert into dataset_version (
    dataset_version_id, dataset_id, fingerprint, spec, virtual_sql, cursor_type, stored, schema_digest, schema
)
values (%(dataset_version_id)s, %(dataset_id)s, %(fingerprint)s, %(spec)s, %(virtual_sql)s, %(cursor_type)s, %(stored)s,
    %(schema_digest)s, %(schema)s);

-- name: insert_head
insert into dataset_head (dataset_version_id) values (%(dataset_version_id)s);

-- name: insert_pointer
insert into pointer (dataset_id, dataset_version_id, deploy_number)
values (%(dataset_id)s, %(dataset_version_id)s, %(deploy_number)s);

-- name: insert_pointer_history
insert into pointer_history (dataset_id, from_deploy, dataset_version_id)
values (%(dataset_id)s, %(deploy_number)s, %(dataset_version_id)s);

-- name: insert_job_output
insert into job_output (job_version_id, dataset_version_id) values (%(job_version_id)s, %(dataset_version_id)s);

-- name: insert_virtual_dependency
insert into virtual_dependency (dataset_version_id, dependency_id) values (%(dataset_version_id)s, %(dependency_id)s);

-- name: insert_binding
insert into input_binding (
    dag_version_id, job_version_id, dataset_id, dataset_version_id, trigger, wait, lookback, indirect
)
values (%(dag_version_id)s, %(job_version_id)s, %(dataset_id)s, %(dataset_version_id)s, %(trigger)s, %(wait)s, %(lookback)s,
    %(indirect)s);

-- name: subscribe
-- Opened under the exclusive lock, so the head cannot move: at or below it is replay's, above it routing's.
insert into subscription (job_version_id, input_version_id, from_number, replayed)
select %(job_version_id)s, dataset_version_id, number, number = 0
from dataset_head
where dataset_version_id = %(dataset_version_id)s;

-- name: insert_source_run
-- It has no scope; empty keys stand before all others.
insert into task (task_id, job_version_id, origin, scope_first, scope_last)
values (%(task_id)s, %(job_version_id)s, 'source_run', '', '');

-- name: served_version
select dataset_version_id::text from pointer where dataset_id = %(dataset_id)s;

-- name: pause
-- A DAG as a whole is the job ''. Repeated, it changes nothing.
insert into pause (dag, job, actor)
select %(dag)s, job, %(actor)s from unnest(%(jobs)s::text[]) as p (job)
on conflict do nothing;

-- name: resume
-- Where no job is named, the DAG as a whole and every job of it.
delete from pause where dag = %(dag)s and (%(jobs)s::text[] is null or job = any(%(jobs)s::text[]));

-- name: answered_deploy
-- What a deploy call was answered with before. Primary key.
select v.dag_version_id::text, v.dag, v.version, v.state::text, v.deploy_number, v.actor, v.created_at, v.active_at, v.spec,
    v.spec_digest
from deploy_request q
join dag_version v using (dag_version_id)
where q.request_id = %(request_id)s;

-- name: answer_deploy
-- Answers nothing where another call took the id meanwhile.
insert into deploy_request (request_id, dag_version_id, actor)
values (%(request_id)s, %(dag_version_id)s, %(actor)s)
on conflict do nothing
returning request_id;
