"""Programs as a production runs them: each by its own command, from one TOML file, several of a kind side by side."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from ctl.home import Endpoints, Home, write_atomically
from kernel.channels import aio_channel
from kernel.credentials import create_token_file, token_digest
from kernel.tls import TlsFiles, client_tls
from tests.certificates import Authority

_SECONDS = 60.0
NAME = "dispatcher.test"
"""The name in all certificates of a fleet."""


@dataclass
class Program:
    """One process of the fleet; started again it has the addresses that it had."""

    kind: str
    name: str
    folder: Path
    settings: dict[str, str]
    process: asyncio.subprocess.Process | None = None
    addresses: dict[str, str] = field(default_factory=dict)

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    async def start(self) -> None:
        """Returns once it serves."""
        ready = self.folder / f"{self.name}.ready"
        ready.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                str(Path(sys.executable).with_name(f"trace-{self.kind}")),
                *("--config", str(self.folder / "trace.toml")),
                env={**os.environ, **self.settings, "TRACE_READY_FILE": str(ready)},
                stdout=log,
                stderr=log,
                cwd=self.folder,
            )
        ended = asyncio.create_task(self.process.wait())
        try:
            async with asyncio.timeout(_SECONDS):
                while not ready.exists():
                    await asyncio.wait([ended], timeout=0.02)
                    assert not ended.done(), f"{self.name} ended:\n{self.log.read_text()[-4000:]}"
        finally:
            ended.cancel()
        self.addresses = json.loads(ready.read_text())
        for listener, address in self.addresses.items():
            self.settings[f"TRACE_{listener.upper()}_LISTEN"] = address

    async def terminate(self) -> int:
        """SIGTERM; answers the exit status once it has ended."""
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(_SECONDS):
            return await self.process.wait()

    async def restart(self) -> None:
        """SIGTERM, which must end it in order, and another process in its place."""
        assert await self.terminate() == 0, self.log.read_text()[-4000:]
        await self.start()

    def events(self) -> list[dict[str, Any]]:
        """What it logged, in all of its lives."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]


@dataclass
class Fleet:
    """What the programs have in common: a file of settings, credentials, perhaps an authority."""

    folder: Path
    authority: Authority | None
    programs: list[Program] = field(default_factory=list)

    @property
    def tls(self) -> TlsFiles | None:
        return client_tls(self.authority.file, NAME) if self.authority else None

    @property
    def host(self) -> str:
        """What programs listen on: all of this machine's addresses, where TLS allows it."""
        return "0.0.0.0" if self.authority else "127.0.0.1"

    def token(self, role: str) -> str:
        return (self.folder / f"{role}.token").read_text().strip()

    def addresses(self, listener: str) -> str:
        """The list of all that serve this listener, as clients of this machine call it."""
        bound = [program.addresses[listener] for program in self.programs if listener in program.addresses]
        return ",".join(address.replace("0.0.0.0", "127.0.0.1") for address in bound)

    async def start(self, kind: str, **settings: str) -> Program:
        """One more program; settings beyond the file's are lower-case names."""
        name = f"{kind}-{sum(program.kind == kind for program in self.programs) + 1}"
        listeners = {"dispatcher": ("control", "internal"), "wrapper": ("wrapper",), "queryd": ("query",)}[kind]
        own = {f"{listener}_listen": f"{self.host}:0" for listener in listeners}
        if kind == "wrapper":
            own |= {"worker_id": name, "work_dir": str(self.folder / name)}
        if kind != "dispatcher":
            own["dispatcher_address"] = self.addresses("internal" if kind == "wrapper" else "control")
        variables = {f"TRACE_{setting.upper()}": value for setting, value in (own | settings).items()}
        program = Program(kind, name, self.folder, variables)
        self.programs.append(program)
        await program.start()
        return program

    def channel(self, listener: str, role: str) -> grpc.aio.Channel:
        """To all that serve the listener."""
        return aio_channel(self.addresses(listener), token=self.token(role), actor_name="tester", tls=self.tls)

    def write_endpoints(self) -> Home:
        """A home for tracectl, as a person writes it for programs that others run."""
        home = Home.at(self.folder)
        wrappers = tuple(address for address in self.addresses("wrapper").split(",") if address)
        endpoints = Endpoints(
            self.addresses("control"), "", self.addresses("query"), wrappers, Path("user.token"), tls=self.tls
        )
        write_atomically(home.endpoints_file, endpoints.to_json())
        return home


@asynccontextmanager
async def running_fleet(folder: Path, database: str, authority: Authority | None = None) -> AsyncIterator[Fleet]:
    """A fleet without programs yet; those that are started are ended with the block."""
    for role in ("user", "worker", "queryd"):
        create_token_file(folder / f"{role}.token")
    fleet = Fleet(folder, authority)
    (folder / "trace.toml").write_text(_file(fleet, database))
    try:
        yield fleet
    finally:
        for program in reversed(fleet.programs):
            if program.process is not None and program.process.returncode is None:
                try:
                    await program.terminate()
                finally:
                    if program.process.returncode is None:
                        program.process.kill()


def _file(fleet: Fleet, database: str) -> str:
    digests = {role: [token_digest(fleet.token(role))] for role in ("user", "worker", "queryd")}
    artifacts = (fleet.folder / "artifacts").as_uri()
    listener: dict[str, object] = {}
    client: dict[str, object] = {}
    if fleet.authority is not None:
        issued = fleet.authority.issue("fleet", f"DNS:{NAME}")
        listener = {"tls_certificate": str(issued.certificate), "tls_key": str(issued.key)}
        client = {"dispatcher_authority": str(fleet.authority.file), "dispatcher_name": NAME}
    tables: Mapping[str, Mapping[str, object]] = {
        "dispatcher": {
            "database_url": database,
            "artifacts": artifacts,
            **{f"{role}_token_sha256": digest for role, digest in digests.items()},
            **listener,
        },
        "wrapper": {
            "worker_token_file": str(fleet.folder / "worker.token"),
            "artifacts": artifacts,
            "user_token_sha256": digests["user"],
            **listener,
            **client,
        },
        "queryd": {
            "queryd_token_file": str(fleet.folder / "queryd.token"),
            "artifacts": artifacts,
            "user_token_sha256": digests["user"],
            "query_memory_bytes": 512 << 20,
            "query_warm_cells": 1,
            **listener,
            **client,
        },
    }
    lines = []
    for program, settings in tables.items():
        lines += [f"[{program}]", *(f"{name} = {json.dumps(value)}" for name, value in settings.items()), ""]
    return "\n".join(lines)
