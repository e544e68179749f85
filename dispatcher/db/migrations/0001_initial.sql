-- The system database, first release. Words are those of the contracts; states are the proto enums' names in lower case.
-- Ids of what is made often are version 7 uuids, so that new rows land at the right edge of their indexes.

create type task_state as enum ('queued', 'released', 'running', 'backoff', 'succeeded', 'dead', 'canceled', 'skipped');
create type task_origin as enum ('live', 'replay', 'backfill', 'source_run');
create type error_class as enum ('user', 'transient', 'out_of_memory', 'timeout', 'lost_lease', 'crash', 'invalid_output');
create type attempt_outcome as enum ('succeeded', 'failed', 'lease_lost', 'canceled', 'returned');
create type run_state as enum ('running', 'superseded', 'rolled_back', 'staged', 'retired');
create type deployment_state as enum ('building', 'held', 'active', 'replaced', 'rolled_back', 'aborted');
create type job_kind as enum ('source', 'operator', 'virtual');
create type late_scopes as enum ('refuse', 'skip');

-- Who did what. Append-only: the application never updates or deletes here.
create table audit (
    audit_id bigint generated always as identity primary key,
    at timestamptz not null default clock_timestamp(),
    actor text not null,
    method text not null,
    subject text not null,
    details jsonb not null default '{}'
);

-- Code and files that travel with a document, stored by digest in the artifact store.
create table bundle (
    digest text primary key check (digest ~ '^[0-9a-f]{64}$'),
    size_bytes bigint not null,
    actor text not null,
    uploaded_at timestamptz not null default clock_timestamp()
);

-- The global deploy number: one row, moved in the transaction of each cutover or rollback.
create table deploy_counter (
    only_row boolean primary key default true check (only_row),
    deploy_number bigint not null
);
insert into deploy_counter (deploy_number) values (0);

create table dag (
    dag text primary key,
    active_version_id uuid,
    actor text not null,
    created_at timestamptz not null default clock_timestamp()
);

-- What people paused, by name, so that it holds for later versions too: a DAG as a whole (job ''), or a job of it.
create table pause (
    dag text not null references dag,
    job text not null,
    actor text not null,
    paused_at timestamptz not null default clock_timestamp(),
    primary key (dag, job)
);

-- What people set of a queue; without a row the defaults of dispatcher/wakeups/metering.py hold. Shares are weights; the window is null for
-- no limit but the workers' own.
create table queue_settings (
    queue text primary key,
    window_size int check (window_size >= 1),
    live_share int not null check (live_share >= 1),
    rematerialization_share int not null check (rematerialization_share >= 1),
    backfill_share int not null check (backfill_share >= 1),
    live_reserve int not null check (live_reserve >= 0),
    actor text not null,
    changed_at timestamptz not null default clock_timestamp()
);

-- What each dispatcher says every few seconds of the workers that it wakes. For people: releases ask the workers' own credits.
create table queue_report (
    dispatcher_id uuid,
    queue text,
    credits int not null,
    reported_at timestamptz not null default clock_timestamp(),
    primary key (dispatcher_id, queue)
);

-- The immutable deployed form of a document.
create table dag_version (
    dag_version_id uuid primary key,
    dag text not null references dag,
    version bigint not null check (version >= 1),
    spec bytea not null,            -- DagSpec, deterministic serialisation, bundles by digest
    spec_digest bytea not null check (octet_length(spec_digest) = 32),
    state deployment_state not null,
    deploy_number bigint not null default 0,
    actor text not null,
    created_at timestamptz not null default clock_timestamp(),
    active_at timestamptz,
    unique (dag, version),
    check ((state in ('active', 'replaced', 'rolled_back')) = (active_at is not null))
);
alter table dag add foreign key (active_version_id) references dag_version;

-- Which version of a DAG was active when, by deploy number: one row for each cutover or rollback.
create table activation (
    dag text not null references dag,
    from_deploy bigint not null,
    to_deploy bigint,               -- exclusive; null: until now
    dag_version_id uuid not null references dag_version,
    primary key (dag, from_deploy)
);

-- What each deploy call was answered with, so that it can be repeated whatever was deployed since.
create table deploy_request (
    request_id uuid primary key,
    dag_version_id uuid not null references dag_version,
    actor text not null,
    requested_at timestamptz not null default clock_timestamp()
);

-- A job at one fingerprint (of a job that shares a dataset with other writers: its own and theirs). DAG versions share the job versions
-- that they have in common. It is written whole, with its outputs and their dataset versions, in one transaction.
create table job_version (
    job_version_id uuid primary key,
    dag text not null references dag,
    job text not null,
    kind job_kind not null,
    operator text not null,
    ordered boolean not null,
    late_scopes late_scopes not null default 'refuse',
    fingerprint bytea not null check (octet_length(fingerprint) = 32),
    canon_version smallint not null,
    created_at timestamptz not null default clock_timestamp(),
    unique (dag, job, fingerprint)
);

-- One row per job version decides whether its tasks may run: superseding touches no task rows. The epoch is counted up with each change, so
-- that an attempt from before the job version was taken back stays fenced when it is restored.
create table job_version_run (
    job_version_id uuid primary key references job_version,
    run_state run_state not null,
    epoch bigint not null default 1,
    actor text not null,
    changed_at timestamptz not null default clock_timestamp()
);

-- Execution settings belong to (DAG version, job): changing them makes no new job version.
create table dag_version_job (
    dag_version_id uuid not null references dag_version,
    job_version_id uuid not null references job_version,
    details bytea not null,         -- JobDetails as a worker gets it
    max_attempts int not null check (max_attempts >= 1),
    max_lost_leases int not null check (max_lost_leases >= 1),
    timeout interval,
    max_concurrency int,
    queue text not null,
    retry_backoff interval not null,
    max_retry_backoff interval not null,
    max_run_tasks int not null check (max_run_tasks between 1 and 1000),
    primary key (dag_version_id, job_version_id)
);

-- A named collection with one owning DAG; ids are unique whatever their case. Registered when a DAG version with it goes active: what is
-- only being built owns nothing, so versions, bindings and dependencies name datasets that need not be here yet.
create table dataset (
    dataset_id text primary key check (octet_length(dataset_id) between 1 and 255),
    folded_id text not null unique,
    dag text not null references dag,
    created_at timestamptz not null default clock_timestamp()
);

-- One generation of a dataset. Its uuid names its place in the artifact store.
create table dataset_version (
    dataset_version_id uuid primary key,
    dataset_id text not null,
    fingerprint bytea not null check (octet_length(fingerprint) = 32),
    spec bytea not null,            -- OutputSpec, effective
    virtual_sql text,               -- of a virtual dataset
    cursor_type smallint not null,  -- CursorType
    stored boolean not null,        -- has artifacts
    schema_digest bytea check (octet_length(schema_digest) = 32),
    schema jsonb,                   -- column to type: declared, or frozen at the first commit
    created_at timestamptz not null default clock_timestamp()
);
create index dataset_version_of on dataset_version (dataset_id, created_at desc);

-- Who produces what.
create table job_output (
    job_version_id uuid not null references job_version,
    dataset_version_id uuid not null references dataset_version,
    primary key (job_version_id, dataset_version_id)
);
create index job_output_by_version on job_output (dataset_version_id);

-- What a virtual dataset version is made of, directly.
create table virtual_dependency (
    dataset_version_id uuid not null references dataset_version,
    dependency_id text not null,
    primary key (dataset_version_id, dependency_id)
);

-- What a DAG version serves, written while it is built.
create table dag_version_dataset (
    dag_version_id uuid not null references dag_version,
    dataset_id text not null,
    dataset_version_id uuid not null references dataset_version,
    primary key (dag_version_id, dataset_id)
);
create index dag_version_dataset_of on dag_version_dataset (dataset_version_id);

-- dataset -> version now served, and what was served when. Derived from the active version, so that one row moves all pointers of a DAG.
create view pointer as
select d.dataset_id, s.dataset_version_id
from dataset d
join dag g on g.dag = d.dag
join dag_version_dataset s on s.dag_version_id = g.active_version_id and s.dataset_id = d.dataset_id;

create view pointer_history as
select d.dataset_id, a.from_deploy, a.to_deploy, s.dataset_version_id
from dataset d
join activation a on a.dag = d.dag
join dag_version_dataset s on s.dag_version_id = a.dag_version_id and s.dataset_id = d.dataset_id;

-- A DAG version binds each job version to the versions that it reads.
create table input_binding (
    dag_version_id uuid not null references dag_version,
    job_version_id uuid not null references job_version,
    dataset_id text not null,
    dataset_version_id uuid not null references dataset_version,
    trigger boolean not null,
    wait boolean not null,
    lookback bigint not null default 0,
    indirect boolean not null default false,
    primary key (dag_version_id, job_version_id, dataset_id)
);
create index input_binding_readers on input_binding (dataset_id);

-- The last publication number of a dataset version. Updated as the last statement before COMMIT, so numbers are in commit order.
create table dataset_head (
    dataset_version_id uuid primary key references dataset_version,
    number bigint not null default 0
) with (fillfactor = 50);

-- One row per transaction that gave a dataset version something new.
create table publication (
    publication_id uuid not null,
    dataset_version_id uuid not null,
    number bigint not null,
    published_at timestamptz not null default clock_timestamp(),
    primary key (publication_id, dataset_version_id),
    unique (dataset_version_id, number)
);

-- Which events a job version is owed as they come: intervals of publication numbers. At or below from_number belongs to replay.
create table subscription (
    job_version_id uuid not null references job_version,
    input_version_id uuid not null references dataset_version,
    from_number bigint not null,
    to_number bigint,
    replayed boolean not null,      -- everything at or below from_number has its task
    replay_key bytea,               -- keyset position of the replay, in scope order
    replay_event_id uuid,
    primary key (job_version_id, input_version_id, from_number)
);
create index subscription_open on subscription (input_version_id) where to_number is null;
create index subscription_replaying on subscription (job_version_id) where not replayed;

-- "Everything up to this cursor is complete."
create table watermark (
    dataset_version_id uuid primary key references dataset_version,
    cursor_key bytea not null,
    moved_at timestamptz not null default clock_timestamp()
) with (fillfactor = 50);

-- Accepted events: facts. The version leads every key, so that events can be partitioned by it.
create table event (
    event_id uuid primary key,
    dataset_version_id uuid not null,
    producer_task_id uuid not null,
    producer_attempt int not null,
    scope_kind smallint not null check (scope_kind between 1 and 3),
    scope_first bytea not null,
    scope_last bytea not null,
    revision bigint not null,
    artifact_id uuid,
    payload_digest bytea not null,
    publication_id uuid not null,
    manifest bytea,                 -- RangeManifest
    event_time timestamptz,
    origin task_origin not null check (origin <> 'source_run'),
    accepted_at timestamptz not null default clock_timestamp()
);
create unique index event_key on event (dataset_version_id, producer_task_id, scope_first, scope_last, scope_kind, revision);
create index event_scope on event (dataset_version_id, scope_first, event_id);

-- Immutable files. Visible from their publication to the one that removed them.
create table artifact (
    artifact_id uuid primary key,
    dataset_version_id uuid not null,
    object_key text not null unique,
    producer_task_id uuid not null,
    producer_attempt int not null,
    scope_kind smallint not null check (scope_kind between 1 and 3),
    scope_first bytea not null,
    scope_last bytea not null,
    revision bigint not null,
    row_count bigint not null,
    size_bytes bigint not null,
    sha256 bytea not null check (octet_length(sha256) = 32),
    schema_digest bytea not null,
    publication_id uuid not null,
    removed_publication_id uuid,
    accepted_at timestamptz not null default clock_timestamp()
);
create index artifact_scope on artifact (dataset_version_id, scope_first, scope_last);

-- One unit of work for one job version. The current attempt lives here, ended ones in `attempt`.
create table task (
    task_id uuid primary key,
    job_version_id uuid not null,
    event_id uuid,
    origin task_origin not null,
    state task_state not null default 'queued',
    stream_key text,                -- of an ordered job
    scope_kind smallint,
    scope_first bytea not null,     -- empty where there is no scope
    scope_last bytea not null,
    revision bigint not null default 0,
    attempt int not null default 0,
    failed_attempts int not null default 0,
    lost_leases int not null default 0,
    claim_request_id uuid,
    lease_token_digest bytea,
    lease_until timestamptz,        -- of a task of its own; tasks of a run live by their stream's lease
    stream_epoch bigint,
    run_epoch bigint,               -- of its job version, when the current attempt was claimed
    worker_id text,
    started_at timestamptz,
    released_at timestamptz,
    retry_at timestamptz,
    accepted_events int not null default 0,
    refused_attempt int,            -- an emit of this attempt was refused: it cannot succeed
    run_emitted boolean not null default false,
    nondeterministic boolean not null default false,
    cancel_reason text,             -- a person cancelled it while it ran: it may only stop
    pins jsonb,
    progress bytea,
    reason text not null default '',
    created_at timestamptz not null default clock_timestamp(),
    finished_at timestamptz,
    constraint event_or_source check ((origin = 'source_run') = (event_id is null)),
    constraint scope_of_event check ((event_id is null) = (scope_kind is null)),
    constraint running_has_epoch check (state <> 'running' or run_epoch is not null),
    constraint running_has_lease check ((state = 'running') = (lease_token_digest is not null)),
    constraint one_lease check (state <> 'running' or (lease_until is null) = (stream_epoch is not null)),
    constraint released_has_time check (state <> 'released' or released_at is not null),
    constraint backoff_has_time check ((state = 'backoff') = (retry_at is not null)),
    constraint final_has_time check ((state in ('succeeded', 'dead', 'canceled', 'skipped')) = (finished_at is not null)),
    constraint only_running_stops check (cancel_reason is null or state in ('running', 'canceled')),
    constraint unhappy_has_reason check (state not in ('dead', 'canceled', 'skipped') or reason <> '')
) with (fillfactor = 70);
create unique index task_cause on task (job_version_id, event_id) where event_id is not null;
-- Live rows are in exactly one of the next two.
-- By origin first: what is live is found without passing a backlog of another class.
create index task_queued on task (job_version_id, origin, scope_first, task_id) where state = 'queued';
create index task_open on task (job_version_id, scope_first, task_id) where state in ('released', 'running', 'backoff', 'dead');
create index task_released on task (released_at) where state = 'released';
create index task_leased on task (lease_until) where state = 'running';
create index task_backoff on task (retry_at) where state = 'backoff';

-- Ended attempts, one insert each.
create table attempt (
    task_id uuid not null,
    attempt int not null,
    worker_id text not null,
    claim_request_id uuid not null,
    lease_token_digest bytea not null,
    started_at timestamptz not null,
    ended_at timestamptz not null default clock_timestamp(),
    outcome attempt_outcome not null,
    task_state task_state not null, -- where it left the task: what a repeated Complete is answered
    error_class error_class,
    message text not null default '',
    traceback text not null default '',
    usage bytea,
    primary key (task_id, attempt),
    check ((outcome = 'failed') = (error_class is not null))
);

-- One lease per ordered stream, with an epoch that every write names. What comes before `position` comes too late for the order.
create table ordered_stream (
    job_version_id uuid not null,
    stream_key text not null,
    epoch bigint not null default 0,
    run_epoch bigint,               -- of its job version, when the current run was claimed
    position bytea not null default '',  -- the first cursor of the last scope that was done
    cancel_reason text,             -- a task of the run was cancelled: the run stops
    worker_id text,
    claim_request_id uuid,
    lease_token_digest bytea,
    lease_until timestamptz,
    primary key (job_version_id, stream_key),
    check ((lease_until is null) = (lease_token_digest is null))
);
create index ordered_stream_leased on ordered_stream (lease_until) where lease_until is not null;

-- What an operator keeps between tasks.
create table operator_state (
    job_version_id uuid not null,
    stream_key text not null,
    data bytea not null,
    version bigint not null,
    updated_at timestamptz not null default clock_timestamp(),
    primary key (job_version_id, stream_key)
);

-- The collector stays away from what a pin names until it expires.
create table pin (
    pin_id uuid primary key,
    deploy_number bigint not null,
    actor text not null,
    expires_at timestamptz not null,
    created_at timestamptz not null default clock_timestamp()
);
create index pin_expiry on pin (expires_at);
create table pin_dataset (
    pin_id uuid not null references pin on delete cascade,
    dataset_id text not null,
    dataset_version_id uuid not null references dataset_version,
    number bigint not null,
    primary key (pin_id, dataset_id)
);
