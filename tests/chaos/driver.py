"""What happens to a run, and when: the faults of its plan, cancels by a person, restarts of what has died.

It waits for progress, not for times: on a busy machine a run takes longer, and only what does not move at all is stuck.
"""

import functools
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
import psycopg

from dispatcher.db.statements import Statements
from kernel.artifacts.store import ArtifactStore
from kernel.channels import sync_channel
from kernel.ids import new_id
from tests.chaos.changes import Changes
from tests.chaos.cluster import Cluster, routes_of
from tests.chaos.plan import DISPATCHERS, WRAPPERS, Fault, Kind, Plan
from tests.chaos.proxy import Way
from tests.chaos.rarities import Injected
from tests.chaos.recorder import History
from tests.chaos.workload import READER, Shape, Workload
from traceapi.control.v1 import dag_service_pb2 as dag_pb
from traceapi.control.v1 import task_service_pb2 as task_pb
from traceapi.control.v1.dag_service_pb2_grpc import DagServiceStub
from traceapi.control.v1.task_service_pb2_grpc import TaskServiceStub

_STILL_SECONDS = 60.0
"""A run in which so long nothing has moved is stuck."""
_TICK_SECONDS = 0.02
_RESTART_SECONDS = 0.1
_COLLECTED_SECONDS = 12.0

_sql = Statements.load("tests.chaos", "run.sql")


@dataclass(slots=True)
class Driver:
    """Looks at the run, again and again, and does what is due. Everything happens in one thread, in the order of the
    looks."""

    cluster: Cluster
    plan: Plan
    workload: Workload
    injected: list[Injected] = field(default_factory=list)
    _due: list[tuple[float, Callable[[], None]]] = field(default_factory=list)
    _database: "psycopg.Connection[Any] | None" = None
    _history: History | None = None
    _changes: Changes | None = None
    _turn: int = 0
    _ended: float = 0
    _deploy_number: int = 0
    _share: float = 0.0
    _begun: int = 0
    _moved: float = 0
    """When something last moved: a program began to serve or ended, or a task did."""

    def start(self) -> None:
        """Starts everything, and deploys."""
        self._history = History(self.cluster.history / "driver.jsonl", "driver")
        for name in (*DISPATCHERS, *WRAPPERS):
            self.cluster.start(name, self.plan.crashes.get(name, ""))
        self._until(self.cluster.serving, "all programs serve")
        for text in (self.workload.document(Shape()), READER):
            request = dag_pb.DeployDagRequest(document=dag_pb.DagDocument(text=text), request_id=new_id())
            self._until(functools.partial(self._deployed, request), "deployed")

    def _deployed(self, request: dag_pb.DeployDagRequest) -> bool:
        return self._control(lambda channel: DagServiceStub(channel).DeployDag(request, timeout=10)) is not None

    def share(self) -> float:
        """The share of all tasks that had ended when it was last known."""
        return self._share

    def inject(self, changes: Changes) -> None:
        """The plan's faults and cancels, each when the work is so far; until all of them came, or the work is done, and
        the last change is made."""
        self._changes = changes
        faults, cancels = list(self.plan.faults), list(self.plan.cancels)

        def all_came() -> bool:
            progress = self._progress()
            if progress is None or self._retried():
                return False
            for fault in [fault for fault in faults if self._is_due(fault, progress)]:
                if self._inject(fault):
                    faults.remove(fault)
            if cancels and progress >= cancels[0] and self._cancel():
                del cancels[0]
            return changes.done and (progress >= 1 or not (faults or cancels))

        self._until(all_came, "all faults came", fail=False)

    def _is_due(self, fault: Fault, progress: float) -> bool:
        """A fault that is bound to a step comes while that builds, or at once where it has passed."""
        changes = self._changes
        if fault.step is None or changes is None:
            return progress >= fault.at
        return changes.begun > fault.step + 1 or (changes.begun == fault.step + 1 and changes.building)

    def drain(self) -> None:
        """No fault any more: everything is whole again, and all that is left gets done."""

        def done() -> bool:
            progress = self._progress()
            return not self._due and progress is not None and not self._retried() and progress >= 1

        if not self._until(done, "the work is done", fail=False):
            self.cluster.ask_what_they_wait_for()

    def collected(self, store: ArtifactStore) -> None:
        """Looks after everything until what nobody needs is gone, or for several times as long as that may take."""
        until = time.monotonic() + _COLLECTED_SECONDS

        def done() -> bool:
            if time.monotonic() > until:
                return True
            named = self._ask(_sql.named)
            left = self._ask(_sql.left)
            keys = {item.key for item in store.list("data/")}
            return named is not None and left == 0 and keys <= set(named) and not list(store.unfinished())

        self._until(done, "everything is collected", fail=False)

    def close(self) -> None:
        if self._database is not None:
            self._database.close()

    def address(self) -> str:
        """Of a dispatcher that serves, each in turn; empty where none does."""
        self._turn += 1
        serving = [name for name in DISPATCHERS if self.cluster.processes[name].serving]
        return self.cluster.addresses[serving[self._turn % len(serving)]]["internal"] if serving else ""

    def _until(self, done: Callable[[], bool], what: str, *, fail: bool = True) -> bool:
        """Looks after everything until `done`; whether it came to that."""
        self._moved = time.monotonic()
        while True:
            self._look()
            if done():
                return True
            if time.monotonic() > self._moved + _STILL_SECONDS:
                if fail:
                    raise TimeoutError(f"{what}: it came to a standstill; logs are in {self.cluster.home.logs}")
                return False
            time.sleep(_TICK_SECONDS)

    def _look(self) -> None:
        serving = self.cluster.serving_count
        ended = self.cluster.look()
        begun = self._changes.begun if self._changes else 0
        if ended or (self.cluster.serving_count, begun) != (serving, self._begun):
            self._moved, self._begun = time.monotonic(), begun
        for name in ended:
            process = self.cluster.processes[name]
            if process.armed and not process.killed and process.popen.returncode == -9:
                self.injected.append(Injected(Kind.CRASH, name, self._in_flight(name), self._died_at(name)))
            self._after(_RESTART_SECONDS, functools.partial(self.cluster.start, name))
        now = time.monotonic()
        for item in [item for item in self._due if item[0] <= now]:
            self._due.remove(item)
            item[1]()

    def _died_at(self, name: str) -> str:
        """The crash point, as the process wrote it down."""
        lines = (self.cluster.history / f"{name}.jsonl").read_text().splitlines()
        return next((str(died) for line in reversed(lines) if (died := json.loads(line).get("died"))), "")

    def _after(self, seconds: float, action: Callable[[], None]) -> None:
        self._due.append((time.monotonic() + seconds, action))

    def _inject(self, fault: Fault) -> bool:
        """Whether it came: at the first of its victims, in their order, where it hits work."""
        return any(self._inject_at(fault, victim) for victim in fault.victims)

    def _inject_at(self, fault: Fault, victim: str) -> bool:
        cluster, routes = self.cluster, routes_of(victim)
        if victim in cluster.processes and not cluster.processes[victim].serving:
            return False
        stands = fault.kind in (Kind.KILL_WRAPPER, Kind.PAUSE_WRAPPER, Kind.KILL_DISPATCHER, Kind.PAUSE_DISPATCHER)
        if stands and not cluster.stop(victim):
            return False
        in_flight = self._in_flight(victim)
        changing = self._changes is not None and self._changes.building
        if not in_flight:
            if stands:
                cluster.resume(victim)
            return False
        match fault.kind:
            case Kind.KILL_WRAPPER | Kind.KILL_DISPATCHER:
                cluster.kill(victim)
            case Kind.PAUSE_WRAPPER | Kind.PAUSE_DISPATCHER:
                self._after(fault.seconds, lambda: cluster.resume(victim))
            case Kind.RESTART_POSTGRES:
                cluster.restart_postgres()
            case Kind.END_SESSIONS:
                self._ask(_sql.end_sessions)
            case Kind.CUT_WRAPPER | Kind.CUT_DATABASE | Kind.CUT_SQS | Kind.CUT_PEOPLE:
                cluster.proxy.refuse(routes, refused=True)
                cluster.proxy.cut(routes)
                self._after(fault.seconds, lambda: cluster.proxy.refuse(routes, refused=False))
            case Kind.LOSE_REPLIES | Kind.LOSE_ANSWERS:
                cluster.proxy.hold(routes, Way.REPLIES)
                self._after(fault.seconds, lambda: self._lose(routes))
            case Kind.CRASH:
                raise ValueError("a crash point comes by itself")
        self.injected.append(Injected(fault.kind, victim, in_flight, f"{fault.seconds:g} s", changing))
        return True

    def _lose(self, routes: list[str]) -> None:
        """What was held back never arrives."""
        self.cluster.proxy.cut(routes)
        self.cluster.proxy.release(routes)

    def _cancel(self) -> bool:
        task_id = self._ask(_sql.to_cancel)
        if task_id is None or self._history is None:
            return False
        filter_ = task_pb.TaskFilter(task_ids=[task_id])
        request = task_pb.CancelTasksRequest(filter=filter_, reason="somebody changed their mind")
        number = self._history.began("CancelTasks", request)
        response = self._control(lambda channel: TaskServiceStub(channel).CancelTasks(request, timeout=5))
        self._history.ended(number, "OK" if response is not None else "UNKNOWN", response)
        return response is not None and response.task_count > 0

    def _retried(self) -> bool:
        """On a busy machine leases of a second are lost often: what died of that is retried. Whether there was any."""
        lost = self._ask(_sql.died_of_lost_leases) or []
        if lost:
            request = task_pb.RetryTasksRequest(filter=task_pb.TaskFilter(task_ids=lost))
            self._control(lambda channel: TaskServiceStub(channel).RetryTasks(request, timeout=5))
        return bool(lost)

    def _control(self, call: Callable[[grpc.Channel], Any]) -> Any:
        """The answer of any dispatcher that serves; None where none gave one."""
        for name in DISPATCHERS:
            if not self.cluster.processes[name].serving:
                continue
            address = self.cluster.addresses[name]["control"]
            with sync_channel(address, token=self.cluster.token("user"), actor_name="chaos") as channel:
                try:
                    return call(channel)
                except grpc.RpcError:
                    continue
        return None

    def _progress(self) -> float | None:
        """The share of all tasks that has ended, 1 when nothing is left; None while nobody can say."""
        ended, switched = self._ask(_sql.ended), self._ask(_sql.standing)
        if ended is None or switched is None:
            return None
        if (ended, switched) != (self._ended, self._deploy_number):
            self._ended, self._deploy_number, self._moved = ended, switched, time.monotonic()
            if self._history is not None:
                self._history.note(deploy_number=switched, seen=time.time())
        self._share = 1.0 if self._ask(_sql.settled) else min(float(ended) / self.workload.tasks, 0.999)
        return self._share

    def _in_flight(self, victim: str) -> int:
        worker = victim if victim in WRAPPERS else None
        return int(self._ask(_sql.in_flight, {"worker_id": worker}) or 0)

    def _ask(self, query: str, parameters: Mapping[str, Any] | None = None) -> Any:
        """One value; None while the database does not answer."""
        try:
            if self._database is None or self._database.closed:
                self._database = psycopg.connect(self.cluster.server.conninfo(), autocommit=True, connect_timeout=5)
            row = self._database.execute(query, parameters).fetchone()
        except psycopg.Error:
            return None
        return row[0] if row else None
