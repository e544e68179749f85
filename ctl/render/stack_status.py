"""A stack as people see it: what answers where, what the worker does, which job has how many tasks in which state."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from ctl.home import Endpoints, Home
from ctl.render import tables, values
from ctl.render.values import NOTHING
from ctl.stack_status import ProgramStatus, StackStatus
from traceapi.control.v1 import task_service_pb2 as task_api
from traceapi.control.v1.deployment_pb2 import TaskCount
from traceapi.wrapper.v1 import wrapper_service_pb2 as wrapper_api

_PHASE_STYLES = {
    wrapper_api.WORKER_PHASE_CONNECTING: "bad",
    wrapper_api.WORKER_PHASE_SERVING: "good",
    wrapper_api.WORKER_PHASE_DRAINING: "waiting",
}


def ready(home: Home, endpoints: Endpoints, *, detached: bool) -> RenderableType:
    """What `up` says once everything serves."""
    option = home.option()
    addresses = tables.facts(
        {
            "control": endpoints.control,
            "internal": endpoints.internal,
            "query": endpoints.query,
            "wrapper": ", ".join(endpoints.wrappers),
            "home": str(home.root),
        }
    )
    end = f"stop it: tracectl down{option}" if detached else "Ctrl-C stops it"
    return Group(
        Text("the stack is up", "good"),
        addresses,
        Text(f"next: tracectl dag deploy FILE --wait{option}\n{end}", "hint"),
    )


def status(of: StackStatus) -> RenderableType:
    parts: list[RenderableType] = [tables.facts({"home": str(of.home.root)}), programs(of.programs)]
    parts.extend(worker(one) for one in of.workers)
    parts.append(tables.section("Tasks", counts(None if of.counts is None else of.counts.counts)))
    return Group(*parts)


def programs(found: Sequence[ProgramStatus]) -> RenderableType:
    made = tables.table("program", "address", "process", "state", right=("process",))
    for one in found:
        state = Text("answers", "good") if one.answers else Text(one.fault, "bad")
        tables.add_row(made, Text(one.name, "name"), one.address, str(one.pid) if one.pid else NOTHING, state)
    return made


def worker(of: wrapper_api.GetStatusResponse) -> RenderableType:
    phase = values.word(wrapper_api.WorkerPhase.Name(of.phase), "WORKER_PHASE_")
    sandbox = values.word(wrapper_api.SandboxKind.Name(of.sandbox), "SANDBOX_KIND_")
    pairs: dict[str, RenderableType | str] = {
        "state": Text(phase, _PHASE_STYLES.get(of.phase, "")),
        "queues": ", ".join(of.queues) or NOTHING,
        "running": f"{of.running_tasks} of {of.capacity}",
        "attempts": f"{values.count(of.succeeded_attempts)} succeeded, {values.count(of.failed_attempts)} failed",
        "sandbox": Text(sandbox, "waiting" if of.sandbox == wrapper_api.SANDBOX_KIND_PLAIN else ""),
        "since": values.time(of.started_time),
    }
    parts: list[RenderableType] = [tables.facts(pairs)]
    if of.processes:
        made = tables.table("operator of", "process", "tasks", "sandboxed", right=("process", "tasks"))
        for process in of.processes:
            shut_in = "yes" if process.sandboxed else "no (built in)"
            tables.add_row(made, f"{process.dag}/{process.job}", str(process.pid), str(process.running_tasks), shut_in)
        parts.append(made)
    return tables.section(f"Worker {of.worker_id}", Group(*parts))


def counts(found: Sequence[task_api.JobTaskCount] | None) -> RenderableType:
    """A line per job, the states in a fixed order. None is nothing known."""
    if found is None:
        return tables.nothing("  not known: the dispatcher does not answer")
    if not found:
        return tables.nothing("  none yet")
    by_job: dict[tuple[str, str], list[TaskCount]] = {}
    for entry in found:
        count = TaskCount(state=entry.state, count=entry.count)
        by_job.setdefault((entry.dag, entry.job), []).append(count)
    made = tables.table("DAG", "job", "tasks")
    for (dag, job), entries in sorted(by_job.items()):
        tables.add_row(made, dag, Text(job, "name"), values.task_counts(entries))
    return made
