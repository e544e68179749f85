"""One running stack: Postgres, dispatcher, wrapper and queryd over one home, started, watched and stopped in order.

What has to hold, and what keeps it:

* *One stack a home.* Its supervisor holds `run/stack.lock` (flock) as long as it lives; the kernel drops the lock even
  after SIGKILL. Whoever has the lock knows that processes recorded in `run/processes.json` are leftovers.
* *Nothing is left behind.* Every process is recorded by pid, start time and boot before anything else happens with it.
  The next `up` or `down` ends what a crash left, and nothing else: a pid that names another process today is skipped.
* *Clients never see half a stack.* `endpoints.json` is written, whole, when everything serves, and removed first.
* *An address outlives its program.* A program that died is started again on the addresses that it had.
"""

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ctl.errors import CtlError
from ctl.home import Endpoints, Home, write_atomically
from ctl.local import programs
from ctl.local.folders import make_folders
from ctl.local.ownership import STOP_ORDER, SUPERVISOR, Report, check_ports_free, stop_leftovers, take_lock
from ctl.local.processes import ProcessIdentity, tail
from ctl.local.programs import Addresses, Interrupted, Program, Running, StackSettings
from ctl.local.restarts import RestartHistory
from ctl.local.signals import StopSignals
from ctl.local.store import remember_store, store_url
from kernel.embedded_postgres import EmbeddedPostgres, PostgresError

_READY_TIMEOUT = 60.0
_GRACE = 20.0
_POSTGRES_REMEDY = "correct what the message names and start again"


@dataclass(slots=True)
class _Due:
    """A program that died and is to be started again."""

    name: str
    at: float


class Stack:
    """Used by one thread, the main one: the processes end with it."""

    def __init__(self, home: Home, settings: StackSettings, signals: StopSignals, report: Report) -> None:
        self._home = home
        self._settings = settings
        self._signals = signals
        self._report = report
        self._lock_fd: int | None = None
        self._postgres = EmbeddedPostgres(home.root)
        self._postgres_fd = -1
        self._postgres_started = 0.0
        self._running: dict[str, Running] = {}
        self._digests: Mapping[str, str] = {}
        self._store_url = ""
        self._addresses = Addresses.from_port(settings.port)
        self._histories: dict[str, RestartHistory] = {}
        self._due: list[_Due] = []

    def start(self) -> Endpoints:
        """Starts everything; returns once all of it serves. Raises CtlError, or Interrupted; `stop` cleans up then."""
        make_folders(self._home, self._report)
        self._lock_fd = take_lock(self._home)
        stop_leftovers(self._home, self._report)
        self._record()
        check_ports_free(self._addresses)
        self._store_url = store_url(self._home, self._settings.artifacts)
        self._digests = programs.make_credentials(self._home)
        self._start_postgres()
        bound = self._start_program("dispatcher")
        self._addresses = replace(self._addresses, control=bound["control"], internal=bound["internal"])
        self._report(f"dispatcher serves on {bound['control']} (control) and {bound['internal']} (internal)")
        # Both need the dispatcher only: their imports run side by side.
        for name in ("wrapper", "queryd"):
            self._spawn(name)
        wrapper = self._running["wrapper"].wait_ready(self._signals, _READY_TIMEOUT)["wrapper"]
        query = self._running["queryd"].wait_ready(self._signals, _READY_TIMEOUT)["query"]
        self._addresses = replace(self._addresses, wrapper=wrapper, query=query)
        self._report(f"wrapper serves on {wrapper}")
        self._report(f"queryd serves on {query}")
        remember_store(self._home, self._store_url)
        endpoints = self._endpoints()
        write_atomically(self._home.endpoints_file, endpoints.to_json())
        return endpoints

    def supervise(self) -> None:
        """Returns when asked to stop. Raises CtlError when a program cannot be kept alive."""
        while not self._signals.stop:
            fds = {running.pidfd: name for name, running in self._running.items()}
            if self._postgres_fd >= 0:
                fds[self._postgres_fd] = "postgres"
            pause = min((due.at for due in self._due), default=None)
            ended = self._signals.wait(fds, None if pause is None else max(0.0, pause - time.monotonic()))
            for fd in ended:
                self._on_death(fds[fd])
            self._restart_due()

    def stop(self) -> None:
        """Ends everything in order: wrapper, queryd, dispatcher, Postgres. Idempotent."""
        if self._lock_fd is None:
            return
        self._home.endpoints_file.unlink(missing_ok=True)
        for name in STOP_ORDER:
            running = self._running.pop(name, None)
            if running is not None:
                running.end(self._signals, _GRACE)
                self._report(f"{name} stopped")
        if self._postgres.pid is not None:
            self._postgres.stop(timeout=1.0 if self._signals.hurry else 30.0)
            self._report("postgres stopped")
        self._close_postgres_fd()
        self._home.processes_file.unlink(missing_ok=True)
        os.close(self._lock_fd)
        self._lock_fd = None

    def _start_postgres(self) -> None:
        try:
            self._postgres.start()
        except PostgresError as error:
            raise CtlError(str(error), where=str(self._home.log_file("postgres")), remedy=_POSTGRES_REMEDY) from error
        pid = self._postgres.pid
        if pid is None:
            raise CtlError("postgres ended as soon as it was up", where=str(self._home.log_file("postgres")))
        self._postgres_fd = os.pidfd_open(pid)
        self._postgres_started = time.monotonic()
        self._record()
        self._report(f"postgres runs in {self._home.root / 'postgres'}")

    def _start_program(self, name: str) -> Mapping[str, str]:
        self._spawn(name)
        return self._running[name].wait_ready(self._signals, _READY_TIMEOUT)

    def _spawn(self, name: str) -> None:
        if self._signals.stop:
            raise Interrupted
        self._running[name] = Running(self._program(name), self._home.root)
        self._record()

    def _program(self, name: str) -> Program:
        if name == "dispatcher":
            database_url = self._postgres.conninfo()
            return programs.dispatcher(self._home, self._addresses, database_url, self._digests, self._store_url)
        if name == "wrapper":
            return programs.wrapper(self._home, self._addresses, self._digests, self._settings, self._store_url)
        return programs.queryd(self._home, self._addresses, self._digests, self._store_url)

    def _on_death(self, name: str) -> None:
        """Says what died, with the end of its log, and when it is tried again."""
        if name == "postgres":
            self._close_postgres_fd()
            self._postgres.stop()
            ran_for = time.monotonic() - self._postgres_started
            how, said = "ended", tail(self._home.log_file(name))
        else:
            running = self._running.pop(name)
            ended = running.ended()
            ran_for = time.monotonic() - running.started
            how, said = (running.how_it_ended() if ended else "ended"), running.log_tail()
            running.close()
        pause = self._histories.setdefault(name, RestartHistory()).died(ran_for=ran_for)
        text = f"{name} {how}" + (f"; the end of its log:\n{said}" if said else "")
        if pause is None:
            where = str(self._home.log_file(name))
            raise CtlError(f"{text}\n{name} dies again and again", where=where, remedy="correct what its log names")
        self._report(f"{text}\n{name} starts again in {pause:g} s")
        self._due.append(_Due(name, time.monotonic() + pause))

    def _restart_due(self) -> None:
        now = time.monotonic()
        for due in [due for due in self._due if due.at <= now]:
            self._due.remove(due)
            try:
                if due.name == "postgres":
                    self._start_postgres()
                else:
                    self._start_program(due.name)
            except Interrupted:
                return
            except CtlError as error:
                self._report(error.message)
                self._retry_later(due.name)
                continue
            # First the file: who hears that it serves may ask where.
            write_atomically(self._home.endpoints_file, self._endpoints().to_json())
            self._report(f"{due.name} serves again")

    def _retry_later(self, name: str) -> None:
        """A restart that failed counts as one more death. A program that hangs before it serves is ended first."""
        running = self._running.pop(name, None)
        if running is not None:
            running.end(self._signals, grace=5.0)
        pause = self._histories.setdefault(name, RestartHistory()).died(ran_for=0.0)
        if pause is None:
            where = str(self._home.log_file(name))
            raise CtlError(f"{name} cannot be started again", where=where, remedy="correct what its log names")
        self._due.append(_Due(name, time.monotonic() + pause))

    def _endpoints(self) -> Endpoints:
        return Endpoints(
            control=self._addresses.control,
            internal=self._addresses.internal,
            query=self._addresses.query,
            wrappers=(self._addresses.wrapper,),
            user_token_file=self._home.token_file("user"),
            pids={name: identity.pid for name, identity in self._identities().items()},
        )

    def _identities(self) -> dict[str, ProcessIdentity]:
        pids = {SUPERVISOR: os.getpid(), **{name: running.pid for name, running in self._running.items()}}
        if self._postgres.pid is not None:
            pids["postgres"] = self._postgres.pid
        found = {name: ProcessIdentity.of(pid) for name, pid in pids.items()}
        return {name: identity for name, identity in found.items() if identity is not None}

    def _record(self) -> None:
        document = {name: identity.to_json() for name, identity in self._identities().items()}
        write_atomically(self._home.processes_file, json.dumps(document, indent=2) + "\n")

    def _close_postgres_fd(self) -> None:
        if self._postgres_fd >= 0:
            os.close(self._postgres_fd)
            self._postgres_fd = -1
