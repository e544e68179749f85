-- What the checker reads of the database, in the order of the fields of its values. Times as seconds since 1970.

-- name: tasks
-- Limits are the highest that any version has set: what was tried under one is not tried too often under another.
select t.task_id::text, t.job_version_id::text, coalesce(t.event_id::text, ''), t.stream_key, t.state::text, t.attempt,
    t.failed_attempts, t.lost_leases, s.max_attempts, s.max_lost_leases,
    extract(epoch from coalesce(t.lease_until, o.lease_until))::float, extract(epoch from t.released_at)::float, t.reason,
    t.scope_first, t.revision, coalesce(n.reruns, 0), s.scheduled, t.scope_kind, t.scope_last
from any_task t
join (
    select job_version_id, max(max_attempts) as max_attempts, max(max_lost_leases) as max_lost_leases,
        job_version_id in (select job_version_id from scheduled_job) as scheduled
    from dag_version_job
    group by job_version_id
) s using (job_version_id)
left join rerun_scope n on n.job_version_id = t.job_version_id and n.scope_kind = t.scope_kind and n.scope_first = t.scope_first
    and n.scope_last = t.scope_last
left join ordered_stream o on t.state = 'running' and o.job_version_id = t.job_version_id and o.stream_key = t.stream_key;

-- name: moved_tasks
select count(*) from finished_task;

-- name: attempts
select task_id::text, attempt, lease_token_digest, extract(epoch from started_at)::float,
    extract(epoch from ended_at)::float, outcome::text
from any_attempt;

-- name: events
select e.event_id::text, v.dataset_id, e.producer_task_id::text, e.scope_kind, e.scope_first, e.scope_last, e.revision,
    e.producer_attempt, e.dataset_version_id::text, coalesce(e.artifact_id::text, ''), e.publication_id::text,
    coalesce(p.number, 0)
from event e
join dataset_version v using (dataset_version_id)
left join publication p using (publication_id, dataset_version_id);

-- name: subscriptions
select s.job_version_id::text, s.input_version_id::text, s.from_number, s.to_number, s.replayed,
    s.job_version_id in (select job_version_id from scheduled_job), j.dag <> d.dag
from subscription s
join job_version j using (job_version_id)
join dataset_version v on v.dataset_version_id = s.input_version_id
join dataset d using (dataset_id);

-- name: artifacts
select artifact_id::text, object_key, dataset_version_id::text, publication_id::text, sha256, size_bytes
from artifact;

-- name: audited
select to_regclass('chaos.task_change') is not null;

-- name: task_changes
select seq, task_id::text, coalesce(before::text, ''), state::text, attempt, coalesce(token_digest, ''::bytea),
    coalesce(request_id::text, ''), extract(epoch from lease_until)::float, stream_epoch,
    extract(epoch from at)::float, extract(epoch from began)::float, txid, job_version_id::text
from chaos.task_change
order by seq;

-- name: stream_changes
select seq, job_version_id::text, stream_key, epoch, coalesce(token_digest, ''::bytea),
    extract(epoch from lease_until)::float, extract(epoch from at)::float, extract(epoch from began)::float
from chaos.stream_change
order by seq;

-- name: watermark_changes
select seq, dataset_version_id::text, cursor_key
from chaos.watermark_change
order by seq;

-- name: written
select seq, kind, id::text, extract(epoch from began)::float, txid, coalesce(version_id::text, ''),
    coalesce(task_id::text, ''), coalesce(attempt, 0), coalesce(name, '')
from chaos.written
order by seq;
