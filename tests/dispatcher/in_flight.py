"""Tasks in work when their version is replaced, and when it is taken back: what each of them is answered afterwards."""

from collections import Counter
from dataclasses import dataclass, field

from tests.dispatcher.builders import Worker, event, start_source, success, verdict
from tests.dispatcher.changing import CHANGED, PIPELINE, Fleet, deploy, missing, roll_back, served
from tests.dispatcher.in_process import InProcess
from traceapi.control.v1 import dag_service_pb2 as pb
from traceapi.worker.v1 import worker_service_pb2 as worker_pb
from traceapi.worker.v1.emit_pb2 import EmitItem


@dataclass(frozen=True, slots=True)
class Answers:
    """How often each was given."""

    heartbeats: Counter[str]
    emits: Counter[str]
    ends: Counter[str]

    @property
    def accepted(self) -> int:
        """What got in."""
        return self.emits["accepted"] + self.ends["succeeded"]

    @property
    def cancelled(self) -> int:
        """Those that were told to stop, or not let in."""
        stopped = self.heartbeats.total() - self.heartbeats["continue"]
        return max(stopped, self.emits.total() - self.emits["accepted"], self.ends.total() - self.ends["succeeded"])


@dataclass(frozen=True, slots=True)
class InFlight:
    """By switch: what the tasks of the version that went were answered, and those of a job that both versions share.
    `counts` are events of the version that was taken back, and of the restored one in the end, and what that misses."""

    gone: dict[str, Answers] = field(default_factory=dict)
    shared: dict[str, Answers] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)


async def switch_in_flight(dispatcher: InProcess, tasks: int) -> InFlight:
    """A cutover and a rollback, with so many tasks of each side in work."""
    await dispatcher.deploy(PIPELINE)
    source = await start_source(dispatcher)
    fleet, worker, found = Fleet(dispatcher), Worker(dispatcher), InFlight()
    await source.publish(range(1, tasks + 1))
    await dispatcher.release()
    old, shared = await _in_work(dispatcher, worker, "copies"), await _in_work(dispatcher, worker, "apart")
    building = await deploy(dispatcher, CHANGED, hold=True)
    await fleet.catch_up()
    await dispatcher.dags.CutOverDag(pb.CutOverDagRequest(deployment_id=building.deployment_id))
    found.gone["cutover"] = await _ends(worker, old, "copies")
    found.shared["cutover"] = await _ends(worker, shared, "parts")
    replaced = await served(dispatcher)

    await source.publish(range(tasks + 1, 2 * tasks + 1))
    await dispatcher.release()
    bad, shared = await _in_work(dispatcher, worker, "copies"), await _in_work(dispatcher, worker, "apart")
    await roll_back(dispatcher)
    found.gone["rollback"] = await _ends(worker, bad, "copies")
    found.shared["rollback"] = await _ends(worker, shared, "parts")
    found.counts["taken back"] = await _events(dispatcher, replaced["copies"])

    await dispatcher.expire()  # those that were in work when their version was replaced are taken up again
    await fleet.catch_up()
    found.counts["restored"] = await _events(dispatcher, (await served(dispatcher))["copies"])
    found.counts["missing"] = await missing(dispatcher)
    return found


async def _in_work(dispatcher: InProcess, worker: Worker, job: str) -> list[worker_pb.ClaimedTask]:
    """All released tasks of a job, claimed."""
    rows = await dispatcher.rows(
        "select t.task_id::text from task t join job_version j using (job_version_id)"
        " join job_version_run r using (job_version_id)"
        " where t.state = 'released' and j.job = %s and r.run_state = 'running'",
        job,
    )
    response = await worker.claim([task_id for (task_id,) in rows])
    return [result.claimed for result in response.results]


async def _ends(worker: Worker, tasks: list[worker_pb.ClaimedTask], dataset: str) -> Answers:
    """All of them beat, emit and complete."""
    leases = [worker.lease(task) for task in tasks]
    beats = await worker.beat(*(worker_pb.HeartbeatItem(lease=lease) for lease in leases))
    items = [
        EmitItem(tasks=[lease], events=[event(dataset, task.scope)]) for lease, task in zip(leases, tasks, strict=True)
    ]
    emitted = await worker.emit(*items)
    ended = await worker.complete(*(success(lease, 1) for lease in leases))
    return Answers(Counter(beats), Counter(verdict(result) for result in emitted), Counter(ended))


async def _events(dispatcher: InProcess, version_id: str) -> int:
    return int(await dispatcher.value("select count(*) from event where dataset_version_id = %s", version_id))
