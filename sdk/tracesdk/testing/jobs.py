"""Job versions for tests, with what a test does not care about filled in."""

from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf.struct_pb2 import Struct

from traceapi.types.v1.dag_pb2 import CursorSpec, OutputSpec, Storage
from traceapi.types.v1.job_pb2 import JobDetails, JobInput, JobOutput
from traceapi.types.v1.scope_pb2 import CursorType as CursorTypeMessage

_VERSION = "00000000-0000-7000-8000-000000000000"


def job_details(
    *,
    outputs: Mapping[str, Mapping[str, str] | None],
    inputs: Iterable[str] = (),
    virtual: Mapping[str, str] | None = None,
    config: Mapping[str, Any] | None = None,
    operator: str = "python",
    entrypoint: str = "",
    cursor: str = "",
    cursor_type: str = "int64",
    ordered: bool = False,
    source: bool = False,
    max_events_per_emit: int = 1000,
) -> JobDetails:
    """A job version. An output is its declared columns, empty for none declared, or None where it keeps events only.

    `virtual` are virtual inputs with their SQL; `cursor` is the cursor's column everywhere.
    """
    kind = CursorTypeMessage.Value(f"CURSOR_TYPE_{cursor_type.upper()}")
    spec = CursorSpec(column=cursor, type=kind)
    settings = Struct()
    settings.update(dict(config or {}))
    read = [JobInput(dataset_id=name, dataset_version_id=_VERSION, trigger=True, cursor=spec) for name in inputs]
    read += [JobInput(dataset_id=name, virtual_sql=sql) for name, sql in (virtual or {}).items()]
    produced = []
    for name, schema in outputs.items():
        storage = Storage.STORAGE_NONE if schema is None else Storage.STORAGE_PARQUET
        declared = OutputSpec(storage=storage, cursor=spec, schema=dict(schema or {}))
        produced.append(JobOutput(dataset_id=name, dataset_version_id=_VERSION, spec=declared))
    return JobDetails(
        job_version_id=_VERSION,
        dag="test",
        job="job",
        operator=operator,
        entrypoint=entrypoint,
        source=source,
        ordered=ordered,
        config=settings,
        inputs=read,
        outputs=produced,
        trigger_cursor_type=kind,
        max_events_per_emit=max_events_per_emit,
    )
