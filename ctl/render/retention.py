"""What the collector finds and takes, as tables and sentences."""

from collections import defaultdict
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from ctl.render import values
from ctl.render.tables import add_row, table
from ctl.render.values import NOTHING
from traceapi.control.v1 import retention_service_pb2 as api

_HOLDS = {
    api.VERSION_HOLD_SERVED: "it is served or read",
    api.VERSION_HOLD_DEPLOYING: "a deploy is being written",
    api.VERSION_HOLD_ROLLBACK: "a rollback could restore it",
    api.VERSION_HOLD_PINNED: "a query has pinned it",
    api.VERSION_HOLD_READ: "unfinished tasks read it",
    api.VERSION_HOLD_RECENT: "it was served within the last hour",
    api.VERSION_HOLD_SIBLING: "it goes only together with another one",
}


def orphans(found: Sequence[api.Orphan]) -> Table:
    """By dataset: how many files, how large, how old the oldest."""
    by_dataset: defaultdict[str, list[api.Orphan]] = defaultdict(list)
    for orphan in found:
        by_dataset[orphan.dataset_id].append(orphan)
    made = table("dataset", "files", "size", "oldest (UTC)", right=("files", "size"))
    for dataset_id, files in sorted(by_dataset.items()):
        add_row(
            made,
            Text(dataset_id, "dataset") if dataset_id else Text("no dataset any more", "gone"),
            values.count(len(files)),
            values.byte_size(sum(file.size_bytes for file in files)),
            values.time(min((file.modified_time for file in files), key=lambda time: time.ToNanoseconds())),
        )
    return made


def swept(of: api.CollectOrphansResponse, dry_run: bool) -> str:
    """`2 orphans (1.4 MiB) removed, 1,234 files looked at`."""
    would = "would be removed" if dry_run else "removed"
    said = f"{_counted(of.orphan_count, 'orphan')} ({values.byte_size(of.orphan_bytes)}) {would}"
    if of.unfinished_count:
        said += f", {_counted(of.unfinished_count, 'unfinished write')} too"
    said += f"; {_counted(of.looked_at_count, 'file')} looked at"
    if of.strange_count:
        said += f", {values.count(of.strange_count)} of them not Trace's and left alone"
    return said


def versions(found: Sequence[api.UnusedVersion]) -> Table:
    """What would go."""
    made = table(
        "dataset",
        "version",
        "DAG",
        "files",
        "size",
        "rows",
        "events",
        "unused since (UTC)",
        right=("files", "size", "rows", "events"),
    )
    for version in found:
        since = Text(values.time(version.unused_since_time))
        if version.HasField("condemned_time"):
            since = since + Text("  being taken", "active")
        add_row(
            made,
            Text(version.dataset_id, "dataset"),
            version.dataset_version_id,
            version.dag or NOTHING,
            values.count(version.file_count),
            values.byte_size(version.size_bytes),
            values.count(version.row_count),
            values.count(version.event_count),
            since,
        )
    return made


def question(chosen: Sequence[api.UnusedVersion]) -> str:
    size = values.byte_size(sum(version.size_bytes for version in chosen))
    return f"Take {_counted(len(chosen), 'dataset version')} ({size}), with their events and tasks, for ever?"


def held(results: Sequence[api.CollectedVersion], known: Sequence[api.UnusedVersion]) -> Table:
    """What was not taken after all."""
    datasets = {version.dataset_version_id: version.dataset_id for version in known}
    made = table("dataset", "version", "stays, because")
    for result in results:
        dataset = Text(datasets.get(result.dataset_version_id, NOTHING), "dataset")
        add_row(made, dataset, result.dataset_version_id, _HOLDS.get(result.hold, NOTHING))
    return made


def collected(of: api.CollectVersionsResponse) -> str:
    """`3 dataset versions taken: 12 files (1.4 MiB), 34,567 rows`."""
    said = f"{_counted(of.removed_version_count, 'dataset version')} taken: {_counted(of.removed_file_count, 'file')}"
    return f"{said} ({values.byte_size(of.removed_bytes)}), {_counted(of.removed_row_count, 'row')}"


def _counted(count: int, what: str) -> str:
    return f"{values.count(count)} {what}{'s' if count != 1 else ''}"
