"""A stack whose programs a test kills and starts again itself: no supervisor gets in between."""

import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import psycopg

from ctl.connection import Connection, connect
from ctl.home import Endpoints, Home, write_atomically
from ctl.local import programs
from ctl.local.programs import Addresses, Running
from ctl.local.signals import StopSignals
from kernel.embedded_postgres import EmbeddedPostgres

READY_SECONDS = 60.0


@dataclass
class Programs:
    """Dispatcher and wrapper over one home, each a process of its own."""

    home: Home
    database_url: str
    digests: dict[str, str]
    signals: StopSignals
    addresses: Addresses = field(default_factory=lambda: Addresses.from_port(0))
    running: dict[str, Running] = field(default_factory=dict)

    def start(self, name: str) -> None:
        """Starts a program on the addresses that it had before, and waits until it serves."""
        program = (
            programs.dispatcher(self.home, self.addresses, self.database_url, self.digests)
            if name == "dispatcher"
            else programs.wrapper(self.home, self.addresses, self.digests, programs.StackSettings())
        )
        running = self.running[name] = Running(program, self.home.root)
        bound = running.wait_ready(self.signals, READY_SECONDS)
        self.addresses = replace(self.addresses, **bound)

    def stop(self, *names: str) -> None:
        """Returns when the programs stand still, whatever they were doing."""
        for name in names:
            os.kill(self.running[name].pid, signal.SIGSTOP)
        for name in names:
            os.waitid(os.P_PID, self.running[name].pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self, *names: str) -> None:
        for name in names:
            os.kill(self.running[name].pid, signal.SIGCONT)

    def kill(self, name: str) -> None:
        """SIGKILL, and waits until it is gone."""
        running = self.running.pop(name)
        os.kill(running.pid, signal.SIGKILL)
        running.end(self.signals, grace=5.0)

    @contextlib.contextmanager
    def connected(self) -> Iterator[Connection]:
        """The user's connection."""
        endpoints = Endpoints(
            control=self.addresses.control,
            internal=self.addresses.internal,
            query=self.addresses.control,
            wrappers=(self.addresses.wrapper,),
            user_token_file=self.home.token_file("user"),
            pids={name: running.pid for name, running in self.running.items()},
        )
        write_atomically(self.home.endpoints_file, endpoints.to_json())
        with connect(self.home.root) as connection:
            yield connection


@contextlib.contextmanager
def running_programs(folder: Path, environment: dict[str, str]) -> Iterator[tuple[Programs, psycopg.Connection]]:
    """Programs with a connection to their database; everything that still runs is ended with the block."""
    home = Home.at(folder)
    home.root.mkdir(parents=True)
    home.artifacts.mkdir()
    (home.root / "run").mkdir(mode=0o700, exist_ok=True)
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(EmbeddedPostgres(home.root))
        signals = stack.enter_context(StopSignals())
        found = Programs(home, server.conninfo(), dict(programs.make_credentials(home)), signals)
        try:
            for name in ("dispatcher", "wrapper"):
                found.start(name)
            yield found, stack.enter_context(psycopg.connect(server.conninfo(), autocommit=True))
        finally:
            for name in ("wrapper", "dispatcher"):
                if name in found.running:
                    found.running.pop(name).end(signals, grace=10.0)
            for name, value in before.items():
                os.environ.pop(name, None) if value is None else os.environ.update({name: value})
