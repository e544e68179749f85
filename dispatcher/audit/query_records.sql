-- Statements of queries on record. Rows are only ever added: a trigger refuses everything else but the drop of a whole day.

-- name: record_alone
-- One recording at a time, until the transaction's end: what is sent again meanwhile finds what it was sent with before. Also makes days.
select pg_advisory_xact_lock(%(key)s);

-- name: try_alone
-- The same, where nobody is to be waited for.
select pg_try_advisory_xact_lock(%(key)s);

-- name: add_days
-- Of this moment, and so many days ahead; `now()`, as `record_queries` has it.
select add_query_day((now() at time zone 'UTC')::date + ahead) from generate_series(0, %(ahead)s) as d (ahead);

-- name: record_queries
-- Each record once, whatever is sent again within two days. Index query_record_id.
insert into query_record (
    record_id, query_id, recorded_at, recorded_by, actor, call, client, sql_sha256, as_of, deploy_number, dataset_ids,
    dataset_version_ids, publication_numbers, started_at, elapsed, row_count, arrow_bytes, outcome, reason
)
select distinct on (r.record_id) r.record_id, r.query_id, now(), %(recorded_by)s, r.actor, r.call, r.client, decode(r.sql_sha256, 'hex'),
    r.as_of, r.deploy_number, r.dataset_ids, r.dataset_version_ids, r.publication_numbers, r.started_at,
    r.elapsed_microseconds * interval '1 microsecond', r.row_count, r.arrow_bytes, r.outcome, r.reason
from jsonb_to_recordset(%(records)s) as r (
    record_id uuid, query_id uuid, actor text, call query_call, client text, sql_sha256 text, as_of query_as_of, deploy_number bigint,
    dataset_ids text[], dataset_version_ids uuid[], publication_numbers bigint[], started_at timestamptz, elapsed_microseconds bigint,
    row_count bigint, arrow_bytes bigint, outcome query_outcome, reason text
)
where not exists (
    select 1 from query_record q where q.record_id = r.record_id and q.recorded_at > now() - interval '2 days'
)
order by r.record_id;

-- name: query_records
-- The latest first, below `before`. Indexes query_record_query, query_record_actor, query_record_dataset, or the primary key backwards.
select record_number, record_id::text, query_id::text, recorded_at, recorded_by, actor, call::text, client, sql_sha256, as_of::text,
    deploy_number, dataset_ids, dataset_version_ids::text[], publication_numbers, started_at, elapsed, row_count, arrow_bytes,
    outcome::text, reason
from query_record
where (%(actor)s::text is null or actor = %(actor)s)
    and (%(dataset_id)s::text is null or dataset_ids @> array[%(dataset_id)s::text])
    and (%(query_id)s::uuid is null or query_id = %(query_id)s::uuid)
    and (%(since)s::timestamptz is null or recorded_at >= %(since)s)
    and (%(before)s::bigint is null or record_number < %(before)s)
order by record_number desc
limit %(limit)s;

-- name: limit_lock_wait
-- For the rest of the transaction: what it waits for, others wait for behind it.
select set_config('lock_timeout', %(wait)s, true);

-- name: oldest_day_to_drop
-- The first day whose last record is older than is kept.
select day
from query_day
where day < (clock_timestamp() at time zone 'UTC')::date - %(days)s::int
order by day
limit 1;

-- name: drop_day
select drop_query_day(%(day)s);
