-- What SQS holds of a queue, as far as the database knows it.

-- name: count_unanswered
-- By queue of what may run, how many wake-ups are out without an answer, apart from those that count as lost. Index task_released.
with out as (
    select job_version_id, count(*) as tasks
    from task
    where state = 'released' and released_at > clock_timestamp() - %(unanswered)s::interval
    group by job_version_id
)
select s.queue, coalesce(sum(out.tasks), 0)::int
from scheduled_job s
left join out using (job_version_id)
group by s.queue;
