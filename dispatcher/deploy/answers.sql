-- Calls that can be repeated, by their ids: what each was answered with.

-- name: answered_deploy
-- What a deploy call was answered with before. Primary key.
select v.dag_version_id::text, v.dag, v.version, v.state::text, v.deploy_number, v.actor, v.created_at, v.active_at, v.spec,
    v.spec_digest
from deploy_request q
join dag_version v using (dag_version_id)
where q.request_id = %(request_id)s;

-- name: answer_deploy
-- Answers nothing where another call took the id meanwhile.
insert into deploy_request (request_id, dag_version_id, actor)
values (%(request_id)s, %(dag_version_id)s, %(actor)s)
on conflict do nothing
returning request_id;

-- name: answered_rollback
-- What a rollback was answered with before. Primary key.
select v.dag_version_id::text, v.dag, v.version, v.state::text, v.deploy_number, v.actor, v.created_at, v.active_at, v.spec,
    v.spec_digest
from deploy_request q
join dag_version v using (dag_version_id)
where q.request_id = %(request_id)s and q.rolled_back_version_id is not null;

-- name: answer_rollback
insert into deploy_request (request_id, dag_version_id, rolled_back_version_id, actor)
values (%(request_id)s, %(dag_version_id)s, %(rolled_back_version_id)s, %(actor)s)
on conflict do nothing
returning request_id;
