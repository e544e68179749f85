"""DagService with canned data."""

import hashlib
import itertools
import threading
from collections.abc import Iterator
from typing import Any

from google.protobuf import json_format

from tests.ctl.canned import SPEC, Canned, deployment, page, refuse
from traceapi.control.v1 import change_pb2, dag_service_pb2, dag_service_pb2_grpc, deployment_pb2
from traceapi.control.v1.deployment_pb2 import Deployment, TaskCount
from traceapi.types.v1 import dag_pb2, errors_pb2, task_pb2


class FakeDags(dag_service_pb2_grpc.DagServiceServicer):
    def __init__(self, canned: Canned) -> None:
        self._canned = canned
        self._watches = itertools.count()

    def ValidateDag(self, request: Any, context: Any) -> Any:
        self._canned.requests.append(request)
        return dag_service_pb2.ValidateDagResponse(
            problems=self._canned.problems,
            spec=json_format.ParseDict(SPEC, dag_pb2.DagSpec()),
            local_paths=self._canned.local_paths,
            more_problems=self._canned.more_problems,
        )

    def UploadBundle(self, request_iterator: Iterator[Any], context: Any) -> Any:
        parts = list(request_iterator)
        data = b"".join(part.data for part in parts[1:])
        digest = hashlib.sha256(data).digest()
        if digest != parts[0].sha256:
            return refuse(context, errors_pb2.ERROR_REASON_BUNDLE_DIGEST_MISMATCH, "other bytes")
        self._canned.bundles[digest.hex()] = data
        return dag_service_pb2.UploadBundleResponse(digest=digest.hex(), size_bytes=len(data))

    def DeployDag(self, request: Any, context: Any) -> Any:
        self._canned.requests.append(request)
        return dag_service_pb2.DeployDagResponse(deployment=self._canned.building or deployment(queued=10))

    def PlanDag(self, request: Any, context: Any) -> Any:
        self._canned.requests.append(request)
        return self._canned.plan

    def WatchDeployment(self, request: Any, context: Any) -> Iterator[Any]:
        broken = next(self._watches) < self._canned.watch_failures
        yield from self._canned.watched[: 1 if broken else None]
        if broken:
            refuse(context, errors_pb2.ERROR_REASON_UNAVAILABLE, "the dispatcher restarts")
        ended = threading.Event()
        context.add_callback(ended.set)
        ended.wait(60)

    def GetDag(self, request: Any, context: Any) -> Any:
        if request.dag != "ethereum":
            return refuse(context, errors_pb2.ERROR_REASON_DAG_NOT_FOUND, f"no DAG is called {request.dag!r}")
        return dag_service_pb2.GetDagResponse(
            summary=self._summary(),
            spec=json_format.ParseDict(SPEC, dag_pb2.DagSpec()),
            deployment=deployment(succeeded=8, dead=2),
        )

    def ListDagHistory(self, request: Any, context: Any) -> Any:
        self._canned.requests.append(request)
        if request.dag not in ("ethereum", "begun"):
            return refuse(context, errors_pb2.ERROR_REASON_DAG_NOT_FOUND, f"no DAG is called {request.dag!r}")
        # A newer one was given up: what is being built is not the newest.
        newest = Deployment(dag=request.dag, version=9, state=deployment_pb2.DEPLOYMENT_STATE_ABORTED)
        found = [self._canned.building] if self._canned.building is not None else []
        return dag_service_pb2.ListDagHistoryResponse(deployments=found if request.being_built else [newest, *found])

    def ListDagChanges(self, request: Any, context: Any) -> Any:
        self._canned.requests.append(request)
        found, token = page(self._canned.changes, request.page_size, request.page_token)
        return change_pb2.ListDagChangesResponse(changes=found, next_page_token=token)

    def RollbackDag(self, request: Any, context: Any) -> Any:
        self._canned.requests.append(request)
        return dag_service_pb2.RollbackDagResponse(deployment=deployment(succeeded=8))

    def RemoveDag(self, request: Any, context: Any) -> Any:
        self._canned.requests.append(request)
        return dag_service_pb2.RemoveDagResponse()

    def PauseDag(self, request: Any, context: Any) -> Any:
        self._canned.requests.append(request)
        return dag_service_pb2.PauseDagResponse(paused_jobs=list(request.jobs) or sorted(SPEC["jobs"]))

    def ResumeDag(self, request: Any, context: Any) -> Any:
        self._canned.requests.append(request)
        return dag_service_pb2.ResumeDagResponse()

    def ListDags(self, request: Any, context: Any) -> Any:
        return dag_service_pb2.ListDagsResponse(dags=[self._summary()])

    def _summary(self) -> dag_service_pb2.DagSummary:
        counts = [TaskCount(state=task_pb2.TASK_STATE_SUCCEEDED, count=2012)]
        return dag_service_pb2.DagSummary(dag="ethereum", version=1, job_count=4, task_counts=counts)
