"""The programs of a stack: how each is configured, started, found ready, and ended. One process each.

Programs are configured by environment alone, and inherit the rest of the caller's, so that every setting of theirs that
`up` has no option for can be given there.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ctl.errors import CtlError
from ctl.home import Home
from ctl.local.processes import ProcessIdentity, tail
from ctl.local.signals import StopSignals
from kernel import credentials

_LOG_LIMIT_BYTES = 16 * 1024 * 1024
_READY_POLL_SECONDS = 0.02
_ROLES = ("user", "worker", "queryd")

DIES_WITH_PARENT = ("setpriv", "--pdeathsig", "TERM", "--")
"""Before a command: the kernel ends it when the thread that started it ends, even by SIGKILL (util-linux)."""


class Interrupted(Exception):
    """Somebody asked to stop while something was being started."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the programs listen: as asked for at first, as bound afterwards, so that a restart takes the same."""

    control: str
    internal: str
    query: str
    wrapper: str

    @classmethod
    def from_port(cls, port: int) -> "Addresses":
        """`port`, `port` + 1 and `port` + 2 on loopback; 0 for free ones. The wrapper's is always a free one."""
        ports = (0, 0, 0) if port == 0 else (port, port + 1, port + 2)
        control, internal, query = (f"127.0.0.1:{number}" for number in ports)
        return cls(control, internal, query, "127.0.0.1:0")


@dataclass(frozen=True, slots=True)
class Program:
    """What to start, and by what one sees that it serves."""

    name: str
    module: str
    environment: Mapping[str, str]
    ready_file: Path
    log_file: Path


@dataclass(frozen=True, slots=True)
class StackSettings:
    """What a person chooses at `up`."""

    port: int = 7401
    sandbox: str = "bubblewrap"
    replay_roots: tuple[Path, ...] = ()
    """Absolute. Without any, the worker's own variable TRACE_REPLAY_ROOTS stays as the caller has it."""
    artifacts: str = ""
    """The artifact store's URL; empty for the home's own folder."""


def make_credentials(home: Home) -> Mapping[str, str]:
    """Makes the tokens that are missing; answers the digest of each role's, which is all that servers get."""
    home.credentials.mkdir(mode=0o700, parents=True, exist_ok=True)
    home.credentials.chmod(0o700)
    for role in _ROLES:
        if not home.token_file(role).exists():
            credentials.create_token_file(home.token_file(role))
    return {role: credentials.token_digest(credentials.read_token(home.token_file(role))) for role in _ROLES}


def dispatcher(
    home: Home, addresses: Addresses, database_url: str, digests: Mapping[str, str], artifacts: str = ""
) -> Program:
    """`artifacts` here and below: the store's URL; empty for the home's own folder."""
    return _program(
        home,
        "dispatcher",
        {
            "TRACE_DATABASE_URL": database_url,
            "TRACE_CONTROL_LISTEN": addresses.control,
            "TRACE_INTERNAL_LISTEN": addresses.internal,
            "TRACE_ARTIFACTS": artifacts or home.artifacts.as_uri(),
            "TRACE_USER_TOKEN_SHA256": digests["user"],
            "TRACE_WORKER_TOKEN_SHA256": digests["worker"],
            "TRACE_QUERYD_TOKEN_SHA256": digests["queryd"],
        },
    )


def wrapper(
    home: Home, addresses: Addresses, digests: Mapping[str, str], settings: StackSettings, artifacts: str = ""
) -> Program:
    roots = ",".join(map(str, settings.replay_roots))
    return _program(
        home,
        "wrapper",
        {
            **({"TRACE_REPLAY_ROOTS": roots} if roots else {}),
            "TRACE_DISPATCHER_ADDRESS": addresses.internal,
            "TRACE_WORKER_TOKEN_FILE": str(home.token_file("worker")),
            "TRACE_ARTIFACTS": artifacts or home.artifacts.as_uri(),
            "TRACE_WRAPPER_LISTEN": addresses.wrapper,
            "TRACE_USER_TOKEN_SHA256": digests["user"],
            "TRACE_WORKER_ID": os.environ.get("TRACE_WORKER_ID", "local"),
            "TRACE_WORK_DIR": str(home.root / "wrapper"),
            "TRACE_SANDBOX": settings.sandbox,
        },
    )


def queryd(home: Home, addresses: Addresses, digests: Mapping[str, str], artifacts: str = "") -> Program:
    return _program(
        home,
        "queryd",
        {
            "TRACE_DISPATCHER_ADDRESS": addresses.control,
            "TRACE_QUERYD_TOKEN_FILE": str(home.token_file("queryd")),
            "TRACE_QUERY_LISTEN": addresses.query,
            "TRACE_USER_TOKEN_SHA256": digests["user"],
            "TRACE_ARTIFACTS": artifacts or home.artifacts.as_uri(),
        },
    )


def _program(home: Home, name: str, environment: Mapping[str, str]) -> Program:
    ready_file = home.ready_file(name)
    settings = {**environment, "TRACE_READY_FILE": str(ready_file)}
    return Program(name, f"{name}.main", settings, ready_file, home.log_file(name))


class Running:
    """A started program. It leads a session of its own, so a Ctrl-C at the terminal reaches only who watches it."""

    def __init__(self, program: Program, cwd: Path) -> None:
        self.program = program
        program.ready_file.unlink(missing_ok=True)
        self._log_start = _rotated_size(program.log_file)
        fd = os.open(program.log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            # -P keeps the folders of HOME, one of which is called `wrapper`, out of Python's path.
            self._process = subprocess.Popen(
                [*DIES_WITH_PARENT, sys.executable, "-P", "-m", program.module],
                stdin=subprocess.DEVNULL,
                stdout=fd,
                stderr=fd,
                cwd=cwd,
                env={**os.environ, **program.environment},
                start_new_session=True,
            )
        finally:
            os.close(fd)
        self.started = time.monotonic()
        self.pidfd = os.pidfd_open(self._process.pid)

    @property
    def pid(self) -> int:
        return self._process.pid

    def identity(self) -> ProcessIdentity | None:
        return ProcessIdentity.of(self._process.pid)

    def ended(self) -> bool:
        return self._process.poll() is not None

    def how_it_ended(self) -> str:
        code = self._process.returncode
        if code is None:
            return "still runs"
        return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"

    def log_tail(self) -> str:
        """The end of what this very process has said."""
        return tail(self.program.log_file, from_byte=self._log_start)

    def wait_ready(self, signals: StopSignals, timeout: float) -> Mapping[str, str]:
        """What its ready file says. Raises CtlError when it ends or stays silent, Interrupted when asked to stop."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                bound: dict[str, str] = json.loads(self.program.ready_file.read_text())
                return bound
            except FileNotFoundError:
                pass
            if signals.stop:
                raise Interrupted
            if signals.wait([self.pidfd], _READY_POLL_SECONDS):
                self._process.wait()
                raise self._failure(self.how_it_ended() + " before it served")
            if time.monotonic() > deadline:
                raise self._failure(f"does not serve after {timeout:.0f} s")

    def end(self, signals: StopSignals, grace: float) -> None:
        """SIGTERM; SIGKILL to all that it started too when that takes too long, or when somebody is in a hurry."""
        self._process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + grace
        while not self.ended() and not signals.hurry and time.monotonic() < deadline:
            signals.wait([self.pidfd], deadline - time.monotonic())
        if not self.ended():
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self.close()

    def close(self) -> None:
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1
        self.program.ready_file.unlink(missing_ok=True)

    def _failure(self, what: str) -> CtlError:
        said = self.log_tail()
        text = f"{self.program.name} {what}" + (f"; the end of its log:\n{said}" if said else "")
        return CtlError(text, where=str(self.program.log_file), remedy="correct what the log names and start again")


def _rotated_size(log_file: Path) -> int:
    """The size of the log, after a large one was put aside."""
    log_file.parent.mkdir(parents=True, exist_ok=True)
    size = log_file.stat().st_size if log_file.exists() else 0
    if size > _LOG_LIMIT_BYTES:
        log_file.replace(log_file.with_suffix(".log.1"))
        return 0
    return size
