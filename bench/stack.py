"""A stack for measuring, started as `tracectl up` starts it; and further workers, started as it starts its own."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import TupleRow

from ctl.home import Home
from ctl.local import programs
from ctl.local.programs import Addresses
from kernel.embedded_postgres import EmbeddedPostgres

Database = psycopg.Connection[TupleRow]

_POLL_SECONDS = 0.2
_READY_SECONDS = 60.0
_GRACE_SECONDS = 25.0


class TooSlow(Exception):
    """What a measure waited for did not come in time; the text says what."""


@dataclass(frozen=True, slots=True)
class Stack:
    """A running stack. `internal` is the dispatcher's address for workers."""

    home: Home
    internal: str
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def database(self, name: str = "trace") -> Database:
        return psycopg.connect(self.conninfo(name), autocommit=True)

    def conninfo(self, name: str = "trace") -> str:
        return EmbeddedPostgres(self.home.root).conninfo(name)

    @property
    def pids(self) -> Mapping[str, int]:
        """By program, as they run now: what was killed is started again under another one."""
        endpoints: dict[str, Any] = json.loads(self.home.endpoints_file.read_text(encoding="utf-8"))
        return {name: int(pid) for name, pid in endpoints["pids"].items()}

    @property
    def postgres_log(self) -> Path:
        """What the server says."""
        return EmbeddedPostgres(self.home.root).log_path

    def deploy(self, document: str, files: Mapping[str, str] | None = None) -> None:
        """Deploys the text, with files beside it, by their path."""
        folder = self.home.root / f"document-{next(self._numbers)}"
        for name, text in {"dag.yaml": document, **(files or {})}.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        ctl(self.home.root, "dag", "deploy", str(folder / "dag.yaml"))

    @contextmanager
    def worker(self, queue: str) -> Iterator[int]:
        """A further wrapper, for a queue of its own; its pid."""
        name = f"wrapper-{next(self._numbers)}"
        addresses = Addresses("", self.internal, "", "127.0.0.1:0")
        settings = programs.StackSettings(port=0, sandbox="bubblewrap")
        usual = programs.wrapper(self.home, addresses, programs.make_credentials(self.home), settings)
        own = {"TRACE_QUEUES": queue, "TRACE_WORKER_ID": name, "TRACE_WORK_DIR": str(self.home.root / name)}
        with self._beside(name, usual, own) as process:
            yield process.pid

    @contextmanager
    def queryd(self, dispatcher: str) -> Iterator[str]:
        """A further queryd, which asks the dispatcher at this address; its own address."""
        name = f"queryd-{next(self._numbers)}"
        addresses = Addresses(dispatcher, "", "127.0.0.1:0", "")
        usual = programs.queryd(self.home, addresses, programs.make_credentials(self.home))
        with self._beside(name, usual, {}):
            bound: dict[str, str] = json.loads(self.home.ready_file(name).read_text(encoding="utf-8"))
            yield bound["query"]

    @contextmanager
    def _beside(
        self, name: str, usual: programs.Program, own: Mapping[str, str]
    ) -> Iterator["subprocess.Popen[bytes]"]:
        """A program beside those of the stack, as the stack would start it but for what is its own."""
        ready_file = self.home.ready_file(name)
        with self.home.log_file(name).open("ab") as log:
            process = subprocess.Popen(
                [*programs.DIES_WITH_PARENT, sys.executable, "-P", "-m", usual.module],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **usual.environment, **own, "TRACE_READY_FILE": str(ready_file)},
                start_new_session=True,
            )
        try:
            wait_until(ready_file.exists, _READY_SECONDS, f"{name} serves")
            yield process
        finally:
            process.terminate()
            try:
                process.wait(_GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@contextmanager
def running_stack(folder: Path) -> Iterator[Stack]:
    """The stack over `folder`, stopped at the end of the block."""
    endpoints: dict[str, Any] = json.loads(ctl(folder, "up", "--detach", "--port", "0", "--output", "json"))
    try:
        yield Stack(Home.at(folder), endpoints["internal"])
    finally:
        ctl(folder, "down")


def ctl(home: Path, *arguments: str) -> str:
    """What `tracectl` prints. Raises CalledProcessError, after what it said to standard error."""
    command = [sys.executable, "-m", "ctl", *arguments, "--home", str(home)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Raises TooSlow."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TooSlow(f"{what}: not within {seconds:.0f} s")
        time.sleep(_POLL_SECONDS)
