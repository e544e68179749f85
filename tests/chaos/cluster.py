"""The programs of a run: Postgres, two dispatchers, three wrappers, and the proxy that they speak through.

Owns their processes: starts, kills, stops and continues them, by the pids that it started. Knows no plan.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

from psycopg.conninfo import make_conninfo

from ctl.home import Home
from ctl.local import programs
from ctl.local.programs import Addresses
from dispatcher.db.migrate import migrate
from kernel.credentials import read_token
from kernel.embedded_postgres import EmbeddedPostgres
from tests.chaos.plan import DISPATCHERS, PEOPLE, SQS, WRAPPERS
from tests.chaos.proxy import Endpoint, Proxy
from tests.sqs_server import CREDENTIAL, SqsServer, running_sqs_server

_ROOT = Path(__file__).resolve().parents[2]
_SOCKET = ".s.PGSQL.5432"
_TERM_SECONDS = 3.0
_TELL_SECONDS = 1.0
_PREFIX = "chaos"


@dataclass(frozen=True, slots=True)
class Settings:
    """Of all processes of a run. Times are in seconds."""

    seed: int
    losses: str
    lease_seconds: float = 1.0
    unanswered_seconds: float = 0.5
    bug: str = ""
    """What is planted in the dispatchers, by name."""
    finished_live_seconds: float = 0.2
    rollback_versions: int = 1
    orphan_grace_seconds: float = 2.0
    orphan_sweep_seconds: float = 1.0
    settling_seconds: float = 2.0
    """How long what has just left its pointer stays, whatever the settings say: longer than any pause of a program."""
    wakeups: str = "stream"
    """The way that wake-ups go: `stream`, or `sqs`, through a server that speaks SQS."""


@dataclass(slots=True)
class Process:
    """One start of a program. `armed` is the crash point that it may die at."""

    popen: "subprocess.Popen[bytes]"
    ready_file: Path
    armed: str = ""
    killed: bool = False
    ended: bool = False
    serving: bool = False


@dataclass(slots=True)
class Cluster:
    """What runs, by name. `address` of a dispatcher are those of its present process."""

    home: Home
    settings: Settings
    server: EmbeddedPostgres
    proxy: Proxy
    ports: Mapping[str, int]
    digests: Mapping[str, str]
    wakeups: Mapping[str, str]
    """What programs have to know of the way that wake-ups go, as environment."""
    processes: dict[str, Process] = field(default_factory=dict)
    addresses: dict[str, Mapping[str, str]] = field(default_factory=dict)
    logs: dict[str, Path] = field(default_factory=dict)

    @property
    def history(self) -> Path:
        """The folder with a history for each process name."""
        return self.home.root / "history"

    def token(self, role: str) -> str:
        """A credential, to speak as `user` or `worker`."""
        return read_token(self.home.token_file(role))

    def start(self, name: str, armed: str = "") -> None:
        """Starts a program; `look` tells when it serves."""
        ready_file = self.home.ready_file(name)
        ready_file.unlink(missing_ok=True)
        module = name.partition("-")[0]
        own = {
            "TRACE_READY_FILE": str(ready_file),
            "TRACE_LEASE_SECONDS": str(self.settings.lease_seconds),
            "TRACE_UNANSWERED_WAKEUP_SECONDS": str(self.settings.unanswered_seconds),
            "TRACE_FINISHED_LIVE_SECONDS": str(self.settings.finished_live_seconds),
            "TRACE_ROLLBACK_VERSIONS": str(self.settings.rollback_versions),
            "TRACE_ROLLBACK_DAYS": "0",
            "TRACE_ORPHAN_GRACE_SECONDS": str(self.settings.orphan_grace_seconds),
            "TRACE_ORPHAN_SWEEP_SECONDS": str(self.settings.orphan_sweep_seconds),
            "TRACE_WORKER_ID": name,
            "TRACE_WORK_DIR": str(self.home.root / name),
            "TRACE_CAPACITY": "4",
            "TRACE_DRAIN_SECONDS": "2",
            **self.wakeups,
            "CHAOS_PROCESS": name,
            "CHAOS_HISTORY": str(self.history / f"{name}.jsonl"),
            "CHAOS_CRASH": armed,
            "CHAOS_LOSSES": self.settings.losses,
            "CHAOS_SEED": str(self.settings.seed),
            "CHAOS_BUG": self.settings.bug,
            "CHAOS_SETTLING": str(self.settings.settling_seconds),
        }
        log_file = self.logs[name] = self.home.log_file(name)
        with log_file.open("ab") as log:
            popen = subprocess.Popen(
                [*programs.DIES_WITH_PARENT, sys.executable, "-P", "-m", "tests.chaos.program", module],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=_ROOT,
                env={**os.environ, **self._environment(name), **own},
                start_new_session=True,
            )
        self.processes[name] = Process(popen, ready_file, armed)

    def look(self) -> list[str]:
        """Notices who serves now; answers who has ended since it last looked, whatever ended it."""
        for name, process in self.processes.items():
            if not (process.serving or process.ended) and process.ready_file.exists():
                process.serving = True
                self._serves(name, json.loads(process.ready_file.read_text()))
        ended = [
            name for name, process in self.processes.items() if not process.ended and process.popen.poll() is not None
        ]
        for name in ended:
            self.processes[name].ended, self.processes[name].serving = True, False
            self._retarget(name, None)
        return ended

    @property
    def serving_count(self) -> int:
        return sum(process.serving for process in self.processes.values())

    def serving(self) -> bool:
        """Whether all of them do."""
        return self.serving_count == len(self.processes)

    def kill(self, name: str) -> None:
        """SIGKILL; its operators go with it."""
        process = self.processes[name]
        process.killed = True
        process.popen.kill()
        process.popen.wait()
        self._retarget(name, None)

    def stop(self, name: str) -> bool:
        """Whether it stands still when this returns: it may just have died."""
        popen = self.processes[name].popen
        if popen.poll() is not None:
            return False
        os.kill(popen.pid, signal.SIGSTOP)
        found = os.waitid(os.P_PID, popen.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        return found is not None and found.si_code == os.CLD_STOPPED

    def resume(self, name: str) -> None:
        process = self.processes[name]
        if process.popen.poll() is None:
            os.kill(process.popen.pid, signal.SIGCONT)

    def restart_postgres(self) -> None:
        """SIGKILL, and a start on what it left."""
        pid = self.server.pid
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
        self.server.stop()
        self.server.start()

    def ask_what_they_wait_for(self) -> None:
        """It stands in their logs afterwards."""
        for process in self.processes.values():
            if process.popen.poll() is None:
                process.popen.send_signal(signal.SIGUSR1)
        time.sleep(_TELL_SECONDS)

    def end(self) -> None:
        """Ends all programs: first they are asked to."""
        for process in self.processes.values():
            if process.popen.poll() is None:
                process.popen.send_signal(signal.SIGCONT)
                process.popen.terminate()
        for process in self.processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.popen.wait(_TERM_SECONDS)
            if process.popen.poll() is None:
                process.popen.kill()
                process.popen.wait()

    def _environment(self, name: str) -> Mapping[str, str]:
        anywhere = Addresses("127.0.0.1:0", "127.0.0.1:0", "", "127.0.0.1:0")
        if name in DISPATCHERS:
            database_url = make_conninfo(self.server.conninfo(), host=str(self.home.root / name))
            return programs.dispatcher(self.home, anywhere, database_url, self.digests).environment
        through = ",".join(f"127.0.0.1:{self.ports[route]}" for route in routes_of(name))
        addresses = Addresses("", through, "", "127.0.0.1:0")
        settings = programs.StackSettings(port=0, replay_roots=(self.home.root / "files",))
        return programs.wrapper(self.home, addresses, self.digests, settings).environment

    def _serves(self, name: str, bound: Mapping[str, str]) -> None:
        self.addresses[name] = bound
        self._retarget(name, bound)

    def _retarget(self, name: str, bound: Mapping[str, str] | None) -> None:
        """Nowhere, once it has ended: somebody else may get its port."""
        for client in (*WRAPPERS, PEOPLE) if name in DISPATCHERS else ():
            listener = "control" if client == PEOPLE else "internal"
            self.proxy.retarget(f"{client}>{name}", Endpoint.parse(bound[listener]) if bound else None)


def routes_of(name: str) -> list[str]:
    """The routes that a process speaks through: a wrapper's and people's to both dispatchers, a dispatcher's to the
    database. All of them speak to SQS through one."""
    if name == SQS:
        return [SQS]
    return [f"{name}>{other}" for other in DISPATCHERS] if name in (*WRAPPERS, PEOPLE) else [f"{name}>postgres"]


@contextlib.contextmanager
def running_cluster(folder: Path, settings: Settings, rng: random.Random) -> Iterator[Cluster]:
    """Postgres with the schema and the harness' own audit, and the proxy; no program is started yet. Everything is
    ended with the block."""
    home = Home.at(folder)
    for path in (home.root, home.artifacts, home.logs, home.root / "files", home.root / "history"):
        path.mkdir(parents=True, exist_ok=True)
    (home.root / "run").mkdir(mode=0o700, exist_ok=True)
    with EmbeddedPostgres(home.root) as server, Proxy(rng) as proxy:
        migrate(server.conninfo())
        behind = Endpoint(path=home.root / "run" / _SOCKET)
        for name in DISPATCHERS:
            (home.root / name).mkdir(mode=0o700)
            proxy.add(f"{name}>postgres", Endpoint(path=home.root / name / _SOCKET), behind)
        ports = {route: proxy.add(route, Endpoint()) for client in (*WRAPPERS, PEOPLE) for route in routes_of(client)}
        with _wakeups(settings, proxy) as wakeups:
            cluster = Cluster(home, settings, server, proxy, ports, programs.make_credentials(home), wakeups)
            try:
                yield cluster
            finally:
                cluster.end()


@contextlib.contextmanager
def _wakeups(settings: Settings, proxy: Proxy) -> Iterator[Mapping[str, str]]:
    """The server that speaks SQS, behind the proxy, where wake-ups go through it."""
    if settings.wakeups != SQS:
        yield {}
        return
    with running_sqs_server() as server:
        port = proxy.add(SQS, Endpoint(), Endpoint(server.port))
        with patch.dict(os.environ, CREDENTIAL):
            server.make_queue(_PREFIX)
        yield {"TRACE_WAKEUPS": SqsServer(port).url(_PREFIX), **CREDENTIAL}
