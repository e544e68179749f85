"""One run: the workload, the faults of the plan, the time to recover, and the judgement."""

import functools
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import psycopg

from dispatcher.db.statements import Statements
from kernel.artifacts import open_store
from kernel.channels import sync_channel
from kernel.ids import new_id
from tests.chaos.checker import Violation, check
from tests.chaos.cluster import Cluster, Settings, routes_of, running_cluster
from tests.chaos.collect import collect, install_audit
from tests.chaos.evidence import Bounds
from tests.chaos.late_calls import LateCalls
from tests.chaos.plan import DISPATCHERS, WRAPPERS, Fault, Kind, Plan, plan_of
from tests.chaos.proxy import Way
from tests.chaos.rarities import Injected, rarities_of, vacuous
from tests.chaos.recorder import History
from tests.chaos.workload import tasks_of, write_workload
from traceapi.control.v1 import dag_service_pb2 as dag_pb
from traceapi.control.v1 import task_service_pb2 as task_pb
from traceapi.control.v1.dag_service_pb2_grpc import DagServiceStub
from traceapi.control.v1.task_service_pb2_grpc import TaskServiceStub

EVENTS = 700
RATE = 250
_LEASE_SECONDS = 1.0
_START_SECONDS = 60.0
_FAULTS_SECONDS = 45.0
_DRAIN_SECONDS = 45.0
_TICK_SECONDS = 0.02
_RESTART_SECONDS = 0.1

_sql = Statements.load("tests.chaos", "run.sql")


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a seed. It passed where nothing is violated and nothing missing."""

    seed: int
    violations: list[Violation]
    missing: list[str]
    rarities: Mapping[str, float]
    injected: list[Injected]
    seconds: float

    @property
    def outcome(self) -> str:
        return "violated" if self.violations else "vacuous" if self.missing else "passed"


def run(seed: int, folder: Path, events: int = EVENTS) -> Result:
    """Runs a seed in an empty folder. Call it in the main thread: the programs die with that."""
    started = time.monotonic()
    plan = plan_of(seed, _LEASE_SECONDS)
    settings = Settings(seed, str(plan.losses), _LEASE_SECONDS)
    with running_cluster(folder, settings, random.Random(f"{seed}/proxy")) as cluster:
        install_audit(cluster.server.conninfo())
        document = write_workload(cluster.home.root / "files", events, RATE)
        driver = Driver(cluster, plan, events)
        try:
            driver.start(document)
            with LateCalls(
                cluster.history, plan.replayed, random.Random(f"{seed}/late"), cluster.token("worker"), driver.address
            ) as late:
                driver.inject()
                late.stop()
            driver.drain()
        finally:
            driver.close()
        cluster.end()
        store = open_store(cluster.home.artifacts.as_uri())
        bounds = Bounds(unanswered=settings.unanswered_seconds)
        evidence = collect(cluster.server.conninfo(), store, cluster.history, bounds)
        rarities = rarities_of(evidence, cluster.history, driver.injected)
        seconds = time.monotonic() - started
        return Result(seed, check(evidence), vacuous(rarities), rarities, driver.injected, seconds)


@dataclass(slots=True)
class Driver:
    """Looks at the run, again and again, and does what is due. Everything happens in one thread, in the order of the
    looks."""

    cluster: Cluster
    plan: Plan
    events: int
    injected: list[Injected] = field(default_factory=list)
    _due: list[tuple[float, Callable[[], None]]] = field(default_factory=list)
    _database: "psycopg.Connection[Any] | None" = None
    _history: History | None = None
    _turn: int = 0

    def start(self, document: str) -> None:
        """Starts everything, and deploys."""
        self._history = History(self.cluster.history / "driver.jsonl", "driver")
        for name in (*DISPATCHERS, *WRAPPERS):
            self.cluster.start(name, self.plan.crashes.get(name, ""))
        self._until(self.cluster.serving, _START_SECONDS, "all programs serve")
        request = dag_pb.DeployDagRequest(document=dag_pb.DagDocument(text=document), request_id=new_id())
        self._until(
            lambda: self._control(lambda c: DagServiceStub(c).DeployDag(request, timeout=10)) is not None,
            30,
            "deployed",
        )

    def inject(self) -> None:
        """The plan's faults and cancels, each when the work is so far; until all of them came, or the work is done."""
        faults, cancels = list(self.plan.faults), list(self.plan.cancels)

        def all_came() -> bool:
            progress = self._progress()
            if progress is None:
                return False
            for fault in [fault for fault in faults if progress >= fault.at]:
                if self._inject(fault):
                    faults.remove(fault)
            if cancels and progress >= cancels[0] and self._cancel():
                del cancels[0]
            return progress >= 1 or not (faults or cancels)

        self._until(all_came, _FAULTS_SECONDS, "all faults came", fail=False)

    def drain(self) -> None:
        """No fault any more: everything is whole again, and all that is left gets done."""

        def done() -> bool:
            progress = self._progress()
            return not self._due and progress is not None and progress >= 1

        if not self._until(done, _DRAIN_SECONDS, "the work is done", fail=False):
            self.cluster.ask_what_they_wait_for()

    def close(self) -> None:
        if self._database is not None:
            self._database.close()

    def address(self) -> str:
        """Of a dispatcher that serves, each in turn; empty where none does."""
        self._turn += 1
        serving = [name for name in DISPATCHERS if self.cluster.processes[name].serving]
        return self.cluster.addresses[serving[self._turn % len(serving)]]["internal"] if serving else ""

    def _until(self, done: Callable[[], bool], seconds: float, what: str, *, fail: bool = True) -> bool:
        """Looks after everything until `done`; whether it came to that."""
        deadline = time.monotonic() + seconds
        while True:
            self._look()
            if done():
                return True
            if time.monotonic() > deadline:
                if fail:
                    raise TimeoutError(f"{what}: not within {seconds:.0f} s; logs are in {self.cluster.home.logs}")
                return False
            time.sleep(_TICK_SECONDS)

    def _look(self) -> None:
        for name in self.cluster.look():
            process = self.cluster.processes[name]
            if process.armed and not process.killed and process.popen.returncode == -9:
                self.injected.append(Injected(Kind.CRASH, name, self._in_flight(name), process.armed))
            self._after(_RESTART_SECONDS, functools.partial(self.cluster.start, name))
        now = time.monotonic()
        for item in [item for item in self._due if item[0] <= now]:
            self._due.remove(item)
            item[1]()

    def _after(self, seconds: float, action: Callable[[], None]) -> None:
        self._due.append((time.monotonic() + seconds, action))

    def _inject(self, fault: Fault) -> bool:
        """Whether it came: at the first of its victims, in their order, where it hits work."""
        return any(self._inject_at(fault, victim) for victim in fault.victims)

    def _inject_at(self, fault: Fault, victim: str) -> bool:
        cluster, routes = self.cluster, routes_of(victim)
        if victim in cluster.processes and not cluster.processes[victim].serving:
            return False
        stood = fault.kind in (Kind.KILL_WRAPPER, Kind.PAUSE_WRAPPER, Kind.KILL_DISPATCHER, Kind.PAUSE_DISPATCHER)
        if stood:
            cluster.stop(victim)
        in_flight = self._in_flight(victim)
        if not in_flight:
            if stood:
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
            case Kind.CUT_WRAPPER | Kind.CUT_DATABASE:
                cluster.proxy.refuse(routes, refused=True)
                cluster.proxy.cut(routes)
                self._after(fault.seconds, lambda: cluster.proxy.refuse(routes, refused=False))
            case Kind.LOSE_REPLIES:
                cluster.proxy.hold(routes, Way.REPLIES)
                self._after(fault.seconds, lambda: self._lose(routes))
            case Kind.CRASH:
                raise ValueError("a crash point comes by itself")
        self.injected.append(Injected(fault.kind, victim, in_flight, f"{fault.seconds:g} s"))
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
        ended = self._ask(_sql.ended)
        if ended is None:
            return None
        if self._ask(_sql.settled):
            return 1.0
        return min(float(ended) / tasks_of(self.events), 0.999)

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
