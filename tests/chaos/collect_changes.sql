-- What the checker reads of changes, in the order of the fields of its values.

-- name: moves
select seq, dag, coalesce(active_version_id::text, ''), coalesce(staged_version_id::text, ''), extract(epoch from at)::float, txid
from chaos.dag_move
order by seq;

-- name: activated
select seq, dag, dag_version_id::text, deploy_number, extract(epoch from at)::float, txid
from chaos.activated
order by seq;

-- name: activations
select dag, dag_version_id::text, from_deploy, to_deploy from activation order by from_deploy;

-- name: pointers
select dataset_id, dataset_version_id::text from pointer order by dataset_id;

-- name: runs
select seq, job_version_id::text, run_state, epoch, extract(epoch from at)::float, txid
from chaos.run_change
order by seq;

-- name: said
select seq, method, txid from chaos.said order by seq;

-- name: listened
select seq, job_version_id::text, dataset_version_id::text, listens, txid from chaos.listened order by seq;

-- name: heads
select h.dataset_version_id::text, h.number, coalesce(min(p.number), 0), coalesce(max(p.number), 0), count(p.number)
from dataset_head h
join dataset_version v using (dataset_version_id)
left join publication p using (dataset_version_id)
where v.condemned_at is null
group by h.dataset_version_id, h.number;

-- name: jobs
select dag_version_id::text, array_agg(job_version_id::text) from chaos.version_job group by dag_version_id;

-- name: datasets
select dag_version_id::text, jsonb_object_agg(dataset_id, dataset_version_id) from chaos.version_dataset group by dag_version_id;

-- name: outputs
select job_version_id::text, array_agg(dataset_version_id::text) from chaos.output group by job_version_id;

-- name: specs
select dag_version_id::text, spec from dag_version;

-- name: condemned
select seq, dataset_version_id::text, extract(epoch from at)::float from chaos.condemned order by seq;

-- name: left
select count(*) from dataset_version where condemned_at is not null;

-- name: pinned
select seq, pin_id::text, dataset_version_id::text from chaos.pinned order by seq;

-- name: pins
select seq, pin_id::text, extract(epoch from expires_at)::float from chaos.pin_change order by seq;
