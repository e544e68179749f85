-- Statements of the audit. Rows are only ever added: a trigger refuses everything else.

-- name: record
-- In the transaction that does it. Primary keys of dag_version.
insert into audit (actor, method, action, subject, dags, details, plan_id, from_version, to_version)
select %(actor)s, %(method)s, %(action)s, %(subject)s, %(dags)s::text[], %(details)s,
    coalesce(%(plan_id)s::uuid, (
        select plan_id from dag_version where dag_version_id = coalesce(%(to_version_id)s::uuid, %(from_version_id)s::uuid)
    )),
    (select version from dag_version where dag_version_id = %(from_version_id)s::uuid),
    (select version from dag_version where dag_version_id = %(to_version_id)s::uuid);

-- name: record_refusal
-- Once a minute for the same, and in all no more than `most` a minute: nobody fills a disk by it. Unique index audit_refused_once, by its
-- first column.
insert into audit (actor, method, action, subject, dags, outcome, reason, details, plan_id, to_version)
select %(actor)s, %(method)s, %(action)s, coalesce(d.dag, ''), array_remove(array[d.dag], null), 'refused', %(reason)s, %(details)s,
    coalesce(%(plan_id)s::uuid, v.plan_id), coalesce(v.version, %(to_version)s::bigint)
from (select 1) one
left join dag_version v on v.dag_version_id = %(to_version_id)s::uuid
cross join lateral (select coalesce(%(dag)s::text, v.dag) as dag) d
where (
    select count(*)
    from (
        select 1
        from audit
        where outcome = 'refused' and date_bin('1 minute', at at time zone 'UTC', timestamp '2000-01-01')
            = date_bin('1 minute', clock_timestamp() at time zone 'UTC', timestamp '2000-01-01')
        limit %(most)s
    ) lately
) < %(most)s
on conflict do nothing;

-- name: entries_of_dag
-- Newest first. Index audit_of_dag, or the primary key backwards where most is of the one DAG.
select audit_id, at, actor, method, action, subject, coalesce(dags, array[subject]) as dags, outcome::text, reason,
    coalesce(plan_id::text, details ->> 'plan_id') as plan_id, from_version,
    coalesce(to_version, case when action is null then (details ->> 'version')::bigint end) as to_version,
    coalesce((details ->> 'task_count')::bigint, jsonb_array_length(details -> 'task_ids')) as task_count, details - 'task_ids' as details
from audit
where coalesce(dags, array[subject]) @> array[%(dag)s::text] and (%(before)s::bigint is null or audit_id < %(before)s)
order by audit_id desc
limit %(limit)s;

-- name: removal
-- Who removed a DAG last. Index audit_of_dag.
select actor
from audit
where coalesce(dags, array[subject]) @> array[%(dag)s::text] and method = 'DagService.RemoveDag' and outcome = 'done'
order by audit_id desc
limit 1;
