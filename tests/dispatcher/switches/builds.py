"""A version that is about to take over, and one of another DAG that reads it."""

from dispatcher.db.pool import transaction
from kernel.ids import new_id
from tests.dispatcher.builders import Source, int64, start_source
from tests.dispatcher.changing import PIPELINE, Fleet, deploy
from tests.dispatcher.in_process import InProcess
from traceapi.control.v1 import source_service_pb2 as sources
from traceapi.control.v1.deployment_pb2 import Deployment
from traceapi.types.v1.scope_pb2 import CursorRange

# What is downstream of a job that both versions have, two deep.
MORE = """\
  sums:
    operator: sql
    config: {sql: SUMS}
    inputs: {copies: {}}
    outputs: {sums: {schema: {number: int64}}}
  last: {operator: splitter, inputs: {sums: {}}, outputs: {lasts: {storage: none}}}
"""
DEEPER = PIPELINE + MORE.replace("SUMS", "select number from copies")
CHANGED = DEEPER.replace("select number from copies", "select number + 1 as number from copies")
READER = "dag: reader\njobs:\n  mine: {operator: splitter, inputs: {sums: {}}, outputs: {mine: {storage: none}}}\n"
OPEN = """
select j.job, count(*)
from task t join job_version j using (job_version_id) join job_version_run r using (job_version_id)
where t.state in ('queued', 'released', 'running', 'backoff') and t.origin <> 'source_run' and r.run_state = %s
group by 1 order by 1
"""
HALTED = "select coalesce(releases_held_until > clock_timestamp(), false) from dag where dag = 'chain'"
OLDER = (
    "update dag set releases_held_until = releases_held_until - %(seconds)s * interval '1 s',"
    " releases_held_since = releases_held_since - %(seconds)s * interval '1 s'",
    "update dag_version set staged_at = x.at, barrier_at = barrier_at - (staged_at - x.at),"
    " barrier_passed_at = barrier_passed_at - (staged_at - x.at)"
    " from (select dag_version_id, staged_at - %(seconds)s * interval '1 s' as at from dag_version) x"
    " where x.dag_version_id = dag_version.dag_version_id and staged_at is not null",
    "update task set created_at = created_at - %(seconds)s * interval '1 s'",
    "update job_version_run set changed_at = changed_at - %(seconds)s * interval '1 s'",
)


async def older(dispatcher: InProcess, seconds: int) -> None:
    """Time goes on: everything that the database has noted is older."""
    async with transaction(dispatcher.pool) as connection:
        for statement in OLDER:
            await connection.execute(statement, {"seconds": seconds})


async def work_of_active(dispatcher: InProcess, fleet: Fleet) -> None:
    """The staged jobs are slower."""
    await dispatcher.run("update job_version_run set run_state = 'retired' where run_state = 'staged'")
    await fleet.work()
    await dispatcher.run("update job_version_run set run_state = 'staged' where run_state = 'retired'")


async def work_one_of_staged(dispatcher: InProcess, fleet: Fleet, job: str) -> None:
    """The first that waits."""
    await dispatcher.release()
    await fleet.do(
        await dispatcher.value(
            "select t.task_id::text from task t join job_version j using (job_version_id)"
            " join job_version_run r using (job_version_id)"
            " where j.job = %s and r.run_state = 'staged' and t.state = 'released' order by t.task_id limit 1",
            job,
        )
    )


async def run_again(dispatcher: InProcess, number: int) -> None:
    """Upstream of what changes."""
    scopes = CursorRange(first=int64(number), last=int64(number))
    request = sources.BackfillJobRequest(dag="chain", job="copies", range=scopes, request_id=new_id())
    await dispatcher.sources.BackfillJob(request)


async def built(
    dispatcher: InProcess, fleet: Fleet, *, hold: bool = False, watermark: bool = True
) -> tuple[Source, Deployment]:
    """A version that has done all from before its staging, and has yet to take over."""
    await dispatcher.deploy(DEEPER)
    source = await start_source(dispatcher)
    await source.publish([1, 2], watermark=watermark)
    await fleet.work()
    building = await deploy(dispatcher, CHANGED, hold=hold)
    while await dispatcher.replay():
        pass
    await fleet.work()
    await dispatcher.derive()
    return source, building
