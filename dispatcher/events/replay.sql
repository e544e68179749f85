-- Statements of replay: retained events become tasks of a consumer that subscribed later. The job version is locked by the caller from
-- the first of them on.

-- name: next_replay
-- A consumer that is owed retained events, of the DAG that comes after the last one's, or again the first; another replica's are skipped.
-- The job version's row is locked, which no switch of a pipeline writes. Index subscription_replaying.
select j.dag, s.job_version_id::text, s.input_version_id::text, s.from_number
from replaying s
join job_version_run r using (job_version_id)
join job_version j using (job_version_id)
where r.run_state in ('running', 'staged')
order by j.dag <= %(last_dag)s, j.dag, s.job_version_id, s.input_version_id
limit 1
for no key update of j skip locked;

-- name: locked_replay
-- How far it is, once its job version is locked. What an earlier interval of the same consumer had, by routing or by its own replay, is not
-- owed again, whether or not the tasks are still to be found. Primary key.
select s.job_version_id::text, s.input_version_id::text, s.from_number, s.replay_key, s.replay_event_id::text,
    coalesce((
        select max(e.to_number)
        from subscription e
        where e.job_version_id = s.job_version_id and e.input_version_id = s.input_version_id and e.from_number < s.from_number
    ), 0) as after_number, s.instead_of_version_id::text
from replaying s
where s.job_version_id = %(job_version_id)s and s.input_version_id = %(input_version_id)s and s.from_number = %(from_number)s;

-- name: replay_events
-- The next page of retained events in scope order, as tasks. Where the version took the place of another one, without those whose scope
-- that one has brought: was routed, or its replay came by, before its subscription ended. An ordered job gets of each scope the highest
-- revision only: what it replaced would be done, and the revision then late. What another version of the dataset has too counts as newer, as
-- in acceptance: `raised` where there is such. Index event_scope, primary key of rerun_scope.
with page as (
    select e.event_id, e.scope_kind, e.scope_first, e.scope_last, e.revision
    from event e
    join publication p using (publication_id, dataset_version_id)
    where e.dataset_version_id = %(input_version_id)s and p.number > %(after_number)s and p.number <= %(from_number)s
        and (%(replay_key)s::bytea is null or (e.scope_first, e.event_id) > (%(replay_key)s, %(replay_event_id)s::uuid))
    order by e.scope_first, e.event_id
    limit %(limit)s
), other as (
    -- Of a dataset of another DAG, whose pointer moved; elsewhere there is none.
    select distinct f.input_version_id
    from subscription f
    join dataset_version w on w.dataset_version_id = f.input_version_id
    where f.job_version_id = %(job_version_id)s and f.input_version_id <> %(input_version_id)s
        and w.dataset_id = (select v.dataset_id from dataset_version v where v.dataset_version_id = %(input_version_id)s)
), owed as (
    select p.*
    from page p
    join job_version j on j.job_version_id = %(job_version_id)s
    where (not j.ordered or not exists (
        select 1
        from event n
        join publication q using (publication_id, dataset_version_id)
        where n.dataset_version_id = %(input_version_id)s and n.scope_first = p.scope_first and n.scope_last = p.scope_last
            and n.scope_kind = p.scope_kind and n.revision > p.revision and q.number <= %(from_number)s
    )) and (%(instead_of_version_id)s::uuid is null or not exists (
        select 1
        from event o
        join publication q using (publication_id, dataset_version_id)
        cross join lateral (
            select q.number > u.from_number or u.replayed or (o.scope_first, o.event_id) <= (u.replay_key, u.replay_event_id) as brought
            from subscription u
            where u.job_version_id = %(job_version_id)s and u.input_version_id = %(instead_of_version_id)s
                and (u.to_number is null or q.number <= u.to_number)
            order by u.from_number
            limit 1
        ) i
        where o.dataset_version_id = %(instead_of_version_id)s and o.scope_first = p.scope_first and o.scope_last = p.scope_last
            and o.scope_kind = p.scope_kind and o.revision >= p.revision and i.brought
    ))
), replacing as (
    insert into rerun_scope (job_version_id, scope_kind, scope_first, scope_last, reruns)
    select %(job_version_id)s::uuid, p.scope_kind, p.scope_first, p.scope_last, max(h.revision - p.revision) + 1
    from other f
    cross join owed p
    cross join lateral (
        select max(e.revision) as revision
        from event e
        where e.dataset_version_id = f.input_version_id and e.scope_first = p.scope_first and e.scope_last = p.scope_last
            and e.scope_kind = p.scope_kind and e.revision >= p.revision and not exists (
                -- What its own version has replaced does not count as newer than that, which may have its task already.
                select 1
                from event n
                where n.dataset_version_id = %(input_version_id)s and n.scope_first = p.scope_first and n.scope_last = p.scope_last
                    and n.scope_kind = p.scope_kind and n.revision > p.revision
            )
    ) h
    where h.revision is not null
    group by p.scope_kind, p.scope_first, p.scope_last
    order by p.scope_first, p.scope_last, p.scope_kind
    on conflict (job_version_id, scope_first, scope_last, scope_kind) do update set reruns = rerun_scope.reruns + excluded.reruns
    returning scope_kind, scope_first, scope_last, reruns
), made as (
    insert into task (
        task_id, job_version_id, event_id, origin, stream_key, scope_kind, scope_first, scope_last, revision
    )
    select uuidv7(), j.job_version_id, p.event_id, 'replay', case when j.ordered then '' end, p.scope_kind, p.scope_first,
        p.scope_last, p.revision + case
            when n.reruns is not null then n.reruns
            when j.rerun or %(instead_of_version_id)s::uuid is not null or exists (select from other) then coalesce((
                select r.reruns
                from rerun_scope r
                where r.job_version_id = j.job_version_id and r.scope_first = p.scope_first and r.scope_last = p.scope_last
                    and r.scope_kind = p.scope_kind
            ), 0)
            else 0
        end
    from owed p
    join job_version j on j.job_version_id = %(job_version_id)s
    left join replacing n using (scope_first, scope_last, scope_kind)
    order by p.scope_first, p.event_id
    on conflict do nothing
)
select scope_first as key, event_id::text, exists (select from replacing) as raised
from page
order by scope_first desc, event_id desc
limit 1;

-- name: note_replay
-- Remembers the page; without a further one the replay has ended. A page that counts as newer than what another version has is not kept
-- where its own is not served any more, by now: what the served one has made meanwhile would be behind it. Primary key.
update subscription
set replay_key = coalesce(%(replay_key)s, replay_key), replay_event_id = coalesce(%(replay_event_id)s, replay_event_id),
    replayed = %(replayed)s
where job_version_id = %(job_version_id)s and input_version_id = %(input_version_id)s and from_number = %(from_number)s
    and (not %(raised)s or exists (
        select 1
        from replaying r
        where r.job_version_id = %(job_version_id)s and r.input_version_id = %(input_version_id)s and r.from_number = %(from_number)s
    ));
