"""tracectl against a dispatcher inside the test: the real command line, the real wire."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

from typer.testing import CliRunner, Result

from ctl.home import Endpoints, Home, write_atomically
from ctl.main import app
from tests.dispatcher.in_process import USER, InProcess
from traceapi.control.v1 import change_pb2

Run = Callable[..., Awaitable[Result]]


def command_line(dispatcher: InProcess, folder: Path) -> Run:
    """Runs a command in a thread, while the dispatcher serves in the test's loop."""
    home = Home.at(folder / "home")
    home.root.mkdir()
    token = home.token_file("user")
    token.parent.mkdir(mode=0o700, parents=True)
    token.touch(mode=0o600)
    token.write_text(USER)
    control = dispatcher.addresses["control"]
    endpoints = Endpoints(control, control, control, (control,), token, {"dispatcher": os.getpid()})
    write_atomically(home.endpoints_file, endpoints.to_json())
    environment = {"TRACE_HOME": str(home.root), "COLUMNS": "240"}

    async def run(*arguments: str) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, app, list(arguments), env=environment)

    return run


def words(change: change_pb2.DagChange) -> tuple[str, int, int]:
    """What was done, from which version to which."""
    name = change_pb2.AuditAction.Name(change.action).removeprefix("AUDIT_ACTION_").lower()
    return name, change.from_version, change.to_version
