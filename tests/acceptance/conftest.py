"""Whole stacks, started as `tracectl up` starts them, on free ports and in folders of their own.

`stack` is one for the whole session, with the example deployed and settled: read from it, change nothing that others
count. `start_stack` gives a test stacks of its own. Whatever is started here is stopped here, by its recorded identity.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ctl.commands.dag import deploy_document
from ctl.connection import Connection, connect
from ctl.document import Document
from ctl.errors import CtlError
from ctl.home import Endpoints, Home, read_endpoints
from ctl.local.launch import start_detached, stop_stack
from ctl.local.ownership import read_processes
from ctl.local.processes import ProcessIdentity
from ctl.local.programs import StackSettings
from ctl.query_stream import QueryStream
from ctl.render import console
from ctl.watch import Followed, follow_deployment
from traceapi.control.v1.deployment_pb2 import Deployment

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "ethereum" / "dag.yaml"
_COMMAND_SECONDS = 110.0


@dataclass
class RunningStack:
    """A stack that serves. `connection` is the user's."""

    home: Home
    connection: Connection

    @property
    def endpoints(self) -> Endpoints:
        """As they are now: pids change when a program is started again."""
        return read_endpoints(self.home)

    def processes(self) -> dict[str, ProcessIdentity]:
        """Its programs now, by name: `supervisor`, `postgres`, `dispatcher`, `wrapper`, `queryd`."""
        return dict(read_processes(self.home))

    def deploy(self, document: Path) -> Deployment:
        """Deploys a document with the files that it names."""
        return deploy_document(self.connection, Document.read(document)).deployment

    def settle(self, deployment: Deployment, *, give_up_after: float = 90.0) -> Followed:
        """Waits until nothing is left to do, or what is left waits behind DEAD tasks. Raises CtlError if it stands."""
        return follow_deployment(self.connection, deployment, console.stderr(), give_up_after=give_up_after)

    def query(self, sql: str) -> list[dict[str, Any]]:
        """The rows of a query, as Python values."""
        with QueryStream(self.connection, sql, timeout=60.0) as stream:
            rows: list[dict[str, Any]] = pa.Table.from_batches(stream.batches(), schema=stream.schema()).to_pylist()
            return rows

    def tracectl(self, *arguments: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        """The command line, on this stack."""
        return tracectl(*arguments, home=self.home.root, stdin=stdin)

    def logs(self) -> str:
        """The ends of all logs, for the message of a failed test."""
        files = sorted(self.home.logs.glob("*.log"))
        return "\n".join(f"--- {file.name}\n{file.read_text(errors='replace')[-3000:]}" for file in files)


def tracectl(*arguments: str, home: Path, stdin: str = "") -> "subprocess.CompletedProcess[str]":
    """Runs the command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "ctl", *arguments],
        env={**os.environ, "TRACE_HOME": str(home), "COLUMNS": "200"},
        cwd=ROOT,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=_COMMAND_SECONDS,
        check=False,
    )


@contextmanager
def running_stack(
    folder: Path, environment: dict[str, str] | None = None, artifacts: str = ""
) -> Iterator[RunningStack]:
    """A stack on a home in this folder, with these variables for its programs; ends with the block. `artifacts` is the
    store's URL, empty for the home's own."""
    home = Home.at(folder)
    before = {name: os.environ.get(name) for name in environment or {}}
    os.environ.update(environment or {})
    try:
        settings = StackSettings(port=0, sandbox=os.environ.get("TRACE_SANDBOX", "bubblewrap"), artifacts=artifacts)
        start_detached(home, settings, lambda line: None, tied=True)
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
    started = read_processes(home)
    try:
        with connect(home.root) as connection:
            yield RunningStack(home, connection)
    finally:
        started = {**started, **read_processes(home)}
        stop_stack(home, lambda line: None)
        for identity in started.values():
            if identity.is_alive():
                os.kill(identity.pid, signal.SIGKILL)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """The session's stack: the example is deployed, settled, and nothing in it is DEAD."""
    with running_stack(tmp_path_factory.mktemp("stack") / "home") as running:
        try:
            followed = running.settle(running.deploy(EXAMPLE))
        except CtlError as error:
            pytest.fail(f"{error.message}\n{running.logs()}")
        assert followed.state.settled, running.logs()
        assert followed.dead == 0, running.logs()
        yield running


@pytest.fixture
def start_stack(tmp_path: Path) -> Iterator[Callable[..., RunningStack]]:
    """Starts further stacks: `start_stack("name", {"TRACE_CAPACITY": "2"})`. All are stopped at the end of the test."""
    with ExitStack() as running:

        def start(name: str = "home", environment: dict[str, str] | None = None) -> RunningStack:
            return running.enter_context(running_stack(tmp_path / name, environment))

        yield start
