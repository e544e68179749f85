"""What deploying a document costs in rows, and that it fits: no transaction writes more than MAX_ROWS.

Most of a DAG version is written before anybody can see it, in as many transactions as it takes. Two things cannot be
parted: a job version with all that it writes, since whoever finds one takes it up again; and going active, which
becomes true in one moment.
"""

from collections.abc import Sequence

from dispatcher.dag.model import JobKind, ResolvedJob
from dispatcher.dag.problems import Findings, clip

MAX_ROWS = 5_000

_ACTIVE = 6
"""Rows of going active, however large the DAG: version, DAG, deploy number, activation, audit, the call's answer."""


def job_rows(job: ResolvedJob) -> int:
    """Rows of a job version: itself and its run state; for an output its dataset version, head and producer; and what a
    virtual one is made of."""
    rows = 2 + 3 * len(job.outputs)
    if job.kind is JobKind.VIRTUAL:
        rows += len(job.outputs) * sum(not item.indirect for item in job.inputs)
    return rows


def check_size(jobs: Sequence[ResolvedJob], findings: Findings) -> None:
    """Reports a document, or a job of it, that would need a transaction of more than MAX_ROWS rows."""
    for job in jobs:
        if (rows := job_rows(job)) > MAX_ROWS:
            findings.at_key(
                ("jobs", job.name),
                f"storing `{clip(job.name)}` takes {rows:,} rows in one transaction, and {MAX_ROWS:,} are allowed",
                "let its SQL name fewer datasets: read some of them through other virtual nodes",
            )
    datasets = len({output.dataset_id for job in jobs for output in job.outputs})
    triggers = sum(len(job.triggers) for job in jobs)
    sources = sum(job.kind is JobKind.SOURCE for job in jobs)
    rows = datasets + triggers + sources + _ACTIVE
    if rows > MAX_ROWS:
        findings.at_key(
            ("jobs",),
            f"going active takes {rows:,} rows in one transaction (datasets: {datasets:,}, inputs that trigger:"
            f" {triggers:,}, sources: {sources:,}, its own: {_ACTIVE}), and {MAX_ROWS:,} are allowed",
            f"move jobs to other DAGs, which may read these datasets, until there are {rows - MAX_ROWS:,} fewer",
        )
