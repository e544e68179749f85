"""Contract messages as tables and sheets of facts."""

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ctl.render import values
from ctl.render.listing import Listing
from ctl.render.printable import LINES, printable
from ctl.render.values import NOTHING
from kernel.column_types import ordered_columns
from traceapi.control.v1 import dag_service_pb2 as dag_api
from traceapi.control.v1 import dataset_service_pb2 as dataset_api
from traceapi.control.v1 import task_service_pb2 as task_api
from traceapi.control.v1.deployment_pb2 import Deployment
from traceapi.types.v1 import artifact_pb2, dag_pb2, dataset_pb2, event_pb2, task_pb2


def table(*columns: str, right: Sequence[str] = ()) -> Listing:
    """An empty table; the columns named in `right` hold numbers."""
    made = Listing()
    for name in columns:
        made.add_column(Text(name), justify="right" if name in right else "left", overflow="fold")
    return made


def facts(pairs: Mapping[str, RenderableType | str]) -> Table:
    """Names and values below each other."""
    made = Table.grid(padding=(0, 2))
    made.add_column(style="hint", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in pairs.items():
        made.add_row(name, Text(printable(value, keep=LINES)) if isinstance(value, str) else value)
    return made


def add_row(table: Table, *cells: Text | str) -> None:
    """What stands in messages is data: neither markup nor escape sequences in it mean anything."""
    table.add_row(*(Text(printable(cell)) if isinstance(cell, str) else cell for cell in cells))


def section(title: str, body: RenderableType) -> Group:
    return Group(Text(), Text(title, "bold"), body)


def dags(summaries: Sequence[dag_api.DagSummary]) -> Table:
    made = table("DAG", "version", "jobs", "active since (UTC)", "tasks", right=("version", "jobs"))
    for dag in summaries:
        name = Text(dag.dag, "name") + (Text("  paused", "waiting") if dag.paused else Text())
        version = str(dag.version) if dag.version else NOTHING
        counts = values.task_counts(dag.task_counts)
        add_row(made, name, version, str(dag.job_count), values.time(dag.active_time), counts)
    return made


def deployment(of: Deployment) -> Table:
    return facts(
        {
            "DAG": Text(of.dag, "name"),
            "version": str(of.version),
            "state": values.deployment_state(of.state),
            "deploy number": str(of.deploy_number) if of.deploy_number else NOTHING,
            "deployed by": of.actor or NOTHING,
            "active since": values.time(of.active_time),
            "deployment": of.deployment_id,
        }
    )


def versions(found: Sequence[Deployment]) -> Table:
    made = table(
        "version",
        "state",
        "deploy number",
        "deployed by",
        "deployed (UTC)",
        "last active from (UTC)",
        right=("version",),
    )
    for one in found:
        number = str(one.deploy_number) if one.deploy_number else NOTHING
        state = values.deployment_state(one.state)
        add_row(
            made,
            str(one.version),
            state,
            number,
            one.actor,
            values.time(one.created_time),
            values.time(one.active_time),
        )
    return made


def job_details(of: Deployment) -> dict[str, list[Text]]:
    """For the picture of a DAG: what runs of each job, and whether it may."""
    details: dict[str, list[Text]] = {}
    for job in of.jobs:
        lines = [values.task_counts([count]) for count in job.task_counts if count.count]
        if job.run_state not in (task_pb2.RUN_STATE_RUNNING, task_pb2.RUN_STATE_UNSPECIFIED):
            lines.append(Text(values.word(task_pb2.RunState.Name(job.run_state), "RUN_STATE_"), "waiting"))
        details[job.job] = lines
    return details


def tasks(found: Sequence[task_pb2.Task]) -> Table:
    made = table("task", "DAG", "job", "scope", "state", "attempt", "events", "made (UTC)", right=("attempt", "events"))
    for task in found:
        state = values.task_state(task.state)
        if task.HasField("progress") and task.state == task_pb2.TASK_STATE_RUNNING:
            state = state + Text(f" {progress(task.progress)}", "hint")
        add_row(
            made,
            task.task_id,
            task.dag,
            Text(task.job, "name"),
            values.task_scope(task),
            state,
            str(task.attempt),
            values.count(task.accepted_event_count),
            values.time(task.created_time),
        )
    return made


def progress(of: task_pb2.Progress) -> str:
    total = f" of {values.count(of.total)}" if of.total else ""
    unit = f" {of.unit}" if of.unit else ""
    return f"{values.count(of.done)}{total}{unit}" + (f", {of.message}" if of.message else "")


def task(answer: task_api.GetTaskResponse) -> RenderableType:
    """Everything about one task: the facts, its attempts with their tracebacks, its events, its pins."""
    of = answer.task
    pairs: dict[str, RenderableType | str] = {
        "task": of.task_id,
        "job": Text(f"{of.dag}/") + Text(of.job, "name"),
        "scope": values.task_scope(of),
        "state": values.task_state(of.state),
        "caused by": _cause(of),
        "made": values.time(of.created_time),
        "ended": values.time(of.finished_time),
        "failed attempts": f"{of.failed_attempts}, lost leases {of.lost_leases}",
    }
    if of.reason:
        pairs["reason"] = Text(printable(of.reason, keep=LINES), values.TASK_STYLES.get(of.state, ""))
    if of.paused:
        pairs["paused"] = Text("its job or its DAG is paused", "waiting")
    if of.retry_time.seconds:
        pairs["not before"] = values.time(of.retry_time)
    if of.worker_id:
        pairs["worker"] = f"{of.worker_id}, lease until {values.time(of.lease_until_time)}"
    if of.HasField("progress"):
        pairs["progress"] = progress(of.progress)
    if of.nondeterministic:
        pairs["not deterministic"] = Text("an attempt emitted other content than an earlier one", "bad")
    parts: list[RenderableType] = [facts(pairs), section("Attempts", _attempts(answer))]
    parts.extend(_traceback(attempt) for attempt in answer.attempts if attempt.HasField("failure"))
    if answer.events:
        parts.append(section(f"Events ({len(answer.events)})", events(answer.events)))
    if answer.pins:
        parts.append(section("Read at", pins(answer.pins)))
    return Group(*parts)


def _cause(of: task_pb2.Task) -> str:
    if of.origin == task_pb2.TASK_ORIGIN_SOURCE_RUN:
        return "a run of the source"
    return f"event {of.event_id} of {of.trigger_dataset_id} ({values.origin(of)})"


def _attempts(answer: task_api.GetTaskResponse) -> RenderableType:
    made = attempts(answer.attempts)
    if not answer.earlier_attempt_count:
        return made
    return Group(Text(f"  {values.count(answer.earlier_attempt_count)} earlier, not shown", "hint"), made)


def attempts(found: Sequence[task_pb2.Attempt]) -> RenderableType:
    if not found:
        return Text("  none yet", "hint")
    made = table("attempt", "outcome", "worker", "started (UTC)", "took", "memory", "rows", right=("attempt", "took"))
    for attempt in found:
        usage = attempt.usage
        add_row(
            made,
            str(attempt.attempt),
            values.attempt_outcome(attempt),
            attempt.worker_id,
            values.time(attempt.started_time),
            values.took(attempt.started_time, attempt.ended_time),
            values.byte_size(usage.peak_memory_bytes) if usage.peak_memory_bytes else NOTHING,
            f"{values.count(usage.rows_read)} read, {values.count(usage.rows_written)} written"
            if attempt.HasField("usage")
            else NOTHING,
        )
    return made


def _traceback(attempt: task_pb2.Attempt) -> RenderableType:
    failure = attempt.failure
    title = (
        f"Attempt {attempt.attempt} failed ({values.error_class(failure)}): {printable(failure.message, keep=LINES)}"
    )
    body = Text(
        printable(failure.traceback.rstrip(), keep=LINES) or "no traceback was recorded",
        "" if failure.traceback else "hint",
    )
    return Group(Text(), Text(title, "bad"), body)


def events(found: Sequence[event_pb2.Event]) -> Table:
    made = table("event", "dataset", "scope", "publication", "made of", "accepted (UTC)", right=("publication",))
    for event in found:
        add_row(
            made,
            event.event_id,
            Text(event.dataset_id, "dataset"),
            values.scope(event.scope),
            values.count(event.publication_number),
            values.members(event.manifest) if event.HasField("manifest") else "",
            values.time(event.accepted_time),
        )
    return made


def pins(found: Sequence[task_pb2.InputPin]) -> Table:
    made = table("dataset", "version", "publication", right=("publication",))
    for pin in found:
        name = Text(pin.dataset_id, "dataset")
        add_row(made, name, pin.dataset_version_id, values.count(pin.publication_number))
    return made


def datasets(found: Sequence[dataset_pb2.Dataset]) -> Table:
    columns = ("dataset", "DAG", "storage", "complete up to", "events", "files", "rows", "size")
    made = table(*columns, right=columns[3:])
    for dataset in found:
        version = dataset.served_version
        virtual = bool(dataset.virtual_sql)
        add_row(
            made,
            Text(dataset.dataset_id, "dataset"),
            dataset.dag,
            values.storage(dataset.spec, dataset.virtual_sql),
            NOTHING if virtual else values.cursor(version.watermark),
            NOTHING if virtual else values.count(version.event_count),
            *_volume(dataset),
        )
    return made


def _volume(dataset: dataset_pb2.Dataset) -> tuple[str, str, str]:
    version = dataset.served_version
    if dataset.virtual_sql or dataset.spec.storage == dag_pb2.STORAGE_NONE:
        return NOTHING, NOTHING, NOTHING
    return values.count(version.artifact_count), values.count(version.row_count), values.byte_size(version.size_bytes)


def dataset(answer: dataset_api.GetDatasetResponse, lineage: Sequence[dataset_api.LineageEdge] = ()) -> RenderableType:
    """Everything about one dataset: the facts, its columns, its newest files. `lineage` are edges near it."""
    of = answer.dataset
    version = of.served_version
    pairs: dict[str, RenderableType | str] = {
        "dataset": Text(of.dataset_id, "dataset"),
        "DAG": of.dag,
        "produced by": ", ".join(of.producer_jobs) or NOTHING,
        "storage": values.storage(of.spec, of.virtual_sql),
    }
    if of.spec.description:
        pairs["holds"] = of.spec.description
    if of.spec.HasField("cursor"):
        pairs["cursor"] = of.spec.cursor.column
    if of.virtual_sql:
        return Group(facts(pairs), section("SQL", Text(printable(of.virtual_sql.strip(), keep=LINES))))
    files, rows, size = _volume(of)
    pairs |= {
        "complete up to": values.cursor(version.watermark),
        "publication": values.count(version.publication_number),
        "events": values.count(version.event_count),
        "files": files if files == NOTHING else f"{files}, {rows} rows, {size}",
        "version": of.served_version_id or "none is served yet",
    }
    if outdated := [_outdated(edge) for edge in lineage if edge.outdated and edge.to_dataset_id == of.dataset_id]:
        pairs["outdated"] = Text("\n".join(outdated), "waiting")
    parts: list[RenderableType] = [facts(pairs)]
    known = version if version.schema else of.spec
    if known.schema:
        columns = table("column", "type")
        for name, word in ordered_columns(known.schema, known.column_order).items():
            add_row(columns, name, word)
        parts.append(section("Columns", columns))
    if answer.artifacts:
        parts.append(section("Newest files", artifacts(answer.artifacts)))
    return Group(*parts)


def _outdated(edge: dataset_api.LineageEdge) -> str:
    what = f"{edge.job} of {edge.dag} built it on a version of {edge.from_dataset_id} that is no longer served"
    if edge.passed_scope_count:
        what += f", and passed {values.count(edge.passed_scope_count)} scopes by that it had had of it"
    return f"{what}; a deploy of {edge.dag} that changes the job builds it anew"


def artifacts(found: Sequence[artifact_pb2.Artifact]) -> Table:
    made = table("scope", "rows", "size", "publication", "file", right=("rows", "size", "publication"))
    for artifact in found:
        add_row(
            made,
            values.scope(artifact.scope),
            values.count(artifact.row_count),
            values.byte_size(artifact.size_bytes),
            values.count(artifact.publication_number),
            artifact.key,
        )
    return made


def nothing(what: str) -> Text:
    return Text(what, "hint")
