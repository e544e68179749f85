-- Scopes can be run again: further tasks of one event and job version, told apart by their revision.

-- Weaker than the key that it replaces, so a program that knows only that one goes on.
create unique index task_cause_revision on task (job_version_id, event_id, revision) where event_id is not null;
drop index task_cause;
alter index task_cause_revision rename to task_cause;

-- How often a job version was told to run a scope again. A task's revision is that of its event and this number: so what is made later
-- has the higher one, whether the job or something upstream of it was run again.
create table rerun_scope (
    job_version_id uuid not null,
    scope_kind smallint not null,
    scope_first bytea not null,
    scope_last bytea not null,
    reruns bigint not null check (reruns >= 1),
    primary key (job_version_id, scope_first, scope_last, scope_kind)
);

-- Whether there are any of it: acceptance looks for them nowhere else.
alter table job_version add column rerun boolean not null default false;

-- What a page of a request was answered with, for when it is asked for again.
create table rerun_page (
    request_id uuid not null,
    page_token text not null,
    request_digest bytea not null check (octet_length(request_digest) = 32),
    task_count int not null,
    next_page_token text not null,
    actor text not null,
    answered_at timestamptz not null default clock_timestamp(),
    primary key (request_id, page_token)
);

-- What a job version of an active DAG version can be run for again: the newest events of a scope of what triggers it, unless a task of one
-- of them has not ended.
create view rerunnable as
select b.job_version_id, e.event_id, e.dataset_version_id, e.scope_kind, e.scope_first, e.scope_last, e.revision
from dag d
join input_binding b on b.dag_version_id = d.active_version_id and b.trigger
join event e using (dataset_version_id)
where not exists (
    select 1
    from event n
    where n.dataset_version_id = e.dataset_version_id and n.scope_first = e.scope_first and n.scope_last = e.scope_last
        and n.scope_kind = e.scope_kind and n.revision > e.revision
) and not exists (
    select 1
    from task t
    where t.job_version_id = b.job_version_id and t.event_id = e.event_id and t.state in ('queued', 'released', 'running', 'backoff')
);
