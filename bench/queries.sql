-- What the benches ask the system database. Times are the database's.

-- name: unfinished
-- Whether a job of the DAG has a task that is neither done nor given up. Indexes task_queued and task_open, one for each question.
select (select true from task t where t.job_version_id = j.job_version_id and t.state = 'queued' limit 1) is true
    or (
        select true from task t
        where t.job_version_id = j.job_version_id and t.state in ('released', 'running', 'backoff', 'dead')
        limit 1
    ) is true
from job_version j
where j.dag = %(dag)s and j.job = %(job)s;

-- name: finished
-- How many tasks of a job succeeded about cursors from the first, and in how many seconds from the first of their events.
select count(*) filter (where t.state = 'succeeded'),
    coalesce(extract(epoch from max(t.finished_at) - min(e.accepted_at))::float, 0)
from any_task t
join job_version j using (job_version_id)
join event e using (event_id)
where j.dag = %(dag)s and j.job = %(job)s and t.scope_first >= %(first)s;

-- name: floor_job
-- The job `work` of a DAG, its input, its output, and the ended run of its source.
select w.job_version_id::text, t.task_id::text, i.dataset_version_id::text, o.dataset_version_id::text
from job_version w
join job_version s on s.dag = w.dag and s.job = 'source'
join any_task t on t.job_version_id = s.job_version_id and t.state = 'succeeded'
join job_output i on i.job_version_id = s.job_version_id
join job_output o on o.job_version_id = w.job_version_id
where w.dag = %(dag)s and w.job = 'work';

-- name: starts
-- Of each task of a DAG its scope, its job, when its event was accepted, and when its operator began: `noop` says that in the time of the
-- event that it emits. In seconds.
select t.scope_first, j.job, extract(epoch from e.accepted_at)::float, extract(epoch from b.event_time)::float
from job_version j
join any_task t using (job_version_id)
join event e using (event_id)
join event b on b.producer_task_id = t.task_id
where j.dag = %(dag)s
order by t.scope_first, e.accepted_at;

-- name: fanned_out
-- Seconds from the event of a DAG's job `fan` to the end of its task, once it has succeeded.
select extract(epoch from t.finished_at - e.accepted_at)::float
from job_version j
join any_task t using (job_version_id)
join event e using (event_id)
where j.dag = %(dag)s and j.job = 'fan' and t.state = 'succeeded';

-- name: parts
-- What the job `fan` has emitted so far: events, distinct ones, and tasks of `work`.
select count(*), count(distinct e.scope_first), count(t.task_id)
from job_version f
join job_output o using (job_version_id)
join event e using (dataset_version_id)
left join job_version w on w.dag = f.dag and w.job = 'work'
left join any_task t on t.job_version_id = w.job_version_id and t.event_id = e.event_id
where f.dag = %(dag)s and f.job = 'fan';

-- name: backlog
-- So many tasks of the job `work`, queued as a backfill would: their events are accepted in one publication, of the run of the source.
with job as (
    select w.job_version_id, i.dataset_version_id, t.task_id
    from job_version w
    join job_version s on s.dag = w.dag and s.job = 'source'
    join any_task t on t.job_version_id = s.job_version_id and t.state = 'succeeded'
    join job_output i on i.job_version_id = s.job_version_id
    where w.dag = %(dag)s and w.job = 'work'
), counted as (
    update task t
    set accepted_events = t.accepted_events + %(tasks)s
    from job
    where t.task_id = job.task_id
), head as (
    update dataset_head h
    set number = h.number + 1, event_count = h.event_count + %(tasks)s
    from job
    where h.dataset_version_id = job.dataset_version_id
    returning h.dataset_version_id, h.number
), published as (
    insert into publication (publication_id, dataset_version_id, number, event_count)
    select uuidv7(), dataset_version_id, number, %(tasks)s::int from head
    returning publication_id
), made as (
    insert into event (
        event_id, dataset_version_id, producer_task_id, producer_attempt, scope_kind, scope_first, scope_last, revision,
        payload_digest, publication_id, origin
    )
    select uuidv7(), job.dataset_version_id, job.task_id, 1, 1, k.key, k.key, 0, sha256(''), p.publication_id, 'backfill'
    from job
    cross join published p
    cross join lateral (
        select int8send(n # (-9223372036854775808)) as key from generate_series(1, %(tasks)s::bigint) as n
    ) k
    returning event_id, scope_first
)
insert into task (task_id, job_version_id, event_id, origin, scope_kind, scope_first, scope_last)
select uuidv7(), job.job_version_id, m.event_id, 'backfill', 1, m.scope_first, m.scope_first
from job
cross join made m;

-- name: queued
-- How many tasks of the job `work` wait. Index task_queued.
select count(*)
from job_version j
join task t using (job_version_id)
where j.dag = %(dag)s and j.job = 'work' and t.state = 'queued';

-- name: stand_in
-- A further run of a DAG's source, which no worker gets: the producer of what a script has accepted. The source's own may have been moved.
insert into task (task_id, job_version_id, origin, scope_first, scope_last, state, attempt, reason, finished_at)
select %(task_id)s, job_version_id, 'source_run', '', '', 'dead', 0, 'it only stands for a source', clock_timestamp()
from job_version
where dag = %(dag)s and job = 'source';

-- name: kept_waiting
-- Finished tasks that the dispatcher has yet to move. Index task_finished.
select exists (select 1 from task where state in ('succeeded', 'canceled', 'skipped'));

-- name: hold_back
-- For as long as the session lives no dispatcher moves finished tasks.
select pg_advisory_lock(%(key)s);

-- name: unmoved
-- How many finished tasks are still among the live ones. Index task_finished.
select count(*) from task where state in ('succeeded', 'canceled', 'skipped');

-- name: sizes
-- Bytes of the hot tables, and of all indexes of each.
select pg_table_size('task'), pg_indexes_size('task'), pg_table_size('attempt'), pg_indexes_size('attempt');

-- name: index_sizes
-- Bytes of each index of the hot tables.
select indexrelname, pg_relation_size(indexrelid) from pg_stat_user_indexes where relname in ('task', 'attempt');

-- name: tasks_of
-- Tasks of the job `work` that succeeded, wherever they are, distinct ones, what is counted of moved ones, and their attempts.
select count(*), count(distinct t.event_id),
    (select coalesce(sum(c.tasks), 0)::bigint from finished_count c where c.job_version_id = %(job_version_id)s),
    (select count(*) from any_attempt a join any_task t using (task_id) where t.job_version_id = %(job_version_id)s)
from any_task t
where t.job_version_id = %(job_version_id)s and t.state = 'succeeded';
