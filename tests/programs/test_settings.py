"""The three commands as they are installed: what they say of their settings, and what they refuse to start with."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from dispatcher.config import DispatcherConfig
from kernel.credentials import create_token_file, token_digest
from kernel.settings import meanings_of, settings_of
from queryd.config import QuerydConfig
from wrapper.config import WrapperConfig

PROGRAMS = {"dispatcher": DispatcherConfig, "wrapper": WrapperConfig, "queryd": QuerydConfig}
DIGESTS = {role: token_digest(role) for role in ("user", "worker", "queryd")}
EVERY_PROGRAM = pytest.mark.parametrize("program", PROGRAMS)


def run(program: str, *arguments: str, environ: Mapping[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TRACE_")}
    return subprocess.run(
        [str(Path(sys.executable).with_name(f"trace-{program}")), *arguments],
        env={**inherited, **(environ or {}), "COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def usable(folder: Path) -> dict[str, str]:
    """A file's worth of settings for all three."""
    for role in ("worker", "queryd"):
        create_token_file(folder / f"{role}.token")
    return {
        "TRACE_DATABASE_URL": "postgresql://trace:hunter2@127.0.0.1/trace",
        "TRACE_ARTIFACTS": (folder / "artifacts").as_uri(),
        "TRACE_DISPATCHER_ADDRESS": "127.0.0.1:7402,127.0.0.2:7402",
        "TRACE_WORKER_TOKEN_FILE": str(folder / "worker.token"),
        "TRACE_QUERYD_TOKEN_FILE": str(folder / "queryd.token"),
        "TRACE_WORKER_ID": "worker-1",
        "TRACE_WORK_DIR": str(folder / "work"),
        **{f"TRACE_{role.upper()}_TOKEN_SHA256": digest for role, digest in DIGESTS.items()},
    }


@EVERY_PROGRAM
def test_help_lists_every_setting(program: str) -> None:
    done = run(program, "--help")
    assert done.returncode == 0
    for setting in settings_of(PROGRAMS[program]):
        assert f"  {setting.name}, {setting.variable}\n      {setting.type_text}; " in done.stdout


@EVERY_PROGRAM
def test_every_setting_says_what_it_means(program: str) -> None:
    meanings = meanings_of(PROGRAMS[program])
    assert [setting.name for setting in settings_of(PROGRAMS[program]) if not meanings.get(setting.name)] == []


@EVERY_PROGRAM
def test_check_accepts_what_can_be_used_and_touches_nothing(program: str, tmp_path: Path) -> None:
    done = run(program, "--check", environ=usable(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert "hunter2" not in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["queryd.token", "worker.token"]


@EVERY_PROGRAM
def test_without_settings_every_missing_one_is_told(program: str) -> None:
    done = run(program)
    required = [setting for setting in settings_of(PROGRAMS[program]) if setting.required]
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"{program}: the configuration has {len(required)} fault(s):",
        *(f"  {setting.variable}: is required" for setting in required),
    ]


@pytest.mark.parametrize(
    ("program", "changed", "said"),
    [
        ("dispatcher", {"TRACE_CONTROL_LISTEN": "0.0.0.0:7401"}, "TRACE_CONTROL_LISTEN: refused to listen"),
        ("dispatcher", {"TRACE_INTERNAL_LISTEN": "nowhere"}, "TRACE_INTERNAL_LISTEN: address 'nowhere'"),
        ("dispatcher", {"TRACE_TLS_KEY": "/absent.key"}, "TRACE_TLS_KEY: cannot read /absent.key"),
        ("dispatcher", {"TRACE_TLS_KEY": "/dev/null"}, "TRACE_TLS_CERTIFICATE, TRACE_TLS_KEY: a TLS certificate and"),
        ("dispatcher", {"TRACE_USER_TOKEN_SHA256": DIGESTS["worker"]}, "two roles have the same token"),
        ("dispatcher", {"TRACE_DATABASE_URL": "hunter2"}, "TRACE_DATABASE_URL: write it as postgresql://"),
        ("dispatcher", {"TRACE_ARTIFACTS": "ftp://x"}, "TRACE_ARTIFACTS: artifact store 'ftp://x'"),
        ("wrapper", {"TRACE_DISPATCHER_ADDRESS": "10.0.0.1:7402"}, "TRACE_DISPATCHER_ADDRESS: address '10.0.0.1:7402'"),
        ("wrapper", {"TRACE_WRAPPER_LISTEN": "0.0.0.0:0"}, "TRACE_WRAPPER_LISTEN: refused to listen"),
        ("wrapper", {"TRACE_WORKER_TOKEN_FILE": "/dev/null"}, "TRACE_WORKER_TOKEN_FILE: the credential /dev/null is"),
        ("wrapper", {"TRACE_DISPATCHER_NAME": "trace"}, "needs an authority"),
        ("queryd", {"TRACE_DISPATCHER_AUTHORITY": "/dev/null"}, "which name the certificates"),
        ("queryd", {"TRACE_QUERY_MEMORY_BYTES": "1"}, "TRACE_QUERY_MEMORY_BYTES: must be at least 268435456"),
        ("queryd", {"TRACE_USER_TOKEN_SHA256": "secret"}, "TRACE_USER_TOKEN_SHA256: the token digest of role user"),
    ],
)
def test_what_would_fail_later_is_refused_at_once(
    program: str, changed: dict[str, str], said: str, tmp_path: Path
) -> None:
    done = run(program, environ=usable(tmp_path) | changed)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "hunter2" not in done.stderr


def test_a_database_that_does_not_answer_is_told_in_one_line(tmp_path: Path) -> None:
    changed = {"TRACE_DATABASE_URL": "postgresql://trace:hunter2@127.0.0.1:1/trace"}
    done = run("dispatcher", environ=usable(tmp_path) | changed)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    logged = json.loads(line)
    assert (logged["event"], logged["level"]) == ("cannot serve", "error")
    assert "hunter2" not in line
