-- Statements of acceptance. The producers' tasks and streams are locked by the caller, so nobody else writes under their keys.

-- name: share_dags
-- Acceptance holds the DAG's lock shared, subscription changes hold it exclusively (MECHANICS 3); both in the order of the keys.
select pg_advisory_xact_lock_shared(%(class)s, key)
from (
    select distinct hashtext(dag) as key from job_version where job_version_id = any(%(job_version_ids)s::uuid[]) order by 1
) k;

-- name: job_outputs
-- What job versions produce. Never changes but for the frozen schema.
select o.job_version_id::text, j.dag, j.job, j.kind::text, j.ordered, v.dataset_id, v.dataset_version_id::text,
    v.cursor_type, v.stored, v.spec, v.schema_digest
from job_output o
join job_version j using (job_version_id)
join dataset_version v using (dataset_version_id)
where o.job_version_id = any(%(job_version_ids)s::uuid[]);

-- name: consumers
-- How many rows an event of each version makes at most: a task for each consumer, and one more where it followed a pointer. Read under the
-- DAGs' locks, so it stays so until the commit. Index subscription_open.
select u.input_version_id::text, (count(*) + count(u.instead_of_version_id))::int
from job_output o
join subscription u on u.input_version_id = o.dataset_version_id and u.to_number is null
where o.job_version_id = any(%(job_version_ids)s::uuid[])
group by u.input_version_id;

-- name: taken_spans
-- Of the scopes from a producer's first new key of a dataset version to its last, whether events of it stand among them. Index event_key.
select k.position
from unnest(%(version_ids)s::uuid[], %(task_ids)s::uuid[], %(firsts)s::bytea[], %(lasts)s::bytea[]) with ordinality
    as k (version_id, task_id, scope_first, scope_last, position)
cross join lateral (
    select
    from event e
    where e.dataset_version_id = k.version_id and e.producer_task_id = k.task_id
        and e.scope_first between k.scope_first and k.scope_last
    limit 1
) taken;

-- name: existing_events
-- Events under the keys that are about to be taken. Index event_key.
select k.position, e.event_id::text, e.producer_attempt, e.payload_digest
from unnest(
    %(version_ids)s::uuid[], %(task_ids)s::uuid[], %(firsts)s::bytea[], %(lasts)s::bytea[], %(kinds)s::smallint[],
    %(revisions)s::bigint[]
) with ordinality as k (version_id, task_id, scope_first, scope_last, scope_kind, revision, position)
join event e
    on e.dataset_version_id = k.version_id and e.producer_task_id = k.task_id and e.scope_first = k.scope_first
    and e.scope_last = k.scope_last and e.scope_kind = k.scope_kind and e.revision = k.revision;

-- name: existing_artifacts
-- Artifacts under the keys that are about to be taken. Unique index of object_key.
select object_key, artifact_id::text, sha256, size_bytes
from artifact
where object_key = any(%(object_keys)s::text[]);

-- name: nearest_artifacts
-- For each new artifact the visible one that starts at or before its end: as visible ones of a `replace` dataset never overlap in
-- part, only this one can overlap it. Index artifact_scope.
select k.position, a.scope_first, a.scope_last
from unnest(%(version_ids)s::uuid[], %(firsts)s::bytea[], %(lasts)s::bytea[]) with ordinality
    as k (version_id, scope_first, scope_last, position)
cross join lateral (
    select scope_first, scope_last
    from artifact
    where dataset_version_id = k.version_id and scope_first <= k.scope_last and removed_publication_id is null
        and scope_kind <> 3
    order by scope_first desc, scope_last desc
    limit 1
) a;

-- name: lock_unfrozen
-- Versions whose columns the first commit will freeze: locked in their order, so that one of two rivals sees the other's. Primary key.
select dataset_version_id::text, schema_digest
from dataset_version
where dataset_version_id = any(%(version_ids)s::uuid[])
order by dataset_version_id
for no key update;

-- name: freeze_schemas
-- The first accepted artifact of an undeclared dataset says what its columns are, and their order where its SQL has not said so before; the
-- caller holds the row's lock.
update dataset_version v
set schema_digest = f.schema_digest, schema = f.schema,
    column_order = case
        when v.schema is not null and v.column_order is null then null  -- of before orders were kept: by name
        when v.column_order <@ f.column_order and v.column_order @> f.column_order then v.column_order
        else f.column_order
    end
from unnest(%(version_ids)s::uuid[], %(schema_digests)s::bytea[], %(schemas)s::jsonb[], %(column_orders)s::jsonb[])
    as f (dataset_version_id, schema_digest, schema, column_order)
where v.dataset_version_id = f.dataset_version_id and v.schema_digest is null;

-- name: insert_artifacts
insert into artifact (
    artifact_id, dataset_version_id, object_key, producer_task_id, producer_attempt, scope_kind, scope_first, scope_last,
    revision, row_count, size_bytes, sha256, schema_digest, publication_id
)
select artifact_id, version_id, object_key, task_id, attempt, scope_kind, scope_first, scope_last, revision, row_count,
    size_bytes, sha256, schema_digest, %(publication_id)s
from unnest(
    %(artifact_ids)s::uuid[], %(version_ids)s::uuid[], %(object_keys)s::text[], %(task_ids)s::uuid[], %(attempts)s::int[],
    %(kinds)s::smallint[], %(firsts)s::bytea[], %(lasts)s::bytea[], %(revisions)s::bigint[], %(row_counts)s::bigint[],
    %(sizes)s::bigint[], %(sha256s)s::bytea[], %(schema_digests)s::bytea[]
) as a (
    artifact_id, version_id, object_key, task_id, attempt, scope_kind, scope_first, scope_last, revision, row_count,
    size_bytes, sha256, schema_digest
);

-- name: insert_events
-- Events, and in the same statement one task per event and subscribed job version. Where a consumer was told to run scopes again, or
-- followed a pointer, its revisions are ahead of its events' by as much; elsewhere nothing is looked for. The arrays are joined with nothing:
-- their lengths are not in a plan that is kept, and it would go through one for each element of the other. Indexes subscription_open, primary
-- key of rerun_scope.
with accepted as (
    -- What the events of an emit have in common is sent once, and found by its place: that is no join.
    select e.event_id, (%(version_ids)s::uuid[])[e.part] as version_id, (%(task_ids)s::uuid[])[e.part] as task_id,
        (%(attempts)s::int[])[e.part] as attempt, (%(kinds)s::smallint[])[e.part] as scope_kind, e.scope_first,
        coalesce(e.scope_last, e.scope_first) as scope_last, (%(revisions)s::bigint[])[e.part] as revision, e.artifact_id,
        e.digest, e.manifest, e.event_time, (%(origins)s::task_origin[])[e.part] as origin, e.position
    from unnest(
        %(event_ids)s::uuid[], %(parts)s::int[], %(firsts)s::bytea[], %(lasts)s::bytea[], %(artifact_ids)s::uuid[],
        %(digests)s::bytea[], %(manifests)s::bytea[], %(event_times)s::timestamptz[]
    ) with ordinality as e (event_id, part, scope_first, scope_last, artifact_id, digest, manifest, event_time, position)
), events as (
    insert into event (
        event_id, dataset_version_id, producer_task_id, producer_attempt, scope_kind, scope_first, scope_last, revision,
        artifact_id, payload_digest, publication_id, manifest, event_time, origin
    )
    select event_id, version_id, task_id, attempt, scope_kind, scope_first, scope_last, revision, artifact_id, digest,
        %(publication_id)s, manifest, event_time, origin
    from accepted
), replacing as (
    -- Of a dataset of another DAG whose pointer moved: what a consumer has had of another version comes again, and is the newer one.
    insert into rerun_scope (job_version_id, scope_kind, scope_first, scope_last, reruns)
    select s.job_version_id, a.scope_kind, a.scope_first, a.scope_last, max(o.revision - a.revision) + 1
    from accepted a
    join subscription s on s.input_version_id = a.version_id and s.to_number is null and s.instead_of_version_id is not null
    cross join lateral (
        select max(e.revision) as revision
        from subscription f
        join dataset_version w on w.dataset_version_id = f.input_version_id
        join event e on e.dataset_version_id = f.input_version_id and e.scope_first = a.scope_first and e.scope_last = a.scope_last
            and e.scope_kind = a.scope_kind and e.revision >= a.revision
        where f.job_version_id = s.job_version_id and f.input_version_id <> a.version_id
            and w.dataset_id = (select v.dataset_id from dataset_version v where v.dataset_version_id = a.version_id)
    ) o
    where o.revision is not null
    group by s.job_version_id, a.scope_kind, a.scope_first, a.scope_last
    order by s.job_version_id, a.scope_first, a.scope_last, a.scope_kind
    on conflict (job_version_id, scope_first, scope_last, scope_kind) do update set reruns = rerun_scope.reruns + excluded.reruns
    returning job_version_id, scope_kind, scope_first, scope_last, reruns
)
insert into task (
    task_id, job_version_id, event_id, origin, stream_key, scope_kind, scope_first, scope_last, revision
)
select uuidv7(), s.job_version_id, a.event_id, a.origin, case when j.ordered then '' end, a.scope_kind, a.scope_first,
    a.scope_last, a.revision + case when j.rerun or s.instead_of_version_id is not null then coalesce((
        select n.reruns
        from replacing n
        where n.job_version_id = s.job_version_id and n.scope_first = a.scope_first and n.scope_last = a.scope_last
            and n.scope_kind = a.scope_kind
    ), (
        select r.reruns
        from rerun_scope r
        where r.job_version_id = s.job_version_id and r.scope_first = a.scope_first and r.scope_last = a.scope_last
            and r.scope_kind = a.scope_kind
    ), 0) else 0 end
from accepted a
join subscription s on s.input_version_id = a.version_id and s.to_number is null
join job_version j using (job_version_id)
order by a.position;

-- name: record_emits
-- What the producers' rows remember. A source run that makes progress has its failures forgiven.
update task t
set accepted_events = t.accepted_events + e.accepted, nondeterministic = t.nondeterministic or e.differs,
    run_emitted = t.run_emitted or t.stream_epoch is not null,
    failed_attempts = case when t.origin = 'source_run' and e.accepted > 0 then 0 else t.failed_attempts end,
    lost_leases = case when t.origin = 'source_run' and e.accepted > 0 then 0 else t.lost_leases end
from unnest(%(task_ids)s::uuid[], %(accepted)s::int[], %(differs)s::boolean[]) as e (task_id, accepted, differs)
where t.task_id = e.task_id;

-- name: record_refusals
-- A refused emit refuses the success of the same attempt, also in a later call.
update task t
set refused_attempt = t.attempt
where t.task_id = any(%(task_ids)s::uuid[]) and t.state = 'running';

-- name: write_states
-- Compare-and-set was judged on rows that the caller's locks keep still.
insert into operator_state (job_version_id, stream_key, data, version)
select job_version_id, stream_key, data, version
from unnest(%(job_version_ids)s::uuid[], %(stream_keys)s::text[], %(datas)s::bytea[], %(versions)s::bigint[])
    as s (job_version_id, stream_key, data, version)
order by job_version_id, stream_key
on conflict (job_version_id, stream_key)
do update set data = excluded.data, version = excluded.version, updated_at = clock_timestamp();

-- name: watermarks
-- Where dataset versions are complete.
select dataset_version_id::text, cursor_key
from watermark
where dataset_version_id = any(%(version_ids)s::uuid[]);

-- name: move_watermarks
-- Never back, whatever two writers think at once.
insert into watermark (dataset_version_id, cursor_key)
select version_id, cursor_key
from unnest(%(version_ids)s::uuid[], %(cursor_keys)s::bytea[]) as w (version_id, cursor_key)
order by version_id
on conflict (dataset_version_id)
do update set cursor_key = excluded.cursor_key, moved_at = clock_timestamp()
where watermark.cursor_key < excluded.cursor_key
returning dataset_version_id::text;

-- name: publish
-- The last step before COMMIT: it takes the head rows, in their order, so numbers are in commit order (MECHANICS 4). A transaction has
-- one publication per version; more only where the batcher had to search it for a bad operation. Counts the events along with it.
with wanted as (
    select version_id, publication_id, event_count, row_number() over (partition by version_id order by publication_id) as place
    from unnest(%(version_ids)s::uuid[], %(publication_ids)s::uuid[], %(event_counts)s::int[])
        as w (version_id, publication_id, event_count)
), heads as (
    update dataset_head h
    set number = h.number + k.publications, event_count = h.event_count + k.events
    from (
        select l.dataset_version_id, c.publications, c.events
        from (
            select dataset_version_id from dataset_head
            where dataset_version_id = any(%(version_ids)s::uuid[])
            order by dataset_version_id
            for no key update
        ) l
        join (
            select version_id, count(*) as publications, sum(event_count) as events from wanted group by version_id
        ) c on c.version_id = l.dataset_version_id
    ) k
    where h.dataset_version_id = k.dataset_version_id
    returning h.dataset_version_id, h.number - k.publications as before
)
insert into publication (publication_id, dataset_version_id, number, event_count)
select w.publication_id, w.version_id, h.before + w.place, w.event_count
from wanted w
join heads h on h.dataset_version_id = w.version_id;

-- name: remove_replaced
-- Of the artifacts of one extent the one of the highest (revision, publication) stays visible, whatever arrived last. Only after the
-- head rows are taken: a rival's artifact of the same extent is committed by now, or comes after. Index artifact_scope.
with extent as (
    select distinct dataset_version_id, scope_first, scope_last
    from artifact
    where artifact_id = any(%(artifact_ids)s::uuid[])
), ranked as (
    select a.artifact_id, a.dataset_version_id,
        row_number() over (
            partition by a.dataset_version_id, a.scope_first, a.scope_last
            order by a.revision desc, p.number desc, a.artifact_id desc
        ) as place
    from extent e
    join artifact a using (dataset_version_id, scope_first, scope_last)
    join publication p using (publication_id, dataset_version_id)
    where a.removed_publication_id is null
)
update artifact old
set removed_publication_id = n.publication_id
from ranked r
join unnest(%(version_ids)s::uuid[], %(publication_ids)s::uuid[]) as n (version_id, publication_id)
    on n.version_id = r.dataset_version_id
where old.artifact_id = r.artifact_id and r.place > 1;

-- name: overlapping_artifacts
-- After the head rows are taken no rival can commit to these versions, so what is seen here is all there is. Index artifact_scope.
select n.object_key
from artifact n
cross join lateral (
    select a.scope_last
    from artifact a
    where a.dataset_version_id = n.dataset_version_id and a.scope_first <= n.scope_last and a.scope_kind <> 3
        and a.removed_publication_id is null and (a.scope_first, a.scope_last) <> (n.scope_first, n.scope_last)
    order by a.scope_first desc, a.scope_last desc
    limit 1
) rival
where n.artifact_id = any(%(artifact_ids)s::uuid[]) and n.scope_kind <> 3 and rival.scope_last >= n.scope_first
limit 1;

-- name: derived_watermarks
-- For job versions that do not declare their own: how far their inputs are complete, and the first scope that is not done. A job that
-- is still owed retained events has no answer: tasks may yet appear anywhere. What is run again where the output was complete already does
-- not make it less so, and is not read, however much of it waits. Indexes task_queued, task_open.
with job as (
    select j.job_version_id, min(w.cursor_key) as covered, min(i.cursor_type) as cursor_type
    from scheduled_job s
    join job_version j using (job_version_id)
    join input_binding b on b.dag_version_id = s.dag_version_id and b.job_version_id = j.job_version_id and b.trigger
    join dataset_version i on i.dataset_version_id = b.dataset_version_id
    left join watermark w on w.dataset_version_id = b.dataset_version_id
    where j.kind = 'operator' and not j.ordered
        and not exists (select 1 from replaying u where u.job_version_id = j.job_version_id)
    group by j.job_version_id
    having count(*) = count(w.cursor_key)
)
select job.job_version_id::text, job.covered, open.scope_first as first_open, o.dataset_version_id::text, v.cursor_type,
    own.cursor_key as present,
    (
        select count(*)
        from job_output p
        join scheduled_job s using (job_version_id)
        where p.dataset_version_id = o.dataset_version_id
    ) as producers
from job
join job_output o using (job_version_id)
join dataset_version v on v.dataset_version_id = o.dataset_version_id and v.cursor_type = job.cursor_type
left join watermark own on own.dataset_version_id = o.dataset_version_id
left join lateral (
    select min(scope_first) as scope_first
    from (
        (
            select q.scope_first
            from unnest(enum_range(null::task_origin)) as k (origin)
            cross join lateral (
                select scope_first from task t
                where t.job_version_id = job.job_version_id and t.origin = k.origin and t.state = 'queued'
                    and t.scope_first >= case when k.origin = 'backfill' then coalesce(own.cursor_key, ''::bytea) else ''::bytea end
                    and (k.origin <> 'backfill' or t.scope_first is distinct from own.cursor_key)
                order by scope_first limit 1
            ) q
        )
        union all
        (
            select scope_first from task t
            where t.job_version_id = job.job_version_id and t.state in ('released', 'running', 'backoff', 'dead')
                and (t.origin <> 'backfill' or own.cursor_key is null or t.scope_first > own.cursor_key)
            order by scope_first limit 1
        )
    ) u
) open on true
where own.cursor_key is distinct from job.covered
order by o.dataset_version_id;

-- name: find_events
-- Newest first. Primary key, backwards, with filters.
select e.event_id::text, v.dataset_id, e.dataset_version_id::text, v.cursor_type, e.scope_kind, e.scope_first, e.scope_last,
    e.revision, e.producer_task_id::text, e.producer_attempt, e.artifact_id::text, p.number as publication_number,
    e.manifest, e.event_time,
    e.origin::text as event_origin, e.accepted_at
from event e
join dataset_version v using (dataset_version_id)
join publication p using (publication_id, dataset_version_id)
where (%(before)s::uuid is null or e.event_id < %(before)s)
    and (%(dataset_id)s::text is null or v.dataset_id = %(dataset_id)s)
    and (%(first)s::bytea is null or (e.scope_first <= %(last)s and e.scope_last >= %(first)s))
order by e.event_id desc
limit %(limit)s;

-- name: events_of_task
-- What a task caused, newest first. Its job's outputs name the dataset versions, so that index event_key serves.
select e.event_id::text, v.dataset_id, e.dataset_version_id::text, v.cursor_type, e.scope_kind, e.scope_first, e.scope_last,
    e.revision, e.producer_task_id::text, e.producer_attempt, e.artifact_id::text, p.number as publication_number,
    e.manifest, e.event_time,
    e.origin::text as event_origin, e.accepted_at
from any_task t
join job_output o using (job_version_id)
join event e on e.dataset_version_id = o.dataset_version_id and e.producer_task_id = t.task_id
join dataset_version v on v.dataset_version_id = e.dataset_version_id
join publication p on p.publication_id = e.publication_id and p.dataset_version_id = e.dataset_version_id
where t.task_id = %(task_id)s
order by e.event_id desc
limit %(limit)s;
