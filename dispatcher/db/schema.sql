-- The schema that dispatcher/db/migrations make. Generated: python -m dispatcher.db.migrate --dump

-- Name: attempt_outcome; Type: TYPE; Schema: public

CREATE TYPE public.attempt_outcome AS ENUM (
    'succeeded',
    'failed',
    'lease_lost',
    'canceled',
    'returned'
);

-- Name: audit_outcome; Type: TYPE; Schema: public

CREATE TYPE public.audit_outcome AS ENUM (
    'done',
    'refused'
);

-- Name: deployment_state; Type: TYPE; Schema: public

CREATE TYPE public.deployment_state AS ENUM (
    'building',
    'held',
    'active',
    'replaced',
    'rolled_back',
    'aborted'
);

-- Name: error_class; Type: TYPE; Schema: public

CREATE TYPE public.error_class AS ENUM (
    'user',
    'transient',
    'out_of_memory',
    'timeout',
    'lost_lease',
    'crash',
    'invalid_output'
);

-- Name: job_kind; Type: TYPE; Schema: public

CREATE TYPE public.job_kind AS ENUM (
    'source',
    'operator',
    'virtual'
);

-- Name: late_scopes; Type: TYPE; Schema: public

CREATE TYPE public.late_scopes AS ENUM (
    'refuse',
    'skip'
);

-- Name: query_as_of; Type: TYPE; Schema: public

CREATE TYPE public.query_as_of AS ENUM (
    'now',
    'deploy',
    'pin'
);

-- Name: query_call; Type: TYPE; Schema: public

CREATE TYPE public.query_call AS ENUM (
    'query',
    'explain',
    'flight',
    'flight_describe'
);

-- Name: query_outcome; Type: TYPE; Schema: public

CREATE TYPE public.query_outcome AS ENUM (
    'succeeded',
    'canceled',
    'refused',
    'failed'
);

-- Name: run_state; Type: TYPE; Schema: public

CREATE TYPE public.run_state AS ENUM (
    'running',
    'superseded',
    'rolled_back',
    'staged',
    'retired'
);

-- Name: task_origin; Type: TYPE; Schema: public

CREATE TYPE public.task_origin AS ENUM (
    'live',
    'replay',
    'backfill',
    'source_run'
);

-- Name: task_state; Type: TYPE; Schema: public

CREATE TYPE public.task_state AS ENUM (
    'queued',
    'released',
    'running',
    'backoff',
    'succeeded',
    'dead',
    'canceled',
    'skipped'
);

-- Name: add_finished_day(date); Type: FUNCTION; Schema: public

CREATE FUNCTION public.add_finished_day(day date) RETURNS void
    LANGUAGE plpgsql
    AS $$
declare
    parent text;
    part text;
begin
    foreach parent in array array['finished_task', 'finished_attempt'] loop
        part := format('%s_%s', parent, to_char(day, 'YYYYMMDD'));
        if to_regclass(part) is null then
            execute format('create table %I (like %I including all)', part, parent);
            execute format(
                'alter table %I attach partition %I for values from (%L) to (%L)', parent, part,
                day::timestamp at time zone 'UTC', (day + 1)::timestamp at time zone 'UTC'
            );
        end if;
    end loop;
end $$;

-- Name: add_query_day(date); Type: FUNCTION; Schema: public

CREATE FUNCTION public.add_query_day(day date) RETURNS void
    LANGUAGE plpgsql
    AS $$
declare
    part text := 'query_record_' || to_char(day, 'YYYYMMDD');
begin
    if to_regclass(part) is null then
        execute format('create table %I (like query_record including all)', part);
        execute format(
            'create trigger query_record_append_only before update or delete or truncate on %I '
            'for each statement execute function refuse_change_of_query_record()', part
        );
        execute format('alter table %I enable always trigger query_record_append_only', part);
        execute format(
            'alter table query_record attach partition %I for values from (%L) to (%L)', part,
            day::timestamp at time zone 'UTC', (day + 1)::timestamp at time zone 'UTC'
        );
    end if;
end $$;

-- Name: drop_finished_day(date); Type: FUNCTION; Schema: public

CREATE FUNCTION public.drop_finished_day(day date) RETURNS void
    LANGUAGE plpgsql
    AS $$
begin
    execute format('drop table if exists %I', 'finished_task_' || to_char(day, 'YYYYMMDD'));
    execute format('drop table if exists %I', 'finished_attempt_' || to_char(day, 'YYYYMMDD'));
end $$;

-- Name: drop_query_day(date); Type: FUNCTION; Schema: public

CREATE FUNCTION public.drop_query_day(day date) RETURNS void
    LANGUAGE plpgsql
    AS $$
begin
    execute format('drop table if exists %I', 'query_record_' || to_char(day, 'YYYYMMDD'));
end $$;

-- Name: refuse_change_of_audit(); Type: FUNCTION; Schema: public

CREATE FUNCTION public.refuse_change_of_audit() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
begin
    raise exception 'audit is append-only: % is refused', lower(tg_op)
    using errcode = 'insufficient_privilege', hint = 'What was recorded stays; what corrects it is another row.';
end $$;

-- Name: refuse_change_of_query_record(); Type: FUNCTION; Schema: public

CREATE FUNCTION public.refuse_change_of_query_record() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
begin
    raise exception 'query_record is append-only: % is refused', lower(tg_op)
    using errcode = 'insufficient_privilege', hint = 'What was recorded stays until its day is no longer kept (query_record_days).';
end $$;

-- Name: activation; Type: TABLE; Schema: public

CREATE TABLE public.activation (
    dag text NOT NULL,
    from_deploy bigint NOT NULL,
    to_deploy bigint,
    dag_version_id uuid NOT NULL,
    from_time timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);

-- Name: attempt; Type: TABLE; Schema: public

CREATE TABLE public.attempt (
    task_id uuid NOT NULL,
    attempt integer NOT NULL,
    worker_id text NOT NULL,
    claim_request_id uuid NOT NULL,
    lease_token_digest bytea NOT NULL,
    started_at timestamp with time zone NOT NULL,
    ended_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    outcome public.attempt_outcome NOT NULL,
    task_state public.task_state NOT NULL,
    error_class public.error_class,
    message text DEFAULT ''::text NOT NULL,
    traceback text DEFAULT ''::text NOT NULL,
    usage bytea,
    CONSTRAINT attempt_check CHECK (((outcome = 'failed'::public.attempt_outcome) = (error_class IS NOT NULL)))
)
WITH (autovacuum_vacuum_scale_factor='0.02', autovacuum_vacuum_cost_limit='2000', autovacuum_analyze_scale_factor='0.05', vacuum_truncate='false');

-- Name: finished_attempt; Type: TABLE; Schema: public

CREATE TABLE public.finished_attempt (
    task_id uuid NOT NULL,
    attempt integer NOT NULL,
    worker_id text NOT NULL,
    claim_request_id uuid NOT NULL,
    lease_token_digest bytea NOT NULL,
    started_at timestamp with time zone NOT NULL,
    ended_at timestamp with time zone NOT NULL,
    outcome public.attempt_outcome NOT NULL,
    task_state public.task_state NOT NULL,
    error_class public.error_class,
    message text NOT NULL,
    traceback text NOT NULL,
    usage bytea,
    finished_at timestamp with time zone NOT NULL
)
PARTITION BY RANGE (finished_at);

-- Name: any_attempt; Type: VIEW; Schema: public

CREATE VIEW public.any_attempt AS
 SELECT attempt.task_id,
    attempt.attempt,
    attempt.worker_id,
    attempt.claim_request_id,
    attempt.lease_token_digest,
    attempt.started_at,
    attempt.ended_at,
    attempt.outcome,
    attempt.task_state,
    attempt.error_class,
    attempt.message,
    attempt.traceback,
    attempt.usage
   FROM public.attempt
UNION ALL
 SELECT finished_attempt.task_id,
    finished_attempt.attempt,
    finished_attempt.worker_id,
    finished_attempt.claim_request_id,
    finished_attempt.lease_token_digest,
    finished_attempt.started_at,
    finished_attempt.ended_at,
    finished_attempt.outcome,
    finished_attempt.task_state,
    finished_attempt.error_class,
    finished_attempt.message,
    finished_attempt.traceback,
    finished_attempt.usage
   FROM public.finished_attempt;

-- Name: finished_task; Type: TABLE; Schema: public

CREATE TABLE public.finished_task (
    task_id uuid NOT NULL,
    job_version_id uuid NOT NULL,
    event_id uuid,
    origin public.task_origin NOT NULL,
    state public.task_state NOT NULL,
    stream_key text,
    scope_kind smallint,
    scope_first bytea NOT NULL,
    scope_last bytea NOT NULL,
    revision bigint NOT NULL,
    attempt integer NOT NULL,
    failed_attempts integer NOT NULL,
    lost_leases integer NOT NULL,
    run_epoch bigint,
    started_at timestamp with time zone,
    accepted_events integer NOT NULL,
    refused_attempt integer,
    run_emitted boolean NOT NULL,
    nondeterministic boolean NOT NULL,
    cancel_reason text,
    pins jsonb,
    reason text NOT NULL,
    created_at timestamp with time zone NOT NULL,
    finished_at timestamp with time zone NOT NULL,
    CONSTRAINT finished_task_state_check CHECK ((state = ANY (ARRAY['succeeded'::public.task_state, 'canceled'::public.task_state, 'skipped'::public.task_state])))
)
PARTITION BY RANGE (finished_at);

-- Name: task; Type: TABLE; Schema: public

CREATE TABLE public.task (
    task_id uuid NOT NULL,
    job_version_id uuid NOT NULL,
    event_id uuid,
    origin public.task_origin NOT NULL,
    state public.task_state DEFAULT 'queued'::public.task_state NOT NULL,
    stream_key text,
    scope_kind smallint,
    scope_first bytea NOT NULL,
    scope_last bytea NOT NULL,
    revision bigint DEFAULT 0 NOT NULL,
    attempt integer DEFAULT 0 NOT NULL,
    failed_attempts integer DEFAULT 0 NOT NULL,
    lost_leases integer DEFAULT 0 NOT NULL,
    claim_request_id uuid,
    lease_token_digest bytea,
    lease_until timestamp with time zone,
    stream_epoch bigint,
    run_epoch bigint,
    worker_id text,
    started_at timestamp with time zone,
    released_at timestamp with time zone,
    retry_at timestamp with time zone,
    accepted_events integer DEFAULT 0 NOT NULL,
    refused_attempt integer,
    run_emitted boolean DEFAULT false NOT NULL,
    nondeterministic boolean DEFAULT false NOT NULL,
    cancel_reason text,
    pins jsonb,
    progress bytea,
    reason text DEFAULT ''::text NOT NULL,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    finished_at timestamp with time zone,
    CONSTRAINT backoff_has_time CHECK (((state = 'backoff'::public.task_state) = (retry_at IS NOT NULL))),
    CONSTRAINT event_or_source CHECK (((origin = 'source_run'::public.task_origin) = (event_id IS NULL))),
    CONSTRAINT final_has_time CHECK (((state = ANY (ARRAY['succeeded'::public.task_state, 'dead'::public.task_state, 'canceled'::public.task_state, 'skipped'::public.task_state])) = (finished_at IS NOT NULL))),
    CONSTRAINT one_lease CHECK (((state <> 'running'::public.task_state) OR ((lease_until IS NULL) = (stream_epoch IS NOT NULL)))),
    CONSTRAINT only_running_stops CHECK (((cancel_reason IS NULL) OR (state = ANY (ARRAY['running'::public.task_state, 'canceled'::public.task_state])))),
    CONSTRAINT released_has_time CHECK (((state <> 'released'::public.task_state) OR (released_at IS NOT NULL))),
    CONSTRAINT running_has_epoch CHECK (((state <> 'running'::public.task_state) OR (run_epoch IS NOT NULL))),
    CONSTRAINT running_has_lease CHECK (((state = 'running'::public.task_state) = (lease_token_digest IS NOT NULL))),
    CONSTRAINT scope_of_event CHECK (((event_id IS NULL) = (scope_kind IS NULL))),
    CONSTRAINT unhappy_has_reason CHECK (((state <> ALL (ARRAY['dead'::public.task_state, 'canceled'::public.task_state, 'skipped'::public.task_state])) OR (reason <> ''::text)))
)
WITH (fillfactor='70', autovacuum_vacuum_scale_factor='0.02', autovacuum_vacuum_cost_limit='2000', autovacuum_analyze_scale_factor='0.05', vacuum_truncate='false');

-- Name: any_task; Type: VIEW; Schema: public

CREATE VIEW public.any_task AS
 SELECT task.task_id,
    task.job_version_id,
    task.event_id,
    task.origin,
    task.state,
    task.stream_key,
    task.scope_kind,
    task.scope_first,
    task.scope_last,
    task.revision,
    task.attempt,
    task.failed_attempts,
    task.lost_leases,
    task.claim_request_id,
    task.lease_token_digest,
    task.lease_until,
    task.stream_epoch,
    task.run_epoch,
    task.worker_id,
    task.started_at,
    task.released_at,
    task.retry_at,
    task.accepted_events,
    task.refused_attempt,
    task.run_emitted,
    task.nondeterministic,
    task.cancel_reason,
    task.pins,
    task.progress,
    task.reason,
    task.created_at,
    task.finished_at,
    false AS finished
   FROM public.task
UNION ALL
 SELECT finished_task.task_id,
    finished_task.job_version_id,
    finished_task.event_id,
    finished_task.origin,
    finished_task.state,
    finished_task.stream_key,
    finished_task.scope_kind,
    finished_task.scope_first,
    finished_task.scope_last,
    finished_task.revision,
    finished_task.attempt,
    finished_task.failed_attempts,
    finished_task.lost_leases,
    NULL::uuid AS claim_request_id,
    NULL::bytea AS lease_token_digest,
    NULL::timestamp with time zone AS lease_until,
    NULL::bigint AS stream_epoch,
    finished_task.run_epoch,
    NULL::text AS worker_id,
    finished_task.started_at,
    NULL::timestamp with time zone AS released_at,
    NULL::timestamp with time zone AS retry_at,
    finished_task.accepted_events,
    finished_task.refused_attempt,
    finished_task.run_emitted,
    finished_task.nondeterministic,
    finished_task.cancel_reason,
    finished_task.pins,
    NULL::bytea AS progress,
    finished_task.reason,
    finished_task.created_at,
    finished_task.finished_at,
    true AS finished
   FROM public.finished_task;

-- Name: artifact; Type: TABLE; Schema: public

CREATE TABLE public.artifact (
    artifact_id uuid NOT NULL,
    dataset_version_id uuid NOT NULL,
    object_key text NOT NULL,
    producer_task_id uuid NOT NULL,
    producer_attempt integer NOT NULL,
    scope_kind smallint NOT NULL,
    scope_first bytea NOT NULL,
    scope_last bytea NOT NULL,
    revision bigint NOT NULL,
    row_count bigint NOT NULL,
    size_bytes bigint NOT NULL,
    sha256 bytea NOT NULL,
    schema_digest bytea NOT NULL,
    publication_id uuid NOT NULL,
    removed_publication_id uuid,
    accepted_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT artifact_scope_kind_check CHECK (((scope_kind >= 1) AND (scope_kind <= 3))),
    CONSTRAINT artifact_sha256_check CHECK ((octet_length(sha256) = 32))
);

-- Name: audit; Type: TABLE; Schema: public

CREATE TABLE public.audit (
    audit_id bigint NOT NULL,
    at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    actor text NOT NULL,
    method text NOT NULL,
    subject text NOT NULL,
    details jsonb DEFAULT '{}'::jsonb NOT NULL,
    action text,
    dags text[],
    outcome public.audit_outcome DEFAULT 'done'::public.audit_outcome NOT NULL,
    reason text,
    plan_id uuid,
    from_version bigint,
    to_version bigint,
    CONSTRAINT audit_refused CHECK (((outcome = 'refused'::public.audit_outcome) = (reason IS NOT NULL)))
);

-- Name: audit_audit_id_seq; Type: SEQUENCE; Schema: public

ALTER TABLE public.audit ALTER COLUMN audit_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.audit_audit_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

-- Name: bundle; Type: TABLE; Schema: public

CREATE TABLE public.bundle (
    digest text NOT NULL,
    size_bytes bigint NOT NULL,
    actor text NOT NULL,
    uploaded_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT bundle_digest_check CHECK ((digest ~ '^[0-9a-f]{64}$'::text))
);

-- Name: dag_version; Type: TABLE; Schema: public

CREATE TABLE public.dag_version (
    dag_version_id uuid NOT NULL,
    dag text NOT NULL,
    version bigint NOT NULL,
    spec bytea NOT NULL,
    spec_digest bytea NOT NULL,
    state public.deployment_state NOT NULL,
    deploy_number bigint DEFAULT 0 NOT NULL,
    actor text NOT NULL,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    active_at timestamp with time zone,
    base_version_id uuid,
    staged_at timestamp with time zone,
    hold boolean DEFAULT false NOT NULL,
    collected_at timestamp with time zone,
    plan_id uuid,
    barrier_at timestamp with time zone,
    barrier_passed_at timestamp with time zone,
    barrier_retaken boolean DEFAULT false NOT NULL,
    barriers_by_itself integer DEFAULT 0 NOT NULL,
    CONSTRAINT dag_version_check CHECK (((state = ANY (ARRAY['active'::public.deployment_state, 'replaced'::public.deployment_state, 'rolled_back'::public.deployment_state])) = (active_at IS NOT NULL))),
    CONSTRAINT dag_version_spec_digest_check CHECK ((octet_length(spec_digest) = 32)),
    CONSTRAINT dag_version_version_check CHECK ((version >= 1))
);

-- Name: dag_version_dataset; Type: TABLE; Schema: public

CREATE TABLE public.dag_version_dataset (
    dag_version_id uuid NOT NULL,
    dataset_id text NOT NULL,
    dataset_version_id uuid NOT NULL
);

-- Name: dataset_version; Type: TABLE; Schema: public

CREATE TABLE public.dataset_version (
    dataset_version_id uuid NOT NULL,
    dataset_id text NOT NULL,
    fingerprint bytea NOT NULL,
    spec bytea NOT NULL,
    virtual_sql text,
    cursor_type smallint NOT NULL,
    stored boolean NOT NULL,
    schema_digest bytea,
    schema jsonb,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    condemned_at timestamp with time zone,
    condemned_by text,
    column_order jsonb,
    CONSTRAINT condemned_by_someone CHECK (((condemned_at IS NULL) = (condemned_by IS NULL))),
    CONSTRAINT dataset_version_fingerprint_check CHECK ((octet_length(fingerprint) = 32)),
    CONSTRAINT dataset_version_schema_digest_check CHECK ((octet_length(schema_digest) = 32))
);

-- Name: collected_dag_version; Type: VIEW; Schema: public

CREATE VIEW public.collected_dag_version AS
 SELECT dag_version_id
   FROM public.dag_version g
  WHERE ((collected_at IS NOT NULL) OR (EXISTS ( SELECT 1
           FROM (public.dag_version_dataset s
             JOIN public.dataset_version v USING (dataset_version_id))
          WHERE ((s.dag_version_id = g.dag_version_id) AND (v.condemned_at IS NOT NULL)))));

-- Name: dag; Type: TABLE; Schema: public

CREATE TABLE public.dag (
    dag text NOT NULL,
    active_version_id uuid,
    actor text NOT NULL,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    staged_version_id uuid,
    releases_held_until timestamp with time zone,
    removed_at timestamp with time zone,
    ending boolean DEFAULT false NOT NULL,
    releases_held_by jsonb DEFAULT '{}'::jsonb NOT NULL,
    releases_held_since timestamp with time zone
);

-- Name: dag_version_job; Type: TABLE; Schema: public

CREATE TABLE public.dag_version_job (
    dag_version_id uuid NOT NULL,
    job_version_id uuid NOT NULL,
    details bytea NOT NULL,
    max_attempts integer NOT NULL,
    max_lost_leases integer NOT NULL,
    timeout interval,
    max_concurrency integer,
    queue text NOT NULL,
    retry_backoff interval NOT NULL,
    max_retry_backoff interval NOT NULL,
    max_run_tasks integer NOT NULL,
    CONSTRAINT dag_version_job_max_attempts_check CHECK ((max_attempts >= 1)),
    CONSTRAINT dag_version_job_max_lost_leases_check CHECK ((max_lost_leases >= 1)),
    CONSTRAINT dag_version_job_max_run_tasks_check CHECK (((max_run_tasks >= 1) AND (max_run_tasks <= 1000)))
);

-- Name: dag_version_use; Type: VIEW; Schema: public

CREATE VIEW public.dag_version_use AS
 SELECT DISTINCT ON (a.dag_version_id) a.dag,
    a.dag_version_id,
    a.from_deploy,
    COALESCE(a.until, d.removed_at) AS until,
    (d.removed_at IS NOT NULL) AS removed
   FROM (( SELECT activation.dag,
            activation.dag_version_id,
            activation.from_deploy,
            lead(activation.from_time) OVER (PARTITION BY activation.dag ORDER BY activation.from_deploy) AS until
           FROM public.activation) a
     JOIN public.dag d USING (dag))
  ORDER BY a.dag_version_id, a.from_deploy DESC;

-- Name: dataset; Type: TABLE; Schema: public

CREATE TABLE public.dataset (
    dataset_id text NOT NULL,
    folded_id text NOT NULL,
    dag text NOT NULL,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT dataset_dataset_id_check CHECK (((octet_length(dataset_id) >= 1) AND (octet_length(dataset_id) <= 255)))
);

-- Name: dataset_head; Type: TABLE; Schema: public

CREATE TABLE public.dataset_head (
    dataset_version_id uuid NOT NULL,
    number bigint DEFAULT 0 NOT NULL,
    event_count bigint DEFAULT 0 NOT NULL
)
WITH (fillfactor='50');

-- Name: deploy_counter; Type: TABLE; Schema: public

CREATE TABLE public.deploy_counter (
    only_row boolean DEFAULT true NOT NULL,
    deploy_number bigint NOT NULL,
    CONSTRAINT deploy_counter_only_row_check CHECK (only_row)
);

-- Name: deploy_request; Type: TABLE; Schema: public

CREATE TABLE public.deploy_request (
    request_id uuid NOT NULL,
    dag_version_id uuid NOT NULL,
    actor text NOT NULL,
    requested_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    rolled_back_version_id uuid
);

-- Name: event; Type: TABLE; Schema: public

CREATE TABLE public.event (
    event_id uuid NOT NULL,
    dataset_version_id uuid NOT NULL,
    producer_task_id uuid NOT NULL,
    producer_attempt integer NOT NULL,
    scope_kind smallint NOT NULL,
    scope_first bytea NOT NULL,
    scope_last bytea NOT NULL,
    revision bigint NOT NULL,
    artifact_id uuid,
    payload_digest bytea NOT NULL,
    publication_id uuid NOT NULL,
    manifest bytea,
    event_time timestamp with time zone,
    origin public.task_origin NOT NULL,
    accepted_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT event_origin_check CHECK ((origin <> 'source_run'::public.task_origin)),
    CONSTRAINT event_scope_kind_check CHECK (((scope_kind >= 1) AND (scope_kind <= 3)))
);

-- Name: finished_count; Type: TABLE; Schema: public

CREATE TABLE public.finished_count (
    job_version_id uuid NOT NULL,
    origin public.task_origin NOT NULL,
    state public.task_state NOT NULL,
    tasks bigint NOT NULL,
    accepted_events bigint NOT NULL
)
WITH (fillfactor='50');

-- Name: finished_day; Type: VIEW; Schema: public

CREATE VIEW public.finished_day AS
 SELECT DISTINCT to_date("right"((c.relname)::text, 8), 'YYYYMMDD'::text) AS day
   FROM (pg_inherits i
     JOIN pg_class c ON ((c.oid = i.inhrelid)))
  WHERE (i.inhparent = ANY (ARRAY[('public.finished_task'::regclass)::oid, ('public.finished_attempt'::regclass)::oid]));

-- Name: input_binding; Type: TABLE; Schema: public

CREATE TABLE public.input_binding (
    dag_version_id uuid NOT NULL,
    job_version_id uuid NOT NULL,
    dataset_id text NOT NULL,
    dataset_version_id uuid NOT NULL,
    trigger boolean NOT NULL,
    wait boolean NOT NULL,
    lookback bigint DEFAULT 0 NOT NULL,
    indirect boolean DEFAULT false NOT NULL,
    built_version_id uuid
);

-- Name: job_output; Type: TABLE; Schema: public

CREATE TABLE public.job_output (
    job_version_id uuid NOT NULL,
    dataset_version_id uuid NOT NULL
);

-- Name: job_version; Type: TABLE; Schema: public

CREATE TABLE public.job_version (
    job_version_id uuid NOT NULL,
    dag text NOT NULL,
    job text NOT NULL,
    kind public.job_kind NOT NULL,
    operator text NOT NULL,
    ordered boolean NOT NULL,
    late_scopes public.late_scopes DEFAULT 'refuse'::public.late_scopes NOT NULL,
    fingerprint bytea NOT NULL,
    canon_version smallint NOT NULL,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    rerun boolean DEFAULT false NOT NULL,
    CONSTRAINT job_version_fingerprint_check CHECK ((octet_length(fingerprint) = 32))
);

-- Name: job_version_run; Type: TABLE; Schema: public

CREATE TABLE public.job_version_run (
    job_version_id uuid NOT NULL,
    run_state public.run_state NOT NULL,
    epoch bigint DEFAULT 1 NOT NULL,
    actor text NOT NULL,
    changed_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);

-- Name: operator_state; Type: TABLE; Schema: public

CREATE TABLE public.operator_state (
    job_version_id uuid NOT NULL,
    stream_key text NOT NULL,
    data bytea NOT NULL,
    version bigint NOT NULL,
    updated_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);

-- Name: ordered_stream; Type: TABLE; Schema: public

CREATE TABLE public.ordered_stream (
    job_version_id uuid NOT NULL,
    stream_key text NOT NULL,
    epoch bigint DEFAULT 0 NOT NULL,
    run_epoch bigint,
    "position" bytea DEFAULT '\x'::bytea NOT NULL,
    cancel_reason text,
    worker_id text,
    claim_request_id uuid,
    lease_token_digest bytea,
    lease_until timestamp with time zone,
    CONSTRAINT ordered_stream_check CHECK (((lease_until IS NULL) = (lease_token_digest IS NULL)))
);

-- Name: orphan_sweep; Type: TABLE; Schema: public

CREATE TABLE public.orphan_sweep (
    only_row boolean DEFAULT true NOT NULL,
    begun_at timestamp with time zone NOT NULL,
    CONSTRAINT orphan_sweep_only_row_check CHECK (only_row)
);

-- Name: pause; Type: TABLE; Schema: public

CREATE TABLE public.pause (
    dag text NOT NULL,
    job text NOT NULL,
    actor text NOT NULL,
    paused_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);

-- Name: pin; Type: TABLE; Schema: public

CREATE TABLE public.pin (
    pin_id uuid NOT NULL,
    deploy_number bigint NOT NULL,
    actor text NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);

-- Name: pin_dataset; Type: TABLE; Schema: public

CREATE TABLE public.pin_dataset (
    pin_id uuid NOT NULL,
    dataset_id text NOT NULL,
    dataset_version_id uuid NOT NULL,
    number bigint NOT NULL
);

-- Name: plan; Type: TABLE; Schema: public

CREATE TABLE public.plan (
    plan_id uuid NOT NULL,
    dag text NOT NULL,
    base_version_id uuid,
    spec bytea NOT NULL,
    spec_digest bytea NOT NULL,
    bundles jsonb NOT NULL,
    no_rematerialize boolean NOT NULL,
    content bytea NOT NULL,
    actor text NOT NULL,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT plan_spec_digest_check CHECK ((octet_length(spec_digest) = 32))
);

-- Name: pointer; Type: VIEW; Schema: public

CREATE VIEW public.pointer AS
 SELECT d.dataset_id,
    s.dataset_version_id
   FROM (((public.dataset d
     JOIN public.dag g ON ((g.dag = d.dag)))
     JOIN public.dag_version_dataset s ON (((s.dag_version_id = g.active_version_id) AND (s.dataset_id = d.dataset_id))))
     JOIN public.dataset_version v ON (((v.dataset_version_id = s.dataset_version_id) AND (v.condemned_at IS NULL))));

-- Name: pointer_history; Type: VIEW; Schema: public

CREATE VIEW public.pointer_history AS
 SELECT d.dataset_id,
    a.from_deploy,
    a.to_deploy,
    s.dataset_version_id
   FROM ((public.dataset d
     JOIN public.activation a ON ((a.dag = d.dag)))
     JOIN public.dag_version_dataset s ON (((s.dag_version_id = a.dag_version_id) AND (s.dataset_id = d.dataset_id))));

-- Name: publication; Type: TABLE; Schema: public

CREATE TABLE public.publication (
    publication_id uuid NOT NULL,
    dataset_version_id uuid NOT NULL,
    number bigint NOT NULL,
    published_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    event_count integer DEFAULT 0 NOT NULL
);

-- Name: query_record_number; Type: SEQUENCE; Schema: public

CREATE SEQUENCE public.query_record_number
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

-- Name: query_record; Type: TABLE; Schema: public

CREATE TABLE public.query_record (
    record_number bigint DEFAULT nextval('public.query_record_number'::regclass) NOT NULL,
    record_id uuid NOT NULL,
    query_id uuid NOT NULL,
    recorded_at timestamp with time zone NOT NULL,
    recorded_by text NOT NULL,
    actor text NOT NULL,
    call public.query_call NOT NULL,
    client text NOT NULL,
    sql_sha256 bytea NOT NULL,
    as_of public.query_as_of NOT NULL,
    deploy_number bigint,
    dataset_ids text[] NOT NULL,
    dataset_version_ids uuid[] NOT NULL,
    publication_numbers bigint[] NOT NULL,
    started_at timestamp with time zone NOT NULL,
    elapsed interval NOT NULL,
    row_count bigint NOT NULL,
    arrow_bytes bigint NOT NULL,
    outcome public.query_outcome NOT NULL,
    reason text,
    CONSTRAINT query_record_pins CHECK (((cardinality(dataset_ids) = cardinality(dataset_version_ids)) AND (cardinality(dataset_ids) = cardinality(publication_numbers)))),
    CONSTRAINT query_record_reason CHECK (((outcome = 'succeeded'::public.query_outcome) = (reason IS NULL))),
    CONSTRAINT query_record_sql_sha256_check CHECK ((length(sql_sha256) = 32))
)
PARTITION BY RANGE (recorded_at);

-- Name: query_day; Type: VIEW; Schema: public

CREATE VIEW public.query_day AS
 SELECT to_date("right"((c.relname)::text, 8), 'YYYYMMDD'::text) AS day
   FROM (pg_inherits i
     JOIN pg_class c ON ((c.oid = i.inhrelid)))
  WHERE (i.inhparent = ('public.query_record'::regclass)::oid);

-- Name: queue_report; Type: TABLE; Schema: public

CREATE TABLE public.queue_report (
    dispatcher_id uuid NOT NULL,
    queue text NOT NULL,
    credits integer NOT NULL,
    reported_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);

-- Name: queue_settings; Type: TABLE; Schema: public

CREATE TABLE public.queue_settings (
    queue text NOT NULL,
    window_size integer,
    live_share integer NOT NULL,
    rematerialization_share integer NOT NULL,
    backfill_share integer NOT NULL,
    live_reserve integer NOT NULL,
    actor text NOT NULL,
    changed_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT queue_settings_backfill_share_check CHECK ((backfill_share >= 1)),
    CONSTRAINT queue_settings_live_reserve_check CHECK ((live_reserve >= 0)),
    CONSTRAINT queue_settings_live_share_check CHECK ((live_share >= 1)),
    CONSTRAINT queue_settings_rematerialization_share_check CHECK ((rematerialization_share >= 1)),
    CONSTRAINT queue_settings_window_size_check CHECK ((window_size >= 1))
);

-- Name: subscription; Type: TABLE; Schema: public

CREATE TABLE public.subscription (
    job_version_id uuid NOT NULL,
    input_version_id uuid NOT NULL,
    from_number bigint NOT NULL,
    to_number bigint,
    replayed boolean NOT NULL,
    replay_key bytea,
    replay_event_id uuid,
    instead_of_version_id uuid,
    passed_count bigint DEFAULT 0 NOT NULL,
    opened_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);

-- Name: replaying; Type: VIEW; Schema: public

CREATE VIEW public.replaying AS
 SELECT job_version_id,
    input_version_id,
    from_number,
    to_number,
    replay_key,
    replay_event_id,
    instead_of_version_id
   FROM public.subscription s
  WHERE ((NOT replayed) AND (EXISTS ( SELECT 1
           FROM public.subscription o
          WHERE ((o.job_version_id = s.job_version_id) AND (o.input_version_id = s.input_version_id) AND (o.to_number IS NULL)))));

-- Name: rerun_page; Type: TABLE; Schema: public

CREATE TABLE public.rerun_page (
    request_id uuid NOT NULL,
    page_token text NOT NULL,
    request_digest bytea NOT NULL,
    task_count integer NOT NULL,
    next_page_token text NOT NULL,
    actor text NOT NULL,
    answered_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT rerun_page_request_digest_check CHECK ((octet_length(request_digest) = 32))
);

-- Name: rerun_scope; Type: TABLE; Schema: public

CREATE TABLE public.rerun_scope (
    job_version_id uuid NOT NULL,
    scope_kind smallint NOT NULL,
    scope_first bytea NOT NULL,
    scope_last bytea NOT NULL,
    reruns bigint NOT NULL,
    CONSTRAINT rerun_scope_reruns_check CHECK ((reruns >= 1))
);

-- Name: rerunnable; Type: VIEW; Schema: public

CREATE VIEW public.rerunnable AS
 SELECT b.job_version_id,
    e.event_id,
    e.dataset_version_id,
    e.scope_kind,
    e.scope_first,
    e.scope_last,
    e.revision
   FROM ((public.dag d
     JOIN public.input_binding b ON (((b.dag_version_id = d.active_version_id) AND b.trigger)))
     JOIN public.event e USING (dataset_version_id))
  WHERE ((NOT (EXISTS ( SELECT 1
           FROM public.event n
          WHERE ((n.dataset_version_id = e.dataset_version_id) AND (n.scope_first = e.scope_first) AND (n.scope_last = e.scope_last) AND (n.scope_kind = e.scope_kind) AND (n.revision > e.revision))))) AND (NOT (EXISTS ( SELECT 1
           FROM public.task t
          WHERE ((t.job_version_id = b.job_version_id) AND (t.event_id = e.event_id) AND (t.state = ANY (ARRAY['queued'::public.task_state, 'released'::public.task_state, 'running'::public.task_state, 'backoff'::public.task_state])))))));

-- Name: scheduled_job; Type: VIEW; Schema: public

CREATE VIEW public.scheduled_job AS
 SELECT d.dag,
    s.dag_version_id,
    s.job_version_id,
    s.details,
    s.max_attempts,
    s.max_lost_leases,
    s.timeout,
    s.max_concurrency,
    s.queue,
    s.retry_backoff,
    s.max_retry_backoff,
    s.max_run_tasks,
    false AS staged,
    ((d.staged_version_id IS NOT NULL) AND (NOT (EXISTS ( SELECT 1
           FROM public.dag_version_job n
          WHERE ((n.dag_version_id = d.staged_version_id) AND (n.job_version_id = s.job_version_id)))))) AS leaving,
    d.releases_held_until
   FROM (public.dag d
     JOIN public.dag_version_job s ON ((s.dag_version_id = d.active_version_id)))
  WHERE (d.removed_at IS NULL)
UNION ALL
 SELECT d.dag,
    s.dag_version_id,
    s.job_version_id,
    s.details,
    s.max_attempts,
    s.max_lost_leases,
    s.timeout,
    s.max_concurrency,
    s.queue,
    s.retry_backoff,
    s.max_retry_backoff,
    s.max_run_tasks,
    true AS staged,
    false AS leaving,
    NULL::timestamp with time zone AS releases_held_until
   FROM (public.dag d
     JOIN public.dag_version_job s ON ((s.dag_version_id = d.staged_version_id)))
  WHERE ((d.removed_at IS NOT NULL) OR (NOT (EXISTS ( SELECT 1
           FROM public.dag_version_job a
          WHERE ((a.dag_version_id = d.active_version_id) AND (a.job_version_id = s.job_version_id))))));

-- Name: schema_migration; Type: TABLE; Schema: public

CREATE TABLE public.schema_migration (
    number integer NOT NULL,
    name text NOT NULL,
    sha256 bytea NOT NULL,
    applied_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT schema_migration_sha256_check CHECK ((octet_length(sha256) = 32))
);

-- Name: virtual_dependency; Type: TABLE; Schema: public

CREATE TABLE public.virtual_dependency (
    dataset_version_id uuid NOT NULL,
    dependency_id text NOT NULL
);

-- Name: watermark; Type: TABLE; Schema: public

CREATE TABLE public.watermark (
    dataset_version_id uuid NOT NULL,
    cursor_key bytea NOT NULL,
    moved_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
)
WITH (fillfactor='50');

-- Name: activation activation_pkey; Type: CONSTRAINT; Schema: public

ALTER TABLE ONLY public.activation
    ADD CONSTRAINT activation_pkey PRIMARY KEY (dag, from_deploy);

-- Name: artifact artifact_object_key_key; Type: CONSTRAINT; Schema: public

ALTER TABLE ONLY public.artifact
    ADD CONSTRAINT artifact_object_key_key UNIQUE (object_key);

-- Name: artifact artifact_pkey; Type: CONSTRAINT; Schema: public

ALTER TABLE ONLY public.artifact
    ADD CONSTRAINT artifact_pkey PRIMARY KEY (artifact_id);

-- Name: attempt attempt_pkey; Type: CONSTRAINT; Schema: public

ALTER TABLE ONLY public.attempt
    ADD CONSTRAINT attempt_pkey PRIMARY KEY (task_id, attempt);

-- Name: audit audit_pkey; Type: CONSTRAINT; Schema: public

ALTER TABLE ONLY public.audit
    ADD CONSTRAINT audit_pkey PRIMARY KEY (audit_id);

-- Name: bundle bundle_pkey; Type: CONSTRAINT; Schema: public

ALTER TABLE ONLY public.bundle
    ADD CONSTRAINT bundle_pkey PRIMARY KEY (digest);

-- Name: dag dag_pkey; Type: CONSTRAINT; Schema: public

ALTER TABLE ONLY public.dag
    ADD CONSTRAINT dag_pkey PRIMARY KEY (dag);

-- Name: dag_version dag_version_dag_version_key; Type: CONSTRAINT; Schema: public

ALTER TABLE ONLY public.dag_version
    ADD CONSTRAINT dag_version_dag_version_key UNIQUE (dag, version);

-- Name: dag_version_dataset dag_version_dataset_pkey; Type: CONSTRAINT; Schema: public

ALTER TABLE ONLY public.dag_version_dataset
    ADD CONSTRAINT dag_version_dataset_pkey PRIMARY KEY (dag_version_id, dataset_id);

-- Name: dag_version_job dag_version_job_pkey; Type: CONSTRAINT; Schema: public

ALTER TABLE ONLY public.dag_version_job
    ADD CONSTRAINT dag_version_job_pkey PRIMARY KEY (dag_version_id, job_version_id);

-- Name: dag_version dag_version_pkey; Type: CONSTRAINT; Schema: public

ALTER TABLE ONLY public.dag_version
    ADD CONSTRAINT dag_version_pkey PRIMARY KEY (dag_version_id);

-- Name: dataset dataset_folded_id_key; Type: CONSTRAINT; Schema: public

ALTER TABLE ONLY public.dataset
    ADD CONSTRAINT dataset_folded_id_key UNIQUE (folded_id);

-- Name: dataset_head dataset_head_pkey; Type: CONSTRAINT; Schema: public

ALTER TABLE ONLY public.dataset_head
    ADD CONSTRAINT dataset_head_pkey PRIMARY KEY (dataset_version_id);

-- Name: dataset dataset_pkey; Type: CONSTRAINT; Schema: public

ALTER TABLE ONLY public.dataset
    ADD CONSTRAINT dataset_pkey PRIMARY KEY (dataset_id);

-- Name: dataset_version dataset_version_pkey; Type: CONSTRAINT; Schema: public

ALTER TABLE ONLY public.dataset_version
    ADD CONSTRAINT dataset_version_pkey PRIMARY KEY (dataset_version_id);

-- Name: deploy_counter deploy_counter_pkey; Type: CONSTRAINT; Schema: public

ALTER TABLE ONLY public.deploy_counter
    ADD CONSTRAINT deploy_counter_pkey PRIMARY KEY (only_row);

-- Name: deploy_request deploy_request_pkey; Type: CONSTRAINT; Schema: public

ALTER TABLE ONLY public.deploy_request
    ADD CONSTRAINT deploy_request_pkey PRIMARY KEY (request_id);

-- Name: event event_pkey; Type: CONSTRAINT; Schema: public

ALTER TABLE ONLY public.event
    ADD CONSTRAINT event_pkey PRIMARY KEY (event_id);

-- Name: finished_attempt finished_attempt_pkey; Type: CONSTRAINT; Schema: public

ALTER TABLE ONLY public.finished_attempt
    ADD CONSTRAINT finished_attempt_pkey PRIMARY KEY (task_id, attempt, finished_at);

-- Name: finished_count finished_count_pkey; Type: CONSTRAINT; Schema: public

ALTER TABLE ONLY public.finished_count
    ADD CONSTRAINT finished_count_pkey PRIMARY KEY (job_version_id, origin, state);

-- Name: finished_task finished_task_pkey; Type: CONSTRAINT; Schema: public

ALTER TABLE ONLY public.finished_task
    ADD CONSTRAINT finished_task_pkey PRIMARY KEY (task_id, finished_at);

-- Name: input_binding input_binding_pkey; Type: CONSTRAINT; Schema: public

ALTER TABLE ONLY public.input_binding
    ADD CONSTRAINT input_binding_pkey PRIMARY KEY (dag_version_id, job_version_id, dataset_id);

-- Name: job_output job_output_pkey; Type: CONSTRAINT; Schema: public

ALTER TABLE ONLY public.job_output
    ADD CONSTRAINT job_output_pkey PRIMARY KEY (job_version_id, dataset_version_id);

-- Name: job_version job_version_dag_job_fingerprint_key; Type: CONSTRAINT; Schema: public

ALTER TABLE ONLY public.job_version
    ADD CONSTRAINT job_version_dag_job_fingerprint_key UNIQUE (dag, job, fingerprint);

-- Name: job_version job_version_pkey; Type: CONSTRAINT; Schema: public

ALTER TABLE ONLY public.job_version
    ADD CONSTRAINT job_version_pkey PRIMARY KEY (job_version_id);

-- Name: job_version_run job_version_run_pkey; Type: CONSTRAINT; Schema: public

ALTER TABLE ONLY public.job_version_run
    ADD CONSTRAINT job_version_run_pkey PRIMARY KEY (job_version_id);

-- Name: operator_state operator_state_pkey; Type: CONSTRAINT; Schema: public

ALTER TABLE ONLY public.operator_state
    ADD CONSTRAINT operator_state_pkey PRIMARY KEY (job_version_id, stream_key);

-- Name: ordered_stream ordered_stream_pkey; Type: CONSTRAINT; Schema: public

ALTER TABLE ONLY public.ordered_stream
    ADD CONSTRAINT ordered_stream_pkey PRIMARY KEY (job_version_id, stream_key);

-- Name: orphan_sweep orphan_sweep_pkey; Type: CONSTRAINT; Schema: public

ALTER TABLE ONLY public.orphan_sweep
    ADD CONSTRAINT orphan_sweep_pkey PRIMARY KEY (only_row);

-- Name: pause pause_pkey; Type: CONSTRAINT; Schema: public

ALTER TABLE ONLY public.pause
    ADD CONSTRAINT pause_pkey PRIMARY KEY (dag, job);

-- Name: pin_dataset pin_dataset_pkey; Type: CONSTRAINT; Schema: public

ALTER TABLE ONLY public.pin_dataset
    ADD CONSTRAINT pin_dataset_pkey PRIMARY KEY (pin_id, dataset_id);

-- Name: pin pin_pkey; Type: CONSTRAINT; Schema: public

ALTER TABLE ONLY public.pin
    ADD CONSTRAINT pin_pkey PRIMARY KEY (pin_id);

-- Name: plan plan_pkey; Type: CONSTRAINT; Schema: public

ALTER TABLE ONLY public.plan
    ADD CONSTRAINT plan_pkey PRIMARY KEY (plan_id);

-- Name: publication publication_dataset_version_id_number_key; Type: CONSTRAINT; Schema: public

ALTER TABLE ONLY public.publication
    ADD CONSTRAINT publication_dataset_version_id_number_key UNIQUE (dataset_version_id, number);

-- Name: publication publication_pkey; Type: CONSTRAINT; Schema: public

ALTER TABLE ONLY public.publication
    ADD CONSTRAINT publication_pkey PRIMARY KEY (publication_id, dataset_version_id);

-- Name: query_record query_record_pkey; Type: CONSTRAINT; Schema: public

ALTER TABLE ONLY public.query_record
    ADD CONSTRAINT query_record_pkey PRIMARY KEY (record_number, recorded_at);

-- Name: queue_report queue_report_pkey; Type: CONSTRAINT; Schema: public

ALTER TABLE ONLY public.queue_report
    ADD CONSTRAINT queue_report_pkey PRIMARY KEY (dispatcher_id, queue);

-- Name: queue_settings queue_settings_pkey; Type: CONSTRAINT; Schema: public

ALTER TABLE ONLY public.queue_settings
    ADD CONSTRAINT queue_settings_pkey PRIMARY KEY (queue);

-- Name: rerun_page rerun_page_pkey; Type: CONSTRAINT; Schema: public

ALTER TABLE ONLY public.rerun_page
    ADD CONSTRAINT rerun_page_pkey PRIMARY KEY (request_id, page_token);

-- Name: rerun_scope rerun_scope_pkey; Type: CONSTRAINT; Schema: public

ALTER TABLE ONLY public.rerun_scope
    ADD CONSTRAINT rerun_scope_pkey PRIMARY KEY (job_version_id, scope_first, scope_last, scope_kind);

-- Name: schema_migration schema_migration_pkey; Type: CONSTRAINT; Schema: public

ALTER TABLE ONLY public.schema_migration
    ADD CONSTRAINT schema_migration_pkey PRIMARY KEY (number);

-- Name: subscription subscription_pkey; Type: CONSTRAINT; Schema: public

ALTER TABLE ONLY public.subscription
    ADD CONSTRAINT subscription_pkey PRIMARY KEY (job_version_id, input_version_id, from_number);

-- Name: task task_pkey; Type: CONSTRAINT; Schema: public

ALTER TABLE ONLY public.task
    ADD CONSTRAINT task_pkey PRIMARY KEY (task_id);

-- Name: virtual_dependency virtual_dependency_pkey; Type: CONSTRAINT; Schema: public

ALTER TABLE ONLY public.virtual_dependency
    ADD CONSTRAINT virtual_dependency_pkey PRIMARY KEY (dataset_version_id, dependency_id);

-- Name: watermark watermark_pkey; Type: CONSTRAINT; Schema: public

ALTER TABLE ONLY public.watermark
    ADD CONSTRAINT watermark_pkey PRIMARY KEY (dataset_version_id);

-- Name: artifact_scope; Type: INDEX; Schema: public

CREATE INDEX artifact_scope ON public.artifact USING btree (dataset_version_id, scope_first, scope_last);

-- Name: audit_of_dag; Type: INDEX; Schema: public

CREATE INDEX audit_of_dag ON public.audit USING gin (COALESCE(dags, ARRAY[subject])) WITH (fastupdate=off);

-- Name: audit_refused_once; Type: INDEX; Schema: public

CREATE UNIQUE INDEX audit_refused_once ON public.audit USING btree (date_bin('00:01:00'::interval, (at AT TIME ZONE 'UTC'::text), '2000-01-01 00:00:00'::timestamp without time zone), actor, method, subject, reason) WHERE (outcome = 'refused'::public.audit_outcome);

-- Name: dag_ending; Type: INDEX; Schema: public

CREATE INDEX dag_ending ON public.dag USING btree (dag) WHERE ending;

-- Name: dag_version_dataset_of; Type: INDEX; Schema: public

CREATE INDEX dag_version_dataset_of ON public.dag_version_dataset USING btree (dataset_version_id);

-- Name: dag_version_job_of; Type: INDEX; Schema: public

CREATE INDEX dag_version_job_of ON public.dag_version_job USING btree (job_version_id);

-- Name: dataset_version_condemned; Type: INDEX; Schema: public

CREATE INDEX dataset_version_condemned ON public.dataset_version USING btree (condemned_at, dataset_version_id) WHERE (condemned_at IS NOT NULL);

-- Name: dataset_version_of; Type: INDEX; Schema: public

CREATE INDEX dataset_version_of ON public.dataset_version USING btree (dataset_id, created_at DESC);

-- Name: event_key; Type: INDEX; Schema: public

CREATE UNIQUE INDEX event_key ON public.event USING btree (dataset_version_id, producer_task_id, scope_first, scope_last, scope_kind, revision);

-- Name: event_scope; Type: INDEX; Schema: public

CREATE INDEX event_scope ON public.event USING btree (dataset_version_id, scope_first, event_id);

-- Name: finished_task_cause; Type: INDEX; Schema: public

CREATE INDEX finished_task_cause ON ONLY public.finished_task USING btree (job_version_id, event_id) WHERE (event_id IS NOT NULL);

-- Name: finished_task_of_source; Type: INDEX; Schema: public

CREATE INDEX finished_task_of_source ON ONLY public.finished_task USING btree (job_version_id) WHERE (event_id IS NULL);

-- Name: input_binding_built; Type: INDEX; Schema: public

CREATE INDEX input_binding_built ON public.input_binding USING btree (built_version_id) WHERE (built_version_id IS NOT NULL);

-- Name: input_binding_of; Type: INDEX; Schema: public

CREATE INDEX input_binding_of ON public.input_binding USING btree (dataset_version_id);

-- Name: input_binding_readers; Type: INDEX; Schema: public

CREATE INDEX input_binding_readers ON public.input_binding USING btree (dataset_id);

-- Name: job_output_by_version; Type: INDEX; Schema: public

CREATE INDEX job_output_by_version ON public.job_output USING btree (dataset_version_id);

-- Name: ordered_stream_leased; Type: INDEX; Schema: public

CREATE INDEX ordered_stream_leased ON public.ordered_stream USING btree (lease_until) WHERE (lease_until IS NOT NULL);

-- Name: pin_expiry; Type: INDEX; Schema: public

CREATE INDEX pin_expiry ON public.pin USING btree (expires_at);

-- Name: plan_age; Type: INDEX; Schema: public

CREATE INDEX plan_age ON public.plan USING btree (created_at);

-- Name: query_record_actor; Type: INDEX; Schema: public

CREATE INDEX query_record_actor ON ONLY public.query_record USING btree (actor, record_number);

-- Name: query_record_dataset; Type: INDEX; Schema: public

CREATE INDEX query_record_dataset ON ONLY public.query_record USING gin (dataset_ids) WITH (fastupdate=off);

-- Name: query_record_id; Type: INDEX; Schema: public

CREATE INDEX query_record_id ON ONLY public.query_record USING btree (record_id);

-- Name: query_record_query; Type: INDEX; Schema: public

CREATE INDEX query_record_query ON ONLY public.query_record USING btree (query_id);

-- Name: rerun_page_age; Type: INDEX; Schema: public

CREATE INDEX rerun_page_age ON public.rerun_page USING btree (answered_at);

-- Name: subscription_instead; Type: INDEX; Schema: public

CREATE INDEX subscription_instead ON public.subscription USING btree (instead_of_version_id) WHERE (instead_of_version_id IS NOT NULL);

-- Name: subscription_of; Type: INDEX; Schema: public

CREATE INDEX subscription_of ON public.subscription USING btree (input_version_id);

-- Name: subscription_open; Type: INDEX; Schema: public

CREATE INDEX subscription_open ON public.subscription USING btree (input_version_id) WHERE (to_number IS NULL);

-- Name: subscription_replaying; Type: INDEX; Schema: public

CREATE INDEX subscription_replaying ON public.subscription USING btree (job_version_id) WHERE (NOT replayed);

-- Name: task_backoff; Type: INDEX; Schema: public

CREATE INDEX task_backoff ON public.task USING btree (retry_at) WHERE (state = 'backoff'::public.task_state);

-- Name: task_cause; Type: INDEX; Schema: public

CREATE UNIQUE INDEX task_cause ON public.task USING btree (job_version_id, event_id, revision) WHERE (event_id IS NOT NULL);

-- Name: task_dead; Type: INDEX; Schema: public

CREATE INDEX task_dead ON public.task USING btree (job_version_id, task_id) WHERE (state = 'dead'::public.task_state);

-- Name: task_finished; Type: INDEX; Schema: public

CREATE INDEX task_finished ON public.task USING btree (finished_at) WHERE (state = ANY (ARRAY['succeeded'::public.task_state, 'canceled'::public.task_state, 'skipped'::public.task_state]));

-- Name: task_leased; Type: INDEX; Schema: public

CREATE INDEX task_leased ON public.task USING btree (lease_until) WHERE (state = 'running'::public.task_state);

-- Name: task_of_source; Type: INDEX; Schema: public

CREATE INDEX task_of_source ON public.task USING btree (job_version_id) WHERE (event_id IS NULL);

-- Name: task_open; Type: INDEX; Schema: public

CREATE INDEX task_open ON public.task USING btree (job_version_id, scope_first, task_id) WHERE (state = ANY (ARRAY['released'::public.task_state, 'running'::public.task_state, 'backoff'::public.task_state, 'dead'::public.task_state]));

-- Name: task_queued; Type: INDEX; Schema: public

CREATE INDEX task_queued ON public.task USING btree (job_version_id, origin, scope_first, task_id) WHERE (state = 'queued'::public.task_state);

-- Name: task_released; Type: INDEX; Schema: public

CREATE INDEX task_released ON public.task USING btree (released_at) WHERE (state = 'released'::public.task_state);

-- Name: audit audit_append_only; Type: TRIGGER; Schema: public

CREATE TRIGGER audit_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON public.audit FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change_of_audit();

ALTER TABLE public.audit ENABLE ALWAYS TRIGGER audit_append_only;

-- Name: query_record query_record_append_only; Type: TRIGGER; Schema: public

CREATE TRIGGER query_record_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON public.query_record FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change_of_query_record();

ALTER TABLE public.query_record ENABLE ALWAYS TRIGGER query_record_append_only;

-- Name: activation activation_dag_fkey; Type: FK CONSTRAINT; Schema: public

ALTER TABLE ONLY public.activation
    ADD CONSTRAINT activation_dag_fkey FOREIGN KEY (dag) REFERENCES public.dag(dag);

-- Name: activation activation_dag_version_id_fkey; Type: FK CONSTRAINT; Schema: public

ALTER TABLE ONLY public.activation
    ADD CONSTRAINT activation_dag_version_id_fkey FOREIGN KEY (dag_version_id) REFERENCES public.dag_version(dag_version_id);

-- Name: dag dag_active_version_id_fkey; Type: FK CONSTRAINT; Schema: public

ALTER TABLE ONLY public.dag
    ADD CONSTRAINT dag_active_version_id_fkey FOREIGN KEY (active_version_id) REFERENCES public.dag_version(dag_version_id);

-- Name: dag dag_staged_version_id_fkey; Type: FK CONSTRAINT; Schema: public

ALTER TABLE ONLY public.dag
    ADD CONSTRAINT dag_staged_version_id_fkey FOREIGN KEY (staged_version_id) REFERENCES public.dag_version(dag_version_id);

-- Name: dag_version dag_version_base_version_id_fkey; Type: FK CONSTRAINT; Schema: public

ALTER TABLE ONLY public.dag_version
    ADD CONSTRAINT dag_version_base_version_id_fkey FOREIGN KEY (base_version_id) REFERENCES public.dag_version(dag_version_id);

-- Name: dag_version dag_version_dag_fkey; Type: FK CONSTRAINT; Schema: public

ALTER TABLE ONLY public.dag_version
    ADD CONSTRAINT dag_version_dag_fkey FOREIGN KEY (dag) REFERENCES public.dag(dag);

-- Name: dag_version_dataset dag_version_dataset_dag_version_id_fkey; Type: FK CONSTRAINT; Schema: public

ALTER TABLE ONLY public.dag_version_dataset
    ADD CONSTRAINT dag_version_dataset_dag_version_id_fkey FOREIGN KEY (dag_version_id) REFERENCES public.dag_version(dag_version_id);

-- Name: dag_version_dataset dag_version_dataset_dataset_version_id_fkey; Type: FK CONSTRAINT; Schema: public

ALTER TABLE ONLY public.dag_version_dataset
    ADD CONSTRAINT dag_version_dataset_dataset_version_id_fkey FOREIGN KEY (dataset_version_id) REFERENCES public.dataset_version(dataset_version_id);

-- Name: dag_version_job dag_version_job_dag_version_id_fkey; Type: FK CONSTRAINT; Schema: public

ALTER TABLE ONLY public.dag_version_job
    ADD CONSTRAINT dag_version_job_dag_version_id_fkey FOREIGN KEY (dag_version_id) REFERENCES public.dag_version(dag_version_id);

-- Name: dag_version_job dag_version_job_job_version_id_fkey; Type: FK CONSTRAINT; Schema: public

ALTER TABLE ONLY public.dag_version_job
    ADD CONSTRAINT dag_version_job_job_version_id_fkey FOREIGN KEY (job_version_id) REFERENCES public.job_version(job_version_id);

-- Name: dataset dataset_dag_fkey; Type: FK CONSTRAINT; Schema: public

ALTER TABLE ONLY public.dataset
    ADD CONSTRAINT dataset_dag_fkey FOREIGN KEY (dag) REFERENCES public.dag(dag);

-- Name: dataset_head dataset_head_dataset_version_id_fkey; Type: FK CONSTRAINT; Schema: public

ALTER TABLE ONLY public.dataset_head
    ADD CONSTRAINT dataset_head_dataset_version_id_fkey FOREIGN KEY (dataset_version_id) REFERENCES public.dataset_version(dataset_version_id);

-- Name: deploy_request deploy_request_dag_version_id_fkey; Type: FK CONSTRAINT; Schema: public

ALTER TABLE ONLY public.deploy_request
    ADD CONSTRAINT deploy_request_dag_version_id_fkey FOREIGN KEY (dag_version_id) REFERENCES public.dag_version(dag_version_id);

-- Name: deploy_request deploy_request_rolled_back_version_id_fkey; Type: FK CONSTRAINT; Schema: public

ALTER TABLE ONLY public.deploy_request
    ADD CONSTRAINT deploy_request_rolled_back_version_id_fkey FOREIGN KEY (rolled_back_version_id) REFERENCES public.dag_version(dag_version_id);

-- Name: input_binding input_binding_built_version_id_fkey; Type: FK CONSTRAINT; Schema: public

ALTER TABLE ONLY public.input_binding
    ADD CONSTRAINT input_binding_built_version_id_fkey FOREIGN KEY (built_version_id) REFERENCES public.dataset_version(dataset_version_id);

-- Name: input_binding input_binding_dag_version_id_fkey; Type: FK CONSTRAINT; Schema: public

ALTER TABLE ONLY public.input_binding
    ADD CONSTRAINT input_binding_dag_version_id_fkey FOREIGN KEY (dag_version_id) REFERENCES public.dag_version(dag_version_id);

-- Name: input_binding input_binding_dataset_version_id_fkey; Type: FK CONSTRAINT; Schema: public

ALTER TABLE ONLY public.input_binding
    ADD CONSTRAINT input_binding_dataset_version_id_fkey FOREIGN KEY (dataset_version_id) REFERENCES public.dataset_version(dataset_version_id);

-- Name: input_binding input_binding_job_version_id_fkey; Type: FK CONSTRAINT; Schema: public

ALTER TABLE ONLY public.input_binding
    ADD CONSTRAINT input_binding_job_version_id_fkey FOREIGN KEY (job_version_id) REFERENCES public.job_version(job_version_id);

-- Name: job_output job_output_dataset_version_id_fkey; Type: FK CONSTRAINT; Schema: public

ALTER TABLE ONLY public.job_output
    ADD CONSTRAINT job_output_dataset_version_id_fkey FOREIGN KEY (dataset_version_id) REFERENCES public.dataset_version(dataset_version_id);

-- Name: job_output job_output_job_version_id_fkey; Type: FK CONSTRAINT; Schema: public

ALTER TABLE ONLY public.job_output
    ADD CONSTRAINT job_output_job_version_id_fkey FOREIGN KEY (job_version_id) REFERENCES public.job_version(job_version_id);

-- Name: job_version job_version_dag_fkey; Type: FK CONSTRAINT; Schema: public

ALTER TABLE ONLY public.job_version
    ADD CONSTRAINT job_version_dag_fkey FOREIGN KEY (dag) REFERENCES public.dag(dag);

-- Name: job_version_run job_version_run_job_version_id_fkey; Type: FK CONSTRAINT; Schema: public

ALTER TABLE ONLY public.job_version_run
    ADD CONSTRAINT job_version_run_job_version_id_fkey FOREIGN KEY (job_version_id) REFERENCES public.job_version(job_version_id);

-- Name: pause pause_dag_fkey; Type: FK CONSTRAINT; Schema: public

ALTER TABLE ONLY public.pause
    ADD CONSTRAINT pause_dag_fkey FOREIGN KEY (dag) REFERENCES public.dag(dag);

-- Name: pin_dataset pin_dataset_dataset_version_id_fkey; Type: FK CONSTRAINT; Schema: public

ALTER TABLE ONLY public.pin_dataset
    ADD CONSTRAINT pin_dataset_dataset_version_id_fkey FOREIGN KEY (dataset_version_id) REFERENCES public.dataset_version(dataset_version_id);

-- Name: pin_dataset pin_dataset_pin_id_fkey; Type: FK CONSTRAINT; Schema: public

ALTER TABLE ONLY public.pin_dataset
    ADD CONSTRAINT pin_dataset_pin_id_fkey FOREIGN KEY (pin_id) REFERENCES public.pin(pin_id) ON DELETE CASCADE;

-- Name: subscription subscription_input_version_id_fkey; Type: FK CONSTRAINT; Schema: public

ALTER TABLE ONLY public.subscription
    ADD CONSTRAINT subscription_input_version_id_fkey FOREIGN KEY (input_version_id) REFERENCES public.dataset_version(dataset_version_id);

-- Name: subscription subscription_instead_of_version_id_fkey; Type: FK CONSTRAINT; Schema: public

ALTER TABLE ONLY public.subscription
    ADD CONSTRAINT subscription_instead_of_version_id_fkey FOREIGN KEY (instead_of_version_id) REFERENCES public.dataset_version(dataset_version_id);

-- Name: subscription subscription_job_version_id_fkey; Type: FK CONSTRAINT; Schema: public

ALTER TABLE ONLY public.subscription
    ADD CONSTRAINT subscription_job_version_id_fkey FOREIGN KEY (job_version_id) REFERENCES public.job_version(job_version_id);

-- Name: virtual_dependency virtual_dependency_dataset_version_id_fkey; Type: FK CONSTRAINT; Schema: public

ALTER TABLE ONLY public.virtual_dependency
    ADD CONSTRAINT virtual_dependency_dataset_version_id_fkey FOREIGN KEY (dataset_version_id) REFERENCES public.dataset_version(dataset_version_id);

-- Name: watermark watermark_dataset_version_id_fkey; Type: FK CONSTRAINT; Schema: public

ALTER TABLE ONLY public.watermark
    ADD CONSTRAINT watermark_dataset_version_id_fkey FOREIGN KEY (dataset_version_id) REFERENCES public.dataset_version(dataset_version_id);
