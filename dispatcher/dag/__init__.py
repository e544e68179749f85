"""The DAG document: from YAML text or a `DagSpec` to checked, resolved values. Pure: no database, no network."""

from dispatcher.dag.model import (
    JobKind,
    KnownDataset,
    KnownDatasets,
    LocalPath,
    Problem,
    Reading,
    ResolvedDag,
    ResolvedInput,
    ResolvedJob,
    ResolvedOutput,
)
from dispatcher.dag.reading import read_document, read_spec

__all__ = [
    "JobKind",
    "KnownDataset",
    "KnownDatasets",
    "LocalPath",
    "Problem",
    "Reading",
    "ResolvedDag",
    "ResolvedInput",
    "ResolvedJob",
    "ResolvedOutput",
    "read_document",
    "read_spec",
]
