"""A DAG whose first version nothing serves any more, and whose second has nothing in common with it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from dispatcher.collecting.collector import ACTOR, Collector
from dispatcher.collecting.reach import Retention
from dispatcher.collecting.removal import Remover
from tests.dispatcher.builders import CHAIN, Source, Worker, artifact, at, event, start_source, success
from tests.dispatcher.in_process import InProcess
from traceapi.control.v1 import dag_service_pb2 as dag_pb
from traceapi.worker.v1.emit_pb2 import EmitItem

OTHER = CHAIN.replace("/data/blocks.csv", "/data/other.csv")
NO_GRACE = Retention(timedelta(0), 0, timedelta(0))

# Who a version's rows are of, in all tables. What it answers is left of the versions and their jobs.
LEFT = """
select t.name, t.count
from (
    select 'artifact', count(*) from artifact where dataset_version_id = any(%(versions)s::uuid[])
    union all select 'event', count(*) from event where dataset_version_id = any(%(versions)s::uuid[])
    union all select 'publication', count(*) from publication where dataset_version_id = any(%(versions)s::uuid[])
    union all select 'head', count(*) from dataset_head where dataset_version_id = any(%(versions)s::uuid[])
    union all select 'watermark', count(*) from watermark where dataset_version_id = any(%(versions)s::uuid[])
    union all select 'dependency', count(*) from virtual_dependency where dataset_version_id = any(%(versions)s::uuid[])
    union all select 'served', count(*) from dag_version_dataset where dataset_version_id = any(%(versions)s::uuid[])
    union all select 'pin', count(*) from pin_dataset where dataset_version_id = any(%(versions)s::uuid[])
    union all select 'version', count(*) from dataset_version where dataset_version_id = any(%(versions)s::uuid[])
    union all select 'binding', count(*) from input_binding
        where dataset_version_id = any(%(versions)s::uuid[]) or job_version_id = any(%(jobs)s::uuid[])
    union all select 'subscription', count(*) from subscription
        where input_version_id = any(%(versions)s::uuid[]) or job_version_id = any(%(jobs)s::uuid[])
    union all select 'output', count(*) from job_output where job_version_id = any(%(jobs)s::uuid[])
    union all select 'settings', count(*) from dag_version_job where job_version_id = any(%(jobs)s::uuid[])
    union all select 'run', count(*) from job_version_run where job_version_id = any(%(jobs)s::uuid[])
    union all select 'state', count(*) from operator_state where job_version_id = any(%(jobs)s::uuid[])
    union all select 'stream', count(*) from ordered_stream where job_version_id = any(%(jobs)s::uuid[])
    union all select 'task', count(*) from any_task where job_version_id = any(%(jobs)s::uuid[])
    union all select 'attempt', count(*) from any_attempt where task_id = any(%(tasks)s::uuid[])
    union all select 'count', count(*) from finished_count where job_version_id = any(%(jobs)s::uuid[])
    union all select 'job', count(*) from job_version where job_version_id = any(%(jobs)s::uuid[])
) t (name, count)
where t.count > 0
"""


@dataclass(frozen=True, slots=True)
class GivenUp:
    """The former version: its dataset versions by dataset, and all that is theirs."""

    versions: dict[str, str]
    jobs: list[str]
    tasks: list[str]

    @property
    def ids(self) -> list[str]:
        return sorted(self.versions.values())

    async def left(self, dispatcher: InProcess) -> dict[str, int]:
        """Rows by what they are, and files."""
        parameters = {"versions": self.ids, "jobs": self.jobs, "tasks": self.tasks}
        async with dispatcher.pool.connection() as connection:
            cursor = await connection.execute(LEFT, parameters)
            found: dict[str, int] = dict(await cursor.fetchall())
        files = [item.key for item in dispatcher.store.list("data/") if item.key.split("/")[1] in self.ids]
        return {**found, **({"file": len(files)} if files else {})}


async def fill(dispatcher: InProcess, numbers: Sequence[int]) -> Source:
    """Deploys CHAIN; publishes blocks, and a copy of each but the last."""
    await dispatcher.deploy(CHAIN)
    source = await start_source(dispatcher)
    await source.publish(numbers)
    worker = Worker(dispatcher)
    for number in numbers[:-1]:
        await dispatcher.release()
        lease = worker.lease(await worker.claim_one(await dispatcher.task_of("chain", "copies", number)))
        file = await artifact(dispatcher, "copies", at(number))
        item = EmitItem(tasks=[lease], artifacts=[file], events=[event("copies", at(number), artifact=0)])
        assert await worker.end([item], [success(lease, events=1)]) == (["accepted"], ["succeeded"])
    return source


async def replace(dispatcher: InProcess, document: str = OTHER, *, days_ago: int = 90) -> GivenUp:
    """Another version of the one DAG that there is is active, since so long, without any of its jobs."""
    found = await dispatcher.rows("select dataset_id, dataset_version_id::text from pointer")
    jobs = await dispatcher.rows(
        "select s.job_version_id::text from dag d join dag_version_job s on s.dag_version_id = d.active_version_id"
    )
    await switch(dispatcher, document)
    await age(dispatcher, days_ago)
    tasks = await dispatcher.rows(
        "select task_id::text from any_task where job_version_id = any(%s::uuid[])", [job for (job,) in jobs]
    )
    return GivenUp(dict(found), [job for (job,) in jobs], [task for (task,) in tasks])


async def switch(dispatcher: InProcess, document: str) -> None:
    """Another document is active, whatever its watermarks."""
    staged = await dispatcher.deploy(document)
    await dispatcher.dags.CutOverDag(
        dag_pb.CutOverDagRequest(deployment_id=staged.deployment_id, watermarks_may_go_back=True)
    )


async def age(dispatcher: InProcess, days: int) -> None:
    """Everything is so much older."""
    for statement in (
        "update activation set from_time = from_time - %s * interval '1 day'",
        "update dag_version set created_at = created_at - %s * interval '1 day'",
        "update dataset_version set created_at = created_at - %s * interval '1 day'",
    ):
        await dispatcher.run(statement, days)


def collector(dispatcher: InProcess, retention: Retention = NO_GRACE) -> Collector:
    return Collector(dispatcher.pool, dispatcher.store, retention)


async def remove_all(of: Collector) -> None:
    """To its end, what was condemned."""
    remover = Remover(of.pool, of.artifacts)
    while await remover.step(ACTOR):
        pass
