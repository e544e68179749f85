-- What a deploy would do is planned before: counted, estimated, and kept as it was shown.

-- How many events a publication brought, and how many a dataset version has: so nobody counts events to say how many tasks they will be.
alter table publication add column event_count int not null default 0;
alter table dataset_head add column event_count bigint not null default 0;
update publication p
set event_count = c.events
from (select publication_id, dataset_version_id, count(*) as events from event group by publication_id, dataset_version_id) c
where p.publication_id = c.publication_id and p.dataset_version_id = c.dataset_version_id;
update dataset_head h
set event_count = c.events
from (select dataset_version_id, count(*) as events from event group by dataset_version_id) c
where h.dataset_version_id = c.dataset_version_id;

-- Frozen: written once, read until it is too old, never changed.
create table plan (
    plan_id uuid primary key,
    dag text not null,              -- need not be deployed yet
    base_version_id uuid,           -- the DAG version that was active; null for none
    spec bytea not null,            -- DagSpec, deterministic serialisation, bundles by digest
    spec_digest bytea not null check (octet_length(spec_digest) = 32),
    bundles jsonb not null,         -- local path to bundle digest
    no_rematerialize boolean not null,
    content bytea not null,         -- PlanDagResponse, as it was answered
    actor text not null,
    created_at timestamptz not null default clock_timestamp()
);
create index plan_age on plan (created_at);
