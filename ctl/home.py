"""A stack's home folder: where its files are, and `endpoints.json`, by which every client finds it.

Knows names and formats only; starts and stops nothing.
"""

import json
import os
import secrets
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ctl.errors import CtlError, ExitCode
from kernel.tls import PUBLIC_AUTHORITIES, TlsFiles, client_tls

DEFAULT_HOME = Path(".trace")


@dataclass(frozen=True, slots=True)
class Home:
    """The folder of one stack. `root` is absolute."""

    root: Path

    @classmethod
    def at(cls, path: Path) -> "Home":
        """Raises CtlError for what is no path: in nobody's home, in a loop of links, or below a folder that is gone."""
        try:
            return cls(path.expanduser().resolve())
        except (OSError, RuntimeError) as error:
            raise CtlError(
                f"{path} cannot be a home: {getattr(error, 'strerror', None) or error}",
                remedy="name another folder: --home DIR",
                exit_code=ExitCode.USAGE,
            ) from error

    @property
    def endpoints_file(self) -> Path:
        return self.root / "endpoints.json"

    @property
    def credentials(self) -> Path:
        return self.root / "credentials"

    @property
    def artifacts(self) -> Path:
        return self.root / "artifacts"

    @property
    def store_file(self) -> Path:
        """The URL of the artifact store that the home has had from its first start."""
        return self.root / "artifacts.url"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def run(self) -> Path:
        """What is true only while the stack runs: the lock, the processes, ready files, Postgres' socket."""
        return self.root / "run"

    @property
    def lock_file(self) -> Path:
        return self.run / "stack.lock"

    @property
    def processes_file(self) -> Path:
        return self.run / "processes.json"

    def token_file(self, role: str) -> Path:
        return self.credentials / f"{role}.token"

    def log_file(self, program: str) -> Path:
        """Postgres writes beside its data, every other program into `logs`."""
        return self.root / "postgres.log" if program == "postgres" else self.logs / f"{program}.log"

    def ready_file(self, program: str) -> Path:
        return self.run / f"{program}.ready.json"

    def option(self) -> str:
        """How a command line names this home: nothing for the default one in the current folder."""
        try:
            text = os.path.relpath(self.root)
        except OSError:  # where we are is no more
            text = ".."
        if text == str(DEFAULT_HOME):
            return ""
        # What is told from within the home, as by its supervisor, is read elsewhere.
        return f" --home {shlex.quote(str(self.root) if text == '.' or text.startswith('..') else text)}"


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where the programs of a stack listen, and where the user's credential is.

    `tracectl up` writes the file. For programs that others run a person writes it, with the three members that must be
    there (control, query, credentials), and `tls` where the programs are on other machines.
    """

    control: str
    internal: str
    query: str
    wrappers: tuple[str, ...]
    user_token_file: Path
    pids: Mapping[str, int] = field(default_factory=dict)
    tls: TlsFiles | None = None
    """By what the programs' certificates are checked; None where they are called without TLS."""

    def to_json(self) -> str:
        document = {
            "control": self.control,
            "internal": self.internal,
            "query": self.query,
            "wrappers": list(self.wrappers),
            "credentials": {"user": str(self.user_token_file)},
            "pids": dict(self.pids),
        }
        if self.tls is not None:
            document["tls"] = {"authority": str(self.tls.authority or PUBLIC_AUTHORITIES), "name": self.tls.server_name}
        return json.dumps(document, indent=2) + "\n"


def read_endpoints(home: Home) -> Endpoints:
    """The endpoints of the stack on this home. Raises CtlError where none runs or the file cannot be read."""
    try:
        document: Any = json.loads(home.endpoints_file.read_text())
        return Endpoints(
            control=str(document["control"]),
            internal=str(document.get("internal", "")),
            query=str(document["query"]),
            wrappers=tuple(str(address) for address in document.get("wrappers", ())),
            user_token_file=home.root / str(document["credentials"]["user"]),
            pids={str(name): int(pid) for name, pid in document.get("pids", {}).items()},
            tls=_read_tls(home, document["tls"]) if "tls" in document else None,
        )
    except (FileNotFoundError, NotADirectoryError):
        raise CtlError(
            f"no stack runs on {home.root}",
            remedy=f"start one: tracectl up{home.option()} --detach; or name the home of a running one with --home or"
            " TRACE_HOME",
            exit_code=ExitCode.UNREACHABLE,
        ) from None
    except PermissionError:
        raise CtlError(
            "the stack's home belongs to somebody else",
            where=str(home.endpoints_file),
            remedy="run tracectl as the user who started the stack",
            exit_code=ExitCode.UNREACHABLE,
        ) from None
    except OSError as error:
        raise _no_endpoints(home, f"cannot be read: {error.strerror}") from None
    except KeyError as error:
        raise _no_endpoints(home, f"has no member {error}") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise _no_endpoints(home, f"is not what it should be: {error}") from None


def _no_endpoints(home: Home, fault: str) -> CtlError:
    return CtlError(
        f"the file of endpoints {fault}",
        where=str(home.endpoints_file),
        remedy="correct it, or have it written again:"
        f" tracectl down{home.option()}; tracectl up{home.option()} --detach",
        exit_code=ExitCode.UNREACHABLE,
    )


def _read_tls(home: Home, document: Any) -> TlsFiles | None:
    authority = Path(str(document["authority"]))
    if authority != PUBLIC_AUTHORITIES:
        authority = home.root / authority
    return client_tls(authority, str(document.get("name", "")))


def write_atomically(path: Path, text: str) -> None:
    """Readers find the whole old file or the whole new one, also after a crash."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(fd, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
