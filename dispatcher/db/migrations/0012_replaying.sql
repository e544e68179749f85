-- Intervals whose retained events are being replayed. What a job had begun to read of a version that is not served any more stays where it is,
-- and goes on if that version is served again.
create view replaying as
select s.job_version_id, s.input_version_id, s.from_number, s.to_number, s.replay_key, s.replay_event_id, s.instead_of_version_id
from subscription s
where not s.replayed and exists (
    select 1
    from subscription o
    where o.job_version_id = s.job_version_id and o.input_version_id = s.input_version_id and o.to_number is null
);
