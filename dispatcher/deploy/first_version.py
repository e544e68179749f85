"""Deploying the first version of a DAG: everything about it becomes true in one transaction.

It holds the exclusive locks of its own DAG and of the DAGs whose datasets it reads, so no event of theirs is accepted
between the moment that the heads are read and the moment that the subscriptions are seen.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from google.protobuf.duration_pb2 import Duration
from psycopg.types.json import Jsonb

from dispatcher.dag.fingerprint import CANON_VERSION, dataset_fingerprint
from dispatcher.dag.model import JobKind, KnownDatasets, ResolvedDag, ResolvedJob
from dispatcher.datasets import store as datasets_store
from dispatcher.db.rows import Connection, one_row
from dispatcher.deploy import store
from dispatcher.deploy.details import job_details
from dispatcher.deploy.store import VersionRow, sql
from dispatcher.events.store import (
    DAG_LOCK_CLASS,
)
from kernel.column_types import schema_digest
from kernel.errors import TraceError
from traceapi.types.v1.dag_pb2 import DagSpec, LateScopes, Storage
from traceapi.types.v1.errors_pb2 import ErrorReason

MAX_LOST_LEASES = 10
"""Leases that a task may lose before it is DEAD; they count apart from failed attempts."""


@dataclass(frozen=True, slots=True)
class Deployable:
    """A checked document with all that deploying it needs. `fingerprints` by job, `bundles` by local path."""

    dag: ResolvedDag
    spec: DagSpec
    bundles: Mapping[str, str]
    fingerprints: Mapping[str, bytes]
    known: KnownDatasets

    @property
    def spec_bytes(self) -> bytes:
        return self.spec.SerializeToString(deterministic=True)

    @property
    def digest(self) -> bytes:
        """Of the document and of the code and files that travel with it."""
        bundles = "\n".join(f"{path}\t{digest}" for path, digest in sorted(self.bundles.items()))
        return hashlib.sha256(self.spec_bytes + b"\0" + bundles.encode()).digest()


@dataclass(frozen=True, slots=True)
class Deployed:
    """The active version, and whether it was active before."""

    version: VersionRow
    unchanged: bool


async def deploy_first_version(
    connection: Connection, deployable: Deployable, request_id: str, actor: str, new_id: Callable[[], str]
) -> Deployed:
    """Raises DOCUMENT_CHANGED, DATASET_OWNED, REQUEST_ID_REUSED; nothing is written then."""
    name = deployable.dag.dag
    foreign = {
        deployable.known[item.dataset_id].dag
        for job in deployable.dag.jobs
        for item in job.inputs
        if item.dataset_id in deployable.known
    }
    await store.own_dags(connection, DAG_LOCK_CLASS, [name, *sorted(foreign)])
    answered = await store.answered_deploy(connection, request_id)
    if answered is not None:
        if (answered.dag, answered.spec_digest) == (name, deployable.digest):
            return Deployed(answered, unchanged=True)
        raise _reused(request_id, f"it deployed version {answered.version} of {answered.dag}, with another document")
    deployed = await _deploy(connection, deployable, actor, new_id)
    if not await store.answer_deploy(connection, request_id, deployed.version.dag_version_id, actor):
        raise _reused(request_id, "another call with it deploys something else at this moment")
    return deployed


def _reused(request_id: str, message: str) -> TraceError:
    return TraceError(ErrorReason.ERROR_REASON_REQUEST_ID_REUSED, f"request {request_id}: {message}")


async def _deploy(connection: Connection, deployable: Deployable, actor: str, new_id: Callable[[], str]) -> Deployed:
    name = deployable.dag.dag
    active = await store.active_version(connection, name)
    if active is not None:
        if active.spec_digest == deployable.digest:
            return Deployed(active, unchanged=True)
        raise TraceError(
            ErrorReason.ERROR_REASON_DOCUMENT_CHANGED,
            f"{name} is deployed as version {active.version} with another document or other code",
            metadata={"dag": name, "version": str(active.version)},
        )
    writer = _FirstVersion(connection, deployable, actor, new_id)
    version = await writer.write()
    await datasets_store.audit(
        connection,
        actor,
        "DagService.DeployDag",
        name,
        version=version.version,
        deploy_number=version.deploy_number,
        spec_sha256=version.spec_digest.hex(),
    )
    return Deployed(version, unchanged=False)


class _FirstVersion:
    """Writes the rows, producers before readers."""

    def __init__(self, connection: Connection, deployable: Deployable, actor: str, new_id: Callable[[], str]) -> None:
        self._connection = connection
        self._deployable = deployable
        self._actor = actor
        self._new_id = new_id
        self._dag_version_id = new_id()
        self._deploy_number = 0
        self._versions: dict[str, str] = {}  # dataset -> the version that this DAG version reads or writes

    async def write(self) -> VersionRow:
        dag = self._deployable.dag
        await self._run("insert_dag", dag=dag.dag, actor=self._actor)
        self._deploy_number = await self._next_deploy_number()
        await self._run(
            "insert_version",
            dag_version_id=self._dag_version_id,
            dag=dag.dag,
            version=1,
            spec=self._deployable.spec_bytes,
            spec_digest=self._deployable.digest,
            deploy_number=self._deploy_number,
            actor=self._actor,
        )
        await self._run("activate", dag=dag.dag, dag_version_id=self._dag_version_id)
        for job in dag.jobs:
            await self._write_outputs(job)
        for job in dag.jobs:
            await self._write_job(job)
        return await store.written_version(self._connection, self._dag_version_id)

    async def _run(self, statement: str, **parameters: object) -> None:
        await self._connection.execute(sql[statement], parameters)

    async def _next_deploy_number(self) -> int:
        row = await one_row(self._connection, sql.next_deploy_number, {})
        return int(row[0])

    async def _write_outputs(self, job: ResolvedJob) -> None:
        """Datasets and their first versions; one that several jobs write is made once."""
        for output in job.outputs:
            if output.dataset_id in self._versions:
                continue
            await self._own_dataset(output.dataset_id)
            version_id = self._versions[output.dataset_id] = self._new_id()
            spec = output.spec
            schema = dict(spec.schema)
            await self._run(
                "insert_dataset_version",
                dataset_version_id=version_id,
                dataset_id=output.dataset_id,
                fingerprint=self._dataset_fingerprint(output.dataset_id),
                spec=spec.SerializeToString(deterministic=True),
                virtual_sql=job.virtual_sql or None,
                cursor_type=int(spec.cursor.type),
                stored=job.kind is not JobKind.VIRTUAL and spec.storage != Storage.STORAGE_NONE,
                schema_digest=schema_digest(schema) if schema and output.declared_schema else None,
                schema=Jsonb(schema) if schema else None,
            )
            await self._run("insert_head", dataset_version_id=version_id)
            served = {
                "dataset_id": output.dataset_id,
                "dataset_version_id": version_id,
                "deploy_number": self._deploy_number,
            }
            await self._run("insert_pointer", **served)
            await self._run("insert_pointer_history", **served)

    def _dataset_fingerprint(self, dataset_id: str) -> bytes:
        jobs = self._deployable.dag.jobs
        return dataset_fingerprint(
            self._deployable.fingerprints[job.name]
            for job in jobs
            if any(output.dataset_id == dataset_id for output in job.outputs)
        )

    async def _own_dataset(self, dataset_id: str) -> None:
        dag = self._deployable.dag.dag
        await self._run("insert_dataset", dataset_id=dataset_id, folded_id=dataset_id.casefold(), dag=dag)
        cursor = await self._connection.execute(sql.dataset_owner, {"folded_id": dataset_id.casefold()})
        row = await cursor.fetchone()
        if row is None or row[1] != dag or row[0] != dataset_id:
            owner = f"{row[0]} of DAG {row[1]}" if row else "another DAG"
            raise TraceError(
                ErrorReason.ERROR_REASON_DATASET_OWNED,
                f"dataset {dataset_id} is taken by {owner}",
                metadata={"dataset_id": dataset_id},
            )

    async def _write_job(self, job: ResolvedJob) -> None:
        job_version_id = self._new_id()
        await self._run(
            "insert_job_version",
            job_version_id=job_version_id,
            dag=self._deployable.dag.dag,
            job=job.name,
            kind=job.kind.value,
            operator=job.operator,
            ordered=job.ordered,
            late_scopes="skip" if job.late_scopes == LateScopes.LATE_SCOPES_SKIP else "refuse",
            fingerprint=self._deployable.fingerprints[job.name],
            canon_version=CANON_VERSION,
        )
        await self._run("insert_run_state", job_version_id=job_version_id, actor=self._actor)
        for output in job.outputs:
            version_id = self._versions[output.dataset_id]
            await self._run("insert_job_output", job_version_id=job_version_id, dataset_version_id=version_id)
            if job.kind is JobKind.VIRTUAL:
                for item in job.inputs:
                    if not item.indirect:
                        await self._run(
                            "insert_virtual_dependency", dataset_version_id=version_id, dependency_id=item.dataset_id
                        )
        await self._write_inputs(job, job_version_id)
        await self._write_settings(job, job_version_id)
        if job.kind is JobKind.SOURCE:
            await self._run("insert_source_run", task_id=self._new_id(), job_version_id=job_version_id)

    async def _write_inputs(self, job: ResolvedJob, job_version_id: str) -> None:
        for item in job.inputs:
            if item.dataset_id not in self._versions:
                self._versions[item.dataset_id] = await self._served_version(item.dataset_id)
            version_id = self._versions[item.dataset_id]
            await self._run(
                "insert_binding",
                dag_version_id=self._dag_version_id,
                job_version_id=job_version_id,
                dataset_id=item.dataset_id,
                dataset_version_id=version_id,
                trigger=item.trigger,
                wait=item.wait,
                lookback=item.lookback,
                indirect=item.indirect,
            )
            if item.trigger:
                await self._run("subscribe", job_version_id=job_version_id, dataset_version_id=version_id)

    async def _served_version(self, dataset_id: str) -> str:
        cursor = await self._connection.execute(sql.served_version, {"dataset_id": dataset_id})
        row = await cursor.fetchone()
        if row is None:
            raise TraceError(ErrorReason.ERROR_REASON_DATASET_NOT_FOUND, f"dataset {dataset_id} does not exist")
        return str(row[0])

    async def _write_settings(self, job: ResolvedJob, job_version_id: str) -> None:
        execution = job.execution
        details = job_details(self._deployable, job, job_version_id, self._versions)
        await self._run(
            "insert_version_job",
            dag_version_id=self._dag_version_id,
            job_version_id=job_version_id,
            details=details.SerializeToString(deterministic=True),
            max_attempts=execution.max_attempts or 3,
            max_lost_leases=MAX_LOST_LEASES,
            timeout=_timedelta(execution.timeout) if execution.HasField("timeout") else None,
            max_concurrency=execution.max_concurrency if execution.HasField("max_concurrency") else None,
            queue=execution.queue or "default",
            retry_backoff=_timedelta(execution.retry_backoff),
            max_retry_backoff=_timedelta(execution.max_retry_backoff),
            max_run_tasks=execution.max_run_tasks or 500,
        )


def _timedelta(duration: Duration) -> timedelta:
    return duration.ToTimedelta()
