-- What tasks that wrote a file each leave in the database, for `bench.many_artifacts`.

-- name: artifacts
select count(*) from artifact join dataset_version using (dataset_version_id) where dataset_id = %(dataset_id)s;

-- name: recorded
create temporary table recorded (object_key text, scope bytea, size_bytes bigint, sha256 bytea) on commit drop;

-- name: record
copy recorded (object_key, scope, size_bytes, sha256) from stdin;

-- name: publish
-- All of them in one publication, by the task that wrote the first.
with first as (
    select a.dataset_version_id, a.producer_task_id, a.schema_digest
    from artifact a
    join dataset_version v using (dataset_version_id)
    where v.dataset_id = %(dataset_id)s
), head as (
    update dataset_head h
    set number = h.number + 1, event_count = h.event_count + (select count(*) from recorded)
    from first f
    where h.dataset_version_id = f.dataset_version_id
    returning h.dataset_version_id, h.number
), published as (
    insert into publication (publication_id, dataset_version_id, number, event_count)
    select uuidv7(), dataset_version_id, number, (select count(*) from recorded) from head
    returning publication_id
)
insert into artifact (
    artifact_id, dataset_version_id, object_key, producer_task_id, producer_attempt, scope_kind, scope_first, scope_last, revision,
    row_count, size_bytes, sha256, schema_digest, publication_id
)
select uuidv7(), f.dataset_version_id, r.object_key, f.producer_task_id, 1, 1, r.scope, r.scope, 0, 1, r.size_bytes, r.sha256,
    f.schema_digest, p.publication_id
from first f
cross join published p
cross join recorded r;
