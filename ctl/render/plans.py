"""A plan as people read it: what becomes of each job and why, what that takes, and what else it touches."""

from collections.abc import Sequence

from google.protobuf.duration_pb2 import Duration
from rich.console import Group, RenderableType
from rich.text import Text

from ctl.render import values
from ctl.render.printable import printable
from ctl.render.tables import add_row, facts, table
from ctl.render.values import NOTHING
from traceapi.control.v1 import dag_service_pb2 as api
from traceapi.control.v1 import plan_pb2
from traceapi.types.v1 import dag_pb2

_STYLES = {
    plan_pb2.JOB_CHANGE_ADDED: "good",
    plan_pb2.JOB_CHANGE_CHANGED: "waiting",
    plan_pb2.JOB_CHANGE_DOWNSTREAM: "waiting",
    plan_pb2.JOB_CHANGE_SHARED: "gone",
    plan_pb2.JOB_CHANGE_REUSED: "active",
    plan_pb2.JOB_CHANGE_REMOVED: "bad",
}
_WHY = {
    plan_pb2.JOB_CHANGE_DOWNSTREAM: "what it reads changes",
    plan_pb2.JOB_CHANGE_REUSED: "built before: only what it missed is run",
    plan_pb2.JOB_CHANGE_REMOVED: "no longer in the document",
}
_MAX_VALUE = 60
_MAX_SHOWN = 12
"""Fields of a job and names of a list; JSON has all."""


def plan(of: api.PlanDagResponse, spec: dag_pb2.DagSpec) -> RenderableType:
    """`spec` is the document's, which knows what kind of job each is."""
    shown = [job for job in of.jobs if job.change != plan_pb2.JOB_CHANGE_SHARED or job.field_changes]
    parts: list[RenderableType] = []
    if shown:
        made = table("job", "change", "why", "tasks", "time", right=("tasks",))
        for job in shown:
            add_row(made, Text(job.job, "name"), _change(job), _why(job), _tasks(job), _time(job, spec))
        parts.append(made)
    if rest := len(of.jobs) - len(shown):
        others = "other " if shown else ""
        parts.append(Text(f"{values.count(rest)} {others}job{'s go' if rest != 1 else ' goes'} on as before", "hint"))
    return Group(*parts, Text(), facts(_facts(of, spec)))


def _facts(of: api.PlanDagResponse, spec: dag_pb2.DagSpec) -> dict[str, RenderableType | str]:
    base = f"from version {of.base_version}" if of.base_version else "the first version"
    pairs: dict[str, RenderableType | str] = {
        "plan": f"{of.plan_id}, {base} of {of.dag}",
        "before the cutover": _total(of, spec),
        "a rollback": _rollback(of),
    }
    if of.affected_reader_dags:
        readers = _listed(of.affected_reader_dags)
        pairs["read by others"] = f"{readers}: what they built stays until their own next deploy"
    if of.taken_over_jobs:
        pairs["taken over as is"] = f"{_listed(of.taken_over_jobs)}, by {of.actor}"
    return pairs


def _change(job: plan_pb2.PlannedJob) -> Text:
    word = values.word(plan_pb2.JobChange.Name(job.change), "JOB_CHANGE_")
    return Text(word, _STYLES.get(job.change, ""))


def _why(job: plan_pb2.PlannedJob) -> Text:
    lines = [Text(_WHY[job.change], "hint")] if job.change in _WHY else []
    lines += [_field(change) for change in job.field_changes[:_MAX_SHOWN]]
    if (more := len(job.field_changes) - _MAX_SHOWN) > 0:
        lines.append(Text(f"and {more} more", "hint"))
    return Text("\n").join(lines)


def _field(change: plan_pb2.FieldChange) -> Text:
    """`config.size: 100 → 200`; what forces no rebuild is said to be so."""
    text = Text(f"{printable(change.path)}: {_value(change.before)} → {_value(change.after)}")
    return text if change.materialization else text + Text("  (no rebuild)", "hint")


def _value(text: str) -> str:
    if not text:
        return NOTHING
    line = printable(" ".join(text.split()))
    if len(line) == 64 and all(letter in "0123456789abcdef" for letter in line):
        return line[:12]
    return line if len(line) <= _MAX_VALUE else line[: _MAX_VALUE - 1] + "…"


def _tasks(job: plan_pb2.PlannedJob) -> str:
    about = "~" if job.task_count_estimated else ""
    return f"{about}{values.count(job.task_count)}" if job.task_count else NOTHING


def _time(job: plan_pb2.PlannedJob, spec: dag_pb2.DagSpec) -> Text:
    if job.HasField("estimate"):
        return Text(_interval(job.estimate, job.estimate_error))
    if not job.task_count:
        return Text(NOTHING)
    return Text("its run", "hint") if spec.jobs[job.job].source else Text("no history", "waiting")


def _interval(estimate: Duration, error: Duration) -> str:
    return f"{values.duration(values.seconds_of(estimate))} ± {values.duration(values.seconds_of(error))}"


def _total(of: api.PlanDagResponse, spec: dag_pb2.DagSpec) -> str:
    if not of.task_count:
        return "no task has to run"
    tasks = f"{values.count(of.task_count)} task{'s' if of.task_count != 1 else ''}"
    unknown = [
        job.job for job in of.jobs if job.task_count and not job.HasField("estimate") and not spec.jobs[job.job].source
    ]
    if of.HasField("estimate"):
        tasks += f", about {_interval(of.estimate, of.estimate_error)} (80 %)"
    return tasks + (f"; no history of {_listed(unknown)}" if unknown else "")


def _rollback(of: api.PlanDagResponse) -> str:
    if not of.HasField("rollback_estimate"):
        return "takes nobody knows how long to catch up: a job that would have to has no history"
    seconds = values.seconds_of(of.rollback_estimate)
    if seconds == 0:
        return "has nothing to catch up with, as far as can be seen now"
    return f"catches up in about {values.duration(seconds)} for each hour that the new version was active"


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_MAX_SHOWN])
    return shown + (f" and {len(names) - _MAX_SHOWN} more" if len(names) > _MAX_SHOWN else "")
