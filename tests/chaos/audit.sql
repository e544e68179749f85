-- What the harness writes down of every change, beside the product and unknown to it. One sequence numbers all tables: between two
-- writers of one row it is in the order in which they had its lock. `began` is when their transaction did.
create schema chaos;
create sequence chaos.seq;

create table chaos.task_change (
    seq bigint primary key default nextval('chaos.seq'),
    task_id uuid not null,
    before task_state,              -- null: the task was made
    state task_state not null,
    attempt int not null,
    token_digest bytea,
    request_id uuid,
    lease_until timestamptz,
    stream_epoch bigint,
    at timestamptz not null default clock_timestamp(),
    began timestamptz not null default now(),
    txid bigint not null default pg_current_xact_id()::text::bigint,
    job_version_id uuid not null
);

create function chaos.note_new_tasks() returns trigger language plpgsql as $$
begin
    insert into chaos.task_change (task_id, state, attempt, job_version_id) select task_id, state, attempt, job_version_id from made;
    return null;
end $$;
create trigger chaos_insert after insert on task referencing new table as made
for each statement execute function chaos.note_new_tasks();

create function chaos.note_tasks() returns trigger language plpgsql as $$
begin
    insert into chaos.task_change (task_id, before, state, attempt, token_digest, request_id, lease_until, stream_epoch,
        job_version_id)
    select n.task_id, o.state, n.state, n.attempt, n.lease_token_digest, n.claim_request_id, n.lease_until, n.stream_epoch,
        n.job_version_id
    from was o
    join made n using (task_id)
    where (o.state, o.attempt) <> (n.state, n.attempt) or o.lease_token_digest is distinct from n.lease_token_digest
        or o.lease_until is distinct from n.lease_until or o.stream_epoch is distinct from n.stream_epoch;
    return null;
end $$;
create trigger chaos_update after update on task referencing old table as was new table as made
for each statement execute function chaos.note_tasks();

create table chaos.stream_change (
    seq bigint primary key default nextval('chaos.seq'),
    job_version_id uuid not null,
    stream_key text not null,
    epoch bigint not null,
    token_digest bytea,
    lease_until timestamptz,
    at timestamptz not null default clock_timestamp(),
    began timestamptz not null default now(),
    txid bigint not null default pg_current_xact_id()::text::bigint
);

create function chaos.note_streams() returns trigger language plpgsql as $$
begin
    insert into chaos.stream_change (job_version_id, stream_key, epoch, token_digest, lease_until)
    select job_version_id, stream_key, epoch, lease_token_digest, lease_until from made;
    return null;
end $$;
create trigger chaos_update after update on ordered_stream referencing new table as made
for each statement execute function chaos.note_streams();

create table chaos.watermark_change (
    seq bigint primary key default nextval('chaos.seq'),
    dataset_version_id uuid not null,
    cursor_key bytea not null
);

create function chaos.note_watermarks() returns trigger language plpgsql as $$
begin
    insert into chaos.watermark_change (dataset_version_id, cursor_key) select dataset_version_id, cursor_key from made;
    return null;
end $$;
create trigger chaos_insert after insert on watermark referencing new table as made
for each statement execute function chaos.note_watermarks();
create trigger chaos_update after update on watermark referencing new table as made
for each statement execute function chaos.note_watermarks();

-- Rows that are written once: events, files, publications, ended attempts.
create table chaos.written (
    seq bigint primary key default nextval('chaos.seq'),
    kind text not null,
    id uuid not null,
    at timestamptz not null default clock_timestamp(),
    began timestamptz not null default now(),
    txid bigint not null default pg_current_xact_id()::text::bigint,
    version_id uuid,
    task_id uuid,
    attempt int,
    name text                       -- of a file its key, of an attempt its outcome
);

create function chaos.note_events() returns trigger language plpgsql as $$
begin
    insert into chaos.written (kind, id, version_id, task_id, attempt)
    select 'event', event_id, dataset_version_id, producer_task_id, producer_attempt from made;
    return null;
end $$;
create trigger chaos_insert after insert on event referencing new table as made
for each statement execute function chaos.note_events();

create function chaos.note_artifacts() returns trigger language plpgsql as $$
begin
    insert into chaos.written (kind, id, version_id, task_id, attempt, name)
    select 'artifact', artifact_id, dataset_version_id, producer_task_id, producer_attempt, object_key from made;
    return null;
end $$;
create trigger chaos_insert after insert on artifact referencing new table as made
for each statement execute function chaos.note_artifacts();

create function chaos.note_publications() returns trigger language plpgsql as $$
begin
    insert into chaos.written (kind, id) select distinct 'publication', publication_id from made;
    return null;
end $$;
create trigger chaos_insert after insert on publication referencing new table as made
for each statement execute function chaos.note_publications();

create function chaos.note_attempts() returns trigger language plpgsql as $$
begin
    insert into chaos.written (kind, id, task_id, attempt, name) select 'attempt', task_id, task_id, attempt, outcome from made;
    return null;
end $$;
create trigger chaos_insert after insert on attempt referencing new table as made
for each statement execute function chaos.note_attempts();
