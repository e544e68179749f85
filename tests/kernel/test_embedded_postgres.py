"""The embedded server: durable, closed to others, alone on its folder, and back after any kind of death."""

import os
import select
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from kernel.embedded_postgres import EmbeddedPostgres, PostgresError, _prefix

# Starts a server, says its pid, and then waits to be killed.
_OWNER = """
import sys
from pathlib import Path
from kernel.embedded_postgres import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]), die_with_parent=sys.argv[2] == "True")
server.start()
print(server.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an initialised, stopped server and one row in it."""
    folder = tmp_path_factory.mktemp("home")
    with EmbeddedPostgres(folder) as server, psycopg.connect(server.conninfo()) as connection:
        connection.execute("create table kept as select 42 as value")
    return folder


@pytest.fixture
def server(home: Path) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(home) as running:
        yield running


def _kept(server: EmbeddedPostgres) -> object:
    with psycopg.connect(server.conninfo()) as connection:
        return connection.execute("select value from kept").fetchone()


def _wait_gone(pid_fd: int) -> None:
    assert select.select([pid_fd], [], [], 20)[0], "the process still runs"
    os.close(pid_fd)


def _start_owner_and_kill_it(home: Path, die_with_parent: bool) -> tuple[int, int]:
    """Returns the pid of the server that the killed owner had started, and a pidfd of it."""
    command = [sys.executable, "-c", _OWNER, str(home), str(die_with_parent)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        pid_fd = os.pidfd_open(pid)
        owner.kill()
    return pid, pid_fd


def test_it_is_durable_and_in_utf8(server: EmbeddedPostgres) -> None:
    names = ("fsync", "full_page_writes", "synchronous_commit", "data_checksums", "server_encoding", "timezone")
    with psycopg.connect(server.conninfo()) as connection:
        found = [connection.execute("select current_setting(%s)", (name,)).fetchone() for name in names]
        collation = connection.execute("select datcollate from pg_database where datname = 'trace'").fetchone()
    assert found == [("on",), ("on",), ("on",), ("on",), ("UTF8",), ("UTC",)]
    assert collation == ("C",)


def test_it_has_no_tcp_listener(server: EmbeddedPostgres) -> None:
    with psycopg.connect(server.conninfo()) as connection:
        assert connection.execute("select current_setting('listen_addresses')").fetchone() == ("",)


def test_the_password_is_asked_for_and_not_in_the_conninfo(server: EmbeddedPostgres, home: Path) -> None:
    password_file = home / "credentials" / "postgres.pgpass"
    password = password_file.read_text().strip().rsplit(":", 1)[1]
    assert password not in server.conninfo()
    with pytest.raises(psycopg.OperationalError, match="no password supplied"):
        psycopg.connect(server.conninfo(), passfile="/dev/null")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(server.conninfo(), password="wrong")


def test_others_cannot_open_its_files(server: EmbeddedPostgres, home: Path) -> None:
    for name in ("credentials/postgres.pgpass", "postgres.log", "postgres", "run"):
        assert stat.S_IMODE((home / name).stat().st_mode) & 0o077 == 0, name


def test_data_survives_sigkill_of_the_server(server: EmbeddedPostgres) -> None:
    assert server.pid is not None
    with psycopg.connect(server.conninfo()) as connection:
        connection.execute("create table written_last as select 7 as value")
    pid_fd = os.pidfd_open(server.pid)
    os.kill(server.pid, signal.SIGKILL)
    _wait_gone(pid_fd)
    server.start()
    with psycopg.connect(server.conninfo()) as connection:
        assert connection.execute("select value from written_last").fetchone() == (7,)


def test_stop_can_be_repeated_and_data_stays(home: Path) -> None:
    server = EmbeddedPostgres(home)
    server.start()
    server.stop()
    server.stop()
    assert server.pid is None
    with server:
        assert _kept(server) == (42,)


def test_an_orphan_of_a_killed_owner_is_stopped_and_succeeded(home: Path) -> None:
    orphan, pid_fd = _start_owner_and_kill_it(home, die_with_parent=False)
    assert not select.select([pid_fd], [], [], 0)[0], "the server was to outlive its owner"
    with EmbeddedPostgres(home) as server:
        _wait_gone(pid_fd)
        assert server.pid != orphan
        assert _kept(server) == (42,)


def test_it_dies_with_its_parent_when_asked(home: Path) -> None:
    _wait_gone(_start_owner_and_kill_it(home, die_with_parent=True)[1])


def test_a_folder_in_use_is_refused(server: EmbeddedPostgres, home: Path) -> None:
    with pytest.raises(PostgresError, match=f"in use by process {os.getpid()}"):
        EmbeddedPostgres(home, start_timeout=0.1).start()
    assert _kept(server) == (42,)


def test_a_stale_pid_file_of_a_foreign_process_does_not_hinder(home: Path) -> None:
    with subprocess.Popen(["sleep", "600"]) as foreign:
        (home / "postgres" / "postmaster.pid").write_text(f"{foreign.pid}\n{home / 'postgres'}\n0\n5432\n")
        with EmbeddedPostgres(home) as server:
            assert _kept(server) == (42,)
        assert foreign.poll() is None
        foreign.kill()


def test_an_interrupted_initdb_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "postgres.unfinished").mkdir()
    (tmp_path / "postgres.unfinished" / "PG_VERSION").write_text("18\n")
    with EmbeddedPostgres(tmp_path, databases=("trace", "data")) as server, psycopg.connect(server.conninfo("data")):
        assert not (tmp_path / "postgres.unfinished").exists()


def test_a_home_too_long_for_a_socket_works(tmp_path: Path) -> None:
    long = tmp_path / ("a" * 60) / ("b" * 60)
    with EmbeddedPostgres(long) as server, psycopg.connect(server.conninfo()):
        assert not (long / "run").exists()


def test_a_lost_password_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir()
    with pytest.raises(PostgresError, match=r"postgres\.pgpass.* is gone: put it back"):
        EmbeddedPostgres(tmp_path).start()


def test_root_without_user_namespaces_is_told_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PostgresError, match="run Trace as an ordinary user"):
        _prefix()
