"""Documents that come with a call: read against what is deployed, with the bundles that travel with them."""

import asyncio
from collections.abc import Mapping

from dispatcher.dag.model import KnownDataset, KnownDatasets, Reading
from dispatcher.dag.reading import read_document, read_spec
from dispatcher.datasets import store as datasets_store
from dispatcher.datasets.rows import KnownRow
from dispatcher.db.pool import Pool, transaction
from dispatcher.deploy import plans
from dispatcher.deploy.deployable import Deployable
from dispatcher.deploy.deploying import Call
from dispatcher.rpc.faults import translated
from kernel.errors import TraceError, Violation
from kernel.servers import current_actor
from traceapi.control.v1 import dag_service_pb2 as pb
from traceapi.types.v1.dag_pb2 import DagSpec, OutputSpec
from traceapi.types.v1.errors_pb2 import ErrorReason

Source = pb.ValidateDagRequest | pb.PlanDagRequest | pb.DeployDagRequest


async def read(pool: Pool, request: Source) -> tuple[Reading, KnownDatasets]:
    """The document against what is deployed. Its own DAG's datasets are not known from elsewhere."""
    known = await known_datasets(pool)
    if request.WhichOneof("source") == "document":
        document = request.document
        reading = await asyncio.to_thread(read_document, document.text, document.file_name, known)
    else:
        reading = await asyncio.to_thread(read_spec, request.spec, known)
    return reading, known


async def known_datasets(pool: Pool) -> KnownDatasets:
    """All that are served."""
    with translated():
        async with transaction(pool) as connection:
            rows = await datasets_store.known_datasets(connection)
    return KnownDatasets(
        KnownDataset(
            dataset_id=row.dataset_id,
            dag=row.dag,
            spec=_known_spec(row),
            virtual_sql=row.virtual_sql,
            dependencies=tuple(row.dependencies),
            fingerprint=row.fingerprint,
            version_id=row.dataset_version_id,
        )
        for row in rows
    )


async def deployable(pool: Pool, request: pb.PlanDagRequest | pb.DeployDagRequest) -> Deployable:
    """What the call would deploy. Raises INVALID_DOCUMENT, DATASET_OWNED where nothing else is at fault,
    BUNDLE_MISSING."""
    reading, known = await read(pool, request)
    if reading.resolved is None or reading.spec is None:
        raise _faulty(reading)
    await _require_bundles(pool, reading, request.bundles)
    used = {path.path: request.bundles[path.path] for path in reading.local_paths}
    spec = _with_digests(reading.spec, used)
    return await asyncio.to_thread(Deployable.of, reading.resolved, spec, known, used)


async def deploy_call(pool: Pool, request: pb.DeployDagRequest) -> Call:
    """What the call deploys, of whichever form. Raises as `deployable`, and PLAN_NOT_FOUND."""
    actor, request_id = str(current_actor()), request.request_id.lower()
    if request.WhichOneof("source") != "plan_id":
        return Call(await deployable(pool, request), request_id, actor, hold=request.hold)
    plan_id = request.plan_id.lower()
    with translated():
        async with transaction(pool) as connection:
            plan = await plans.get_plan(connection, plan_id)
    if plan is None:
        raise TraceError(
            ErrorReason.ERROR_REASON_PLAN_NOT_FOUND, f"no plan has the id {plan_id}", metadata={"plan_id": plan_id}
        )
    planned = pb.DeployDagRequest(spec=DagSpec.FromString(plan.spec), bundles=plan.bundles)
    return Call(
        await deployable(pool, planned),
        request_id,
        actor,
        hold=request.hold,
        base=plan.base_version_id or "",
        plan_id=plan_id,
        taken_over_jobs=list(pb.PlanDagResponse.FromString(plan.content).taken_over_jobs),
    )


async def _require_bundles(pool: Pool, reading: Reading, given: Mapping[str, str]) -> None:
    needed = [path.path for path in reading.local_paths]
    missing = [path for path in needed if path not in given]
    with translated():
        async with transaction(pool) as connection:
            known = await datasets_store.known_bundles(connection, [given[path] for path in needed if path in given])
    missing += [path for path in needed if path in given and given[path] not in known]
    if missing:
        raise TraceError(
            ErrorReason.ERROR_REASON_BUNDLE_MISSING,
            f"no bundle was uploaded for {', '.join(missing)}",
            metadata={"paths": ",".join(missing)},
        )


def _known_spec(row: KnownRow) -> OutputSpec:
    """The declaration, with the columns that the first commit froze where none were declared."""
    spec = OutputSpec.FromString(row.spec)
    if not spec.schema and row.schema:
        spec.schema.update(row.schema)
        spec.column_order[:] = row.column_order or ()
    return spec


def _with_digests(spec: DagSpec, bundled: Mapping[str, str]) -> DagSpec:
    """The document as it is stored: the code by its digest."""
    stored = DagSpec()
    stored.CopyFrom(spec)
    for job in stored.jobs.values():
        if job.HasField("code"):
            job.code.digest = bundled[job.code.bundle]
    return stored


def _faulty(reading: Reading) -> TraceError:
    count = len(reading.problems)
    shown = f"{count} problem{'s' if count != 1 else ''}" + (", or more" if reading.more_problems else "")
    owned = reading.spec is not None and all(problem.owned for problem in reading.problems)
    reason = ErrorReason.ERROR_REASON_DATASET_OWNED if owned else ErrorReason.ERROR_REASON_INVALID_DOCUMENT
    return TraceError(
        reason,
        f"the document has {shown}; the first: {reading.problems[0]}",
        metadata={"dag": reading.spec.dag} if owned and reading.spec is not None else None,
        violations=[Violation(problem.path, str(problem)) for problem in reading.problems],
    )
