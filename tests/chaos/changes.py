"""Somebody who changes the pipeline while it works: the steps of a plan, one after the other, in a thread of its own.

Each step goes on until it is known what became of it, whatever happens to the dispatchers meanwhile; a refusal is an
outcome too. What is asked and heard is in the history of `deployer`.
"""

import dataclasses
import random
import threading
import time
from collections.abc import Callable
from typing import Any, Self

import psycopg

from dispatcher.db.statements import Statements
from kernel.ids import new_id
from tests.chaos.cluster import Cluster
from tests.chaos.people import Answer, Person, Stopped, require_end
from tests.chaos.steps import Step, StepKind
from tests.chaos.workload import DAG, TAGGED_JOB, Shape, Workload
from traceapi.control.v1 import dag_service_pb2 as dags
from traceapi.control.v1 import retention_service_pb2 as retention
from traceapi.control.v1 import source_service_pb2 as sources
from traceapi.types.v1.scope_pb2 import CursorRange, CursorValue

_sql = Statements.load("tests.chaos", "run.sql")
_ABORT_AFTER_SECONDS = 0.3
_BAD_SECONDS = 0.1, 1.0
"""A version is active for so long at least before it is rolled back."""
_LOOK_SECONDS = 0.05
_AGAIN = 49, 99, 199
"""Up to which number something is run again."""


class Changes:
    """`progress` answers how far the run is. `begun` is the number of steps that were begun, `done`: all are over."""

    def __init__(
        self, cluster: Cluster, steps: tuple[Step, ...], workload: Workload, progress: Callable[[], float]
    ) -> None:
        self._cluster = cluster
        self._steps = steps
        self._workload = workload
        self._progress = progress
        self._rng = random.Random(f"{cluster.settings.seed}/changes")
        self._shapes: dict[str, Shape] = {}
        self._database: psycopg.Connection[Any] | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="changes", daemon=True)
        self.begun = 0
        self.done = False
        self.building = False
        """A change is under way: a build, or a call that nobody has answered yet."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stopped.set()
        require_end(self._thread)
        if self._database is not None:
            self._database.close()

    def _run(self) -> None:
        try:
            with Person(self._cluster, "deployer", self._stopped) as self._person:
                for step in self._steps:
                    while self._progress() < step.at:
                        self._person.wait(_LOOK_SECONDS)
                    self.begun += 1
                    self.building = True
                    self._take(step)
                    self.building = False
                self.done = True
        except Stopped:
            return

    def _take(self, step: Step) -> None:
        match step.kind:
            case StepKind.DEPLOY:
                self._end(self._deploy(step.shape))
            case StepKind.HOLD:
                self._cut_over(self._deploy(step.shape, hold=True))
            case StepKind.ABORT:
                self._abort(self._deploy(step.shape, hold=True))
            case StepKind.INTERRUPT:
                self._deploy(step.shape, hold=True)
                self._roll_back()
            case StepKind.TUNE:
                active = self._shapes.get(self._ask(_sql.active), Shape())
                self._end(self._deploy(dataclasses.replace(active, attempts=active.attempts + 1)))
            case StepKind.ROLLBACK:
                self._roll_back()
            case StepKind.ROLLBACK_TO:
                self._roll_back(to=1)
            case StepKind.BACKFILL:
                self._backfill()
            case StepKind.COLLECT:
                self._collect(last=step.at >= 1)

    def _deploy(self, shape: Shape, *, hold: bool = False) -> str:
        """Answers the deployment, empty where it was refused."""
        document = dags.DagDocument(text=self._workload.document(shape))
        request = dags.DeployDagRequest(document=document, request_id=new_id(), hold=hold)
        answer = self._person.insist("DeployDag", request)
        if answer.reason:
            return ""
        deployment_id = str(answer.response.deployment.deployment_id)
        self._shapes[deployment_id] = shape
        return deployment_id

    def _end(self, deployment_id: str) -> None:
        """Until it is active, or was."""
        self._person.until(lambda: self._state(deployment_id) not in ("building", "held"))

    def _cut_over(self, deployment_id: str) -> None:
        while deployment_id and self._state(deployment_id) in ("building", "held"):
            answer = self._person.ask("CutOverDag", dags.CutOverDagRequest(deployment_id=deployment_id))
            if answer.known and answer.reason not in ("", "NOT_CAUGHT_UP"):
                return
            self._person.wait(_ABORT_AFTER_SECONDS)

    def _abort(self, deployment_id: str) -> None:
        if deployment_id:
            self._person.wait(self._rng.uniform(0, _ABORT_AFTER_SECONDS))
            self._person.insist("AbortDeployment", dags.AbortDeploymentRequest(deployment_id=deployment_id))

    def _roll_back(self, *, to: int = 0) -> Answer:
        """Not at once: what comes meanwhile the restored version has to make up for."""
        self._person.wait(self._rng.uniform(*_BAD_SECONDS))
        request = dags.RollbackDagRequest(dag=DAG, to_version=to, request_id=new_id())
        return self._person.insist("RollbackDag", request)

    def _backfill(self) -> None:
        """Of the job of files, whose reader follows; again until there was something to be done again."""
        scopes = CursorRange(first=_at(0), last=_at(self._rng.choice(_AGAIN)))
        while True:
            request = sources.BackfillJobRequest(dag=DAG, job=TAGGED_JOB, range=scopes, request_id=new_id())
            answer = self._person.insist("BackfillJob", request)
            if not answer.reason and answer.response.task_count:
                return
            self._person.wait(_ABORT_AFTER_SECONDS)

    def _collect(self, *, last: bool) -> None:
        """What nobody needs, and a version that is served, which stays. At the end, until nothing is left."""
        if last:
            self._person.wait(self._cluster.settings.settling_seconds)
        listed = self._person.insist("ListUnusedVersions", retention.ListUnusedVersionsRequest())
        unused = [version.dataset_version_id for version in listed.response.versions] if not listed.reason else []
        if unused and not last and self._rng.random() < 0.5:
            unused = self._rng.sample(unused, self._rng.randint(1, len(unused)))
        served = self._ask(_sql.some_served)
        named = [*unused, *([served] if served and served not in unused else [])]
        self._person.insist("CollectVersions", retention.CollectVersionsRequest(dataset_version_ids=named))
        self._person.insist("CollectOrphans", retention.CollectOrphansRequest())

    def _state(self, deployment_id: str) -> str:
        """Empty where there is none; while nobody can say, as if it were being built."""
        if not deployment_id:
            return ""
        found = self._ask(_sql.state, {"dag_version_id": deployment_id})
        return str(found) if found is not None else "building"

    def _ask(self, query: str, parameters: dict[str, Any] | None = None) -> Any:
        """One value; None while the database does not answer."""
        try:
            if self._database is None or self._database.closed:
                conninfo = self._cluster.server.conninfo()
                self._database = psycopg.connect(conninfo, autocommit=True, connect_timeout=5)
            row = self._database.execute(query, parameters).fetchone()
        except psycopg.Error:
            time.sleep(_ABORT_AFTER_SECONDS)
            return None
        return row[0] if row else None


def _at(number: int) -> CursorValue:
    return CursorValue(int64_value=number)
